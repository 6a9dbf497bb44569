//! The longest prefix that each endpoint holds, weighted by the tiers that hold it.
//!
//! Pure arithmetic on what an index answers, block by block. No index is needed to use it: the
//! producer drives it from one, tests and tools from a table.

use inlane_core::columns::CachedTiers;

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
    /// Sum of the weights before the last block.
    before: f64,
    /// Weight of the last block.
    last: f64,
    /// Blocks held, from the first on.
    blocks: u32,
    /// Blocks held from the first on, by tier.
    tiers: CachedTiers,
}

impl Standing {
    /// Sum over the blocks held from the first on, each with the largest weight of the tiers that
    /// hold it.
    pub fn score(&self) -> f64 {
        self.before + self.last
    }

    /// Blocks held from the first on.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Blocks held from the first on within one tier.
    pub fn tiers(&self) -> CachedTiers {
        self.tiers
    }

    fn hold(&mut self, depth: u32, tier: Tier) {
        if self.blocks == depth {
            self.blocks += 1;
            self.before += self.last;
            self.last = tier.weight;
        } else if self.blocks == depth + 1 {
            self.last = self.last.max(tier.weight);
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
            *run += 1;
        }
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
        let mut any = false;
        for (endpoint, tier) in holders {
            if let Some(standing) = self.standings.get_mut(endpoint) {
                standing.hold(self.depth, tier);
                any |= standing.blocks == self.depth + 1;
            }
        }
        self.depth = self.depth.saturating_add(1).min(u32::MAX - 1);
        any
    }

    /// What each endpoint holds.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }
}

#[cfg(test)]
mod tests {
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
}
