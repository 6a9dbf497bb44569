//! The longest prefix that each endpoint holds, weighted by the tiers that hold it.
//!
//! Pure arithmetic on what an index answers, block by block or, where consecutive blocks have the
//! same holders, run by run: the outcome is the same to the last bit, the cost that of the runs. No
//! index is needed to use it: the producer drives it from one, tests and tools from a table.

use inlane_core::columns::CachedTiers;
use inlane_core::endpoint::EndpointIx;

/// Weight of a tier that has none of its own.
const DEFAULT_WEIGHT: f64 = 1.0;

/// A kind of memory, as an index names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    /// Accelerator memory.
    Gpu,
    /// Host memory.
    Cpu,
    /// Anything else.
    Other,
    /// Expected, not confirmed by the engine.
    Speculative,
}

/// What one entry of an index adds for a block: its run and its weight. Made once per entry of the
/// weights, see [`TierWeights::tier`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tier {
    run: Run,
    weight: f64,
}

impl Tier {
    /// A block that is expected, not confirmed. It weighs 1.
    pub const SPECULATIVE: Self = Self { run: Run::Speculative, weight: DEFAULT_WEIGHT };

    /// What a block weighs there.
    pub fn weight(&self) -> f64 {
        self.weight
    }
}

/// The weights of tiers, by lower-case name.
#[derive(Debug, Clone, PartialEq)]
pub struct TierWeights(Vec<(String, f64)>);

impl Default for TierWeights {
    /// `gpu` 1.0, `cpu` 0.8.
    fn default() -> Self {
        Self::new([("gpu".to_owned(), 1.0), ("cpu".to_owned(), 0.8)])
    }
}

impl TierWeights {
    /// These weights and no others; of several for one name the last one counts.
    pub fn new(weights: impl IntoIterator<Item = (String, f64)>) -> Self {
        let mut list: Vec<(String, f64)> = Vec::new();
        for (name, weight) in weights {
            match list.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = weight,
                None => list.push((name, weight)),
            }
        }
        Self(list)
    }

    /// The tier of that name; without a weight of its own it weighs 1.
    pub fn tier(&self, name: &str) -> Tier {
        let weight = self.0.iter().find(|(known, _)| known == name).map(|(_, weight)| *weight);
        let run = match name {
            "gpu" => Run::Gpu,
            "cpu" => Run::Cpu,
            _ => Run::Other,
        };
        Tier { run, weight: weight.unwrap_or(DEFAULT_WEIGHT) }
    }
}

/// What one endpoint holds of the prompt walked so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    /// Sum of the weights before the last run.
    before: f64,
    /// Weight of each block of the last run.
    weight: f64,
    /// Blocks of the last run.
    run: u32,
    /// Blocks held, from the first on.
    blocks: u32,
    /// Blocks held from the first on, by tier.
    tiers: CachedTiers,
}

impl Standing {
    /// Sum over the blocks held from the first on, each with the largest weight of the tiers that
    /// hold it.
    pub fn score(&self) -> f64 {
        Adder::default().add(self.before, self.weight, self.run)
    }

    /// Blocks held from the first on.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Blocks held from the first on within one tier.
    pub fn tiers(&self) -> CachedTiers {
        self.tiers
    }

    fn hold(&mut self, depth: u32, len: u32, tier: Tier, adder: &mut Adder) {
        if self.blocks == depth {
            self.blocks += len;
            self.before = adder.add(self.before, self.weight, self.run);
            (self.weight, self.run) = (tier.weight, len);
        } else if self.blocks == depth + len {
            // The same blocks in another tier.
            self.weight = self.weight.max(tier.weight);
        } else {
            return;
        }
        let run = match tier.run {
            Run::Gpu => &mut self.tiers.gpu,
            Run::Cpu => &mut self.tiers.cpu,
            Run::Other => &mut self.tiers.other,
            Run::Speculative => &mut self.tiers.speculative,
        };
        if *run == depth {
            *run += len;
        }
    }
}

/// Adds a weight over and over, with the roundings of doing that one by one, as the reference does:
/// ten times 0.8 is 7.999…, which truncates to 7.
///
/// Whole numbers are multiplied, which rounds nothing. The last other sum is remembered, since
/// endpoints that hold the same blocks ask for the same.
#[derive(Debug, Default, Clone, Copy)]
struct Adder {
    asked: (f64, f64, u32),
    answer: f64,
}

