//! `predicted-latency-producer`: how long this request would take on each endpoint, and what the
//! client's targets leave of it.
//!
//! The producer half collects the features, asks a [`Predictor`] and writes the predictions and
//! headrooms into a column. Once the choice is made, the features are kept with the stream; at its
//! end they become training samples in a [`SampleQueue`].

mod metrics;
mod predictor;
mod running;
mod samples;

use std::any::Any;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use inlane_core::columns::{Col, Columns, EncoderMatch, InFlight, LatencyInfo, PrefixMatch};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{
    AfterResponse, Collector, Cycle, DataProducer, PerTopology, PostChoice, Producing, Responding,
    Roles,
};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, TOKENIZED_PROMPT, metric_keys,
};
use inlane_core::state::{CycleData, CycleState, StateSlot};
use inlane_latency::{Available, PodType, Row, Target, endpoint_key};
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

pub use predictor::{Forecast, Predictor, Question, Workspace};
pub use samples::{Lesson, SampleQueue, lessons};

use crate::slo::Targets;
use crate::{
    PREFILL_PROFILE, approx_prefix_cache_producer, inflight_load_producer, token_producer,
};
use metrics::{Attempt, Stats};
use predictor::within_range;
use running::{Running, Summary};
use samples::{Memory, Part};

/// The type `predicted-latency-producer`.
pub const TYPE: PluginType = PluginType::new("predicted-latency-producer", build)
    .default_producer_of(&["LatencyPredictionInfoDataKey"]);

const MEDIA_PRODUCER: &str = "mm-embeddings-cache-producer";
const NS_PER_MS: i64 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// What the target for the time per output token is multiplied with, above 0.
    slo_buffer_factor: f64,
    /// How long a request counts as running at most, ns; 0 or less = until its stream ends.
    #[serde(rename = "contextTTL")]
    context_ttl: i64,
    /// Whether responses are streamed: the time to the first token then is that, and the time per
    /// output token counts.
    streaming_mode: bool,
    /// Label that holds an endpoint's role; empty = roles are not told apart.
    endpoint_role_label: String,
    /// Whether to predict; otherwise samples are only collected.
    predict_in_produce: bool,
    /// Instance that publishes prefix matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Instance that publishes the load in flight; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
    /// Whether the sizes of media items are features.
    use_encoder_cache_features: bool,
    /// Instance that publishes encoder matches; empty = `mm-embeddings-cache-producer`.
    encoder_cache_match_info_producer_name: String,
    /// Whether the quantile that the models are trained for is held against the targets instead of
    /// the usual value. Not known to the reference, where the sidecar's settings decide.
    predict_upper: bool,
    /// Accepted, no effect.
    #[serde(rename = "samplingMean")]
    _sampling_mean: f64,
    /// Accepted, no effect.
    #[serde(rename = "maxDecodeTokenSamplesForPrediction")]
    _max_decode_token_samples_for_prediction: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            slo_buffer_factor: 1.0,
            context_ttl: 300_000 * NS_PER_MS,
            streaming_mode: false,
            endpoint_role_label: String::new(),
            predict_in_produce: true,
            prefix_match_info_producer_name: String::new(),
            in_flight_load_producer_name: String::new(),
            use_encoder_cache_features: false,
            encoder_cache_match_info_producer_name: String::new(),
            predict_upper: false,
            _sampling_mean: 0.0,
            _max_decode_token_samples_for_prediction: 0,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let factor = parameters.slo_buffer_factor;
    if !(factor > 0.0 && factor.is_finite()) {
        let message = format!("expected a number above 0, found {factor}");
        return Err(BuildError::field("sloBufferFactor", message));
    }
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    for key in [metric_keys::WAITING, metric_keys::RUNNING, metric_keys::KV_USAGE] {
        build.use_key(key, CORE_METRICS_EXTRACTOR);
    }
    let encoder = parameters
        .use_encoder_cache_features
        .then(|| build.require(&parameters.encoder_cache_match_info_producer_name, MEDIA_PRODUCER));
    let plugin = Arc::new(PredictedLatencyProducer {
        prefix: build.require(
            &parameters.prefix_match_info_producer_name,
            approx_prefix_cache_producer::TYPE.name,
        ),
        load: build
            .require(&parameters.in_flight_load_producer_name, inflight_load_producer::TYPE.name),
        encoder,
        latency: build.produce(),
        scratch: build.cycle_state(),
        instance: build.instance(),
        name: build.name().to_owned(),
        state: build.kept_state("", LatencyState::default),
        parameters,
    });
    Ok(Roles::default()
        .per_topology(plugin.clone())
        .producer(plugin.clone())
        .post_choice(plugin.clone())
        .after_response(plugin.clone())
        .collector(plugin))
}

