//! Opens what a link names, whichever kind it is.

use std::fs::File;

use super::folder::{Folder, Packing};
use super::storage::{Found, OpenError, Storage};
use super::token::Resource;

/// Where the bytes of a download come from.
#[derive(Debug)]
pub enum Source {
    /// A regular file, open for reading.
    File(File),
    /// A directory, as an archive.
    Folder(Folder),
}

/// Opens what `resource` names in `storage`; of a directory, an archive as `packing` says.
///
/// # Errors
/// [`OpenError::NotFound`] if there is nothing that may be served, another [`OpenError`] if there is
/// something and the system refuses it.
pub fn open_now(
    storage: &Storage,
    resource: &Resource,
    packing: Packing,
) -> Result<Found<Source>, OpenError> {
    match resource {
        Resource::File { server, path } => {
            storage.open_file(server, path).map(|found| found.map(Source::File))
        }
        Resource::Backup { server, backup } => {
            storage.open_backup(server.as_ref(), backup).map(|found| found.map(Source::File))
        }
        Resource::Directory { server, .. } | Resource::Files { server, .. } => {
            let folder = Folder::new(storage.clone(), *server, resource.clone(), packing);
            folder.open().map(|found| found.map(Source::Folder))
        }
    }
}

#[derive(Debug)]
pub enum Opened {
    Ready(Found<Source>),
    Walking(Box<Walking>),
}
#[derive(Debug)]
pub struct Walking {
    storage: Storage,
    resource: Resource,
    packing: Option<Packing>,
}
impl Walking {
    pub fn server(&self) -> u128 {
        self.resource.server().map_or(0, |server| server.as_uuid().as_u128())
    }
    pub fn step(&mut self, _until: std::time::Instant) -> Result<Option<Found<Source>>, OpenError> {
        open_now(&self.storage, &self.resource, self.packing.take().unwrap_or_default()).map(Some)
    }
}
pub fn open(storage: &Storage, resource: &Resource, packing: Packing) -> Result<Opened, OpenError> {
    match resource {
        Resource::Directory { .. } | Resource::Files { .. } => {
            Ok(Opened::Walking(Box::new(Walking {
                storage: storage.clone(),
                resource: resource.clone(),
                packing: Some(packing),
            })))
        }
        _ => open_now(storage, resource, packing).map(Opened::Ready),
    }
}
