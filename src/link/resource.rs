//! Opens what a link names, whichever kind it is.

use super::folder::{self, Opened, Packing};
use super::storage::{OpenError, Source, Storage};
use super::token::Resource;

/// Opens what `resource` names in `storage`; of a directory, an archive as `packing` says.
///
/// # Errors
/// [`OpenError::NotFound`] if there is nothing that may be served, another [`OpenError`] if there is
/// something and the system refuses it.
pub fn open(storage: &Storage, resource: &Resource, packing: Packing) -> Result<Opened, OpenError> {
    let found = match resource {
        Resource::File { server, path } => {
            storage.open_file(server, path, packing.hidden.as_deref())?
        }
        Resource::Backup { server, backup } => storage.open_backup(server.as_ref(), backup)?,
        Resource::Directory { server, .. } | Resource::Files { server, .. } => {
            return folder::open(storage, *server, resource, packing);
        }
    };
    Ok(Opened::Ready(found.map(Source::File)))
}