/// What an instance keeps from request to request, and over a reload. Whoever owns the models finds
/// it with [`KeptState::all`](inlane_core::registry::KeptState::all).
#[derive(Default)]
pub struct LatencyState {
    predictor: ArcSwapOption<Box<dyn Predictor>>,
    running: Running,
    /// Training samples on their way out.
    pub samples: SampleQueue,
    stats: Stats,
}

impl LatencyState {
    /// Replaces the predictor; `None` = nothing is predicted. Workers never wait for it.
    pub fn set_predictor(&self, predictor: Option<Box<dyn Predictor>>) {
        self.predictor.store(predictor.map(Arc::new));
    }

    /// Whether there is a predictor.
    pub fn has_predictor(&self) -> bool {
        self.predictor.load().is_some()
    }
}

/// What is known of an endpoint from its metadata.
#[derive(Debug, Clone, Copy)]
struct Known {
    pod_type: PodType,
}

/// What is settled per topology.
struct Pool {
    known: Vec<Known>,
    /// See [`endpoint_key`].
    keys: Vec<u64>,
}

/// Memory of one request.
#[derive(Default)]
struct Scratch {
    candidates: Vec<EndpointIx>,
    /// Parallel to `candidates`.
    rows: Vec<Row>,
    /// Parallel to `candidates`.
    forecasts: Vec<Forecast>,
    work: Workspace,
}

impl CycleData for Scratch {
    fn clear(&mut self) {
        self.candidates.clear();
        self.rows.clear();
        self.forecasts.clear();
    }
}

/// Headrooms (llm-d-router `predicted-latency-producer`), with `P` = the prediction:
///
/// ```text
/// ttftHeadroom = ttft target - P.ttft          ttftValid = P.ttft < ttft target
/// when streaming, and the endpoint does not only prefill:
///     b = tpot target * sloBufferFactor
///     b = min(b, m * sloBufferFactor)          m = tightest tpot target that runs there, if above 0
///     tpotHeadroom = b - P.tpot                tpotValid = P.tpot < b
/// otherwise tpotHeadroom = 0, tpotValid = true
/// ```
///
/// A target that the client does not name is 0.
struct PredictedLatencyProducer {
    parameters: Parameters,
    prefix: Col<PrefixMatch>,
    load: Col<InFlight>,
    encoder: Option<Col<EncoderMatch>>,
    latency: Col<LatencyInfo>,
    scratch: StateSlot<Scratch>,
    instance: PluginIx,
    name: String,
    state: Arc<LatencyState>,
}

impl PredictedLatencyProducer {
    fn first_target(&self) -> Target {
        if self.parameters.streaming_mode { Target::FirstToken } else { Target::EndToEnd }
    }

    fn row(&self, columns: &Columns, ix: usize, pod_type: PodType, tokens: u64, media: u64) -> Row {
        fn at<T: Copy>(values: &[Option<T>], ix: usize) -> Option<T> {
            values.get(ix).copied().flatten()
        }
        let metrics = &columns.metrics;
        let number = |values: &[u32]| values.get(ix).map_or(0.0, |&n| n as f32);
        let load = at(columns.get(self.load), ix);
        let prefix = at(columns.get(self.prefix), ix).filter(|found| found.total_blocks > 0);
        let encoder = self.encoder.and_then(|col| at(columns.get(col), ix));
        Row {
            kv_cache_percentage: metrics.kv_usage.get(ix).map_or(0.0, |&usage| usage as f32),
            input_token_length: tokens as f32,
            num_request_waiting: number(&metrics.waiting),
            num_request_running: load
                .map_or_else(|| number(&metrics.running), |load| load.requests as f32),
            num_tokens_generated: 1.0,
            prefix_cache_score: prefix
                .map_or(0.0, |found| found.match_blocks as f32 / found.total_blocks as f32),
            prefill_tokens_in_flight: load.map_or(0.0, |load| load.tokens as f32),
            decode_tokens_in_flight: 0.0,
            encoder_input_size: media as f32,
            encoder_matched_size: encoder.map_or(0.0, |found| found.matched.min(media) as f32),
            pod_type,
        }
    }

