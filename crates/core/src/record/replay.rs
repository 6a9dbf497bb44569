//! Making a recorded decision again.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::columns::{Attribute, Columns, KindVisitor, NEVER_SCRAPED};
use crate::config::{self, ConfigError};
use crate::cycle::Scratch;
use crate::endpoint::EndpointIx;
use crate::explain::Explanation;
use crate::plan::Plan;
use crate::registry::{KeptState, Registry, Schema};
use crate::request::{BlockUnit, Headers, Media, Prompt, Request};
use crate::snapshot::ConfigDocument;

use super::lines::{RecordedColumn, RecordedDecision, RecordedRequest, Setting};

/// Why a record cannot be replayed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A decision refers to a setting that the record does not have.
    #[error("decision {sequence} was made on setting {epoch}, which the record does not have")]
    NoSetting {
        /// The decision.
        sequence: u64,
        /// The setting it names.
        epoch: u64,
    },
    /// The configuration does not load.
    #[error("the configuration of setting {epoch} does not load: {source}")]
    Config {
        /// The setting.
        epoch: u64,
        /// Why.
        source: Box<ConfigError>,
    },
    /// A value does not fit.
    #[error("decision {sequence}: {what}")]
    Malformed {
        /// The decision.
        sequence: u64,
        /// What does not fit.
        what: String,
    },
}

/// A decision made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// What came of it this time.
    pub outcome: Explanation,
    /// Columns that the configuration reads and the record does not have: with another
    /// configuration than the recorded one its decision may differ from a live one.
    pub missing: Vec<String>,
}

/// Makes recorded decisions again.
#[derive(Debug)]
pub struct Replayer<'a> {
    registry: &'a Registry,
    /// The configuration to decide with, in place of the recorded one.
    other: Option<ConfigDocument>,
    plans: BTreeMap<u64, Plan>,
}

impl<'a> Replayer<'a> {
    /// Decides with the recorded configurations, or with `other`.
    pub fn new(registry: &'a Registry, other: Option<ConfigDocument>) -> Self {
        Self { registry, other, plans: BTreeMap::new() }
    }

    /// Takes up a setting. Replaces one of the same number.
    ///
    /// # Errors
    /// The configuration does not load.
    pub fn setting(&mut self, setting: &Setting) -> Result<(), ReplayError> {
        let epoch = setting.epoch;
        let document = self.other.as_ref().unwrap_or(&setting.config);
        // Every setting starts with nothing remembered: what was, is in the records.
        let config = config::load(document, self.registry, &KeptState::default())
            .map_err(|source| ReplayError::Config { epoch, source: Box::new(source) })?;
        let plan = Plan::new(Arc::new(config), Arc::new(setting.topology.endpoint_set(epoch)));
        let plan = plan.with_stale_metrics(setting.stale_metrics);
        self.plans.insert(epoch, plan.with_denial_status(setting.denial_status));
        Ok(())
    }

    /// The plan of a setting.
    pub fn plan(&self, epoch: u64) -> Option<&Plan> {
        self.plans.get(&epoch)
    }

    /// Makes a decision again.
    ///
    /// # Errors
    /// The record does not hold together.
    pub fn decide(&self, record: &RecordedDecision) -> Result<Replayed, ReplayError> {
        let (sequence, epoch) = (record.sequence, record.epoch);
        let plan = self.plan(epoch).ok_or(ReplayError::NoSetting { sequence, epoch })?;
        let malformed = |what| ReplayError::Malformed { sequence, what };
        let mut scratch = Scratch::new(plan);
        let missing = restore(plan, record, &mut scratch).map_err(malformed)?;
        let headers = Asked(&record.request.headers);
        let outcome = with_request(&record.request, &headers, |request| {
            plan.decide(request, record.now_ms, record.seed, &mut scratch)
        });
        let error = outcome.err().map(|e| e.to_string()).unwrap_or_default();
        // Screeners ran before what is recorded: the candidates are what they left.
        let screened = record.outcome.screened.clone();
        let outcome = Explanation { screened, ..Explanation::of(plan, &scratch.decision, &error) };
        Ok(Replayed { outcome, missing })
    }
}

/// Fills `scratch` from the record; answers the columns that are not in it.
fn restore(
    plan: &Plan,
    record: &RecordedDecision,
    scratch: &mut Scratch,
) -> Result<Vec<String>, String> {
    let endpoints = plan.endpoints().len();
    plan.begin(scratch);
    if let Some(beyond) = record.candidates.iter().find(|ix| **ix as usize >= endpoints) {
        return Err(format!("candidate {beyond} of {endpoints} endpoints"));
    }
    plan.restrict(&record.candidates, scratch);
    restore_metrics(record, &mut scratch.columns)?;
    let mut reader = Reader {
        record,
        schema: &plan.config().schema,
        columns: &mut scratch.columns,
        missing: Vec::new(),
        fault: None,
    };
    Columns::visit_kinds(&mut reader);
    let (missing, fault) = (reader.missing, reader.fault);
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, owner) in plan.config().states().owners().enumerate() {
        let nth = seen.entry(owner).or_default();
        let state = record.state.iter().find(|state| state.owner == owner && state.nth == *nth);
        if let Some(state) = state {
            scratch.state.restore(index, &state.words);
        }
        *nth += 1;
    }
    for attribute in &record.attributes {
        scratch.state.set_attribute(attribute.clone());
    }
    Ok(missing)
}

