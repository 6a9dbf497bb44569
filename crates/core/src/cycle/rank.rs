//! The ranking: where a request goes when its first choice fails.
//!
//! Targets first, then the best of the other candidates by total; equal totals in random order.
//! One pass over the candidates with a sorted list of at most [`RANKING`] entries: a list of
//! 10,000 is never sorted. An endpoint's place among its equals is a hash of the seed and its
//! index, so that the order is uniform and repeatable.

use crate::decision::RANKING;
use crate::endpoint::EndpointIx;
use crate::rng::Rng;

/// Salt of the tie-breaking stream, apart from those that plugins use.
const TIES: u64 = 0x7469_6573_7469_6573;

#[derive(Clone, Copy)]
struct Entry {
    total: f64,
    tie: u64,
    endpoint: EndpointIx,
}

impl Entry {
    fn beats(&self, other: &Self) -> bool {
        self.total > other.total || (self.total == other.total && self.tie > other.tie)
    }
}

/// Writes the ranking of `candidates` into `ranking`, `targets` first.
pub(crate) fn rank(
    candidates: &[EndpointIx],
    totals: &[f64],
    targets: &[EndpointIx],
    seed: u64,
    ranking: &mut Vec<EndpointIx>,
) {
    ranking.clear();
    ranking.extend(targets.iter().take(RANKING));
    let room = RANKING - ranking.len();
    if room == 0 {
        return;
    }
    let nobody = Entry { total: f64::NEG_INFINITY, tie: 0, endpoint: 0 };
    let mut best = [nobody; RANKING];
    let mut len = 0;
    // Below this total nobody enters. Rejects most candidates with one comparison.
    let mut floor = f64::NEG_INFINITY;
    for (&endpoint, &total) in candidates.iter().zip(totals) {
        if total < floor || targets.contains(&endpoint) {
            continue;
        }
        let tie = Rng::new(seed ^ TIES ^ (u64::from(endpoint) << 32)).next_u64();
        let entry = Entry { total, tie, endpoint };
        let full = len == room;
        if full && !entry.beats(&best[len - 1]) {
            continue;
        }
        let mut place = if full { len - 1 } else { len };
        while place > 0 && entry.beats(&best[place - 1]) {
            best[place] = best[place - 1];
            place -= 1;
        }
        best[place] = entry;
        if !full {
            len += 1;
        }
        if len == room {
            floor = best[len - 1].total;
        }
    }
    ranking.extend(best[..len].iter().map(|e| e.endpoint));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(totals: &[f64], targets: &[EndpointIx], seed: u64) -> Vec<EndpointIx> {
        let candidates: Vec<EndpointIx> = (0..).take(totals.len()).collect();
        let mut ranking = Vec::new();
        rank(&candidates, totals, targets, seed, &mut ranking);
        ranking
    }

    #[test]
    fn targets_come_first_then_totals() {
        assert_eq!(ranked(&[0.1, 0.9, 0.5, 0.7], &[0], 3), [0, 1, 3, 2]);
        assert_eq!(ranked(&[-1.0, f64::NEG_INFINITY], &[], 3), [0, 1]);
    }

    #[test]
    fn agrees_with_a_sort() {
        let mut rng = Rng::new(5);
        for len in [1, 15, 16, 17, 400] {
            let totals: Vec<f64> = (0..len).map(|_| rng.unit()).collect();
            let mut sorted: Vec<EndpointIx> = (0..len).collect();
            sorted.sort_by(|&a, &b| totals[b as usize].total_cmp(&totals[a as usize]));
            sorted.truncate(RANKING);
            assert_eq!(ranked(&totals, &[], 9), sorted);
        }
    }

    #[test]
    fn equals_are_ordered_uniformly() {
        // 40 equals: each should lead in 1/40 of 20,000 rankings (500, sd 22).
        let totals = [1.0; 40];
        let mut led = [0u32; 40];
        for seed in 0..20_000 {
            led[ranked(&totals, &[], seed)[0] as usize] += 1;
        }
        assert!(led.iter().all(|&n| (390..610).contains(&n)), "{led:?}");
    }

    #[test]
    fn many_targets_fill_the_ranking() {
        let targets: Vec<EndpointIx> = (0..30).rev().collect();
        assert_eq!(ranked(&[0.0; 40], &targets, 1), &targets[..RANKING]);
    }
}
