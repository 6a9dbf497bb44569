//! Pods that store, evict and store again chains of blocks, as engines report it, and who holds what.
//!
//! Half of each chain is shared with 1/64 of all chains. A pod stores a block once, as engines do: of
//! a chain whose front it holds already it stores the rest, below its parent. It evicts from the tail,
//! and never a block that another of its chains needs.

use std::fmt;
use std::str::FromStr;

/// Chains that share their first half.
const GROUPS: usize = 64;
/// Blocks of one event at most: a prefill step of 8,192 tokens.
const EVENT_BLOCKS: usize = 512;
/// Blocks that an event removes, as vLLM reports it.
pub const ONE_BY_ONE: usize = 1;
/// As a consumer may join what a step of an engine removed.
pub const JOINED: usize = EVENT_BLOCKS;

/// SplitMix64's finalizer: a bijection, so blocks that differ have keys that differ.
pub fn mix(of: u64) -> u64 {
    let of = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let of = (of ^ of >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let of = (of ^ of >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    of ^ of >> 31
}

/// As an engine names the block that requests ask for by `key`.
pub fn engine(key: u64) -> u64 {
    key.rotate_left(23) ^ 0x5555
}

/// What a fleet looks like: written `pods x chains of a pod x depth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Endpoints.
    pub pods: usize,
    /// Chains that each pod stores.
    pub chains: usize,
    /// Blocks of a chain.
    pub depth: usize,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.pods, self.chains, self.depth)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<usize> = text.split('x').filter_map(|part| part.parse().ok()).collect();
        match numbers[..] {
            [pods, chains, depth] if pods > 0 && chains > 0 && depth > 1 => {
                Ok(Self { pods, chains, depth })
            }
            _ => Err(format!("expected PODSxCHAINSxDEPTH, found `{text}`")),
        }
    }
}

/// What a pod reports.
#[derive(Debug, Clone)]
pub enum Event {
    /// It holds blocks, below the block `parent` if that is not the front of the prompt.
    Stored {
        /// Who.
        pod: u32,
        /// Engine hash of the block before.
        parent: Option<u64>,
        /// Keys by which requests ask for the blocks, front to back.
        keys: Vec<u64>,
    },
    /// It has evicted the blocks of these keys, in this order.
    Removed {
        /// Who.
        pod: u32,
        /// Keys of the blocks (engines name them by [`engine`] of these).
        keys: Vec<u64>,
    },
    /// It holds nothing any more.
    Cleared {
        /// Who.
        pod: u32,
    },
}

impl Event {
    /// Block operations: none if it is not known how many.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Cleared { .. } => 0,
            Self::Stored { keys, .. } | Self::Removed { keys, .. } => keys.len(),
        }
    }
}

/// Longest prefix of each pod that holds any of it, by pod.
pub type Answer = Vec<(u32, u32)>;

/// The pods, and how many blocks of each chain they hold.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Its shape.
    pub mix: Mix,
    group: Vec<usize>,
    /// Chains by group.
    groups: Vec<Vec<usize>>,
    held: Vec<usize>,
    rng: fastrand::Rng,
}

