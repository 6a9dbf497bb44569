//! What the plugins of disaggregated serving share: stages, headers for the orchestrator beside
//! the decoding engine, and the count of decisions.

mod decisions;
mod parameters;
mod stages;

pub(crate) use decisions::{Decisions, Kind};
pub(crate) use parameters::Parameters;
pub(crate) use stages::{Stages, destination_headers, stage_headers};

/// Where the prompt is computed: `host:port` of the prefill target.
pub const PREFILLER: &str = "x-prefiller-host-port";
/// Where media are encoded: `host:port` of every encode target, comma separated.
pub const ENCODERS: &str = "x-encoder-hosts-ports";
/// The rank that was picked, when the request itself goes to the pod's primary port.
pub const DATA_PARALLEL: &str = "x-data-parallel-host-port";

/// Default names of the profiles.
pub(crate) const DECODE_PROFILE: &str = "decode";
pub(crate) const ENCODE_PROFILE: &str = "encode";

/// `name`, or `default` when it is empty.
pub(crate) fn or_default(name: String, default: &str) -> String {
    if name.is_empty() { default.to_owned() } else { name }
}
