//! How often something may be logged.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lines per second.
const MOST: u64 = 10;
const SECOND_NS: u64 = 1_000_000_000;

/// Lets the first few lines of every second pass and counts the rest: what a client causes must not
/// fill a disk.
#[derive(Debug, Default)]
pub struct Complaints {
    /// Second and lines in it: the upper and the lower half.
    window: AtomicU64,
    dropped: AtomicU64,
}

impl Complaints {
    /// Whether a line may be written at `now_ns`; if so, how many were dropped since the last one.
    pub fn may(&self, now_ns: u64) -> Option<u64> {
        let second = (now_ns / SECOND_NS) << 32;
        let counted = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
            if window >> 32 << 32 != second {
                return Some(second + 1);
            }
            (window - second < MOST).then_some(window + 1)
        });
        match counted {
            Ok(_) => Some(self.dropped.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_says_how_many_it_lacked() {
        let complaints = Complaints::default();
        let passed = (0..25).filter(|_| complaints.may(7 * SECOND_NS).is_some()).count();
        assert_eq!(passed, MOST as usize);
        assert_eq!(complaints.may(8 * SECOND_NS), Some(15));
        assert_eq!(complaints.may(8 * SECOND_NS), Some(0));
    }
}
