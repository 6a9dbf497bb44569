//! Configuration: what the flags say.
//!
//! [`Config`] describes one pod; every pod of a cluster has the same. Field names are flag names. The part that
//! may change while the simulator runs is [`Tunables`].

pub mod duration;
pub mod events;
pub mod lora;
pub mod tunables;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use inlane_kv::engine_hash::{Algorithm, DEFAULT_SEED, EngineHasher, ExtraForm};
use serde::Serialize;

use self::{duration::GoDuration, events::EventFlags, lora::LoraModule, tunables::Tunables};
use crate::{engine::hash::Hashing, events::Dialect};

/// See the [module](self). [`Config::default`] is what no flag at all means, except for the environment.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// Address to listen on. Use 0.0.0.0 in a container.
    #[arg(long, default_value = "127.0.0.1", help_heading = SERVER)]
    pub address: IpAddr,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, default_value_t = 8000, help_heading = SERVER)]
    pub port: u16,
    /// Name told in `x-inference-pod` [default: sim-PORT].
    #[arg(long, env = "POD_NAME", hide_env_values = true, help_heading = SERVER)]
    pub pod_name: Option<String>,
    /// Namespace told in `x-inference-namespace`.
    #[arg(long, env = "POD_NAMESPACE", hide_env_values = true, default_value = "default", help_heading = SERVER)]
    pub pod_namespace: String,
    /// Largest request body, in MiB.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512), help_heading = SERVER)]
    pub max_request_body_size_mb: u32,
    /// Take the request id from the header `X-Request-Id` and answer with it.
    #[arg(long, help_heading = SERVER)]
    pub enable_request_id_headers: bool,
    /// Answer 503 at /health/ready for so long after the start.
    #[arg(long, default_value = "0", help_heading = SERVER)]
    pub startup_duration: GoDuration,
    /// Number of requests kept for /debug/requests.
    #[arg(long, default_value_t = 256, help_heading = SERVER)]
    pub request_log: usize,
    /// Answer every inference request with the same small body, without looking at it (to benchmark proxies).
    #[arg(long, help_heading = SERVER)]
    pub lean: bool,

    /// The model.
    #[arg(long, env = "SIM_MODEL", hide_env_values = true, default_value = "random", help_heading = MODEL)]
    pub model: String,
    /// Names that requests may use instead of the model's own; the first one appears in answers and metrics.
    #[arg(long, num_args = 1.., help_heading = MODEL)]
    pub served_model_name: Vec<String>,
    /// LoRA adapters, as JSON objects {"name":…,"path":…,"base_model_name":…}.
    #[arg(long, num_args = 1.., help_heading = MODEL)]
    pub lora_modules: Vec<LoraModule>,
    /// How many different adapters may run at once.
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), help_heading = MODEL)]
    pub max_loras: u32,
    /// Whether answers tell how much of the prompt was cached; =false is what vLLM does unless it is told to.
    #[arg(
        long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", help_heading = MODEL
    )]
    pub enable_prompt_tokens_details: bool,
    /// Longest prompt and answer together, in tokens. The default lets large test bodies through.
    #[arg(long, default_value_t = 1 << 20, value_parser = at_least_one(), help_heading = MODEL)]
    pub max_model_len: u32,
    /// Directory of the real model's tokenizer.json, tokenizer_config.json and chat template: prompts have the token
    /// ids that a real server gives them [default: made-up ids].
    #[arg(long, value_name = "DIR", help_heading = MODEL)]
    pub tokenizer: Option<PathBuf>,
    /// What the answers say.
    #[arg(long, value_enum, default_value_t = Mode::Random, help_heading = MODEL)]
    pub mode: Mode,
    /// Makes answers, ids and noise reproducible [default: from the clock].
    #[arg(long, help_heading = MODEL)]
    pub seed: Option<u64>,

    /// Requests that run at the same time.
    #[arg(long, default_value_t = 5, value_parser = at_least_one(), help_heading = QUEUE)]
    pub max_num_seqs: u32,
    /// Requests that may wait; more are answered with 429.
    #[arg(long, default_value_t = 1000, help_heading = QUEUE)]
    pub max_waiting_queue_length: u32,

    /// Whether there is a block cache; --enable-kvcache=false switches it off.
    #[arg(
        long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", help_heading = CACHE
    )]
    pub enable_kvcache: bool,
    /// Blocks of the cache. The default holds two requests of the default length.
    #[arg(long, default_value_t = 131_072, value_parser = at_least_one(), help_heading = CACHE)]
    pub kv_cache_size: u32,
    /// Tokens per block.
    #[arg(long, default_value = "16", value_parser = block_size, help_heading = CACHE)]
    pub block_size: u32,
    /// How blocks are hashed [default: cbor-fnv; sha256 when cache events are published].
    #[arg(long, value_enum, help_heading = CACHE)]
    pub prefix_caching_hash_algo: Option<HashAlgorithm>,
    /// Seed of the block keys.
    #[arg(long, env = "PYTHONHASHSEED", hide_env_values = true, default_value = "", help_heading = CACHE)]
    pub hash_seed: String,
    /// Finish a request at once when less than this share of its prompt is cached (0 = never).
    #[arg(long, default_value = "0", value_parser = share, help_heading = CACHE)]
    pub global_cache_hit_threshold: f64,

    /// Cache events and ranks.
    #[command(flatten)]
    #[serde(flatten)]
    pub events: EventFlags,

    /// What may change while the simulator runs.
    #[command(flatten)]
    #[serde(flatten)]
    pub tunables: Tunables,
}

