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
pub fn open(
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