    /// Asks the predictor; the answers are in `scratch.forecasts`.
    fn forecast(
        &self,
        cx: &Producing<'_>,
        keys: &[u64],
        scratch: &mut Scratch,
    ) -> Option<Available> {
        let predictor = self.state.predictor.load();
        let Some(predictor) = &*predictor else {
            self.state.stats.attempted(Attempt::Cold);
            return None;
        };
        let Scratch { candidates, rows, forecasts, work } = scratch;
        let question = Question {
            endpoints: cx.endpoints,
            candidates,
            keys,
            rows,
            first: self.first_target(),
            upper: self.parameters.predict_upper,
        };
        let outcome = predictor.predict(&question, work, forecasts);
        let attempt = match &outcome {
            Ok(available) if available.first => Attempt::Predicted,
            Ok(_) => Attempt::Cold,
            Err(_) => Attempt::Failed,
        };
        self.state.stats.attempted(attempt);
        outcome.ok().filter(|available| available.first)
    }

    fn info(
        &self,
        forecast: Forecast,
        targets: Targets,
        running: Summary,
        prefills: bool,
        per_token: bool,
    ) -> LatencyInfo {
        let Forecast { first_ms, per_token_ms } = forecast;
        let factor = self.parameters.slo_buffer_factor;
        let mut info = LatencyInfo {
            ttft_valid: first_ms < targets.ttft_ms,
            tpot_valid: true,
            ttft_headroom: targets.ttft_ms - first_ms,
            tpot_headroom: 0.0,
            ttft: first_ms,
            tpot: if per_token { per_token_ms } else { 0.0 },
            dispatched: running.requests,
        };
        if self.parameters.streaming_mode && !prefills && per_token {
            let mut bound = targets.tpot_ms * factor;
            if running.tightest_tpot_ms > 0.0 {
                bound = bound.min(running.tightest_tpot_ms * factor);
            }
            info.tpot_headroom = bound - per_token_ms;
            info.tpot_valid = per_token_ms < bound;
        }
        info
    }
}

impl PerTopology for PredictedLatencyProducer {
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync> {
        let label = self.parameters.endpoint_role_label.as_str();
        let endpoints = endpoints.as_slice();
        let known = endpoints.iter().map(|endpoint| Known {
            pod_type: match endpoint.label(label).filter(|_| !label.is_empty()) {
                Some("prefill") => PodType::Prefill,
                Some("decode") => PodType::Decode,
                _ => PodType::None,
            },
        });
        let keys = endpoints.iter().map(|endpoint| endpoint_key(&endpoint.id)).collect();
        Box::new(Pool { known: known.collect(), keys })
    }
}

impl DataProducer for PredictedLatencyProducer {
    /// Linear in the candidates. A predictor that fails writes nothing; that is not a failure of
    /// the producer.
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let pool = cx.settled.get::<Pool>(self.instance);
        let (pool, scratch) = pool.zip(state.get_mut(self.scratch)).ok_or_else(foreign_state)?;
        scratch.clear();
        let tokens = cx.request.token_count();
        let encoder = self.encoder.map(|col| columns.get(col)).unwrap_or_default();
        let media = encoder.iter().flatten().map(|found| found.requested).max().unwrap_or(0);
        for &ix in cx.candidates {
            let pod_type = pool.known.get(ix as usize).map(|known| known.pod_type);
            let row = self.row(columns, ix as usize, pod_type.unwrap_or_default(), tokens, media);
            scratch.candidates.push(ix);
            scratch.rows.push(row);
        }
        scratch.forecasts.resize(scratch.rows.len(), Forecast::UNKNOWN);
        if !self.parameters.predict_in_produce {
            return Ok(());
        }
        let Some(available) = self.forecast(cx, &pool.keys, scratch) else {
            scratch.forecasts.fill(Forecast::UNKNOWN);
            return Ok(());
        };
        let targets = Targets::of(cx.request);
        let (slots, latency) = (cx.endpoints.slots(), columns.get_mut(self.latency));
        let rows = scratch.candidates.iter().zip(&scratch.rows).zip(&scratch.forecasts);
        for ((&ix, row), &forecast) in rows {
            let known = !forecast.first_ms.is_nan();
            let per_token = available.per_token && !forecast.per_token_ms.is_nan();
            let place = slots.get(ix as usize).zip(latency.get_mut(ix as usize));
            let Some((&slot, cell)) = place.filter(|_| known) else { continue };
            let running = self.state.running.read(slot, cx.now_ms);
            let prefills = row.pod_type == PodType::Prefill;
            *cell = Some(self.info(forecast, targets, running, prefills, per_token));
        }
        Ok(())
    }
}