const SERVER: &str = "Server";
const MODEL: &str = "Model and answers";
const QUEUE: &str = "Queue";
const CACHE: &str = "Block cache";

/// What the answers say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The prompt, or the last message.
    Echo,
    /// Random sentences of random length.
    Random,
}

/// How the blocks of the cache are hashed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum HashAlgorithm {
    /// As schedulers key their indexes.
    #[serde(rename = "cbor-fnv")]
    CborFnv,
    /// As vLLM by default.
    Sha256,
    /// As vLLM.
    #[value(name = "sha256_cbor")]
    Sha256Cbor,
    /// As vLLM.
    Xxhash,
    /// As vLLM.
    #[value(name = "xxhash_cbor")]
    XxhashCbor,
}

impl Config {
    /// How the blocks of the pod with this seed are hashed.
    pub(crate) fn hashing(&self, pod_seed: u64) -> Hashing {
        let default = match self.events.settings() {
            None => HashAlgorithm::CborFnv,
            Some(_) => HashAlgorithm::Sha256,
        };
        let algorithm = match self.prefix_caching_hash_algo.unwrap_or(default) {
            HashAlgorithm::CborFnv => return Hashing::cbor_fnv(&self.hash_seed),
            HashAlgorithm::Sha256 => Algorithm::Sha256,
            HashAlgorithm::Sha256Cbor => Algorithm::Sha256Cbor,
            HashAlgorithm::Xxhash => Algorithm::Xxhash,
            HashAlgorithm::XxhashCbor => Algorithm::XxhashCbor,
        };
        let dialect = self.events.kv_events_version;
        let form = match dialect {
            Dialect::V0_10 => ExtraForm::Numbered,
            Dialect::V0_14 | Dialect::V0_18 => ExtraForm::Named,
            Dialect::V0_20 | Dialect::V0_22 | Dialect::V0_24 => ExtraForm::Placed,
            Dialect::V0_32 => ExtraForm::Tagged,
        };
        let fixed = dialect >= Dialect::V0_32
            && matches!(algorithm, Algorithm::Sha256 | Algorithm::Sha256Cbor);
        let seed = match &*self.hash_seed {
            "" if fixed => DEFAULT_SEED.to_owned(),
            // The engine takes random bytes then: another start in every pod.
            "" => format!("{pod_seed}"),
            seed => seed.to_owned(),
        };
        Hashing::Engine(EngineHasher::new(algorithm, form, &seed))
    }