impl Adder {
    fn add(&mut self, sum: f64, weight: f64, times: u32) -> f64 {
        // The product has at most 20 + 32 bits, and so has the sum of two like it.
        let whole = |x: f64, limit: f64| x.trunc() == x && x.abs() <= limit;
        if whole(weight, f64::from(1 << 20)) && whole(sum, (1_u64 << 52) as f64) {
            return sum + weight * f64::from(times);
        }
        if self.asked != (sum, weight, times) {
            self.asked = (sum, weight, times);
            self.answer = (0..times).fold(sum, |sum, _| sum + weight);
        }
        self.answer
    }
}

/// A walk along the blocks of one prompt, for a number of endpoints.
///
/// ```
/// use inlane_plugins::precise::score::{TierWeights, Walk};
///
/// let weights = TierWeights::default();
/// let (gpu, cpu) = (weights.tier("gpu"), weights.tier("cpu"));
/// let mut walk = Walk::default();
/// walk.begin(2);
/// // Endpoint 0 has blocks 0 and 1 on the GPU and 2 on the CPU; endpoint 1 lacks block 1.
/// walk.block([(0, gpu), (1, gpu)]);
/// walk.block([(0, gpu)]);
/// walk.block([(0, cpu), (1, gpu)]);
/// assert_eq!(walk.standings()[0].score(), 2.8);
/// assert_eq!(walk.standings()[1].score(), 1.0);
/// ```
#[derive(Debug, Default, Clone)]
pub struct Walk {
    standings: Vec<Standing>,
    depth: u32,
    adder: Adder,
    /// Memory for an index to work in.
    pub(super) room: Room,
}

/// Memory of a walk through an index of slots.
#[derive(Debug, Default, Clone)]
pub(super) struct Room {
    /// Blocks held, by slot.
    pub(super) held: Vec<u32>,
    /// Blocks expected, by slot.
    pub(super) expected: Vec<u32>,
    /// Blocks expected and the endpoint, the fewest first.
    pub(super) order: Vec<(u32, EndpointIx)>,
    /// Who holds the present block, as bits by tier and slot.
    pub(super) bits: Vec<Vec<u64>>,
    /// Since when endpoints hold blocks where they do, by endpoint.
    pub(super) places: Vec<Place>,
    /// Endpoints whose place has just changed.
    pub(super) touched: Vec<EndpointIx>,
}

/// Where an endpoint holds the present block.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Place {
    /// A bit per tier, and one for an expectation.
    pub(super) tiers: u16,
    /// Whether it holds all blocks so far.
    pub(super) alive: bool,
    /// Number of the first block that is held like this.
    pub(super) since: u32,
}

impl Walk {
    /// Starts a prompt: nobody holds anything. Keeps the memory.
    pub fn begin(&mut self, endpoints: usize) {
        self.standings.clear();
        self.standings.resize(endpoints, Standing::default());
        self.depth = 0;
    }

    /// The next block: who holds it, and where. Endpoints beyond the number given at the start are
    /// ignored. Returns whether anyone holds all blocks so far; if not, the walk may end.
    pub fn block(&mut self, holders: impl IntoIterator<Item = (usize, Tier)>) -> bool {
        self.run(1, holders)
    }

    /// The next `len` blocks, which all have these holders: the same as as many
    /// [`block`](Self::block)s. Costs as much as one.
    pub fn run(&mut self, len: u32, holders: impl IntoIterator<Item = (usize, Tier)>) -> bool {
        let depth = self.depth;
        // Nobody asks about a prompt of 2^32 blocks; the sums must not overflow all the same.
        let len = len.min(u32::MAX - 1 - depth);
        let mut any = false;
        if len > 0 {
            for (endpoint, tier) in holders {
                self.hold(endpoint, depth, len, tier);
                any |= self.standings.get(endpoint).is_some_and(|s| s.blocks == depth + len);
            }
        }
        self.depth = depth + len;
        any
    }

    /// The endpoint holds `len` blocks from number `from` on in `tier`. To be called for each tier,
    /// front to back, with the same blocks for all tiers.
    pub(super) fn hold(&mut self, endpoint: usize, from: u32, len: u32, tier: Tier) {
        if let Some(standing) = self.standings.get_mut(endpoint) {
            standing.hold(from, len, tier, &mut self.adder);
        }
    }

