//! How good the choices are: a pool in virtual time.
//!
//! Real decisions (a compiled configuration with its producers, prefix index and bookings) send
//! simulated requests to simulated engines, those of `inlane-sim`: queueing, block cache with
//! eviction, times to first and next token that grow with what is not cached and with what runs.
//! Time jumps from event to event, so that minutes of 512 pods take seconds, and the same seed gives
//! the same table on every machine. What is not simulated: the network, engine steps in which prompts
//! slow others' tokens down, more than one proxy.
//!
//! The scheduler sees engine metrics as they were at the last scrape, every [`SCRAPE`], and its own
//! bookings at once.

mod policies;
mod pool;
mod report;
mod router;
mod workload;

use std::time::Duration;

pub use policies::{POLICIES, Policy};
pub use report::table;
pub use workload::Workload;

use crate::Fallible;

/// Time between two scrapes.
pub const SCRAPE: Duration = Duration::from_millis(50);

/// One run.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What is asked.
    pub workload: Workload,
    /// Pods.
    pub pods: u32,
    /// How long requests arrive, virtual time.
    pub length: Duration,
    /// Leading part of the run that is not counted, while caches fill.
    pub warm_up: Duration,
    /// Seed of arrivals, prompts and choices.
    pub seed: u64,
}

/// What came of a run; requests that arrived in the warm-up are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Requests answered.
    pub requests: usize,
    /// Time to the first token, mean, s.
    pub ttft_mean: f64,
    /// Time to the first token, 95th percentile, s.
    pub ttft_p95: f64,
    /// From arrival to the last token, mean, s.
    pub total_mean: f64,
    /// Prompt tokens found in the engine's cache, of all.
    pub hit_ratio: f64,
    /// Requests at the fullest pod, running and waiting, over the mean of all pods; mean over time.
    pub imbalance: f64,
}

impl Scenario {
    /// Runs the scenario under a policy.
    ///
    /// # Errors
    /// A configuration that is refused, for instance because it names a plugin that is not built in.
    pub fn run(&self, policy: &Policy) -> Fallible<Outcome> {
        pool::Pool::new(self, policy)?.run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(workload: Workload) -> Scenario {
        let (length, warm_up) = (Duration::from_secs(20), Duration::from_secs(5));
        Scenario { workload, pods: 4, length, warm_up, seed: 1 }
    }

    fn run(workload: Workload, policy: &str) -> Outcome {
        let policy = POLICIES.iter().find(|p| p.name == policy).expect(policy);
        scenario(workload).run(policy).expect("a run")
    }

    #[test]
    fn a_seed_gives_the_same_outcome() {
        assert_eq!(run(Workload::Burst, "random"), run(Workload::Burst, "random"));
    }

    #[test]
    fn every_policy_serves_every_workload() {
        for policy in POLICIES {
            for workload in Workload::ALL {
                let outcome = scenario(workload).run(policy).expect(policy.name);
                assert!(outcome.requests > 20 && outcome.ttft_mean > 0.0, "{outcome:?}");
                assert!(outcome.ttft_p95 < 60.0 && outcome.imbalance >= 1.0, "{outcome:?}");
            }
        }
    }

    #[test]
    fn prefixes_are_found_where_requests_went_before() {
        let (by_chance, by_prefix) =
            (run(Workload::Chat, "random"), run(Workload::Chat, "queue 2 + kv 2 + prefix 3"));
        assert!(by_prefix.hit_ratio > by_chance.hit_ratio, "{by_prefix:?} {by_chance:?}");
        assert!(run(Workload::Random, "random").hit_ratio < 0.02);
    }
}