    /// Checks what the types alone do not exclude.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.tunables.validate()?;
        for lora in &self.lora_modules {
            if lora.base_model_name.as_ref().is_some_and(|base| *base != self.model) {
                return Err(InvalidConfig::LoraBase {
                    name: lora.name.clone(),
                    model: self.model.clone(),
                });
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            pod_name: None,
            pod_namespace: "default".to_owned(),
            max_request_body_size_mb: 32,
            enable_request_id_headers: false,
            startup_duration: GoDuration::ZERO,
            request_log: 256,
            lean: false,
            model: "random".to_owned(),
            served_model_name: Vec::new(),
            lora_modules: Vec::new(),
            max_loras: 1,
            enable_prompt_tokens_details: true,
            max_model_len: 1 << 20,
            tokenizer: None,
            mode: Mode::Random,
            seed: None,
            max_num_seqs: 5,
            max_waiting_queue_length: 1000,
            enable_kvcache: true,
            kv_cache_size: 131_072,
            block_size: 16,
            prefix_caching_hash_algo: None,
            hash_seed: String::new(),
            global_cache_hit_threshold: 0.0,
            events: EventFlags::default(),
            tunables: Tunables::default(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// An adapter of another model.
    #[error("the base model of LoRA adapter `{name}` is not `{model}`")]
    LoraBase {
        /// The adapter.
        name: String,
        /// The served model.
        model: String,
    },
    /// A latency or fault setting.
    #[error(transparent)]
    Tunable(#[from] tunables::InvalidTunable),
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn block_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ (8 | 16 | 32 | 64 | 128)) => Ok(size),
        _ => Err("block-size is 8, 16, 32, 64 or 128".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number between 0 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    fn parse(flags: &[&str]) -> Result<Config, clap::Error> {
        let args = ["inlane-sim"].iter().chain(flags);
        Flags::try_parse_from(args).map(|flags| flags.config)
    }

    #[test]
    fn no_flags_mean_the_default() {
        // The environment counts as flags; compare what it cannot change.
        let mut parsed = parse(&[]).unwrap();
        let default = Config::default();
        parsed.pod_name = None;
        parsed.pod_namespace.clone_from(&default.pod_namespace);
        parsed.model.clone_from(&default.model);
        parsed.hash_seed.clone_from(&default.hash_seed);
        assert_eq!(parsed, default);
        assert_eq!(default.validate(), Ok(()));
    }

    #[test]
    fn flags_of_the_reference_are_understood() {
        let config = parse(&[
            "--port",
            "9000",
            "--model",
            "m",
            "--served-model-name",
            "a",
            "b",
            "--max-num-seqs",
            "2",
            "--enable-kvcache",
            "--kv-cache-size",
            "64",
            "--block-size",
            "8",
            "--mode",
            "echo",
            "--time-to-first-token",
            "1s",
            "--inter-token-latency",
            "50ms",
            "--seed",
            "7",
            "--lora-modules",
            r#"{"name":"x","path":"/x","base_model_name":"m"}"#,
            r#"{"name":"y"}"#,
            "--failure-injection-rate",
            "10",
            "--failure-types",
            "rate_limit",
            "server_error",
        ])
        .unwrap();
        assert_eq!(config.served_model_name, ["a", "b"]);
        assert_eq!(config.lora_modules.len(), 2);
        assert_eq!(config.tunables.failure_types.len(), 2);
        assert_eq!(config.validate(), Ok(()));
        assert!(!parse(&["--enable-kvcache=false"]).unwrap().enable_kvcache);
    }

    #[test]
    fn bad_values_are_refused() {
        for flags in [
            ["--block-size", "17"],
            ["--max-num-seqs", "0"],
            ["--failure-injection-rate", "101"],
            ["--time-factor-under-load", "0.9"],
            ["--inter-token-latency", "fast"],
            ["--global-cache-hit-threshold", "1.1"],
            ["--lora-modules", "x"],
            ["--failure-types", "bad_mood"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
        let config =
            parse(&["--lora-modules", r#"{"name":"x","base_model_name":"other"}"#]).unwrap();
        assert!(matches!(config.validate(), Err(InvalidConfig::LoraBase { .. })));
    }
}
