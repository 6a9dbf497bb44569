//! What a finished request teaches: the rules of the training samples, and the queue they wait in.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use inlane_core::effect::{KEPT, Kept, PluginIx};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::Responding;
use inlane_latency::{ROW_LEN, Row, Sample, Target, endpoint_key};

use super::predictor::Forecast;
use crate::slo::Targets;

/// Samples that wait for the owner thread; more are dropped and counted.
const WAITING: usize = 8_192;

/// Samples on their way out of the proxy.
#[derive(Debug)]
pub struct SampleQueue {
    samples: ArrayQueue<Sample>,
    dropped: AtomicU64,
}

impl Default for SampleQueue {
    fn default() -> Self {
        Self { samples: ArrayQueue::new(WAITING), dropped: AtomicU64::new(0) }
    }
}

impl SampleQueue {
    /// Takes the oldest sample. Lock-free; any thread may.
    pub fn pop(&self) -> Option<Sample> {
        self.samples.pop()
    }

    /// Samples that found no room so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Adds a sample, or drops it and counts that where there is no room.
    pub fn push(&self, sample: Sample) {
        if self.samples.push(sample).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// What a stream's endpoint is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It prefills and decodes.
    Both,
    /// It decodes what another one has prefilled.
    Decode,
    /// It prefills.
    Prefill,
}

/// What is kept with a stream of one of its endpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    pub(super) row: Row,
    pub(super) targets: Targets,
    pub(super) forecast: Forecast,
    pub(super) part: Part,
    /// Whether responses are streamed, as the instance is told.
    pub(super) streaming: bool,
}

const TTFT: usize = ROW_LEN;
const TPOT: usize = ROW_LEN + 1;
const FIRST: usize = ROW_LEN + 2;
const PER_TOKEN: usize = ROW_LEN + 3;
const PART: usize = ROW_LEN + 4;

impl Memory {
    pub(super) fn keep(&self, plugin: PluginIx, endpoint: EndpointIx) -> Kept {
        let mut values = [0.0; KEPT];
        values[..ROW_LEN].copy_from_slice(&self.row.to_array());
        values[TTFT] = self.targets.ttft_ms as f32;
        values[TPOT] = self.targets.tpot_ms as f32;
        values[FIRST] = self.forecast.first_ms as f32;
        values[PER_TOKEN] = self.forecast.per_token_ms as f32;
        values[PART] = f32::from(self.part as u8 + if self.streaming { STREAMING } else { 0 });
        Kept { plugin, endpoint, values }
    }

    /// What [`keep`](Self::keep) wrote; `None` for anything else.
    pub(super) fn of(kept: &Kept) -> Option<Self> {
        let values = &kept.values;
        let row = Row::from_array(values.first_chunk()?).ok()?;
        let flags = values[PART] as u8;
        let part = match flags % STREAMING {
            0 => Part::Both,
            1 => Part::Decode,
            2 => Part::Prefill,
            _ => return None,
        };
        Some(Self {
            row,
            targets: Targets { ttft_ms: values[TTFT].into(), tpot_ms: values[TPOT].into() },
            forecast: Forecast {
                first_ms: values[FIRST].into(),
                per_token_ms: values[PER_TOKEN].into(),
            },
            part,
            streaming: flags >= STREAMING,
        })
    }
}

const STREAMING: u8 = 4;

/// One measurement, what had been predicted, and what the client asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lesson {
    /// The sample.
    pub sample: Sample,
    /// The prediction that the decision was made with, ms; NaN without one.
    pub predicted_ms: f64,
    /// The client's target, ms; 0 without one.
    pub slo_ms: f64,
}

/// What a response teaches, as far as it has come: the instance `plugin` must have kept something
/// with the stream. At most two samples (llm-d-router `predicted-latency-producer`):
///
/// ```text
/// streaming:      ttft = decision to first byte            of the endpoint that prefilled
///                 tpot = (total - ttft) / (tokens - 1)      of the one that decoded, with 2 or more
/// not streaming:  e2e  = decision to end                    of the endpoint that prefilled
/// ```
///
/// Tokens come from the usage that the engine reports; without it there is no sample of the time
/// per token. What failed, broke off or was served by another endpoint than chosen teaches nothing.
pub fn lessons<'a>(
    plugin: PluginIx,
    response: &'a Responding<'a>,
) -> impl Iterator<Item = Lesson> + use<'a> {
    let served = (200..300).contains(&response.status) && response.endpoint.is_some();
    let kept = response.kept_by(plugin).filter(move |_| served);
    kept.filter_map(|kept| Some((kept, Memory::of(kept)?)))
        .flat_map(move |(kept, memory)| learn(response, kept, &memory))
        .flatten()
}

fn learn(response: &Responding<'_>, kept: &Kept, memory: &Memory) -> [Option<Lesson>; 2] {
    let Some(endpoint) = response.endpoints.get(kept.endpoint) else { return [None; 2] };
    let chosen = response.endpoint.is_some_and(|served| served.id == endpoint.id);
    if memory.part != Part::Prefill && !chosen {
        return [None; 2];
    }
    let lesson = |row, target, ms: f64, predicted_ms, slo_ms| {
        let sample = Sample { row, target, y_ms: ms as f32, endpoint: endpoint_key(&endpoint.id) };
        let lesson = Lesson { sample, predicted_ms, slo_ms };
        sample.validate().is_ok().then_some(lesson)
    };
    let Memory { targets, forecast, .. } = *memory;
    let row = Row { num_tokens_generated: 0.0, ..memory.row };
    // A first chunk that is also the last says nothing of the time to the first token.
    let goes_on = |ms: f64| ms < response.total_ms || !response.complete;
    let first_ms = response.first_byte_ms.filter(|&ms| goes_on(ms));
    let first = match (memory.part, memory.streaming) {
        (Part::Decode, _) => None,
        (_, true) => first_ms
            .and_then(|ms| lesson(row, Target::FirstToken, ms, forecast.first_ms, targets.ttft_ms)),
        (_, false) => {
            let ms = response.total_ms;
            let lesson = lesson(row, Target::EndToEnd, ms, forecast.first_ms, targets.ttft_ms);
            lesson.filter(|_| response.complete)
        }
    };
    let tokens = response.completion_tokens.filter(|&tokens| tokens > 1);
    let per_token = first_ms.zip(tokens).and_then(|(first_ms, tokens)| {
        let ms = (response.total_ms - first_ms) / (tokens - 1) as f64;
        // Not read for the time per token, and sent as 0 as the reference does.
        let row = Row {
            prefix_cache_score: 0.0,
            encoder_input_size: 0.0,
            encoder_matched_size: 0.0,
            ..row
        };
        lesson(row, Target::PerToken, ms, forecast.per_token_ms, targets.tpot_ms)
    });
    let decoded = memory.part != Part::Prefill && memory.streaming && response.complete;
    [first, per_token.filter(|_| decoded)]
}
