//! The module's own settings: the text of `filter_config` and `cluster_config`.
//!
//! What to schedule and how is not here: that is the `EndpointPickerConfig`, which the control
//! plane publishes. These settings say where the segment is and how this proxy behaves around a
//! decision. All parts of one Envoy that name the same `segmentDir` share one runtime.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use inlane_core::snapshot::FailureMode;
use serde::{Deserialize, Deserializer};

/// How the chosen endpoint is handed to Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Destination {
    /// The route's cluster is Inlane's own `pods` cluster.
    #[default]
    Cluster,
    /// The route's cluster has its hosts from elsewhere (static, EDS) under any ordinary policy.
    OverrideHost,
    /// The route's cluster has the `override_host` policy, which reads header or metadata.
    Header,
}

/// What happens to requests that are not for an inference API of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OtherPaths {
    /// What the configuration's parsers say: without one that claims the path the request is
    /// decided on unread if there is a `passthrough-parser`, as there is by default, and else
    /// answered with 400. A request without a body goes on without a decision.
    #[default]
    Schedule,
    /// They go on without a decision.
    Pass,
    /// They are answered with 404.
    Refuse,
}

/// What metrics-based scorers make of an endpoint whose metrics are stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StaleMetrics {
    /// It gets the mean score of the others.
    #[default]
    Neutral,
    /// The last known numbers count, however old.
    LastKnown,
}

/// The hash by which an engine knows images: its `--mm-hasher-algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MmHasher {
    /// The engine's default.
    #[default]
    Blake3,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What the engines of a model were started with, as far as it enters the digests of images.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Engine {
    /// Their `--model`, where it is not the name under which the model is loaded here.
    pub model: Option<String>,
    /// Their hash.
    pub mm_hasher: MmHasher,
}

/// Where prompts are turned into the tokens that engines see, for configurations that ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Tokenizers {
    /// Directory of models: `<model>/tokenizer.json`, or as a Hugging Face cache. Absent: the one
    /// that the environment variable `LOCAL_TOKENIZER_DIR` names, if any.
    pub directory: Option<PathBuf>,
    /// Models that lie elsewhere: the directory, or the `tokenizer.json` in it.
    pub map: BTreeMap<String, PathBuf>,
    /// What the engines of a model were started with.
    pub engines: BTreeMap<String, Engine>,
    /// Threads that tokenize, 1 to 64.
    pub threads: usize,
    /// Requests that may wait for these threads; the next one goes without tokens at once.
    pub queue: usize,
    /// Bytes that remembered tokens of text may take.
    pub cache_bytes: usize,
    /// How long a request waits for its tokens before it is decided on without.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Envoy cluster of the servers that render prompts where a configuration names one and there
    /// is no tokenizer on this machine. Empty = none.
    pub render_cluster: String,
}

impl Default for Tokenizers {
    fn default() -> Self {
        Self {
            directory: None,
            map: BTreeMap::new(),
            engines: BTreeMap::new(),
            threads: 2,
            queue: 1024,
            cache_bytes: 256 << 20,
            timeout: Duration::from_millis(25),
            render_cluster: String::new(),
        }
    }
}

impl Tokenizers {
    fn check(&self) -> Result<(), String> {
        let expected =
            |field: &str, what: &str| Err(format!("settings: tokenizers.{field}: {what}"));
        if !(1..=64).contains(&self.threads) {
            return expected("threads", &format!("expected 1 to 64, found {}", self.threads));
        }
        if self.queue == 0 {
            return expected("queue", "must be positive");
        }
        if self.timeout.is_zero() {
            return expected("timeout", "must be positive");
        }
        Ok(())
    }
}

/// Settings of the `scheduler` filter, the `pods` cluster and the `admin` filter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Directory of the shared-memory segment.
    pub segment_dir: PathBuf,
    /// How the chosen endpoint is handed to Envoy.
    pub destination: Destination,
    /// What happens to other paths.
    pub other_paths: OtherPaths,
    /// Overrides the pool's failure mode.
    pub failure_mode: Option<FailureMode>,
    /// Largest request body in bytes; a larger one is answered with 413.
    pub max_body_bytes: u64,
    /// Request bytes that all streams of this process may hold together.
    pub max_held_bytes: u64,
    /// How long a worker may be held by one decision.
    #[serde(deserialize_with = "duration")]
    pub decision_budget: Duration,
    /// Age of the control plane's last sign of life from which its snapshot is not used any more.
    #[serde(deserialize_with = "duration")]
    pub snapshot_stale_after: Duration,
    /// Age from which an endpoint's metrics are stale.
    #[serde(deserialize_with = "duration")]
    pub metrics_stale_after: Duration,
    /// What stale metrics mean.
    pub stale_metrics: StaleMetrics,
    /// HTTP status with which plugins that admit requests turn them away: 429, or 500 as the
    /// reference answers.
    #[serde(deserialize_with = "denial_status")]
    pub admission_denial_status: u16,
    /// How long a removed endpoint may finish its requests before its host is removed.
    #[serde(deserialize_with = "duration")]
    pub removal_grace: Duration,
    /// Decisions that `/debug/decisions` remembers per worker.
    pub recorded_decisions: usize,
    /// Whether the metrics are also shown under the names of the first documents (`epp_…`).
    pub legacy_metric_names: bool,
    /// Whether `/debug/records` can give out what decisions were made of. Costs a copy of the
    /// columns per decision.
    pub record_inputs: bool,
    /// Whether control headers that a client sends are removed.
    pub strip_control_headers: bool,
    /// Where prompts become tokens.
    pub tokenizers: Tokenizers,
    /// For drills: a request with this header and the value `panic` makes its decision panic.
    /// Empty (the default) = off.
    pub fault_injection_header: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_dir: PathBuf::from("/dev/shm/inlane"),
            destination: Destination::default(),
            other_paths: OtherPaths::default(),
            failure_mode: None,
            max_body_bytes: 16 << 20,
            max_held_bytes: 1 << 30,
            decision_budget: Duration::from_micros(500),
            snapshot_stale_after: Duration::from_secs(600),
            metrics_stale_after: Duration::from_secs(2),
            stale_metrics: StaleMetrics::default(),
            admission_denial_status: inlane_core::plan::DENIAL_STATUS,
            removal_grace: Duration::from_secs(10),
            recorded_decisions: 128,
            legacy_metric_names: false,
            record_inputs: false,
            strip_control_headers: true,
            tokenizers: Tokenizers::default(),
            fault_injection_header: String::new(),
        }
    }
}

