//! Where the blocks of a slot are, roughly: what to search when one is cleared or listed.
//!
//! The entries are cut into at most 512 regions; a bit per slot and region says that the slot may
//! hold something there. 64 bytes per slot, private.

const WORDS: usize = 8;
const REGIONS: usize = WORDS * 64;

#[derive(Debug)]
pub(super) struct Regions {
    bits: Vec<[u64; WORDS]>,
    /// Entries per region, as a power of two.
    shift: u32,
    entries: usize,
}

impl Regions {
    pub(super) fn new(slots: usize, entries: usize) -> Self {
        let shift = entries.div_ceil(REGIONS).next_power_of_two().trailing_zeros();
        Self { bits: vec![[0; WORDS]; slots], shift, entries }
    }

    #[inline]
    pub(super) fn add(&mut self, slot: u16, entry: usize) {
        let region = entry >> self.shift;
        self.bits[usize::from(slot)][region / 64] |= 1 << (region % 64);
    }

    /// Adds as many entries from this one on.
    #[inline]
    pub(super) fn add_run(&mut self, slot: u16, first: usize, entries: usize) {
        for region in first >> self.shift..=(first + entries - 1) >> self.shift {
            self.bits[usize::from(slot)][region / 64] |= 1 << (region % 64);
        }
    }

    pub(super) fn clear(&mut self, slot: u16) {
        self.bits[usize::from(slot)] = [0; WORDS];
    }

    /// Entries where the slot may hold something, in order.
    pub(super) fn entries(&self, slot: u16) -> impl Iterator<Item = usize> + use<> {
        let (bits, shift, entries) = (self.bits[usize::from(slot)], self.shift, self.entries);
        let regions = bits.into_iter().zip((0..).step_by(64)).flat_map(|(mut word, base)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(base + bit)
            })
        });
        regions.flat_map(move |region: usize| region << shift..entries.min((region + 1) << shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_in_a_region_of_its_slot() {
        for entries in [1, 511, 512, 513, 3_000] {
            let mut regions = Regions::new(2, entries);
            assert_eq!(regions.entries(1).next(), None);
            for entry in [0, entries / 2, entries - 1] {
                regions.add(1, entry);
                assert!(regions.entries(1).any(|other| other == entry));
            }
            assert!(regions.entries(1).all(|entry| entry < entries));
            let mut all = Regions::new(2, entries);
            all.add_run(1, entries / 3, entries - entries / 3);
            let found: Vec<_> = all.entries(1).collect();
            assert!((entries / 3..entries).all(|entry| found.binary_search(&entry).is_ok()));
            assert_eq!(regions.entries(0).next(), None);
            regions.clear(1);
            assert_eq!(regions.entries(1).next(), None);
        }
    }
}
