//! Settings that may change while the simulator runs: latencies and faults.
//!
//! They are flags, and fields of `GET`/`POST /admin/config` under the same names.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::duration::GoDuration;

/// See the [module](self).
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tunables {
    /// Time to the first token.
    ///
    /// When this and its deviation are 0, the time follows from the prompt instead (prefill-overhead and
    /// prefill-time-per-token).
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub time_to_first_token: GoDuration,
    /// Standard deviation of time-to-first-token, at most 30 % of it.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub time_to_first_token_std_dev: GoDuration,
    /// Time between two tokens of an answer.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub inter_token_latency: GoDuration,
    /// Standard deviation of inter-token-latency, at most 30 % of it.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub inter_token_latency_std_dev: GoDuration,
    /// Fixed part of the time to read a prompt.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub prefill_overhead: GoDuration,
    /// Time to read one prompt token that is not in the cache.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub prefill_time_per_token: GoDuration,
    /// Standard deviation of the time to read a prompt.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub prefill_time_std_dev: GoDuration,
    /// Time to the first token when the prompt was read by another pod.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub kv_cache_transfer_latency: GoDuration,
    /// Standard deviation of kv-cache-transfer-latency, at most 30 % of it.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub kv_cache_transfer_latency_std_dev: GoDuration,
    /// The same per prompt token, when kv-cache-transfer-latency is 0.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub kv_cache_transfer_time_per_token: GoDuration,
    /// Standard deviation of the transfer time that follows from the prompt.
    #[arg(long, default_value = "0", help_heading = LATENCY)]
    pub kv_cache_transfer_time_std_dev: GoDuration,
    /// How much slower a fully loaded pod is than an idle one (≥ 1; linear in between).
    #[arg(long, default_value = "1", value_parser = load_factor, help_heading = LATENCY)]
    pub time_factor_under_load: LoadFactor,
    /// How much slower this pod computes than these settings say (≥ 1): a pool of unequal pods.
    #[arg(long, default_value = "1", value_parser = load_factor, help_heading = LATENCY)]
    pub time_factor: LoadFactor,
    /// Which of the two latency models to use instead of choosing by what is set.
    #[arg(long, default_value = "", help_heading = LATENCY)]
    pub latency_calculator: Calculator,

    /// Percentage of requests answered with an error of a random type.
    #[arg(long, default_value_t = 0, value_parser = percent(), help_heading = FAULTS)]
    pub failure_injection_rate: u8,
    /// The types to choose from; all if none is given.
    #[arg(long, num_args = 1.., help_heading = FAULTS)]
    pub failure_types: Vec<FailureType>,
    /// Refuse new connections, as if nothing listened.
    #[arg(long, help_heading = FAULTS)]
    pub fault_refuse_connections: bool,
    /// Accept new connections and reset them at once.
    #[arg(long, help_heading = FAULTS)]
    pub fault_reset_connections: bool,
    /// Percentage of requests that are read and then answered with a connection reset.
    #[arg(long, default_value_t = 0, value_parser = percent(), help_heading = FAULTS)]
    pub fault_reset_rate: u8,
    /// Reset the connection of a streamed answer after so many tokens (0 = never).
    #[arg(long, default_value_t = 0, help_heading = FAULTS)]
    pub fault_reset_after_tokens: u32,
    /// Percentage of requests answered with 503 before anything else is looked at.
    #[arg(long, default_value_t = 0, value_parser = percent(), help_heading = FAULTS)]
    pub fault_unavailable_rate: u8,
    /// Wait so long before the response headers.
    #[arg(long, default_value = "0", help_heading = FAULTS)]
    pub fault_response_delay: GoDuration,
}

const LATENCY: &str = "Latency (durations like 250ms, 1.5s, 200us)";
const FAULTS: &str = "Faults (for tests of clients and proxies)";

