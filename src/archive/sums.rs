//! The CRCs of a zip's members: those that are known to all readers of one archive, and how one
//! that is not known is computed a step at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crc32fast::Hasher;

/// Set beside a CRC once it is known: 0 is a CRC like any other.
const KNOWN: u64 = 1 << 32;

/// Most members of which the beginning's CRC is remembered.
const MAX_BEGUN: usize = 64;

/// What is known of each member.
#[derive(Debug, Default)]
pub(super) struct Sums {
    known: Box<[AtomicU64]>,
    /// Of members that are not known yet, the CRC of the beginning: what one reader has read goes on
    /// with the next one.
    begun: Mutex<Vec<Running>>,
}

impl Sums {
    pub(super) fn new(members: usize) -> Sums {
        Sums { known: (0..members).map(|_| AtomicU64::new(0)).collect(), begun: Mutex::default() }
    }

    pub(super) fn get(&self, index: usize) -> Option<u32> {
        let value = self.known[index].load(Ordering::Relaxed);
        (value & KNOWN != 0).then_some(value as u32)
    }

    /// Makes `crc` known and returns the one that counts. The first one stays: a reader that has
    /// sent a member and its CRC must find the same one when it comes to the central directory.
    pub(super) fn set(&self, index: usize, crc: u32) -> u32 {
        let value = KNOWN | u64::from(crc);
        self.lock().retain(|sum| sum.index != index);
        match self.known[index].compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => crc,
            Err(present) => present as u32,
        }
    }

    /// How far the CRC of a member has come.
    pub(super) fn begun(&self, index: usize) -> Option<Running> {
        self.lock().iter().find(|sum| sum.index == index).cloned()
    }

    /// Remembers how far the CRC of a member has come. If there are too many, the shortest is
    /// forgotten.
    pub(super) fn remember(&self, sum: &Running) {
        debug_assert_eq!(sum.from, 0);
        let mut begun = self.lock();
        match begun.iter_mut().find(|other| other.index == sum.index) {
            Some(other) if other.at >= sum.at => {}
            Some(other) => *other = sum.clone(),
            None => begun.push(sum.clone()),
        }
        if begun.len() > MAX_BEGUN {
            let shortest = begun.iter().enumerate().min_by_key(|(_, sum)| sum.at);
            if let Some((shortest, _)) = shortest {
                begun.swap_remove(shortest);
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.known) + self.lock().capacity() * size_of::<Running>()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Adds `count` zeros, in a time that hardly depends on how many.
    pub(super) fn add_zeros(&mut self, mut count: u64) {
        self.at += count;
        let mut zeros = Hasher::new();
        zeros.update(&[0]);
        while count > 0 {
            if count & 1 == 1 {
                self.hasher.combine(&zeros);
            }
            zeros.combine(&zeros.clone());
            count >>= 1;
        }
    }

    /// The CRC of this part and then `rest`.
    pub(super) fn joined(mut self, rest: Option<&Running>) -> u32 {
        if let Some(rest) = rest {
            self.hasher.combine(&rest.hasher);
        }
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_count_whether_they_are_read_or_not() {
        for count in [0, 1, 2, 3, 255, 4096, 65_535, 1_000_003] {
            let mut sum = Running::new(0, 7);
            sum.add(b"before");
            sum.add_zeros(count);
            sum.add(b"after");
            let plain = [&b"before"[..], &vec![0; count as usize], b"after"].concat();
            assert_eq!(sum.at, 7 + plain.len() as u64);
            assert_eq!(sum.joined(None), crc32fast::hash(&plain), "{count}");
        }
        let mut rest = Running::new(0, 0);
        rest.add_zeros(1000);
        let mut sum = Running::new(0, 0);
        sum.add(b"before");
        let plain = [&b"before"[..], &[0; 1000]].concat();
        assert_eq!(sum.joined(Some(&rest)), crc32fast::hash(&plain));
    }

    #[test]
    fn what_is_begun_is_bounded_and_the_longest_stays() {
        let sums = Sums::new(1000);
        for index in 0..1000 {
            let mut sum = Running::new(index, 0);
            sum.add_zeros(1000 + index as u64);
            sums.remember(&sum);
        }
        assert!(sums.begun(10).is_none());
        let longest = sums.begun(999).unwrap();
        assert_eq!(longest.at, 1999);
        // What has come less far changes nothing.
        sums.remember(&Running::new(999, 0));
        assert_eq!(sums.begun(999).unwrap().at, 1999);
        sums.set(999, 1);
        assert!(sums.begun(999).is_none());
        assert!(sums.memory() < 16_000, "{}", sums.memory());
    }
}
