//! The CRCs of a zip's members: those that are known to all readers of one archive, and how one
//! that is not known is computed a step at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use crc32fast::Hasher;

/// Set beside a CRC once it is known: 0 is a CRC like any other.
const KNOWN: u64 = 1 << 32;

/// What is known, one for each member.
#[derive(Debug, Default)]
pub(super) struct Sums(Box<[AtomicU64]>);

impl Sums {
    pub(super) fn new(members: usize) -> Sums {
        Sums((0..members).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn get(&self, index: usize) -> Option<u32> {
        let value = self.0[index].load(Ordering::Relaxed);
        (value & KNOWN != 0).then_some(value as u32)
    }

    /// Makes `crc` known and returns the one that counts. The first one stays: a reader that has
    /// sent a member and its CRC must find the same one when it comes to the central directory.
    pub(super) fn set(&self, index: usize, crc: u32) -> u32 {
        let value = KNOWN | u64::from(crc);
        match self.0[index].compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => crc,
            Err(present) => present as u32,
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// The CRC of a contiguous part of one member.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) index: usize,
    /// Where in the file it began.
    pub(super) from: u64,
    /// Where in the file it is.
    pub(super) at: u64,
    hasher: Hasher,
}

impl Running {
    pub(super) fn new(index: usize, from: u64) -> Running {
        Running { index, from, at: from, hasher: Hasher::new() }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
    }

    /// The CRC of this part and then `rest`.
    pub(super) fn joined(mut self, rest: Option<&Running>) -> u32 {
        if let Some(rest) = rest {
            self.hasher.combine(&rest.hasher);
        }
        self.hasher.finalize()
    }
}
