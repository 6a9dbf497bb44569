//! Which entries are free, and which of them may be used.
//!
//! A bit per entry, and a bit per full word of those. A block is put right behind its parent if
//! that entry is free; a chain begins where sixteen entries in a row are, so that it has room to
//! grow and readers find its blocks side by side. Entries that were given up wait for two epochs.

const BITS: usize = 64;
/// Words looked at for sixteen entries in a row.
const SEARCH: usize = 64;
const ROOM: u32 = 16;

#[derive(Debug)]
pub(super) struct Free {
    /// A bit per entry that is in use or waits.
    used: Vec<u64>,
    /// A bit per word of `used` that is all ones.
    full: Vec<u64>,
    entries: usize,
    left: usize,
    /// Word of `used` where the last chain began.
    hand: usize,
    /// Given up in this epoch, and in the one before.
    waiting: [Vec<u32>; 2],
}

impl Free {
    pub(super) fn new(entries: usize) -> Self {
        let words = entries.div_ceil(BITS);
        let mut free = Self {
            used: vec![0; words],
            full: vec![0; words.div_ceil(BITS)],
            entries,
            left: entries,
            hand: 0,
            waiting: [Vec::new(), Vec::new()],
        };
        // Entries and words that do not exist.
        if !entries.is_multiple_of(BITS) {
            free.used[words - 1] = u64::MAX << (entries % BITS);
        }
        if !words.is_multiple_of(BITS) {
            free.full[words / BITS] = u64::MAX << (words % BITS);
        }
        free
    }

    /// The best free entry for a block whose parent has the entry `parent`. It stays free until it
    /// is [taken](Free::take).
    pub(super) fn next(&mut self, parent: u32) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let behind = (parent as usize).wrapping_add(1);
        if behind < self.entries && !self.is_used(behind) {
            return Some(behind);
        }
        self.row().or_else(|| self.any())
    }

    pub(super) fn take(&mut self, entry: usize) {
        let word = entry / BITS;
        self.used[word] |= 1 << (entry % BITS);
        if self.used[word] == u64::MAX {
            self.full[word / BITS] |= 1 << (word % BITS);
        }
        self.left -= 1;
    }

    /// Gives an entry up; it can be used again when the epoch has moved twice.
    pub(super) fn retire(&mut self, entry: usize) {
        self.waiting[0].push(entry as u32);
    }

    /// The epoch has moved.
    pub(super) fn age(&mut self) {
        let mut ready = std::mem::take(&mut self.waiting[1]);
        for &entry in &ready {
            let word = entry as usize / BITS;
            self.used[word] &= !(1 << (entry as usize % BITS));
            self.full[word / BITS] &= !(1 << (word % BITS));
        }
        self.left += ready.len();
        ready.clear();
        self.waiting.swap(0, 1);
        self.waiting[0] = ready;
    }

    /// Entries that wait for the epoch to move.
    pub(super) fn waiting(&self) -> usize {
        self.waiting[0].len() + self.waiting[1].len()
    }

    /// Entries given up in this epoch.
    pub(super) fn young(&self) -> usize {
        self.waiting[0].len()
    }

    fn is_used(&self, entry: usize) -> bool {
        self.used[entry / BITS] >> (entry % BITS) & 1 == 1
    }

    fn row(&mut self) -> Option<usize> {
        let words = self.used.len();
        for _ in 0..SEARCH.min(words) {
            let free = !self.used[self.hand];
            let lane =
                (0..BITS as u32).step_by(ROOM as usize).find(|&at| (free >> at) as u16 == u16::MAX);
            if let Some(lane) = lane {
                return Some(self.hand * BITS + lane as usize);
            }
            self.hand = if self.hand + 1 == words { 0 } else { self.hand + 1 };
        }
        None
    }

    fn any(&self) -> Option<usize> {
        let first = self.hand / BITS;
        let groups = (first..self.full.len()).chain(0..first);
        let group = groups.into_iter().find(|&group| self.full[group] != u64::MAX)?;
        let word = group * BITS + self.full[group].trailing_ones() as usize;
        Some(word * BITS + self.used[word].trailing_ones() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u32 = u32::MAX;

    #[test]
    fn every_entry_is_handed_out_once() {
        for entries in [1, 15, 16, 63, 64, 65, 700] {
            let mut free = Free::new(entries);
            let mut seen = vec![false; entries];
            for _ in 0..entries {
                let entry = free.next(NOBODY).unwrap();
                assert!(!std::mem::replace(&mut seen[entry], true));
                free.take(entry);
            }
            assert_eq!(free.next(NOBODY), None);
        }
    }

    #[test]
    fn chains_get_room_to_grow() {
        let mut free = Free::new(200);
        let first = free.next(NOBODY).unwrap();
        free.take(first);
        let second = free.next(NOBODY).unwrap();
        free.take(second);
        assert_eq!((first, second), (0, 16));
        assert_eq!(free.next(first as u32), Some(1));
        assert_eq!(free.next(199), Some(32), "nothing lies behind the last entry");
    }

    #[test]
    fn entries_wait_for_two_epochs() {
        let mut free = Free::new(1);
        free.take(0);
        free.retire(0);
        assert_eq!((free.next(NOBODY), free.waiting(), free.young()), (None, 1, 1));
        free.age();
        assert_eq!((free.next(NOBODY), free.waiting(), free.young()), (None, 1, 0));
        free.age();
        assert_eq!((free.next(NOBODY), free.waiting()), (Some(0), 0));
    }
}
