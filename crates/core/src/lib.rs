//! The scheduling core: what a scheduler is, without any of the places where one runs.
//!
//! A decision is a pure function of its inputs:
//!
//! ```text
//! decide(plan, columns, request, now, seed) -> (decision, effects)
//! ```
//!
//! * [`endpoint`] is the pool as a decision sees it: an immutable, ordered set of endpoints.
//! * [`columns`] holds every number that a score may read, one value per endpoint.
//! * [`request`] is the request as far as scheduling cares: model, prompts, headers, priority.
//! * [`plugin`] has the traits: filters, scorers, pickers, profile handlers, data producers,
//!   scrapers, and the hooks around a call.
//! * [`registry`] maps type names of the configuration to the plugins behind them.
//! * [`config`] loads configuration documents.
//! * [`plan`] is a configuration applied to a pool, ready for decisions.
//! * [`cycle`] makes them.
//! * [`decision`] is the outcome, with everything needed to explain it.
//! * [`explain`] shows one, [`record`] writes one down and repeats it.
//! * [`effect`] is what a decision asks its caller to do: book an endpoint, remember a prefix,
//!   set a header.
//! * [`exposition`] is how plugins show numbers of their own.
//! * [`snapshot`] is the form in which the control plane hands pool and configuration over.
//!
//! Nothing here does IO, reads a clock, keeps a global or draws from the system's randomness:
//! the time and a seed come in as arguments, so that a recorded decision replays bit for bit.
#![forbid(unsafe_code)]

pub mod columns;
pub mod config;
pub mod cycle;
pub mod decision;
pub mod effect;
pub mod endpoint;
pub mod explain;
pub mod exposition;
pub mod plan;
pub mod plugin;
pub mod record;
pub mod registry;
pub mod request;
pub mod rng;
pub mod snapshot;
pub mod state;