fn restore_metrics(record: &RecordedDecision, columns: &mut Columns) -> Result<(), String> {
    fn spread<T: Copy>(
        what: &str,
        from: &[T],
        candidates: &[EndpointIx],
        to: &mut [T],
    ) -> Result<(), String> {
        if from.len() != candidates.len() {
            return Err(format!("{what}: {} values, {} candidates", from.len(), candidates.len()));
        }
        for (value, ix) in from.iter().zip(candidates) {
            if let Some(cell) = to.get_mut(*ix as usize) {
                *cell = *value;
            }
        }
        Ok(())
    }
    let (from, to, at) = (&record.metrics, &mut columns.metrics, &record.candidates);
    spread("waiting", &from.waiting, at, &mut to.waiting)?;
    spread("running", &from.running, at, &mut to.running)?;
    spread("kvUsage", &from.kv_usage, at, &mut to.kv_usage)?;
    spread("cacheBlockSize", &from.cache_block_size, at, &mut to.cache_block_size)?;
    spread("cacheNumBlocks", &from.cache_num_blocks, at, &mut to.cache_num_blocks)?;
    spread("fresh", &from.fresh, at, &mut to.fresh)?;
    if from.age_ms.is_empty() {
        let age = |fresh: &bool| if *fresh { 0 } else { NEVER_SCRAPED };
        let ages: Vec<_> = from.fresh.iter().map(age).collect();
        spread("ageMs", &ages, at, &mut to.age_ms)?;
    } else {
        spread("ageMs", &from.age_ms, at, &mut to.age_ms)?;
    }
    if to.with_adapters && !from.adapters.is_empty() {
        spread("adapters", &from.adapters, at, &mut to.adapters)?;
    }
    Ok(())
}

/// Fills the columns of the configuration from those of the record.
struct Reader<'a> {
    record: &'a RecordedDecision,
    schema: &'a Schema,
    columns: &'a mut Columns,
    missing: Vec<String>,
    fault: Option<String>,
}

impl Reader<'_> {
    fn column<T: Attribute>(&mut self, from: &RecordedColumn, to: crate::columns::Col<T>) {
        let cells = self.columns.get_mut(to);
        for (value, ix) in from.values.iter().zip(&self.record.candidates) {
            match serde_json::from_value::<Option<T>>(value.clone()) {
                Ok(value) => {
                    if let Some(cell) = cells.get_mut(*ix as usize) {
                        *cell = value;
                    }
                }
                Err(error) => {
                    let fault = format!("column {}/{}: {error}", from.name, from.producer);
                    self.fault.get_or_insert(fault);
                }
            }
        }
    }
}

impl KindVisitor for Reader<'_> {
    fn visit<T: Attribute>(&mut self) {
        for (key, col) in self.schema.keys::<T>() {
            let from = self.record.columns.iter().find(|column| {
                column.kind == T::KEY && column.name == key.name && column.producer == key.producer
            });
            match from {
                Some(from) => self.column(from, col),
                None => self.missing.push(key.to_string()),
            }
        }
    }
}

/// The recorded headers.
struct Asked<'a>(&'a [(String, Option<String>)]);

impl Headers for Asked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name)?.1.as_deref()
    }
}

fn with_request<R>(
    recorded: &RecordedRequest,
    headers: &dyn Headers,
    work: impl FnOnce(&Request<'_>) -> R,
) -> R {
    let unit = BlockUnit::Tokens(0);
    let prompt = |tokens: &u64| Prompt::Blocks { unit, tokens: *tokens, contents: &[] };
    let prompts: Vec<Prompt<'_>> = recorded.prompts.iter().map(prompt).collect();
    let media = recorded.media.iter().map(|m| Media {
        modality: &m.modality,
        hash: &m.hash,
        prompt: m.prompt,
        offset: m.offset,
        length: m.length,
    });
    let media: Vec<Media<'_>> = media.collect();
    work(&Request {
        id: &recorded.id,
        model: &recorded.model,
        target_model: &recorded.target_model,
        headers,
        priority: recorded.priority,
        fairness_id: &recorded.fairness_id,
        prompts: &prompts,
        packed: &[],
        media: &media,
        prompt_bytes: recorded.prompt_bytes,
        cache_salt: "",
        max_output_tokens: recorded.max_output_tokens,
        body_bytes: recorded.body_bytes,
        streaming: recorded.streaming,
    })
}
