//! A directory of a server on its way to becoming an archive: found beneath the volume, walked in
//! steps, and laid out.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cap_std::fs::Dir;

use super::Uuid;
use super::storage::{Found, Missing, OpenError, Source, Storage, classify};
use super::token::Resource;
use crate::archive::shelf::{Asked, Link, Outcome, Room, Seen, TooMuch};
use crate::archive::{
    Archive, Format, Hidden, Layout, Listing, Packed, Place, Shelf, Walk, WalkError,
};

/// The longest that one walk may take in all its steps.
const MAX_WALKING: Duration = Duration::from_secs(30);
/// The longest that one step should take.
const STEP: Duration = Duration::from_millis(250);
/// A walk asks for memory at least this many bytes at a time.
const MEMORY: usize = 64 << 10;

/// How an archive is made, and for which link.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    /// Zip or tar.
    pub format: Format,
    /// The hash of the link, or of the token.
    pub link: Link,
    /// The hash of what it opens.
    pub resource: [u8; 16],
    /// What a walk found shortly before will do. Otherwise the tree is walked anew, since it may have
    /// changed: whoever resumes must not join two versions of it.
    pub may_reuse: bool,
    /// What the link must not show, whichever kind of thing it opens.
    pub hidden: Option<Arc<Hidden>>,
    /// Where archives are kept.
    pub shelf: Arc<Shelf>,
}

/// A directory that is being walked and laid out, in steps. Dropped, it ends.
#[derive(Debug)]
pub struct Walking {
    asked: Asked,
    server: Uuid,
    resource: Resource,
    room: Room,
    root: Arc<Dir>,
    place: Place,
    /// When it was asked for, and then the directory as it was before its walk.
    seen: Seen,
    job: Job,
    walked: Duration,
}

#[derive(Debug)]
enum Job {
    /// Nothing is done yet.
    New,
    Walk(Box<Walk>),
    Layout(Box<Layout>),
}

/// What a link names, once it is opened.
#[derive(Debug)]
pub enum Opened {
    /// It can be sent.
    Ready(Found<Source>),
    /// Its tree has to be walked first.
    Walking(Box<Walking>),
}

impl Opened {
    /// Walks to the end, however many steps that takes.
    ///
    /// # Errors
    /// As [`Walking::step`].
    pub fn finish(self) -> Result<Found<Source>, OpenError> {
        match self {
            Opened::Ready(found) => Ok(found),
            Opened::Walking(mut walking) => loop {
                if let Some(found) = walking.step(Instant::now() + STEP)? {
                    return Ok(found);
                }
            },
        }
    }
}

/// Opens the directory that `resource` names.
pub(super) fn open(
    storage: &Storage,
    server: Uuid,
    resource: &Resource,
    packing: Packing,
) -> Result<Opened, OpenError> {
    let Packing { format, link, resource: hash, may_reuse, hidden, shelf } = packing;
    // Seen with other patterns, a directory is another one.
    let hash = hidden.as_ref().map_or(hash, |hidden| hidden.bind(hash));
    let asked = Asked { link, resource: hash, server: server.as_uuid().as_u128(), format };
    let (root, place) = storage.open_directory(&server, path(resource), hidden.as_ref())?;
    let root = Arc::new(root);
    let seen = see(&root)?;
    let recent = if may_reuse { shelf.recent(&asked, &seen) } else { None };
    let walking = Walking {
        asked,
        server,
        resource: resource.clone(),
        room: shelf.room(asked.server),
        root,
        place,
        seen,
        job: Job::New,
        walked: Duration::ZERO,
    };
    Ok(match recent {
        Some(recent) => Opened::Ready(walking.reuse(recent)?),
        None => Opened::Walking(Box::new(walking)),
    })
}

impl Walking {
    /// The server whose directory it is.
    pub fn server(&self) -> u128 {
        self.asked.server
    }

    /// How long its steps have taken so far.
    pub fn walked(&self) -> Duration {
        self.walked
    }

    /// Goes on until `until`, or to the end. Returns `None` if there is more to do.
    ///
    /// # Errors
    /// Why there is no archive. This is then of no more use.
    pub fn step(&mut self, until: Instant) -> Result<Option<Found<Source>>, OpenError> {
        let began = Instant::now();
        let outcome = self.go_on(until);
        self.walked += began.elapsed();
        match outcome {
            Ok(None) if self.walked >= MAX_WALKING => self.refuse(TooMuch::Time),
            Err(OpenError::TooMany) => self.refuse(TooMuch::Entries),
            outcome => outcome,
        }
    }

