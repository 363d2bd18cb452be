//! Where symbolic links lead. A zip holds the content of files, since few readers know links in one:
//! without it, a server that is moved as a zip would lack what it starts with. A tar holds links, but
//! none that leads in circles: at the next one that leads there, Python gives up.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use cap_std::fs::Dir;
use hmac_sha256::Hash;

use super::format::Format;
use super::hidden::Place;
use super::listing::{Entry, MAX_NAMES, NO_PARENT};
use super::open;

/// Links together carry at most as much as all files of the listing, and this: 200,000 links to one
/// file would be petabytes.
const MORE: u64 = 1 << 30;

/// Where the links of a listing lead, as far as it matters to one format.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The root of the volume, if a link leads to a file.
    volume: Option<Arc<Dir>>,
    /// Links, in the order of the entries, and the files that a zip holds in their place.
    led: Vec<(u32, Entry)>,
    /// The paths of these files, from the root of the volume.
    paths: Vec<u8>,
    /// Links in circles or out of the volume, and those to too much for the archive.
    unfit: Vec<u32>,
}

impl Links {
    /// Notes where the link `index` of `place` leads, which is at `real`, as far as an archive in
    /// `format` depends on it.
    ///
    /// # Errors
    /// If the system has no descriptor or memory left.
    pub(super) fn follow(
        &mut self,
        index: u32,
        real: Option<&[u8]>,
        place: &Place,
        format: Format,
        digest: &mut Hash,
    ) -> io::Result<()> {
        match (real, format) {
            (Some(real), Format::Zip) => return self.carry(index, real, place, digest),
            (None, Format::Tar) => {
                digest.update("nowhere");
                self.unfit.push(index);
            }
            _ => {}
        }
        Ok(())
    }

    /// Has the archive hold what is at `real`, if that is a file, in place of the link `index`.
    fn carry(
        &mut self,
        index: u32,
        real: &[u8],
        place: &Place,
        digest: &mut Hash,
    ) -> io::Result<()> {
        let stat = match open::file(place.volume.as_fd(), real) {
            Ok((_, stat)) => stat,
            Err(error) if open::is_exhaustion(&error) => return Err(error),
            Err(_) => return Ok(()),
        };
        if self.paths.len() + real.len() > MAX_NAMES {
            self.unfit.push(index);
            return Ok(());
        }
        let entry = Entry::of(&stat, NO_PARENT, self.paths.len(), real.len());
        digest.update("to");
        entry.sum(digest, &stat, [real, b""]);
        self.paths.extend_from_slice(real);
        self.led.push((index, entry));
        self.volume.get_or_insert_with(|| Arc::clone(&place.volume));
        Ok(())
    }

    /// Ends it, for files of `bytes` in all: what is too much for the archive is left out.
    pub(super) fn finish(mut self, bytes: u64) -> Links {
        let (mut room, unfit) = (bytes.saturating_add(MORE), &mut self.unfit);
        self.led.retain(|(index, entry)| match room.checked_sub(entry.size) {
            Some(left) => {
                room = left;
                true
            }
            None => {
                unfit.push(*index);
                false
            }
        });
        self.unfit.sort_unstable();
        self.led.shrink_to_fit();
        self.paths.shrink_to_fit();
        self
    }

    /// The newest modification of a file that is carried, in seconds since the epoch.
    pub(super) fn modified(&self) -> Option<i64> {
        self.led.iter().map(|(_, entry)| entry.seconds).max()
    }

    /// The file that the link `index` leads to.
    pub(super) fn led(&self, index: usize) -> Option<&Entry> {
        let found = self.led.binary_search_by_key(&index, |(link, _)| *link as usize).ok()?;
        Some(&self.led[found].1)
    }

    /// The root of the volume, and the path of the file that the link `index` leads to from there.
    pub(super) fn path(&self, index: usize) -> Option<(&Dir, &[u8])> {
        let entry = self.led(index)?;
        let path = &self.paths[entry.name as usize..][..usize::from(entry.path_length)];
        Some((self.volume.as_ref()?, path))
    }

    /// Returns true if the link `index` leads in circles, out of the volume, or to too much.
    pub(super) fn is_unfit(&self, index: usize) -> bool {
        self.unfit.binary_search(&(index as u32)).is_ok()
    }

    /// Bytes of memory that it takes. What was never written to is not counted.
    pub(super) fn memory(&self) -> usize {
        self.led.len() * size_of::<(u32, Entry)>()
            + self.paths.len()
            + self.unfit.len() * size_of::<u32>()
    }
}
