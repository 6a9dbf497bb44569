//! Which endpoint each request of a window goes to.
//!
//! ```text
//! units      requests with the same blocks, two or more; and, with m > 0, single requests whose
//!            first m blocks are those of another request
//! order      the former before the latter, each by number of blocks, longest first
//! fair share ceil(sum over units / endpoints)
//! placement  with m > 0 first where most of the unit's blocks are, at least m, below fair share;
//!            else and for what is over maxPerReplica the endpoint with the least load
//! ```
//!
//! Load counts requests, or with [`Balance::Tokens`] the blocks that an endpoint has to compute for
//! the first time. Equal load: fewer running requests, then the order of endpoints. The rules are
//! those of llm-d-router `burst-prefix-cache-producer`.
//!
//! Cost: linear in requests (and their blocks, where blocks are compared) plus units times
//! endpoints.

use std::collections::HashMap;

use xxhash_rust::xxh64::Xxh64;

use super::Entry;

/// What load counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balance {
    Requests,
    Tokens,
}

/// How requests are placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Requests of one unit per endpoint; `None` = all.
    pub(crate) per_replica: Option<usize>,
    /// Leading blocks that requests must share to be placed together; 0 = only equal ones are.
    pub(crate) min_shared: usize,
    /// What load counts.
    pub(crate) balance: Balance,
}

/// The index of the endpoint that each entry goes to, of endpoints with so many running requests;
/// `None` = anywhere.
pub(crate) fn assign(entries: &[Entry], rules: Rules, running: &[u32]) -> Vec<Option<usize>> {
    let mut placed = vec![None; entries.len()];
    if running.is_empty() {
        return placed;
    }
    let units = units(entries, rules.min_shared);
    let weight = |unit: &Unit| match rules.balance {
        Balance::Requests => unit.members.len(),
        Balance::Tokens => unit.blocks.len(),
    };
    let share = units.iter().map(weight).sum::<usize>().div_ceil(running.len());
    let mut pool =
        Pool { rules, share, running, load: vec![0; running.len()], holders: HashMap::new() };
    for unit in &units {
        pool.place(unit, &mut placed);
    }
    placed
}

/// Requests that are placed together.
struct Unit<'a> {
    blocks: &'a [u64],
    /// Indices of the entries.
    members: Vec<usize>,
}

/// The units in the order of placement.
fn units(entries: &[Entry], min_shared: usize) -> Vec<Unit<'_>> {
    let mut by_blocks: HashMap<u64, usize> = HashMap::new();
    let mut groups: Vec<Unit<'_>> = Vec::new();
    for (entry, at) in entries.iter().zip(0..).filter(|(entry, _)| !entry.blocks.is_empty()) {
        let group = *by_blocks.entry(digest(&entry.blocks)).or_insert_with(|| {
            groups.push(Unit { blocks: &entry.blocks, members: Vec::new() });
            groups.len() - 1
        });
        groups[group].members.push(at);
    }
    let start = |unit: &Unit<'_>| unit.blocks.get(..min_shared).map(digest);
    let mut sharing: HashMap<u64, usize> = HashMap::new();
    if min_shared > 0 {
        for unit in &groups {
            if let Some(start) = start(unit) {
                *sharing.entry(start).or_default() += unit.members.len();
            }
        }
    }
    let shares = |unit: &Unit<'_>| {
        min_shared > 0 && start(unit).and_then(|s| sharing.get(&s)).is_some_and(|&n| n >= 2)
    };
    groups.retain(|unit| unit.members.len() >= 2 || shares(unit));
    groups.sort_by_key(|unit| (unit.members.len() < 2, std::cmp::Reverse(unit.blocks.len())));
    groups
}

fn digest(blocks: &[u64]) -> u64 {
    let mut hasher = Xxh64::new(0);
    blocks.iter().for_each(|block| hasher.update(&block.to_le_bytes()));
    hasher.digest()
}

/// The endpoints while units are placed.
struct Pool<'a> {
    rules: Rules,
    share: usize,
    running: &'a [u32],
    load: Vec<usize>,
    /// Endpoints that blocks have been placed on.
    holders: HashMap<u64, Vec<usize>>,
}