impl Tunables {
    /// These settings with the fields of `patch` replaced. Nothing changes on error.
    pub fn patched(&self, patch: &Map<String, Value>) -> Result<Self, InvalidTunable> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else {
            return Err(InvalidTunable::Value("settings cannot be written as JSON".to_owned()));
        };
        for (name, value) in patch {
            let Some(field) = fields.get_mut(name) else {
                return Err(InvalidTunable::NotAdmin(name.clone()));
            };
            *field = value.clone();
        }
        let patched: Self = serde_json::from_value(Value::Object(fields))
            .map_err(|error| InvalidTunable::Value(error.to_string()))?;
        patched.validate()?;
        Ok(patched)
    }

    /// Checks what the types alone do not exclude.
    pub fn validate(&self) -> Result<(), InvalidTunable> {
        let deviations = [
            ("time-to-first-token", self.time_to_first_token, self.time_to_first_token_std_dev),
            ("inter-token-latency", self.inter_token_latency, self.inter_token_latency_std_dev),
            (
                "kv-cache-transfer-latency",
                self.kv_cache_transfer_latency,
                self.kv_cache_transfer_latency_std_dev,
            ),
        ];
        for (name, mean, deviation) in deviations {
            if deviation.as_secs_f64() > mean.as_secs_f64() * 0.3 {
                return Err(InvalidTunable::Deviation { name, mean, deviation });
            }
        }
        let rates =
            [self.failure_injection_rate, self.fault_reset_rate, self.fault_unavailable_rate];
        if let Some(rate) = rates.into_iter().find(|rate| *rate > 100) {
            return Err(InvalidTunable::Value(format!("{rate} is not a percentage")));
        }
        Ok(())
    }
}

/// Why settings were refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTunable {
    /// A deviation above 30 % of its mean.
    #[error("{name}-std-dev {deviation} is more than 30 % of {name} {mean}")]
    Deviation {
        /// The flag of the mean.
        name: &'static str,
        /// Its value.
        mean: GoDuration,
        /// The refused deviation.
        deviation: GoDuration,
    },
    /// A field that does not exist or is fixed at start.
    #[error("field '{0}' is not admin-configurable")]
    NotAdmin(String),
    /// A value of the wrong type or out of range.
    #[error("{0}")]
    Value(String),
}

/// A factor of at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LoadFactor(f64);

impl LoadFactor {
    /// The factor.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for LoadFactor {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for LoadFactor {
    type Error = &'static str;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        if value.is_finite() && value >= 1.0 {
            Ok(Self(value))
        } else {
            Err("a time factor must be at least 1")
        }
    }
}

impl<'de> Deserialize<'de> for LoadFactor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// How the time to the first token comes about.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Calculator {
    /// Constant when a constant is set, otherwise per token.
    #[default]
    #[serde(rename = "")]
    Automatic,
    /// Always the constant.
    #[serde(rename = "constant")]
    Constant,
    /// Always from the number of tokens.
    #[serde(rename = "per-token")]
    PerToken,
}

impl std::str::FromStr for Calculator {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Ok(Self::Automatic),
            "constant" => Ok(Self::Constant),
            "per-token" => Ok(Self::PerToken),
            _ => Err("latency-calculator is `constant`, `per-token` or empty"),
        }
    }
}

/// The errors that failure injection chooses from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum FailureType {
    /// 400: the prompt is too long.
    ContextLength,
    /// 401.
    InvalidApiKey,
    /// 400: no model.
    InvalidRequest,
    /// 404.
    ModelNotFound,
    /// 429.
    RateLimit,
    /// 503.
    ServerError,
}

impl FailureType {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::ContextLength,
        Self::InvalidApiKey,
        Self::InvalidRequest,
        Self::ModelNotFound,
        Self::RateLimit,
        Self::ServerError,
    ];
}

fn load_factor(text: &str) -> Result<LoadFactor, String> {
    let value = text.parse::<f64>().map_err(|error| error.to_string())?;
    LoadFactor::try_from(value).map_err(str::to_owned)
}

fn percent() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(patch: &Value) -> Result<Tunables, InvalidTunable> {
        Tunables::default().patched(patch.as_object().unwrap())
    }

    #[test]
    fn patches_by_flag_name() {
        let patched = patch(&json!({
            "inter-token-latency": "1.5ms",
            "failure-types": ["rate_limit"],
            "time-factor-under-load": 2,
            "latency-calculator": "per-token",
        }))
        .unwrap();
        assert_eq!(patched.inter_token_latency, "1500us".parse().unwrap());
        assert_eq!(patched.failure_types, [FailureType::RateLimit]);
        assert_eq!(patched.time_factor_under_load.get(), 2.0);
        assert_eq!(patched.latency_calculator, Calculator::PerToken);
    }

    #[test]
    fn refuses_what_is_fixed_or_wrong() {
        assert_eq!(
            patch(&json!({"port": 1})).unwrap_err().to_string(),
            "field 'port' is not admin-configurable"
        );
        for bad in [
            json!({"inter-token-latency": 5}),
            json!({"failure-injection-rate": 101}),
            json!({"time-factor-under-load": 0.5}),
            json!({"time-to-first-token": "10ms", "time-to-first-token-std-dev": "4ms"}),
        ] {
            assert!(patch(&bad).is_err(), "{bad}");
        }
    }
}