    fn go_on(&mut self, until: Instant) -> Result<Option<Found<Source>>, OpenError> {
        if let Job::New = self.job {
            // Others may have asked for the same tree while this waited for its turn.
            if let Some(recent) = self.room.shelf().since(&self.asked, &self.seen) {
                return self.reuse(recent).map(Some);
            }
            self.seen = see(&self.root)?;
            self.job = Job::Walk(Box::new(self.walk().map_err(walk_error)?));
        }
        if let Job::Walk(walk) = &mut self.job {
            let Some(listing) = gather(walk, &self.room, until)? else { return Ok(None) };
            if let Some(packed) = self.room.shelf().known(&self.asked, &self.seen, &listing) {
                return Ok(Some(self.found(packed)));
            }
            claim(&self.room, listing.memory() + listing.len() * Layout::MEMORY)?;
            self.job = Job::Layout(Box::new(Layout::new(listing, self.asked.format)));
        }
        let Job::Layout(layout) = &mut self.job else { return Ok(None) };
        let Some(archive) = layout.step(until) else { return Ok(None) };
        let shelf = self.room.shelf();
        let packed = shelf.put(&self.room, &self.asked, self.seen, &self.root, archive);
        Ok(Some(self.found(packed)))
    }

    fn walk(&self) -> Result<Walk, WalkError> {
        let whole = [String::new()];
        let paths = match &self.resource {
            Resource::Files { files, .. } => &files[..],
            _ => &whole,
        };
        Walk::new(&self.root, &self.place, self.asked.format, paths)
    }

    fn refuse<T>(&self, what: TooMuch) -> Result<T, OpenError> {
        self.room.shelf().put_refused(&self.asked, self.seen, what);
        Err(too_much(what))
    }

    fn reuse(&self, recent: Outcome) -> Result<Found<Source>, OpenError> {
        recent.map(|packed| self.found(packed)).map_err(too_much)
    }

    fn found(&self, packed: Packed) -> Found<Source> {
        let stem = stem(path(&self.resource), &self.server);
        let archive: &Archive = &packed.archive;
        Found {
            length: archive.length(),
            modified: archive.modified(),
            tag: archive.tag(),
            name: format!("{stem}.{}", self.asked.format.extension()),
            source: Source::Archive(packed),
        }
    }
}

/// Lets `walk` go on until `until`, or to the end, with as much memory as it asks for.
fn gather(walk: &mut Walk, room: &Room, until: Instant) -> Result<Option<Listing>, OpenError> {
    loop {
        let taken = walk.memory();
        let memory = taken + (taken / 4).max(MEMORY);
        claim(room, memory)?;
        match walk.step(until, memory).map_err(walk_error)? {
            None if Instant::now() < until => {}
            outcome => return Ok(outcome),
        }
    }
}

fn claim(room: &Room, bytes: usize) -> Result<(), OpenError> {
    if room.grow(bytes) { Ok(()) } else { Err(OpenError::TooManyFolders) }
}

fn see(root: &Dir) -> Result<Seen, OpenError> {
    Seen::of(root).map_err(|error| OpenError::Failed(format!("fstat: {error}")))
}

fn too_much(what: TooMuch) -> OpenError {
    match what {
        TooMuch::Entries => OpenError::TooMany,
        TooMuch::Time => OpenError::WalkTooLong,
    }
}

fn walk_error(error: WalkError) -> OpenError {
    match error {
        WalkError::TooMany => OpenError::TooMany,
        WalkError::BadPath => OpenError::NotFound(Missing::Escape),
        WalkError::Missing => OpenError::NotFound(Missing::Files),
        WalkError::Io(error) => classify(&error, Missing::Directory),
    }
}

fn path(resource: &Resource) -> &str {
    match resource {
        Resource::Directory { path, .. } | Resource::Files { path, .. } => path,
        Resource::File { .. } | Resource::Backup { .. } => "",
    }
}

/// The last part of `path`; the server's UUID if that is all of it.
fn stem(path: &str, server: &Uuid) -> String {
    let mut parts = Path::new(path).components().rev();
    match parts.next() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        _ => server.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_named_after_its_directory() {
        let server: Uuid = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
        for (path, expected) in [
            ("world", "world"),
            ("/plugins/Essentials/", "Essentials"),
            ("a/./", "a"),
            ("", "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"),
            ("/", "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"),
            ("a/..", "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"),
            (".", "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"),
        ] {
            assert_eq!(stem(path, &server), expected, "{path:?}");
        }
    }
}