impl Pool<'_> {
    fn place(&mut self, unit: &Unit<'_>, placed: &mut [Option<usize>]) {
        let Rules { per_replica, min_shared, balance } = self.rules;
        let compares = min_shared > 0 || balance == Balance::Tokens;
        let held = if compares { self.held(unit.blocks) } else { Vec::new() };
        let held = |at: usize| held.get(at).copied().unwrap_or(0);
        let mut taken = vec![0; self.load.len()];
        let mut left = unit.members.as_slice();
        let mut first = min_shared > 0;
        while !left.is_empty() {
            let has_room = |at: usize| per_replica.is_none_or(|most| taken[at] < most);
            let near =
                |at: usize| has_room(at) && self.load[at] < self.share && held(at) >= min_shared;
            let nearest = if first { self.nearest(near, held) } else { None };
            let least = || self.least(has_room).or_else(|| self.least(|_| true));
            let Some(at) = nearest.or_else(least) else { return };
            first = false;
            let room = per_replica.map_or(left.len(), |most| most.saturating_sub(taken[at]).max(1));
            let (now, later) = left.split_at(room.min(left.len()));
            left = later;
            for &entry in now {
                placed[entry] = Some(at);
            }
            match balance {
                Balance::Requests => self.load[at] += now.len(),
                Balance::Tokens if taken[at] == 0 => {
                    self.load[at] += unit.blocks.len().saturating_sub(held(at));
                }
                Balance::Tokens => {}
            }
            taken[at] += now.len();
        }
        if compares {
            let on: Vec<usize> =
                (0..).zip(&taken).filter(|(_, n)| **n > 0).map(|(at, _)| at).collect();
            for block in unit.blocks {
                let holders = self.holders.entry(*block).or_default();
                holders.extend(on.iter().filter(|at| !holders.contains(at)).collect::<Vec<_>>());
            }
        }
    }

    /// Blocks that each endpoint has of the start, up to the first that nobody has.
    fn held(&self, blocks: &[u64]) -> Vec<usize> {
        let mut held = vec![0; self.load.len()];
        for holders in blocks.iter().map_while(|block| self.holders.get(block)) {
            holders.iter().for_each(|&at| held[at] += 1);
        }
        held
    }

    fn order(&self, at: usize) -> (usize, u32, usize) {
        (self.load[at], self.running[at], at)
    }

    fn least(&self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.load.len()).filter(|&at| fits(at)).min_by_key(|&at| self.order(at))
    }

    fn nearest(
        &self,
        fits: impl Fn(usize) -> bool,
        held: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        let fitting = (0..self.load.len()).filter(|&at| fits(at));
        fitting.min_by_key(|&at| (std::cmp::Reverse(held(at)), self.order(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { per_replica: None, min_shared: 0, balance: Balance::Requests };

    /// Places prompts given as letters, one per block; a block stands for its whole prefix.
    fn place(prompts: &[&str], rules: Rules, running: &[u32]) -> String {
        let entry = |prompt: &&str| {
            let blocks = (1..=prompt.len()).map(|end| {
                let mut hasher = Xxh64::new(1);
                hasher.update(&prompt.as_bytes()[..end]);
                hasher.digest()
            });
            Entry { blocks: blocks.collect() }
        };
        let entries: Vec<Entry> = prompts.iter().map(entry).collect();
        let name = |at: Option<usize>| at.map_or('-', |at| char::from(b'a' + at as u8));
        assign(&entries, rules, running).into_iter().map(name).collect()
    }

    #[test]
    fn equal_prompts_go_together_up_to_the_limit() {
        let three = Rules { per_replica: Some(3), ..RULES };
        assert_eq!(place(&["p", "p", "p", "p", "q", "q"], three, &[0, 0]), "aaabbb");
        assert_eq!(place(&["p", "p", "p", "p", "q", "q"], RULES, &[0, 0]), "aaaabb");
        let one = Rules { per_replica: Some(1), ..RULES };
        assert_eq!(place(&["p", "p", "p", "p", "p"], one, &[0, 0]), "ababa");
    }

    #[test]
    fn lone_requests_go_anywhere() {
        assert_eq!(place(&["p", "q", "", ""], RULES, &[0, 0]), "----");
        assert_eq!(place(&["p", "p"], RULES, &[]), "--");
        assert_eq!(place(&[], RULES, &[0]), "");
    }

    #[test]
    fn idle_endpoints_come_first() {
        assert_eq!(place(&["p", "p"], RULES, &[2, 1, 1]), "bb");
    }

    #[test]
    fn longer_prompts_are_placed_first() {
        assert_eq!(place(&["p", "p", "qqq", "qqq"], RULES, &[0, 0]), "bbaa");
    }

    #[test]
    fn prompts_that_share_enough_are_placed_together() {
        let two = Rules { min_shared: 2, ..RULES };
        // Fair share 2: the group fills a, so the request that shares its start goes to b.
        assert_eq!(place(&["xyz", "xyz", "xyw"], two, &[0, 0]), "aab");
        // Fair share 3 with another group: there is room beside it.
        assert_eq!(place(&["xyz", "xyz", "xyw", "q", "q"], two, &[0, 0]), "aaabb");
        assert_eq!(place(&["xyz", "xaz"], two, &[0, 0]), "--");
        assert_eq!(place(&["x", "xyz"], two, &[0, 0]), "--");
        assert_eq!(place(&["xy", "xyz"], two, &[0, 0]), "ba");
        assert_eq!(place(&["xy", "xyz"], two, &[0]), "aa");
    }

    #[test]
    fn tokens_are_charged_once_per_endpoint() {
        let tokens = Rules { balance: Balance::Tokens, ..RULES };
        // 4 blocks on a, then 1 on b, then b again: it has computed less.
        let prompts = ["pppp", "pppp", "pppp", "q", "q", "r", "r"];
        assert_eq!(place(&prompts, tokens, &[0, 0]), "aaabbbb");
        assert_eq!(place(&prompts, RULES, &[0, 0]), "aaabbbb");
        let prompts = ["pp", "pp", "pp", "qq", "qq", "r", "r"];
        assert_eq!(place(&prompts, tokens, &[0, 0]), "aaabbaa");
        assert_eq!(place(&prompts, RULES, &[0, 0]), "aaabbbb");
    }
}