impl Fleet {
    /// A fleet that holds nothing yet.
    pub fn new(mix: Mix, seed: u64) -> Self {
        let group: Vec<_> = (0..mix.pods * mix.chains)
            .map(|chain| (mix_of(seed, chain) % GROUPS as u64) as usize)
            .collect();
        let mut groups = vec![Vec::new(); GROUPS];
        for (chain, &group) in group.iter().enumerate() {
            groups[group].push(chain);
        }
        let held = vec![0; group.len()];
        Self { mix, group, groups, held, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Number of chains, over all pods.
    pub fn chains(&self) -> usize {
        self.group.len()
    }

    /// Blocks held, over all pods: each counts once per pod that holds it.
    pub fn total(&self) -> usize {
        let half = self.half();
        let private: usize = self.held.iter().map(|held| held.saturating_sub(half)).sum();
        let mut shared = 0;
        for group in &self.groups {
            let mut by_pod: Vec<_> =
                group.iter().map(|&at| (self.pod(at), self.held[at].min(half))).collect();
            by_pod.sort_unstable_by_key(|&(pod, held)| (pod, usize::MAX - held));
            by_pod.dedup_by_key(|&mut (pod, _)| pod);
            shared += by_pod.iter().map(|&(_, held)| held).sum::<usize>();
        }
        private + shared
    }

    /// Keys of a chain's first `depth` blocks.
    pub fn keys(&self, chain: usize, depth: usize) -> Vec<u64> {
        (0..depth).map(|at| self.key(chain, at)).collect()
    }

    /// Keys of a prompt that nobody has ever seen.
    pub fn strange(number: usize, depth: usize) -> Vec<u64> {
        (0..depth).map(|at| mix(u64::MAX - ((number as u64) << 20 | at as u64))).collect()
    }

    fn key(&self, chain: usize, at: usize) -> u64 {
        let prompt = if at < self.half() { self.group[chain] } else { GROUPS + chain };
        mix((prompt as u64) << 20 | at as u64)
    }

    fn half(&self) -> usize {
        self.mix.depth / 2
    }

    fn pod(&self, chain: usize) -> u32 {
        (chain % self.mix.pods) as u32
    }

    /// Other chains of the pod that share the first half of this one.
    fn siblings(&self, chain: usize) -> impl Iterator<Item = usize> + '_ {
        let chains = (chain % self.mix.pods..self.chains()).step_by(self.mix.pods);
        chains.filter(move |&other| other != chain && self.group[other] == self.group[chain])
    }

    /// What of the chain must stay, since other chains of the pod may need it.
    fn least(&self, chain: usize) -> usize {
        if self.siblings(chain).next().is_some() { self.half() } else { 0 }
    }

    /// Every chain, in an order of chance.
    pub fn shuffled(&mut self) -> Vec<usize> {
        let mut chains: Vec<_> = (0..self.chains()).collect();
        self.rng.shuffle(&mut chains);
        chains
    }

    /// The pod stores what it lacks of the chain.
    pub fn store(&mut self, chain: usize, events: &mut Vec<Event>) {
        let shared = self.siblings(chain).map(|other| self.held[other].min(self.half())).max();
        let mut from = self.held[chain].max(shared.unwrap_or(0));
        while from < self.mix.depth {
            let to = self.mix.depth.min(from + EVENT_BLOCKS);
            events.push(Event::Stored {
                pod: self.pod(chain),
                parent: from.checked_sub(1).map(|at| engine(self.key(chain, at))),
                keys: (from..to).map(|at| self.key(chain, at)).collect(),
            });
            from = to;
        }
        self.held[chain] = self.mix.depth;
    }

    /// Every pod gives up everything.
    pub fn clear(&mut self) -> Vec<Event> {
        self.held.fill(0);
        (0..self.mix.pods as u32).map(|pod| Event::Cleared { pod }).collect()
    }

    /// The pod keeps the chain's first `keep` blocks.
    fn evict(&mut self, chain: usize, keep: usize, joined: usize, events: &mut Vec<Event>) {
        let tail: Vec<_> = (keep..self.held[chain]).rev().map(|at| self.key(chain, at)).collect();
        for keys in tail.chunks(joined) {
            events.push(Event::Removed { pod: self.pod(chain), keys: keys.to_vec() });
        }
        self.held[chain] = keep;
    }

    /// Chains `0, 4, 8 …` lose a tail of random length, or get back what they lost: at least `blocks`
    /// block operations. An event removes up to `joined` blocks; vLLM's remove [one](ONE_BY_ONE) each.
    pub fn churn(&mut self, blocks: usize, joined: usize) -> Vec<Event> {
        let (mut events, mut done) = (Vec::new(), 0);
        while done < blocks {
            let chain = self.rng.usize(..self.chains().div_ceil(4)) * 4;
            let first = events.len();
            if self.held[chain] == self.mix.depth {
                let keep = self.rng.usize(self.least(chain)..self.mix.depth);
                self.evict(chain, keep, joined, &mut events);
            } else {
                self.store(chain, &mut events);
            }
            done += events[first..].iter().map(Event::blocks).sum::<usize>();
        }
        events
    }

    /// Whether [`Fleet::churn`] never touches the chain.
    pub fn is_steady(chain: usize) -> bool {
        !chain.is_multiple_of(4)
    }

    /// Who holds how much of a chain's first `depth` blocks, now.
    pub fn answer(&self, chain: usize, depth: usize) -> Answer {
        self.answer_if(chain, depth, |chain| self.held[chain])
    }

    /// The least and the most that a lookup may find while [`Fleet::churn`] goes on.
    pub fn bounds(&self, chain: usize, depth: usize) -> (Answer, Answer) {
        let least = |at| if Self::is_steady(at) { self.mix.depth } else { self.least(at) };
        (self.answer_if(chain, depth, least), self.answer_if(chain, depth, |_| self.mix.depth))
    }

    fn answer_if(&self, chain: usize, depth: usize, held: impl Fn(usize) -> usize) -> Answer {
        let group = &self.groups[self.group[chain]];
        let mut found: Vec<_> = group
            .iter()
            .map(|&at| {
                let same = if at == chain { self.mix.depth } else { self.half() };
                (self.pod(at), held(at).min(same).min(depth) as u32)
            })
            .filter(|&(_, blocks)| blocks > 0)
            .collect();
        found.sort_unstable_by_key(|&(pod, blocks)| (pod, u32::MAX - blocks));
        found.dedup_by_key(|&mut (pod, _)| pod);
        found
    }
}

fn mix_of(seed: u64, chain: usize) -> u64 {
    mix(seed << 32 ^ chain as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const MIX: Mix = Mix { pods: 10, chains: 20, depth: 16 };

    /// Applies events to sets, insisting on what engines guarantee.
    fn apply(held: &mut HashMap<u32, HashSet<u64>>, events: &[Event]) {
        for event in events {
            match event {
                Event::Stored { pod, parent, keys } => {
                    let set = held.entry(*pod).or_default();
                    let engines: HashSet<_> = set.iter().map(|&key| engine(key)).collect();
                    assert!(parent.is_none_or(|parent| engines.contains(&parent)));
                    assert!(keys.iter().all(|&key| set.insert(key)), "stored twice");
                }
                Event::Removed { pod, keys } => {
                    let set = held.entry(*pod).or_default();
                    assert!(keys.iter().all(|key| set.remove(key)), "removed but not held");
                }
                Event::Cleared { pod } => held.entry(*pod).or_default().clear(),
            }
        }
    }

    #[test]
    fn answers_are_those_of_the_events() {
        let mut fleet = Fleet::new(MIX, 3);
        let mut events = Vec::new();
        for chain in fleet.shuffled() {
            fleet.store(chain, &mut events);
        }
        let mut held = HashMap::new();
        apply(&mut held, &events);
        apply(&mut held, &fleet.clear());
        assert_eq!(fleet.total(), 0);
        apply(&mut held, &events);
        for chain in 0..fleet.chains() {
            fleet.store(chain, &mut Vec::new());
        }
        for round in 0..20 {
            apply(&mut held, &fleet.churn(300, 1 + round % 5));
            assert_eq!(fleet.total(), held.values().map(HashSet::len).sum::<usize>());
            for chain in 0..fleet.chains() {
                for depth in [5, 16] {
                    let keys = fleet.keys(chain, depth);
                    let mut found: Vec<_> = held
                        .iter()
                        .map(|(&pod, set)| {
                            (pod, keys.iter().take_while(|key| set.contains(key)).count() as u32)
                        })
                        .filter(|&(_, blocks)| blocks > 0)
                        .collect();
                    found.sort_unstable();
                    assert_eq!(fleet.answer(chain, depth), found);
                    let (least, most) = fleet.bounds(chain, depth);
                    assert!(is_within(&least, &found) && is_within(&found, &most));
                }
            }
        }
    }

    fn is_within(less: &Answer, more: &Answer) -> bool {
        let more: HashMap<_, _> = more.iter().copied().collect();
        less.iter().all(|(pod, blocks)| more.get(pod).is_some_and(|most| blocks <= most))
    }

    #[test]
    fn shapes_are_read_back() {
        assert_eq!("10x20x16".parse(), Ok(MIX));
        assert_eq!(MIX.to_string(), "10x20x16");
        for bad in ["", "10x20", "0x1x2", "1x2x3x4", "axbxc"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
