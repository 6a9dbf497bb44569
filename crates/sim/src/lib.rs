//! A vLLM-compatible simulator for people without GPUs.
//!
//! A simulated pod answers the HTTP API of a vLLM server with made-up text, at made-up speed, but with real
//! queueing, a real block cache with eviction and preemption, and the metrics page of the real server. Run it as
//! `inlane-sim`, or start pods inside a Rust test:
//!
//! ```
//! use inlane_sim::{Cluster, Config};
//!
//! let config = Config { port: 0, seed: Some(7), ..Config::default() };
//! let cluster = Cluster::start(config, 3)?;
//! let pod = &cluster.pods[0];
//! assert_eq!(pod.name(), "sim-0");
//! pod.configure(|tunables| tunables.fault_unavailable_rate = 50)?;
//! pod.kill()?;
//! pod.revive()?;
//! assert!(pod.metrics().contains("vllm:num_requests_running"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Module | What it holds |
//! |---|---|
//! | [`engine`] | which request runs, when each token appears; blocks; no clock and no IO |
//! | [`events`] | telling the world what is in the block cache |
//! | [`text`] | the dummy tokenizer, answers and their lengths |
//! | [`metrics`] | counting and the Prometheus page |
//! | [`config`] | flags, and the settings that change at run time |
//! | `pod`, `server`, `http` | one pod; its connections; its API |
//! | [`cluster`] | running pods, and handles on them |

#![forbid(unsafe_code)]

mod alarm;
pub mod cluster;
pub mod config;
pub mod endpoints;
pub mod engine;
pub mod events;
mod http;
mod ids;
pub mod metrics;
mod pod;
mod random;
mod server;
pub mod text;

pub use cluster::{Cluster, PodHandle};
pub use config::Config;
