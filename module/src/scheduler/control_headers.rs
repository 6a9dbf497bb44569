//! Headers that belong to the scheduler, not to clients.

/// The upstream request header that names the destination.
pub(super) const DESTINATION: &str = "x-gateway-destination-endpoint";

/// The private header that carries a stream's token to the `pods` cluster on Envoy 1.38, and in
/// callouts. A number without meaning outside this process; always overwritten or removed.
pub const STREAM_TOKEN: &str = "x-inlane-stream";

/// Answer header that says why a request was dropped.
pub(super) const DROP_REASON: &str = "x-llm-d-request-dropped-reason";

/// Headers that steer destinations or legs of a request. A client's value is always removed: with
/// it a client could choose its pod, or a pod of somebody else.
pub(super) const STEERING: &[&str] = &[
    DESTINATION,
    STREAM_TOKEN,
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-scores",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
    DROP_REASON,
];

/// Headers by which a client talks to the scheduler. The decision reads them; model servers have
/// no use for them, so they are removed unless the settings say otherwise.
pub(super) const CONTROL: &[&str] = &[
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite",
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-slo-ttft-ms",
    "x-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",
    "x-slo-tpot-ms",
];
