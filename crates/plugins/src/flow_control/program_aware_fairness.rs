//! `program-aware-fairness`: the program that has been served least goes first.

use std::time::Duration;

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `program-aware-fairness`.
///
/// Least attained service, with a program per fairness id: a completed request adds
/// `1 * prompt tokens + 2 * completion tokens` to its program's service, which decays by
/// `2^(-dt / half-life)`. The flow with the highest
/// `wS * (1 - norm(service)) + wW * norm(wait of its head)` goes first, with `norm` min-max over the
/// flows that are not empty, 0.5 when all are equal (llm-d-router `program-aware-fairness`).
pub const TYPE: PluginType = PluginType::new("program-aware-fairness", |_, params| {
    Parameters::read(params).map(|_| Roles::default().part(Part::FairnessPolicy))
});

/// How programs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Least attained service.
    #[default]
    Las,
}

/// All parameters.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// How programs are compared.
    pub strategy: Strategy,
    eviction_ttl_seconds: f64,
    eviction_sweep_seconds: f64,
    /// Weight of the service that a program has had.
    pub las_weight_service: f64,
    /// Weight of the time that the head of its queue has waited.
    pub las_weight_head_wait: f64,
    las_half_life_seconds: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            strategy: Strategy::Las,
            eviction_ttl_seconds: 3_600.0,
            eviction_sweep_seconds: 300.0,
            las_weight_service: 0.8,
            las_weight_head_wait: 0.2,
            las_half_life_seconds: 60.0,
        }
    }
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let read: Self = params.decode()?;
        // Seconds become durations: the bound keeps them representable.
        for (field, value, least, most) in [
            ("evictionTtlSeconds", read.eviction_ttl_seconds, 0.0, 1e12),
            ("evictionSweepSeconds", read.eviction_sweep_seconds, f64::MIN_POSITIVE, 1e12),
            ("lasWeightService", read.las_weight_service, 0.0, f64::MAX),
            ("lasWeightHeadWait", read.las_weight_head_wait, 0.0, f64::MAX),
            ("lasHalfLifeSeconds", read.las_half_life_seconds, 0.0, 1e12),
        ] {
            if !(least..=most).contains(&value) {
                let expected = if least > 0.0 { "above 0" } else { "not negative" };
                let message = format!("expected a number that is {expected}, found {value}");
                return Err(BuildError::field(field, message));
            }
        }
        Ok(read)
    }

    /// How long a program without requests is remembered; `None` = for ever.
    pub fn eviction_ttl(&self) -> Option<Duration> {
        positive(self.eviction_ttl_seconds)
    }

    /// How often forgotten programs are looked for.
    pub fn eviction_sweep(&self) -> Duration {
        Duration::from_secs_f64(self.eviction_sweep_seconds)
    }

    /// Time in which attained service halves; `None` = it does not decay.
    pub fn half_life(&self) -> Option<Duration> {
        positive(self.las_half_life_seconds)
    }
}

fn positive(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Parameters, BuildError> {
        Parameters::read(&Params::new(Some(serde_yaml::from_str(yaml).unwrap())))
    }

    #[test]
    fn defaults_and_zeros() {
        let parameters = Parameters::read(&Params::default()).unwrap();
        assert_eq!(parameters.eviction_ttl(), Some(Duration::from_secs(3_600)));
        assert_eq!(parameters.half_life(), Some(Duration::from_secs(60)));
        let parameters = read("{evictionTtlSeconds: 0, lasHalfLifeSeconds: 0}").unwrap();
        assert_eq!((parameters.eviction_ttl(), parameters.half_life()), (None, None));
        assert_eq!(
            read("{strategy: las, evictionSweepSeconds: 0.5}").unwrap().strategy,
            Strategy::Las
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (yaml, field) in [
            ("{strategy: fifo}", "strategy"),
            ("{evictionTtlSeconds: -1}", "evictionTtlSeconds"),
            ("{evictionTtlSeconds: 1e300}", "evictionTtlSeconds"),
            ("{evictionSweepSeconds: 0}", "evictionSweepSeconds"),
            ("{lasWeightService: -0.1}", "lasWeightService"),
            ("{lasWeightHeadWait: .nan}", "lasWeightHeadWait"),
            ("{lasHalfLifeSeconds: -60}", "lasHalfLifeSeconds"),
            ("{weights: 1}", "weights"),
        ] {
            assert_eq!(read(yaml).expect_err(yaml).field.as_deref(), Some(field), "{yaml}");
        }
    }
}