    /// The endpoint holds the first blocks of the prompt, so many in each of these tiers, and no
    /// others. For an index that knows as much without walking, in place of a walk.
    pub fn prefix(&mut self, endpoint: usize, held: &[(Tier, u32)]) {
        let Some(standing) = self.standings.get_mut(endpoint) else { return };
        *standing = Standing::default();
        let mut depth = 0;
        while let Some(end) = held.iter().map(|(_, len)| *len).filter(|&len| len > depth).min() {
            for &(tier, _) in held.iter().filter(|(_, len)| *len >= end) {
                standing.hold(depth, end - depth, tier, &mut self.adder);
            }
            depth = end;
        }
    }

    /// Blocks walked so far.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// What each endpoint holds.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// What each endpoint holds, and its score. Cheaper than [`Standing::score`] for many.
    pub fn scored(&mut self) -> impl Iterator<Item = (&Standing, f64)> {
        let adder = &mut self.adder;
        self.standings.iter().map(|s| (s, adder.add(s.before, s.weight, s.run)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Walks blocks given as lists of (endpoint, tier name).
    fn walk(endpoints: usize, weights: &TierWeights, blocks: &[&[(usize, &str)]]) -> Walk {
        let mut walk = Walk::default();
        walk.begin(endpoints);
        for holders in blocks {
            walk.block(holders.iter().map(|(endpoint, name)| match *name {
                "" => (*endpoint, Tier::SPECULATIVE),
                name => (*endpoint, weights.tier(name)),
            }));
        }
        walk
    }

    #[test]
    fn the_example_of_the_reference() {
        // A: gpu at 0..3; B: cpu, gpu+cpu, cpu; C: gpu at 1..4; D: storage at 0; E: speculative 0, 1.
        let (a, b, c, d, e) = (0, 1, 2, 3, 4);
        let blocks: [&[(usize, &str)]; 5] = [
            &[(a, "gpu"), (b, "cpu"), (d, "storage"), (e, "")],
            &[(a, "gpu"), (b, "cpu"), (b, "gpu"), (c, "gpu"), (e, "")],
            &[(a, "gpu"), (b, "cpu"), (c, "gpu")],
            &[(a, "gpu"), (c, "gpu")],
            &[(c, "gpu")],
        ];
        let walk = walk(5, &TierWeights::default(), &blocks);
        let scores: Vec<f64> = walk.standings().iter().map(Standing::score).collect();
        assert_eq!(scores, [4.0, 0.8 + 1.0 + 0.8, 0.0, 1.0, 2.0]);
        let held: Vec<u32> = walk.standings().iter().map(Standing::blocks).collect();
        assert_eq!(held, [4, 3, 0, 1, 2]);
        let tiers = |ix: usize| walk.standings()[ix].tiers();
        assert_eq!(tiers(b), CachedTiers { cpu: 3, ..Default::default() });
        assert_eq!(tiers(d), CachedTiers { other: 1, ..Default::default() });
        assert_eq!(tiers(e), CachedTiers { speculative: 2, ..Default::default() });
    }

    #[test]
    fn a_run_stays_within_its_tier() {
        let blocks: [&[(usize, &str)]; 3] = [&[(0, "gpu")], &[(0, "gpu")], &[(0, "cpu")]];
        let walk = walk(1, &TierWeights::default(), &blocks);
        let standing = walk.standings()[0];
        assert_eq!((standing.score(), standing.blocks()), (2.8, 3));
        assert_eq!(standing.tiers(), CachedTiers { gpu: 2, ..Default::default() });
    }

    #[test]
    fn an_endpoint_may_appear_more_than_once_for_a_block() {
        let blocks: [&[(usize, &str)]; 2] =
            [&[(0, "gpu"), (0, "cpu"), (0, "gpu")], &[(0, "cpu"), (0, "cpu")]];
        let walk = walk(1, &TierWeights::default(), &blocks);
        let standing = walk.standings()[0];
        assert_eq!((standing.score(), standing.blocks()), (1.8, 2));
        assert_eq!(standing.tiers(), CachedTiers { gpu: 1, cpu: 2, ..Default::default() });
    }

    #[test]
    fn the_walk_says_when_nobody_is_left() {
        let weights = TierWeights::default();
        let gpu = weights.tier("gpu");
        let mut walk = Walk::default();
        walk.begin(1);
        assert!(walk.block([(0, gpu)]));
        assert!(!walk.block([(7, gpu)]), "not asked about");
        assert!(!walk.block([(0, gpu)]), "a hole before it");
        walk.begin(2);
        assert_eq!(walk.standings(), [Standing::default(); 2]);
    }

    #[test]
    fn weights_replace_each_other() {
        let weights =
            TierWeights::new([("gpu".into(), 3.0), ("disk".into(), 0.1), ("gpu".into(), 2.0)]);
        assert_eq!(weights.tier("gpu").weight, 2.0);
        assert_eq!(weights.tier("disk").weight, 0.1);
        assert_eq!(weights.tier("cpu").weight, 1.0);
    }

    #[test]
    fn sums_are_those_of_adding_one_by_one() {
        let weights = TierWeights::default();
        let mut walk = Walk::default();
        walk.begin(1);
        walk.run(10, [(0, weights.tier("cpu"))]);
        assert_eq!(walk.standings()[0].score() as u32, 7, "0.8 ten times is less than 8");
        assert_eq!(walk.scored().map(|(_, score)| score as u32).collect::<Vec<_>>(), [7]);
        walk.begin(1);
        walk.prefix(0, &[(weights.tier("gpu"), u32::MAX - 1)]);
        assert_eq!(walk.standings()[0].score(), f64::from(u32::MAX - 1));
    }

    #[test]
    fn a_walk_beyond_all_blocks_stands_still() {
        let gpu = TierWeights::default().tier("gpu");
        let mut walk = Walk::default();
        walk.begin(1);
        assert!(walk.run(u32::MAX, [(0, gpu)]));
        assert!(!walk.run(u32::MAX, [(0, gpu)]) && !walk.block([(0, gpu)]));
        assert_eq!((walk.depth(), walk.standings()[0].blocks()), (u32::MAX - 1, u32::MAX - 1));
    }

    fn tiers() -> impl Strategy<Value = Vec<Tier>> {
        let weight = prop_oneof![
            Just(1.0),
            Just(0.8),
            Just(0.0),
            Just(-0.5),
            Just(3.0),
            Just(1e-9),
            -10.0..10.0f64
        ];
        proptest::collection::vec(weight, 3).prop_map(|weights| {
            let names = ["gpu", "cpu", "disk"];
            let named = names.map(str::to_owned).into_iter().zip(weights);
            let weights = TierWeights::new(named);
            names.map(|name| weights.tier(name)).into_iter().chain([Tier::SPECULATIVE]).collect()
        })
    }

    proptest! {
        #[test]
        fn runs_are_as_good_as_blocks(
            tiers in tiers(),
            runs in proptest::collection::vec(
                (1..60u32, proptest::collection::vec((0..5usize, 0..4usize), 0..8)),
                0..8,
            ),
        ) {
            let (mut by_run, mut by_block) = (Walk::default(), Walk::default());
            by_run.begin(4);
            by_block.begin(4);
            for (len, holders) in &runs {
                let holders = || holders.iter().map(|&(endpoint, tier)| (endpoint, tiers[tier]));
                let any = by_run.run(*len, holders());
                for _ in 0..*len {
                    prop_assert_eq!(by_block.block(holders()), any);
                }
            }
            prop_assert_eq!(by_run.depth(), by_block.depth());
            let scores = |walk: &mut Walk| -> Vec<u64> {
                walk.scored().map(|(_, score)| score.to_bits()).collect()
            };
            prop_assert_eq!(scores(&mut by_run), scores(&mut by_block));
            for (run, block) in by_run.standings().iter().zip(by_block.standings()) {
                prop_assert_eq!(run.score().to_bits(), block.score().to_bits());
                prop_assert_eq!((run.blocks(), run.tiers()), (block.blocks(), block.tiers()));
            }
        }

        #[test]
        fn prefixes_are_as_good_as_blocks(
            tiers in tiers(),
            held in proptest::collection::vec((0..4usize, 0..90u32), 0..4),
        ) {
            let held: Vec<_> = held.into_iter().map(|(tier, len)| (tiers[tier], len)).collect();
            let (mut prefix, mut block) = (Walk::default(), Walk::default());
            prefix.begin(1);
            block.begin(1);
            prefix.prefix(0, &held);
            for depth in 0..90 {
                let here = held.iter().filter(|(_, len)| *len > depth);
                block.block(here.map(|(tier, _)| (0, *tier)));
            }
            let seen = |walk: &Walk| {
                let s = walk.standings()[0];
                (s.score().to_bits(), s.blocks(), s.tiers())
            };
            prop_assert_eq!(seen(&prefix), seen(&block));
        }
    }
}
