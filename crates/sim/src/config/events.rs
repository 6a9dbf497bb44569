//! What to tell of the block cache, and where: the flags and the JSON of vLLM.

use std::{net::IpAddr, str::FromStr};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::events::Dialect;

/// Flags about cache events and data-parallel ranks.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventFlags {
    /// Publish changes of the block cache over ZeroMQ, as vLLM does: JSON with the fields enable_kv_cache_events,
    /// endpoint, replay_endpoint, topic, buffer_steps, hwm.
    ///
    /// An endpoint with `*` or `::` is bound, any other is connected to. Several pods on one address take
    /// consecutive ports. Without a topic it is kv@ADDRESS:PORT@MODEL of the pod.
    #[arg(long, value_name = "JSON", help_heading = EVENTS)]
    pub kv_events_config: Option<EventSettings>,
    /// Short for a --kv-events-config with this endpoint.
    #[arg(long, value_name = "ENDPOINT", conflicts_with = "kv_events_config", help_heading = EVENTS)]
    pub zmq_endpoint: Option<String>,
    /// Where to answer requests for past events; with --zmq-endpoint.
    #[arg(long, value_name = "ENDPOINT", requires = "zmq_endpoint", help_heading = EVENTS)]
    pub kv_events_replay_endpoint: Option<String>,
    /// How many batches of events to keep for that.
    #[arg(long, value_name = "BATCHES", default_value_t = 1024, help_heading = EVENTS)]
    pub kv_events_replay_queue_size: usize,
    /// The version of vLLM whose events to imitate.
    #[arg(long, value_enum, default_value_t = Dialect::V0_32, help_heading = EVENTS)]
    pub kv_events_version: Dialect,
    /// Whether events name blocks by integers, the low 64 bits of their hashes, or by whole hashes.
    #[arg(
        long, env = "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", hide_env_values = true, default_value = "true",
        action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = EVENTS
    )]
    pub kv_events_int_block_hashes: bool,
    /// The address in topics of pods that listen on all addresses.
    #[arg(long, env = "POD_IP", hide_env_values = true, help_heading = EVENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// Data-parallel ranks per pod, each on a port of its own from the pod's on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8), help_heading = EVENTS)]
    pub data_parallel_size: u32,
    /// The one rank to run: only the ports of events change [default: all].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=7), conflicts_with = "data_parallel_size",
          help_heading = EVENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_parallel_rank: Option<u32>,
}

const EVENTS: &str = "Cache events and ranks";

impl EventFlags {
    /// Where events go; `None` if they go nowhere.
    pub fn settings(&self) -> Option<EventSettings> {
        let settings = match (&self.kv_events_config, &self.zmq_endpoint) {
            (Some(settings), _) => settings.clone(),
            // The flag says that an empty endpoint publishes nothing.
            (None, Some(endpoint)) if !endpoint.is_empty() => EventSettings {
                enable_kv_cache_events: true,
                endpoint: endpoint.clone(),
                replay_endpoint: self.kv_events_replay_endpoint.clone(),
                buffer_steps: self.kv_events_replay_queue_size,
                ..EventSettings::default()
            },
            _ => return None,
        };
        let publishes = settings.enable_kv_cache_events && settings.publisher != Some(Sink::Null);
        publishes.then_some(settings)
    }
}

impl Default for EventFlags {
    fn default() -> Self {
        Self {
            kv_events_config: None,
            zmq_endpoint: None,
            kv_events_replay_endpoint: None,
            kv_events_replay_queue_size: 1024,
            kv_events_version: Dialect::V0_32,
            kv_events_int_block_hashes: true,
            pod_ip: None,
            data_parallel_size: 1,
            data_parallel_rank: None,
        }
    }
}

/// The value of `--kv-events-config`, with vLLM's names and defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventSettings {
    /// Nothing is published without it.
    pub enable_kv_cache_events: bool,
    /// How to publish.
    pub publisher: Option<Sink>,
    /// Where the publisher binds or connects.
    pub endpoint: String,
    /// Where to answer requests for past events.
    pub replay_endpoint: Option<String>,
    /// How many batches are kept for that.
    pub buffer_steps: usize,
    /// How many batches may wait for a slow subscriber, before it misses some.
    pub hwm: i32,
    /// Told back only: here, nothing waits before it is sent.
    pub max_queue_size: usize,
    /// The first frame of every message; [`None`] for one that names the pod.
    pub topic: Option<String>,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            enable_kv_cache_events: false,
            publisher: None,
            endpoint: "tcp://*:5557".to_owned(),
            replay_endpoint: None,
            buffer_steps: 10_000,
            hwm: 100_000,
            max_queue_size: 100_000,
            topic: None,
        }
    }
}

impl FromStr for EventSettings {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// A way to publish events.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sink {
    /// Not at all.
    Null,
    /// Over ZeroMQ.
    Zmq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_vllm_is_understood() {
        let json = r#"{"enable_kv_cache_events":true,"publisher":"zmq","topic":"t","hwm":5}"#;
        let settings: EventSettings = json.parse().unwrap();
        assert_eq!((settings.topic.as_deref(), settings.hwm), (Some("t"), 5));
        assert_eq!((&*settings.endpoint, settings.buffer_steps), ("tcp://*:5557", 10_000));
        for bad in ["", "{", r#"{"publisher":"kafka"}"#, r#"{"hwm":"x"}"#, r#"{"topics":"x"}"#] {
            assert!(bad.parse::<EventSettings>().is_err(), "{bad}");
        }
    }

    #[test]
    fn events_are_off_unless_enabled() {
        let flags = |json: &str| EventFlags {
            kv_events_config: Some(json.parse().unwrap()),
            ..EventFlags::default()
        };
        assert_eq!(EventFlags::default().settings(), None);
        assert_eq!(flags("{}").settings(), None);
        let null = r#"{"enable_kv_cache_events":true,"publisher":"null"}"#;
        assert_eq!(flags(null).settings(), None);
        assert!(flags(r#"{"enable_kv_cache_events":true}"#).settings().is_some());
    }
}