impl PostChoice for PredictedLatencyProducer {
    /// Keeps the features of the endpoints that will do the work, and has the request counted as
    /// running. Without a request id it could not be found again.
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        let scratch = cx.state.get(self.scratch).filter(|s| !s.candidates.is_empty());
        let (Some(scratch), Some(primary)) = (scratch, decision.target()) else { return };
        if cx.request.id.is_empty() {
            return;
        }
        let prefill = decision.profile(PREFILL_PROFILE).and_then(|run| run.targets.first());
        // A profile of that name may be the primary one.
        let prefill = prefill
            .copied()
            .filter(|_| decision.primary_run().is_some_and(|run| run.name != PREFILL_PROFILE));
        let targets = Targets::of(cx.request);
        let mut keep = |endpoint, part| {
            let at = scratch.candidates.iter().position(|&ix| ix == endpoint);
            let found = at.and_then(|at| scratch.rows.get(at).zip(scratch.forecasts.get(at)));
            if let Some((row, &forecast)) = found {
                let (row, streaming) = (within_range(row), self.parameters.streaming_mode);
                let memory = Memory { row, targets, forecast, part, streaming };
                effects.push(Effect::Keep(memory.keep(self.instance, endpoint)));
            }
        };
        match prefill {
            None => keep(primary, Part::Both),
            Some(prefill) => {
                // In the order in which they finish their parts.
                keep(prefill, Part::Prefill);
                keep(primary, Part::Decode);
            }
        }
        let note = targets.tpot_ms.to_bits();
        effects.push(Effect::Record { plugin: self.instance, endpoint: primary, note });
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let &Effect::Record { endpoint, note, .. } = effect else { return };
        let Some(&slot) = cx.endpoints.slots().get(endpoint as usize) else { return };
        let ttl = self.parameters.context_ttl;
        let ttl_ms = u64::try_from(ttl).ok().filter(|&ns| ns > 0).map(|ns| ns.div_ceil(1_000_000));
        let expires_ms = ttl_ms.map(|ms| cx.now_ms.saturating_add(ms));
        let tpot_ms = f64::from_bits(note);
        self.state.running.add(slot, request_key(cx.request.id), tpot_ms, expires_ms);
    }
}

impl AfterResponse for PredictedLatencyProducer {
    fn complete(&self, cx: &Responding<'_>) {
        let slots = cx.endpoints.slots();
        for kept in cx.kept_by(self.instance) {
            if let Some(&slot) = slots.get(kept.endpoint as usize) {
                self.state.running.remove(slot, request_key(cx.request_id));
            }
        }
        for lesson in lessons(self.instance, cx) {
            self.state.stats.learned(&lesson);
            self.state.samples.push(lesson.sample);
        }
    }
}

impl Collector for PredictedLatencyProducer {
    fn collect(&self, page: &mut Exposition) {
        let labels = [("plugin_name", self.name.as_str()), ("plugin_type", TYPE.name)];
        let state = &self.state;
        state.stats.collect(page, &labels, state.samples.dropped());
    }
}

fn request_key(id: &str) -> u64 {
    xxh64(id.as_bytes(), 0)
}

fn foreign_state() -> PluginError {
    PluginError::new("the cycle state belongs to another configuration")
}

#[cfg(test)]
mod tests;
