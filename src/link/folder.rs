//! A directory of a server on its way to becoming an archive: found beneath the volume, walked, and
//! laid out. It remembers how, since a layout may be forgotten while its download lasts.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use cap_std::fs::Dir;

use super::Uuid;
use super::storage::{EntityTag, Found, Missing, OpenError, Storage, classify};
use super::token::Resource;
use crate::archive::shelf::{Asked, Link, Recent, Seen};
use crate::archive::{Format, Listing, Packed, Shelf, WalkError, walk, walk_paths};

/// How long a request waits for its turn to walk a tree.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a piece does, before others have the worker.
const SHORT: Duration = Duration::from_millis(10);

/// How an archive is made, and for which link.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    /// Zip or tar.
    pub format: Format,
    /// The hash of the link, or of the token.
    pub link: Link,
    /// The hash of what it opens.
    pub resource: [u8; 16],
    /// Where archives are kept.
    pub shelf: Arc<Shelf>,
}

/// A directory that is sent as an archive.
#[derive(Debug)]
pub struct Folder {
    storage: Storage,
    server: Uuid,
    resource: Resource,
    packing: Packing,
    tag: EntityTag,
}

impl Folder {
    pub(super) fn new(
        storage: Storage,
        server: Uuid,
        resource: Resource,
        packing: Packing,
    ) -> Folder {
        Folder { storage, server, resource, packing, tag: 0 }
    }

    /// Walks the directory and lays it out, if that was not done for this link just now.
    pub(super) fn open(mut self) -> Result<Found<Folder>, OpenError> {
        let archive = self.pack(PATIENCE)?.archive;
        self.tag = archive.tag();
        Ok(Found {
            length: archive.length(),
            modified: archive.modified(),
            tag: archive.tag(),
            name: self.name(),
            source: self,
        })
    }

    /// The archive as it was at first; made anew if it was forgotten meanwhile. `None` if others
    /// have to be waited for.
    ///
    /// # Errors
    /// If it cannot be made any more, or comes out as another one.
    pub fn packed(&self) -> Result<Option<Packed>, OpenError> {
        if let Some(packed) = self.packing.shelf.get(&self.packing.link, self.tag) {
            return Ok(Some(packed));
        }
        match self.pack(SHORT) {
            Ok(packed) if packed.archive.tag() == self.tag => Ok(Some(packed)),
            Ok(_) => Err(OpenError::Failed("the directory has changed meanwhile".into())),
            Err(OpenError::TooManyWalks) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pack(&self, patience: Duration) -> Result<Packed, OpenError> {
        let Packing { format, link, resource, shelf } = &self.packing;
        let asked = Asked {
            link: *link,
            resource: *resource,
            server: self.server.as_uuid().as_u128(),
            format: *format,
        };
        let turn = shelf.turn(patience).ok_or(OpenError::TooManyWalks)?;
        let root = self.storage.open_directory(&self.server, self.path())?;
        let failed = |error| OpenError::Failed(format!("fstat: {error}"));
        let seen = Seen::of(&root).map_err(failed)?;
        match shelf.recent(&asked, &seen) {
            Some(Recent::Packed(packed)) => return Ok(packed),
            Some(Recent::TooMany) => return Err(OpenError::TooMany),
            None => {}
        }
        let listing = self.list(&root).inspect_err(|error| {
            if matches!(error, OpenError::TooMany) {
                shelf.put_too_many(&asked, seen);
            }
        })?;
        drop(turn);
        Ok(shelf.put(&asked, seen, root, listing))
    }

    fn list(&self, root: &Dir) -> Result<Listing, OpenError> {
        let listing = match &self.resource {
            Resource::Files { files, .. } => walk_paths(root, files),
            _ => walk(root),
        };
        listing.map_err(|error| match error {
            WalkError::TooMany => OpenError::TooMany,
            WalkError::BadPath => OpenError::NotFound(Missing::Escape),
            WalkError::Missing => OpenError::NotFound(Missing::Files),
            WalkError::Io(error) => classify(&error, Missing::Directory),
        })
    }

    fn path(&self) -> &str {
        match &self.resource {
            Resource::Directory { path, .. } | Resource::Files { path, .. } => path,
            Resource::File { .. } | Resource::Backup { .. } => "",
        }
    }

    /// The name that it is offered under.
    fn name(&self) -> String {
        let stem = stem(self.path(), &self.server);
        format!("{stem}.{}", self.packing.format.extension())
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
