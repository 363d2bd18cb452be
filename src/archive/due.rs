//! CRCs that are due and not known: what the reader did not send is read for them, and no sooner.
//!
//! Whoever asks may be hostile: 150 bytes at the end of a zip want a CRC of everything in it. So
//! holes are passed over by arithmetic, one reader at a time reads for one server, each call reads
//! little and pauses, what was read is remembered for whoever comes next, and no link has more read
//! than its archive is long.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};

use super::open::Since;
use super::pause::Pause;
use super::reader::{ArchiveReader, OPENING, Share};
use super::sums::Running;

/// Bytes of one read for a CRC.
const CHUNK: u64 = 256 << 10;

impl ArchiveReader {
    /// The CRC of a file.
    pub(super) fn sum_of(&mut self, index: usize, share: &mut Share) -> io::Result<u32> {
        let archive = self.packed.archive.clone();
        let size = archive.file_size(index).unwrap_or(0);
        if size == 0 {
            return Ok(0);
        }
        if let Some(crc) = self.own.get(&index).copied().or_else(|| archive.sums.get(index)) {
            return Ok(crc);
        }
        let reading = Arc::clone(&self.packed.reading);
        let turn = match reading.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Pause::Busy.into()),
            turn => turn,
        };
        // Others may have come to know it meanwhile.
        if let Some(crc) = archive.sums.get(index) {
            return Ok(crc);
        }
        let sent = self.sent.take_if(|sent| sent.index == index && sent.at == size);
        let (mut unsent, until) = self.least_to_read(index, sent.as_ref(), size);
        let outcome = self.sum_until(&mut unsent, until, share);
        archive.sums.remember(&unsent);
        drop(turn);
        if let Err(error) = outcome {
            (self.sent, self.unsent) = (sent, Some(unsent));
            return Err(error);
        }
        let rest = sent.as_ref().filter(|_| until < size);
        Ok(archive.sums.set(index, unsent.joined(rest)))
    }

    /// From where and up to where the file has to be read: as far as this or another reader has come
    /// already, and up to what was `sent`, or to its end if that is less.
    fn least_to_read(&mut self, index: usize, sent: Option<&Running>, size: u64) -> (Running, u64) {
        let until = sent.map_or(size, |sent| sent.from);
        let own = self.unsent.take().filter(|unsent| unsent.index == index);
        let mut least = (Running::new(index, 0), until);
        for begun in [own, self.packed.archive.sums.begun(index)].into_iter().flatten() {
            let end = if begun.at <= until { until } else { size };
            if end - begun.at < least.1 - least.0.at {
                least = (begun, end);
            }
        }
        least
    }

    fn sum_until(&mut self, sum: &mut Running, until: u64, share: &mut Share) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK.min(until - sum.at) as usize];
        while sum.at < until {
            let hole = self.member(sum.index, Since::Nothing, share)?.file.hole_at(sum.at, until);
            if hole >= CHUNK {
                // It costs a look at the disk, as opening a file does.
                share.take(OPENING)?;
                sum.add_zeros(hole);
                continue;
            }
            let wanted = share.take((until - sum.at).min(CHUNK))?;
            self.pay(wanted)?;
            let chunk = &mut chunk[..wanted as usize];
            let count = self.read_member(sum.index, sum.at, chunk, Since::Nothing, share)?;
            self.extra += count as u64;
            sum.add(&chunk[..count]);
        }
        Ok(())
    }

    /// Counts `bytes` that are about to be read.
    fn pay(&self, bytes: u64) -> io::Result<()> {
        let paid = self.packed.paid.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if paid > self.packed.archive.length() {
            return Err(io::Error::other("more would be read for CRCs than the archive is long"));
        }
        Ok(())
    }
}
