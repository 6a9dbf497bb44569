//! The latency model: how long reading a prompt and producing a token take.
//!
//! Times are kept in microseconds and finer; a mean of 0 costs no time at all. Noise is normal and clamped to
//! 0.3–1.7 times the mean.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    config::{
        duration::GoDuration,
        tunables::{Calculator, Tunables},
    },
    random::standard_normal,
};

/// What the time to the first token depends on.
#[derive(Clone, Copy, Debug)]
pub struct Prefill {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those of them that the cache already has.
    pub cached: usize,
    /// The prompt was read by another pod, and its blocks are fetched from there.
    pub remote: bool,
}

/// How many requests run, of how many that may.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Running requests, the one in question included.
    pub running: usize,
    /// Limit of running requests.
    pub limit: usize,
}

impl Tunables {
    /// Time from the start of a request to its first token.
    pub fn prefill_time(&self, prefill: Prefill, load: Load, rng: &mut Rng) -> Duration {
        let factor = self.factor(load);
        let (constant, constant_deviation) = if prefill.remote {
            (self.kv_cache_transfer_latency, self.kv_cache_transfer_latency_std_dev)
        } else {
            (self.time_to_first_token, self.time_to_first_token_std_dev)
        };
        let per_token = match self.latency_calculator {
            Calculator::Automatic => constant.0.is_zero() && constant_deviation.0.is_zero(),
            Calculator::Constant => false,
            Calculator::PerToken => true,
        };
        // Transfers between pods do not slow down with the load of this one.
        let (mean, deviation) = match (per_token, prefill.remote) {
            (false, true) => (constant.as_secs_f64(), constant_deviation),
            (false, false) => (constant.as_secs_f64() * factor, constant_deviation),
            (true, true) => {
                let per_token = self.kv_cache_transfer_time_per_token.as_secs_f64();
                (prefill.prompt as f64 * per_token, self.kv_cache_transfer_time_std_dev)
            }
            (true, false) => {
                let computed = prefill.prompt.saturating_sub(prefill.cached) as f64;
                let time = self.prefill_overhead.as_secs_f64()
                    + computed * self.prefill_time_per_token.as_secs_f64();
                (time * factor, self.prefill_time_std_dev)
            }
        };
        noisy(mean, deviation, rng)
    }

    /// Time between two tokens.
    pub fn token_time(&self, load: Load, rng: &mut Rng) -> Duration {
        let mean = self.inter_token_latency.as_secs_f64() * self.factor(load);
        noisy(mean, self.inter_token_latency_std_dev, rng)
    }

    fn factor(&self, load: Load) -> f64 {
        if load.limit <= 1 {
            return self.time_factor.get();
        }
        let share = load.running.saturating_sub(1) as f64 / (load.limit - 1) as f64;
        (1.0 + (self.time_factor_under_load.get() - 1.0) * share) * self.time_factor.get()
    }
}

fn noisy(mean: f64, deviation: GoDuration, rng: &mut Rng) -> Duration {
    let seconds = if deviation.0.is_zero() {
        mean
    } else {
        let drawn = mean + deviation.as_secs_f64() * standard_normal(rng);
        drawn.clamp(0.3 * mean, 1.7 * mean)
    };
    // Far above any sensible latency, but still a time that can be added to a clock.
    Duration::from_secs_f64(seconds.clamp(0.0, 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load { running: 1, limit: 5 };

    fn tunables(fields: &serde_json::Value) -> Tunables {
        Tunables::default().patched(fields.as_object().unwrap()).unwrap()
    }

    fn micros(tunables: &Tunables, prefill: Prefill, load: Load) -> u128 {
        tunables.prefill_time(prefill, load, &mut Rng::with_seed(0)).as_micros()
    }

    #[test]
    fn first_token_falls_with_cached_tokens() {
        let tunables = tunables(&serde_json::json!({
            "prefill-overhead": "1ms", "prefill-time-per-token": "10us",
        }));
        let time = |cached| micros(&tunables, Prefill { prompt: 100, cached, remote: false }, IDLE);
        assert_eq!((time(0), time(50), time(96)), (2_000, 1_500, 1_040));
    }

    #[test]
    fn a_constant_wins_unless_told_otherwise() {
        let prefill = Prefill { prompt: 100, cached: 0, remote: false };
        let mut tunables = tunables(&serde_json::json!({
            "time-to-first-token": "7ms", "prefill-time-per-token": "10us",
        }));
        assert_eq!(micros(&tunables, prefill, IDLE), 7_000);
        tunables.latency_calculator = Calculator::PerToken;
        assert_eq!(micros(&tunables, prefill, IDLE), 1_000);
    }

    #[test]
    fn transfers_replace_prefill_and_ignore_load() {
        let tunables = tunables(&serde_json::json!({
            "kv-cache-transfer-time-per-token": "2us", "prefill-time-per-token": "1ms",
            "time-factor-under-load": 3,
        }));
        let prefill = Prefill { prompt: 100, cached: 50, remote: true };
        assert_eq!(micros(&tunables, prefill, Load { running: 5, limit: 5 }), 200);
    }

    #[test]
    fn load_is_linear_in_running_requests() {
        let tunables = tunables(
            &serde_json::json!({"inter-token-latency": "10ms", "time-factor-under-load": 2}),
        );
        let time = |running, limit| {
            tunables.token_time(Load { running, limit }, &mut Rng::with_seed(0)).as_micros()
        };
        assert_eq!((time(1, 5), time(3, 5), time(5, 5)), (10_000, 15_000, 20_000));
        assert_eq!(time(1, 1), 10_000);
    }

    #[test]
    fn a_slow_pod_takes_longer_for_both_but_not_for_transfers() {
        let tunables = tunables(&serde_json::json!({
            "inter-token-latency": "10ms", "prefill-time-per-token": "1ms", "time-factor": 2.5,
            "kv-cache-transfer-time-per-token": "2us",
        }));
        let prefill = Prefill { prompt: 100, cached: 60, remote: false };
        assert_eq!(micros(&tunables, prefill, IDLE), 100_000);
        assert_eq!(micros(&tunables, Prefill { remote: true, ..prefill }, IDLE), 200);
        let time = |load| tunables.token_time(load, &mut Rng::with_seed(0)).as_micros();
        assert_eq!((time(IDLE), time(Load { running: 1, limit: 1 })), (25_000, 25_000));
    }

    #[test]
    fn noise_has_the_mean_and_the_bounds() {
        let tunables = tunables(&serde_json::json!({
            "inter-token-latency": "100us", "inter-token-latency-std-dev": "30us",
        }));
        let mut rng = Rng::with_seed(5);
        let draws: Vec<_> =
            (0..20_000).map(|_| tunables.token_time(IDLE, &mut rng).as_secs_f64() * 1e6).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 100.0).abs() < 1.0, "{mean}");
        assert!(draws.iter().all(|d| (29.9..170.1).contains(d)));
        assert!(draws.iter().any(|d| *d < 60.0) && draws.iter().any(|d| *d > 140.0));
    }
}
