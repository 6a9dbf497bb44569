//! One walk over two indexes: what engines hold, and what they are expected to hold.
//!
//! The mirror of what engines say may have any blocks in any tier. What is expected is a prefix per
//! slot, because it is filed and dropped by whole prompts. The outcome is that of asking
//! both about every block; the cost is that of the runs of equal holders, and less where one tier is
//! all there is: then lengths say everything and nobody is visited twice.

use std::ops::ControlFlow;

use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_segment::table::{self, MAX_TIERS, MirrorReader};
use inlane_segment::words::Words;

use super::score::{Place, Room, Tier, Walk};

/// Tiers that a mirror tells apart.
pub(super) const TIERS: usize = MAX_TIERS;

/// What a walk reads of a mirror of engines' blocks.
pub(super) trait Mirror {
    /// A run of blocks.
    type Run<'a>: Run;

    /// One bit per tier in which anybody holds anything.
    fn tiers(&self) -> u8;

    /// Adds to `out[slot]` how many blocks the slot holds in the tier, from the first on.
    fn longest_prefix(&self, tier: u8, keys: &[u64], out: &mut [u32]);

    /// Calls `visit` with runs of blocks that have the same holders, front to back. Ends before the
    /// first block that nobody holds.
    fn runs(&self, keys: &[u64], visit: impl FnMut(&Self::Run<'_>) -> ControlFlow<()>);
}

/// Consecutive blocks with the same holders.
pub(super) trait Run {
    /// How many.
    fn blocks(&self) -> usize;

    /// The holders in a tier, a bit per slot.
    fn bits(&self, tier: usize) -> &[u64];
}

impl<M: Words> Mirror for MirrorReader<M> {
    type Run<'a> = table::Run<'a>;

    fn tiers(&self) -> u8 {
        Self::tiers(self)
    }

    fn longest_prefix(&self, tier: u8, keys: &[u64], out: &mut [u32]) {
        Self::longest_prefix(self, tier, keys, out);
    }

    fn runs(&self, keys: &[u64], visit: impl FnMut(&Self::Run<'_>) -> ControlFlow<()>) {
        Self::runs(self, keys, visit);
    }
}

impl Run for table::Run<'_> {
    fn blocks(&self) -> usize {
        self.blocks
    }

    fn bits(&self, tier: usize) -> &[u64] {
        Self::bits(self, tier)
    }
}

/// Walks the blocks of a prompt. `room.expected` says how many blocks of it are expected, by slot;
/// it may be shorter than there are slots.
pub(super) fn walk(
    mirror: &impl Mirror,
    keys: &[u64],
    tiers: &[Tier; TIERS],
    endpoints: &EndpointSet,
    walk: &mut Walk,
) {
    let mut room = std::mem::take(&mut walk.room);
    let used = mirror.tiers();
    let only = tiers[used.trailing_zeros() as usize % TIERS];
    let covers = room.expected.is_empty() || only.weight() <= Tier::SPECULATIVE.weight();
    let alone = used.count_ones() <= 1 && covers;
    if !alone || !by_length(mirror, used, keys, only, endpoints, walk, &mut room) {
        by_change(mirror, keys, tiers, endpoints, walk, &mut room);
    }
    walk.room = room;
}

/// A walk where at most one tier is used, and a block in it weighs no more than one that is expected
/// there besides. `false`, and nothing is done, where lengths do not tell everything: an endpoint is
/// expected to hold more than the mirror has of it, and the mirror goes on behind that.
fn by_length(
    mirror: &impl Mirror,
    used: u8,
    keys: &[u64],
    tier: Tier,
    endpoints: &EndpointSet,
    walk: &mut Walk,
    room: &mut Room,
) -> bool {
    let slots = || endpoints.slots().iter().map(|slot| slot.index as usize);
    let Room { held, expected, .. } = room;
    held.clear();
    held.resize(slots().max().map_or(0, |last| last + 1).min(1 << 16), 0);
    if used != 0 {
        mirror.longest_prefix(used.trailing_zeros() as u8, keys, held);
    }
    let of = |list: &[u32], slot: usize| list.get(slot).copied().unwrap_or(0);
    if !expected.is_empty() {
        for slot in slots() {
            let ahead = of(expected, slot);
            if ahead > of(held, slot) && holds(mirror, keys.get(ahead as usize..), slot) {
                return false;
            }
        }
    }
    for (slot, endpoint) in slots().zip(0..) {
        match (of(held, slot), of(expected, slot)) {
            (0, 0) => {}
            (held, 0) => walk.prefix(endpoint, &[(tier, held)]),
            (held, ahead) => walk.prefix(endpoint, &[(tier, held), (Tier::SPECULATIVE, ahead)]),
        }
    }
    true
}

/// Whether the slot holds the first of the keys in any tier.
fn holds(mirror: &impl Mirror, keys: Option<&[u64]>, slot: usize) -> bool {
    let Some(first) = keys.and_then(|keys| keys.get(..1)) else { return false };
    let mut held = false;
    mirror.runs(first, |run| {
        held = (0..TIERS).any(|tier| {
            run.bits(tier).get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
        });
        ControlFlow::Break(())
    });
    held
}

/// A walk that looks at an endpoint only where it begins or ceases to hold blocks in a tier.
fn by_change<M: Mirror>(
    mirror: &M,
    keys: &[u64],
    tiers: &[Tier; TIERS],
    endpoints: &EndpointSet,
    walk: &mut Walk,
    room: &mut Room,
) {
    let mut expected = std::mem::take(&mut room.order);
    expected.clear();
    if !room.expected.is_empty() {
        for (slot, endpoint) in endpoints.slots().iter().zip(0..) {
            let ahead = room.expected.get(slot.index as usize).copied().unwrap_or(0);
            if ahead > 0 {
                expected.push((ahead, endpoint));
            }
        }
        expected.sort_unstable();
    }
    let mut changes = Changes::begin(tiers, endpoints, walk, room, &expected);
    let (mut at, mut left) = (0, true);
    while let Some(rest) = keys.get(at..).filter(|rest| left && !rest.is_empty()) {
        mirror.runs(rest, |run| {
            left = changes.at(at, Some(run));
            at += run.blocks();
            if left { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if left && at < keys.len() {
            // Nobody is known to hold the next block. Who is expected to may be known to hold the one
            // after.
            left = changes.at(at, None::<&M::Run<'_>>);
            at += 1;
        }
    }
    changes.end(at.min(keys.len()));
    room.order = expected;
}

/// A walk along the changes of who holds the present block.
struct Changes<'a> {
    tiers: &'a [Tier; TIERS],
    endpoints: &'a EndpointSet,
    walk: &'a mut Walk,
    room: &'a mut Room,
    /// Those whose expectation has not ended: after how many blocks it does.
    expected: &'a [(u32, EndpointIx)],
    /// Endpoints that hold all blocks so far.
    alive: usize,
}
/// The bit of an expectation beside those of the tiers.
const EXPECTED: u16 = 1 << TIERS;

impl<'a> Changes<'a> {
    fn begin(
        tiers: &'a [Tier; TIERS],
        endpoints: &'a EndpointSet,
        walk: &'a mut Walk,
        room: &'a mut Room,
        expected: &'a [(u32, EndpointIx)],
    ) -> Self {
        room.bits.resize_with(TIERS, Vec::new);
        room.bits.iter_mut().for_each(|bits| bits.fill(0));
        room.places.clear();
        room.places.resize(endpoints.len(), Place::default());
        room.touched.clear();
        let mut changes = Self { tiers, endpoints, walk, room, expected, alive: 0 };
        expected.iter().for_each(|(_, endpoint)| changes.toggle(*endpoint, EXPECTED, 0));
        changes
    }

    /// Takes note of who holds block number `depth`; without a run nobody is known to. Whether
    /// anybody holds it and all blocks before.
    fn at(&mut self, depth: usize, run: Option<&impl Run>) -> bool {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        self.end_expectations(depth);
        let mut all = std::mem::take(&mut self.room.bits);
        for (tier, before) in all.iter_mut().enumerate() {
            let now = run.map_or(&[][..], |run| run.bits(tier));
            if before.len() < now.len() {
                before.resize(now.len(), 0);
            }
            for (word, before) in before.iter_mut().enumerate() {
                let now = now.get(word).copied().unwrap_or(0);
                let mut changed = std::mem::replace(before, now) ^ now;
                while changed != 0 {
                    let slot = word * 64 + changed.trailing_zeros() as usize;
                    changed &= changed - 1;
                    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                    if let Some(endpoint) = self.endpoints.at_slot(slot) {
                        self.toggle(endpoint, 1 << tier, depth);
                    }
                }
            }
        }
        self.room.bits = all;
        self.settle();
        self.alive > 0
    }

    /// The walk ends before block number `depth`.
    fn end(mut self, depth: usize) {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        self.end_expectations(depth);
        self.settle();
        for endpoint in (0..).take(self.endpoints.len()) {
            self.credit(endpoint, depth);
        }
    }

    /// Ends the expectations of `depth` blocks or fewer; what the last of them mean is not settled.
    fn end_expectations(&mut self, depth: u32) {
        while let Some((&(ahead, endpoint), rest)) =
            self.expected.split_first().filter(|((ahead, _), _)| *ahead <= depth)
        {
            self.expected = rest;
            self.toggle(endpoint, EXPECTED, ahead);
            let more = rest.first().is_some_and(|(next, _)| *next == ahead);
            if ahead < depth && !more {
                self.settle();
            }
        }
    }

    /// From `depth` on the endpoint holds blocks where it did not, or no longer where it did.
    fn toggle(&mut self, endpoint: EndpointIx, tier: u16, depth: u32) {
        self.credit(endpoint, depth);
        let Some(place) = self.room.places.get_mut(endpoint as usize) else { return };
        if !place.alive && depth == 0 {
            place.alive = true;
            self.alive += 1;
        }
        if place.alive {
            place.tiers ^= tier;
            if place.tiers == 0 {
                self.room.touched.push(endpoint);
            }
        }
    }

    /// Lets those go who hold the present block nowhere.
    fn settle(&mut self) {
        while let Some(endpoint) = self.room.touched.pop() {
            let place = self.room.places.get_mut(endpoint as usize);
            if let Some(place) = place.filter(|place| place.alive && place.tiers == 0) {
                place.alive = false;
                self.alive -= 1;
            }
        }
    }

    /// Credits the endpoint with the blocks up to `depth` that it held as it does now.
    fn credit(&mut self, endpoint: EndpointIx, depth: u32) {
        let Some(place) = self.room.places.get_mut(endpoint as usize) else { return };
        let Place { tiers, alive, since } = *place;
        if !alive || since >= depth {
            return;
        }
        place.since = depth;
        let endpoint = endpoint as usize;
        let mut left = tiers;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let tier = self.tiers.get(bit).copied().unwrap_or(Tier::SPECULATIVE);
            self.walk.hold(endpoint, since, depth - since, tier);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use inlane_core::endpoint::Slot;
    use proptest::prelude::*;

    use super::*;
    use crate::precise::score::TierWeights;
    use crate::testing::endpoint_in;

    /// Who holds a block, by key.
    #[derive(Debug, Default)]
    struct Literal(BTreeMap<u64, BTreeSet<(u16, u8)>>);

    /// How many blocks, and who holds them, as bits by tier.
    struct LiteralRun(usize, [Vec<u64>; TIERS]);

    impl LiteralRun {
        fn new(blocks: usize, holders: &BTreeSet<(u16, u8)>) -> Self {
            let mut bits: [Vec<u64>; TIERS] = std::array::from_fn(|_| vec![0; 2]);
            for &(slot, tier) in holders {
                bits[usize::from(tier)][usize::from(slot) / 64] |= 1 << (slot % 64);
            }
            Self(blocks, bits)
        }
    }

    impl Run for LiteralRun {
        fn blocks(&self) -> usize {
            self.0
        }

        fn bits(&self, tier: usize) -> &[u64] {
            &self.1[tier]
        }
    }

    impl Mirror for Literal {
        type Run<'a> = LiteralRun;

        fn tiers(&self) -> u8 {
            self.0.values().flatten().fold(0, |bits, (_, tier)| bits | 1 << tier)
        }

        fn longest_prefix(&self, tier: u8, keys: &[u64], out: &mut [u32]) {
            for (slot, out) in (0..).zip(out) {
                let held = |key: &&u64| self.0.get(key).is_some_and(|h| h.contains(&(slot, tier)));
                *out += keys.iter().take_while(held).count() as u32;
            }
        }

        fn runs(&self, keys: &[u64], mut visit: impl FnMut(&LiteralRun) -> ControlFlow<()>) {
            let mut rest = keys.iter().map_while(|key| self.0.get(key)).peekable();
            while let Some(holders) = rest.next() {
                let mut len = 1;
                while rest.next_if(|next| *next == holders).is_some() {
                    len += 1;
                }
                if visit(&LiteralRun::new(len, holders)).is_break() {
                    return;
                }
            }
        }
    }

    fn pool(slots: &[u32]) -> EndpointSet {
        let endpoint = |&index: &u32| {
            endpoint_in(Slot { index, generation: 1 }, format!("default/{index:03}"))
        };
        EndpointSet::new(0, slots.iter().map(endpoint).collect())
    }

    /// Asks both about every block.
    fn literally(
        mirror: &Literal,
        expected: &[u32],
        keys: &[u64],
        tiers: &[Tier; TIERS],
        endpoints: &EndpointSet,
    ) -> Walk {
        let mut walk = Walk::default();
        walk.begin(endpoints.len());
        for (key, depth) in keys.iter().zip(0..) {
            let held = mirror.0.get(key).into_iter().flatten();
            let held = held.filter_map(|&(slot, tier)| {
                Some((endpoints.at_slot(slot.into())? as usize, tiers[usize::from(tier)]))
            });
            let ahead = endpoints.slots().iter().enumerate().filter_map(|(ix, slot)| {
                let ahead = expected.get(slot.index as usize).copied().unwrap_or(0);
                (ahead > depth).then_some((ix, Tier::SPECULATIVE))
            });
            walk.block(held.chain(ahead));
        }
        walk
    }

    fn assert_same(
        mirror: &Literal,
        expected: &[u32],
        keys: &[u64],
        tiers: &[Tier; TIERS],
        endpoints: &EndpointSet,
    ) {
        let mut merged = Walk::default();
        merged.begin(endpoints.len());
        merged.room.expected = expected.to_vec();
        walk(mirror, keys, tiers, endpoints, &mut merged);
        let literal = literally(mirror, expected, keys, tiers, endpoints);
        let seen = |walk: &Walk| -> Vec<_> {
            let standings = walk.standings().iter();
            standings.map(|s| (s.score().to_bits(), s.blocks(), s.tiers())).collect()
        };
        assert_eq!(seen(&merged), seen(&literal), "{mirror:?} {expected:?}");
    }

    fn tiers(weights: [f64; 3]) -> [Tier; TIERS] {
        let names = ["gpu", "cpu", "disk"];
        let named = names.map(str::to_owned).into_iter().zip(weights);
        let weights = TierWeights::new(named);
        std::array::from_fn(|number| weights.tier(names.get(number).copied().unwrap_or("")))
    }

    /// Slots of the pool; 3 belongs to nobody in it.
    const SLOTS: [u32; 5] = [0, 1, 2, 4, 900];

    #[test]
    fn an_expectation_bridges_a_gap() {
        let holders = |list: &[(u16, u8)]| list.iter().copied().collect::<BTreeSet<_>>();
        let mut mirror = Literal::default();
        for key in [0, 1, 3, 4] {
            mirror.0.insert(key, holders(&[(0, 0)]));
        }
        let (keys, pool) = ([0, 1, 2, 3, 4, 5], pool(&SLOTS));
        let tiers = tiers([1.0, 0.8, 1.0]);
        for ahead in 0..=6 {
            assert_same(&mirror, &[ahead], &keys, &tiers, &pool);
        }
        let mut bridged = Walk::default();
        bridged.begin(pool.len());
        bridged.room.expected = vec![3];
        walk(&mirror, &keys, &tiers, &pool, &mut bridged);
        let standing = bridged.standings()[0];
        assert_eq!((standing.blocks(), standing.tiers().gpu), (5, 2));
    }

    /// Up to three spans of keys that a slot holds in a tier.
    fn spans(tiers: u8) -> impl Strategy<Value = Vec<(u16, u8, u64, u64)>> {
        let slot = proptest::sample::select(vec![0u16, 1, 2, 3, 4]);
        // Many begin at the front, as they do in truth.
        let start = prop_oneof![3 => Just(0u64), 1 => 0..30u64];
        proptest::collection::vec((slot, 0..tiers, start, 1..30u64), 0..12)
    }

    proptest! {
        #[test]
        fn a_walk_tells_what_asking_about_every_block_does(
            spans in (1..4u8).prop_flat_map(spans),
            expected in proptest::collection::vec(prop_oneof![Just(0), 0..33u32], 0..6),
            weights in proptest::sample::select(vec![
                [1.0, 0.8, 1.0], [0.5, 0.9, 0.1], [2.0, 0.8, 0.0], [0.8, 1.0, 3.0],
            ]),
            len in 0..33u64,
        ) {
            let mut mirror = Literal::default();
            for (slot, tier, start, len) in spans {
                for key in start..start + len {
                    mirror.0.entry(key).or_default().insert((slot, tier));
                }
            }
            let keys: Vec<u64> = (0..len).collect();
            let expected: Vec<u32> = expected.into_iter().map(|n| n.min(len as u32)).collect();
            assert_same(&mirror, &expected, &keys, &tiers(weights), &pool(&SLOTS));
        }
    }
}
