//! The deliberately literal model of a mirror, and the comparison of everything it says.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use inlane_segment::table::{MirrorReader, MirrorWriter};
use inlane_segment::words::{Words, WordsMut};

pub const TIERS: u8 = 3;

/// A slot's block: slot, tier, engine hash, key.
pub type Pair = (u16, u8, u64, u64);

/// Where a run begins, its length, and its holders: slot and tier.
pub type HeldRun = (usize, usize, BTreeSet<(u16, u8)>);

/// Every pair and how often it is held. Nothing else, and nothing clever.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Model {
    pub pairs: BTreeMap<Pair, u32>,
}

impl Model {
    pub fn hold(&mut self, slot: u16, tier: u8, engines: &[u64], keys: &[u64]) {
        for (&engine, &key) in engines.iter().zip(keys) {
            *self.pairs.entry((slot, tier, engine, key)).or_default() += 1;
        }
    }

    pub fn release(&mut self, slot: u16, tier: u8, engine: u64) -> bool {
        let mine = |pair: &Pair| (pair.0, pair.1, pair.2) == (slot, tier, engine);
        let pairs: Vec<Pair> = self.pairs.keys().copied().filter(mine).collect();
        for &pair in &pairs {
            // A pair that is gone by now went with the key that it shared with another one.
            let Some(count) = self.pairs.get_mut(&pair) else { continue };
            *count -= 1;
            if *count == 0 {
                let key = pair.3;
                self.pairs.retain(|other, _| (other.0, other.1, other.3) != (slot, tier, key));
            }
        }
        !pairs.is_empty() && !self.pairs.keys().any(mine)
    }

    pub fn keys_of(&self, slot: u16, engine: u64) -> BTreeSet<u64> {
        let mine = self.pairs.keys().filter(|pair| (pair.0, pair.2) == (slot, engine));
        mine.map(|pair| pair.3).collect()
    }

    pub fn clear(&mut self, slot: u16) {
        self.pairs.retain(|pair, _| pair.0 != slot);
    }

    pub fn holds(&self, slot: u16, tier: u8, key: u64) -> bool {
        self.pairs.keys().any(|pair| (pair.0, pair.1, pair.3) == (slot, tier, key))
    }

    pub fn keys(&self, slot: u16) -> BTreeSet<(u8, u64)> {
        let mine = self.pairs.keys().filter(|pair| pair.0 == slot);
        mine.map(|pair| (pair.1, pair.3)).collect()
    }

    /// Every (slot, tier, key).
    pub fn holdings(&self) -> BTreeSet<(u16, u8, u64)> {
        self.pairs.keys().map(|pair| (pair.0, pair.1, pair.3)).collect()
    }

    /// Runs of keys with the same holders in all tiers, up to one that nobody holds.
    pub fn runs(&self, keys: &[u64]) -> Vec<HeldRun> {
        let holdings = self.holdings();
        let mut runs: Vec<HeldRun> = Vec::new();
        for (at, &key) in keys.iter().enumerate() {
            let of_key = holdings.iter().filter(|holding| holding.2 == key);
            let holders: BTreeSet<_> = of_key.map(|&(slot, tier, _)| (slot, tier)).collect();
            if holders.is_empty() {
                break;
            }
            match runs.last_mut().filter(|run| run.2 == holders) {
                Some(run) => run.1 += 1,
                None => runs.push((at, 1, holders)),
            }
        }
        runs
    }

    pub fn longest_prefix(&self, tier: u8, keys: &[u64], slots: usize) -> (usize, Vec<u32>) {
        let holdings = self.holdings();
        let prefix = |slot: u16| {
            keys.iter().take_while(|&&key| holdings.contains(&(slot, tier, key))).count() as u32
        };
        let mut out = vec![0; slots];
        let holders: BTreeSet<u16> = holdings.iter().map(|holding| holding.0).collect();
        holders.into_iter().for_each(|slot| out[usize::from(slot)] = prefix(slot));
        (out.iter().copied().max().unwrap_or(0) as usize, out)
    }
}

/// Everything the model says, asked of the mirror.
pub fn assert_same<M: WordsMut>(
    writer: &MirrorWriter<M>,
    reader: &MirrorReader<impl Words>,
    model: &Model,
    chains: &[Vec<u64>],
    context: &str,
) {
    let slots = reader.slots();
    let holdings = model.holdings();
    for slot in 0..slots as u16 {
        let expected: BTreeSet<(u8, u64)> =
            holdings.range((slot, 0, 0)..=(slot, u8::MAX, u64::MAX)).map(|h| (h.1, h.2)).collect();
        let held: Vec<_> = writer.iter(slot).collect();
        assert_eq!(held.len(), expected.len(), "{context}: dump of slot {slot}");
        assert_eq!(BTreeSet::from_iter(held), expected, "{context}: dump of slot {slot}");
        assert_eq!(writer.len(slot), expected.len(), "{context}: length of slot {slot}");
        assert_eq!(reader.len(slot), expected.len(), "{context}: length of slot {slot} as read");
    }
    let blocks: BTreeSet<_> = holdings.iter().map(|&(_, tier, key)| (tier, key)).collect();
    assert_eq!(
        (writer.total(), writer.blocks()),
        (holdings.len() as u64, blocks.len()),
        "{context}"
    );
    assert_eq!(reader.is_empty(), holdings.is_empty(), "{context}");
    for tier in 0..TIERS {
        let count = holdings.iter().filter(|holding| holding.1 == tier).count();
        assert_eq!(reader.tier_total(tier), count as u64, "{context}: tier {tier}");
        assert_eq!(reader.tiers() >> tier & 1 == 1, count > 0, "{context}: tier {tier}");
    }
    let mut hashes: BTreeSet<(u16, u64)> = BTreeSet::new();
    hashes.extend(model.pairs.keys().map(|pair| (pair.0, pair.2)));
    for (slot, engine) in hashes {
        let mut keys = Vec::new();
        writer.keys_of(slot, engine, &mut keys);
        let found = BTreeSet::from_iter(keys.iter().copied());
        assert_eq!(found.len(), keys.len(), "{context}: {keys:?} of {engine} in slot {slot}");
        assert_eq!(found, model.keys_of(slot, engine), "{context}: keys of {engine} in {slot}");
    }
    for chain in chains {
        for tier in 0..TIERS {
            let mut out = vec![0; slots];
            let longest = reader.longest_prefix(tier, chain, &mut out);
            let expected = model.longest_prefix(tier, chain, slots);
            assert_eq!((longest, out), expected, "{context}: longest prefix in tier {tier}");
        }
        assert_eq!(runs(reader, chain), model.runs(chain), "{context}: runs");
    }
}

/// The runs that a reader finds; consecutive ones with the same holders are one.
pub fn runs(reader: &MirrorReader<impl Words>, keys: &[u64]) -> Vec<HeldRun> {
    let mut runs: Vec<HeldRun> = Vec::new();
    let mut next = 0;
    reader.runs(keys, |run| {
        assert_eq!(run.at, next, "runs are contiguous");
        next += run.blocks;
        let mut holders = BTreeSet::new();
        run.for_each(|slot, tier| assert!(holders.insert((slot, tier)), "visited once"));
        match runs.last_mut().filter(|run| run.2 == holders) {
            Some(last) => last.1 += run.blocks,
            None => runs.push((run.at, run.blocks, holders)),
        }
        ControlFlow::Continue(())
    });
    runs
}
