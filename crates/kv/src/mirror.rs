//! The index as the [`Applier`](crate::Applier) sees it.

/// Which endpoint holds which blocks, as the engines say.
///
/// A slot is an endpoint, a tier a place where its blocks lie. An engine hash means something in
/// its slot only; the request keys that belong to it are given when it is stored.
pub trait Mirror {
    /// The slot stores blocks in `tier`: pairs of engine hash and request key, in the order of the
    /// prompt; a hash may have several keys. A pair that is held is counted once more. Returns how
    /// many pairs found no room; none after the first of them is stored.
    fn hold(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]) -> usize;

    /// [`hold`](Self::hold) of consecutive blocks: each key is that of the pair before, or the next
    /// one of its chain, and the first one follows `parent`, or nothing.
    fn hold_chain(
        &mut self,
        slot: u16,
        tier: u8,
        parent: Option<u64>,
        engine: &[u64],
        keys: &[u64],
    ) -> usize {
        let _ = parent;
        self.hold(slot, tier, engine, keys)
    }

    /// One count of an engine hash less; at zero the slot no longer holds its keys in that tier,
    /// not even those that another of its hashes has too. Returns whether it came to that; false too if the hash was not held.
    fn release(&mut self, slot: u16, tier: u8, engine: u64) -> bool;

    /// [`release`](Self::release) of one hash after the other. Returns how many came to zero.
    fn release_all(&mut self, slot: u16, tier: u8, engine: &[u64]) -> usize {
        engine.iter().filter(|&&engine| self.release(slot, tier, engine)).count()
    }

    /// Appends the keys that belong to an engine hash of the slot, in any tier, in the order in
    /// which they were stored.
    fn keys_of(&self, slot: u16, engine: u64, out: &mut Vec<u64>);

    /// The slot holds nothing any more.
    fn clear(&mut self, slot: u16);

    /// Engine hashes that the slot holds, each tier counted by itself.
    fn len(&self, slot: u16) -> usize;

    /// Whether the slot holds nothing.
    fn is_empty(&self, slot: u16) -> bool {
        self.len(slot) == 0
    }
}
