//! A pool in miniature that takes as long as a formula says, with noise.
#![allow(dead_code, reason = "not every test program uses all of it")]

use fastrand::Rng;
use inlane_latency::{Row, Sample, Target, Trainer};

pub(crate) struct Pool {
    pub(crate) rng: Rng,
    /// Speed by endpoint: 2 takes twice as long.
    pub(crate) speeds: Vec<f32>,
    /// Scales every latency.
    pub(crate) scale: f32,
    /// Relative deviation of a latency.
    pub(crate) noise: f32,
    /// Observations between retrains.
    pub(crate) cadence: u64,
}

impl Pool {
    pub(crate) fn new(seed: u64, speeds: &[f32]) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            speeds: speeds.to_vec(),
            scale: 1.0,
            noise: 0.1,
            cadence: 400,
        }
    }

    pub(crate) fn row(&mut self) -> Row {
        let rng = &mut self.rng;
        let running = rng.u32(..40) as f32;
        Row {
            kv_cache_percentage: (running / 40.0 * 0.8 + 0.2 * rng.f32()).min(1.0),
            input_token_length: (100.0 + 4_000.0 * rng.f32()).floor(),
            num_request_waiting: (running - 25.0 + rng.u32(..4) as f32).max(0.0),
            num_request_running: running,
            num_tokens_generated: 1.0,
            prefix_cache_score: rng.f32(),
            prefill_tokens_in_flight: (running * 200.0 * rng.f32()).floor(),
            ..Row::default()
        }
    }

    /// Linear plus a queue.
    pub(crate) fn truth(&self, row: &Row, target: Target, endpoint: u64) -> f32 {
        let tpot = 8.0 + 0.4 * row.num_request_running + 10.0 * row.kv_cache_percentage;
        let ttft = 15.0
            + 0.04 * row.effective_input_tokens()
            + 0.01 * row.prefill_tokens_in_flight
            + 2.0 * row.num_request_running
            + 25.0 * row.num_request_waiting;
        let base = match target {
            Target::FirstToken => ttft,
            Target::EndToEnd => ttft + 100.0 * tpot,
            Target::PerToken => tpot,
        };
        base * self.scale * self.speeds[endpoint as usize]
    }

    pub(crate) fn sample(&mut self, target: Target) -> Sample {
        let row = self.row();
        let endpoint = self.rng.u64(..self.speeds.len() as u64);
        let normal = (0..12).map(|_| self.rng.f32()).sum::<f32>() - 6.0;
        let y_ms = self.truth(&row, target, endpoint) * (1.0 + self.noise * normal).max(0.3);
        Sample { row, target, y_ms, endpoint }
    }

    /// Lets a trainer watch `n` requests of a target, with a retrain every `cadence`.
    pub(crate) fn watch(&mut self, trainer: &mut Trainer, target: Target, n: usize) {
        for _ in 0..n {
            let sample = self.sample(target);
            trainer.observe(&sample).unwrap();
            if trainer.is_retrain_due()
                && trainer.report().observations.is_multiple_of(self.cadence)
            {
                trainer.retrain(|| true);
            }
        }
    }
}