impl Settings {
    /// Reads the settings from YAML or JSON; empty text means all defaults.
    ///
    /// # Errors
    /// What does not fit, with its place in the text.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|e| format!("settings are not UTF-8: {e}"))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let document = serde_yaml::Deserializer::from_str(text);
        let settings: Self = serde_path_to_error::deserialize(document)
            .map_err(|e| format!("settings: {}: {}", e.path(), e.inner()))?;
        if settings.max_body_bytes == 0 {
            return Err("settings: maxBodyBytes: must be positive".into());
        }
        if settings.segment_dir.as_os_str().is_empty() {
            return Err("settings: segmentDir: must not be empty".into());
        }
        settings.tokenizers.check()?;
        Ok(settings)
    }
}

fn denial_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        status @ (429 | 500) => Ok(status),
        other => Err(serde::de::Error::custom(format!("expected 429 or 500, found {other}"))),
    }
}

/// Reads a duration like `500us`, `1.5s`, `10m`: decimal numbers with a unit, one after another.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("'{text}' is no duration (expected like 500us, 2s, 10m)"))
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        seconds += number * scale;
        rest = &rest[unit..];
    }
    (!text.trim().is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_text_is_the_default() {
        assert_eq!(Settings::parse(b" \n").unwrap(), Settings::default());
    }

    #[test]
    fn yaml_and_json_are_read() {
        let yaml = b"segmentDir: /run/inlane\ndecisionBudget: 1ms500us\nfailureMode: FailOpen\n";
        let settings = Settings::parse(yaml).unwrap();
        assert_eq!(settings.segment_dir, PathBuf::from("/run/inlane"));
        assert_eq!(settings.decision_budget, Duration::from_micros(1_500));
        assert_eq!(settings.failure_mode, Some(FailureMode::FailOpen));
        let tokenizers = b"tokenizers: {directory: /models, timeout: 5ms, map: {m: /m}}";
        let tokenizers = Settings::parse(tokenizers).unwrap().tokenizers;
        assert_eq!(tokenizers.timeout, Duration::from_millis(5));
        assert_eq!((tokenizers.threads, tokenizers.queue), (2, 1024));
        let engines = b"tokenizers: {engines: {a: {model: /m/a}, b: {mmHasher: sha512}}}";
        let engines = Settings::parse(engines).unwrap().tokenizers.engines;
        let model = Some("/m/a".to_owned());
        assert_eq!(engines["a"], Engine { model, mm_hasher: MmHasher::Blake3 });
        assert_eq!(engines["b"], Engine { model: None, mm_hasher: MmHasher::Sha512 });
        let json = br#"{"destination": "overrideHost", "staleMetrics": "lastKnown"}"#;
        let settings = Settings::parse(json).unwrap();
        assert_eq!(settings.destination, Destination::OverrideHost);
        assert_eq!(settings.stale_metrics, StaleMetrics::LastKnown);
    }

    #[test]
    fn errors_name_field_and_expectation() {
        let unknown = Settings::parse(b"segmentdir: /x").unwrap_err();
        assert!(unknown.contains("segmentdir") && unknown.contains("segmentDir"), "{unknown}");
        let unit = Settings::parse(b"decisionBudget: 5 parsecs").unwrap_err();
        assert!(unit.contains("decisionBudget") && unit.contains("500us"), "{unit}");
        let status = Settings::parse(b"admissionDenialStatus: 503").unwrap_err();
        assert!(status.contains("admissionDenialStatus") && status.contains("429"), "{status}");
        for (field, value) in
            [("threads", "0"), ("threads", "65"), ("queue", "0"), ("timeout", "0s")]
        {
            let text = format!("tokenizers: {{{field}: {value}}}");
            let refused = Settings::parse(text.as_bytes()).unwrap_err();
            assert!(refused.contains(&format!("tokenizers.{field}")), "{refused}");
        }
        assert!(Settings::parse(b"maxBodyBytes: 0").unwrap_err().contains("maxBodyBytes"));
    }
}
