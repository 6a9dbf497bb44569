//! The names of a decision: `request` and `endpoint`.

use inlane_core::columns::{Col, InFlight, LatencyInfo, PrefixMatch, Scalar, UncachedTokens};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::Cycle;
use inlane_core::registry::{Build, CORE_METRICS_EXTRACTOR, metric_keys};

use super::{Facts, Kind, Name, Names, Value};
use crate::{approx_prefix_cache_producer, inflight_load_producer};

/// Default producer of predicted latencies.
const LATENCY_PRODUCER: &str = "predicted-latency-producer";

/// All names, for messages.
const KNOWN: &str = "request.{attributes[…], body_bytes, fairness_id, headers[…], id, \
    max_output_tokens, media, model, priority, prompt_bytes, prompts, streaming, target_model, tokens} \
    and endpoint.{address, cache_block_size, cache_num_blocks, cached_blocks, fresh, id, \
    in_flight_requests, in_flight_tokens, kv_usage, labels[…], match_blocks, metrics[…], name, \
    namespace, pod, port, prefix_ratio, rank, running, total_blocks, tpot_ms, ttft_ms, \
    uncached_tokens, waiting}";

/// Fields and maps of `request` and `endpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    // Request.
    Attributes,
    BodyBytes,
    FairnessId,
    Headers,
    Id,
    MaxOutputTokens,
    Media,
    Model,
    Priority,
    PromptBytes,
    Prompts,
    Streaming,
    TargetModel,
    Tokens,
    // Endpoint.
    Address,
    CacheBlockSize,
    CacheNumBlocks,
    CachedBlocks,
    EndpointId,
    Fresh,
    InFlightRequests,
    InFlightTokens,
    KvUsage,
    Labels,
    MatchBlocks,
    Metrics,
    /// A custom metric that the expression names.
    Metric(u16),
    Name,
    Namespace,
    Pod,
    Port,
    PrefixRatio,
    Rank,
    Running,
    TotalBlocks,
    Tpot,
    Ttft,
    Uncached,
    Waiting,
}

/// Which instances the data come from; empty = the default.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    pub(crate) prefix: String,
    pub(crate) in_flight: String,
    pub(crate) latency: String,
}

/// The columns that an expression reads.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    prefix: Option<Col<PrefixMatch>>,
    in_flight: Option<Col<InFlight>>,
    uncached: Option<Col<UncachedTokens>>,
    latency: Option<Col<LatencyInfo>>,
    metrics: Vec<(String, Col<Scalar>)>,
    /// Whether the engine's metrics are read.
    pub(crate) engine: bool,
}

/// Resolves names and declares the data behind them.
pub(crate) struct Declare<'a, 'b> {
    pub(crate) build: &'a mut Build<'b>,
    pub(crate) producers: &'a Producers,
    pub(crate) columns: Columns,
}

impl Declare<'_, '_> {
    fn engine(&mut self, key: &'static str, field: Field) -> Field {
        self.build.use_key(key, CORE_METRICS_EXTRACTOR);
        self.columns.engine = true;
        field
    }

    fn prefix(&mut self, field: Field) -> Field {
        let (build, producer) = (&mut *self.build, &self.producers.prefix);
        self.columns.prefix.get_or_insert_with(|| {
            build.require(producer, approx_prefix_cache_producer::TYPE.name)
        });
        field
    }

    fn in_flight(&mut self, field: Field) -> Field {
        let (build, producer) = (&mut *self.build, &self.producers.in_flight);
        self.columns
            .in_flight
            .get_or_insert_with(|| build.require(producer, inflight_load_producer::TYPE.name));
        field
    }

    fn latency(&mut self, field: Field) -> Field {
        let (build, producer) = (&mut *self.build, &self.producers.latency);
        self.columns.latency.get_or_insert_with(|| build.require(producer, LATENCY_PRODUCER));
        field
    }

    fn uncached(&mut self) -> Field {
        let (build, producer) = (&mut *self.build, &self.producers.in_flight);
        self.columns
            .uncached
            .get_or_insert_with(|| build.require(producer, inflight_load_producer::TYPE.name));
        Field::Uncached
    }

    fn of_endpoint(&mut self, name: &str) -> Option<Field> {
        Some(match name {
            "address" => Field::Address,
            "cache_block_size" => self.engine(metric_keys::CACHE_INFO, Field::CacheBlockSize),
            "cache_num_blocks" => self.engine(metric_keys::CACHE_INFO, Field::CacheNumBlocks),
            "cached_blocks" => self.prefix(Field::CachedBlocks),
            "fresh" => Field::Fresh,
            "id" => Field::EndpointId,
            "in_flight_requests" => self.in_flight(Field::InFlightRequests),
            "in_flight_tokens" => self.in_flight(Field::InFlightTokens),
            "kv_usage" => self.engine(metric_keys::KV_USAGE, Field::KvUsage),
            "match_blocks" => self.prefix(Field::MatchBlocks),
            "name" => Field::Name,
            "namespace" => Field::Namespace,
            "pod" => Field::Pod,
            "port" => Field::Port,
            "prefix_ratio" => self.prefix(Field::PrefixRatio),
            "rank" => Field::Rank,
            "running" => self.engine(metric_keys::RUNNING, Field::Running),
            "total_blocks" => self.prefix(Field::TotalBlocks),
            "tpot_ms" => self.latency(Field::Tpot),
            "ttft_ms" => self.latency(Field::Ttft),
            "uncached_tokens" => self.uncached(),
            "waiting" => self.engine(metric_keys::WAITING, Field::Waiting),
            _ => return None,
        })
    }
}

fn of_request(name: &str) -> Option<Field> {
    Some(match name {
        "body_bytes" => Field::BodyBytes,
        "fairness_id" => Field::FairnessId,
        "id" => Field::Id,
        "max_output_tokens" => Field::MaxOutputTokens,
        "media" => Field::Media,
        "model" => Field::Model,
        "priority" => Field::Priority,
        "prompt_bytes" => Field::PromptBytes,
        "prompts" => Field::Prompts,
        "streaming" => Field::Streaming,
        "target_model" => Field::TargetModel,
        "tokens" => Field::Tokens,
        _ => return None,
    })
}

impl Names for Declare<'_, '_> {
    type Field = Field;

    fn resolve(&mut self, path: &[&str]) -> Option<Name<Field>> {
        match path {
            ["request", "attributes"] => Some(Name::Map(Field::Attributes)),
            ["request", "headers"] => Some(Name::Map(Field::Headers)),
            ["endpoint", "labels"] => Some(Name::Map(Field::Labels)),
            ["endpoint", "metrics"] => Some(Name::Map(Field::Metrics)),
            ["request", name] => of_request(name).map(Name::Field),
            ["endpoint", name] => self.of_endpoint(name).map(Name::Field),
            _ => None,
        }
    }

    fn entry(&mut self, map: Field, key: &str) -> Option<Field> {
        if map != Field::Metrics {
            return None;
        }
        let metrics = &mut self.columns.metrics;
        let at = metrics.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            metrics.push((key.to_owned(), self.build.scalar(key, "")));
            metrics.len() - 1
        });
        u16::try_from(at).ok().map(Field::Metric)
    }

    fn key(&self, map: Field, key: &str) -> String {
        if map == Field::Headers { key.to_ascii_lowercase() } else { key.to_owned() }
    }

    fn is_shared(&self, field: Field) -> bool {
        matches!(
            field,
            Field::Attributes
                | Field::BodyBytes
                | Field::FairnessId
                | Field::Headers
                | Field::Id
                | Field::MaxOutputTokens
                | Field::Media
                | Field::Model
                | Field::Priority
                | Field::PromptBytes
                | Field::Prompts
                | Field::Streaming
                | Field::TargetModel
                | Field::Tokens
        )
    }

    fn kind(&self, field: Field) -> Kind {
        match field {
            Field::Streaming | Field::Fresh => Kind::Bool,
            Field::Attributes
            | Field::FairnessId
            | Field::Headers
            | Field::Id
            | Field::Model
            | Field::TargetModel
            | Field::Address
            | Field::EndpointId
            | Field::Labels
            | Field::Name
            | Field::Namespace
            | Field::Pod => Kind::Text,
            _ => Kind::Number,
        }
    }

    fn known(&self) -> &'static str {
        KNOWN
    }
}

/// One endpoint of a decision.
pub(crate) struct Candidate<'a, 'c> {
    pub(crate) cx: &'c Cycle<'a>,
    pub(crate) columns: &'c Columns,
    pub(crate) endpoint: EndpointIx,
}

impl<'a> Candidate<'a, '_> {
    fn column<T: inlane_core::columns::Attribute>(&self, col: Option<Col<T>>) -> Option<T> {
        self.cx.columns.get(col?).get(self.endpoint as usize).copied().flatten()
    }

    fn prefix(&self) -> Option<PrefixMatch> {
        self.column(self.columns.prefix)
    }

    fn in_flight(&self) -> Option<InFlight> {
        self.column(self.columns.in_flight)
    }

    fn metric(&self, at: u16) -> Option<f64> {
        let (_, col) = self.columns.metrics.get(usize::from(at))?;
        self.column(Some(*col)).map(|scalar| scalar.0)
    }

    fn of_request(&self, field: Field) -> Option<Value<'a>> {
        let request = self.cx.request;
        Some(match field {
            Field::BodyBytes => count(request.body_bytes),
            Field::FairnessId => Value::Text(request.fairness_id),
            Field::Id => Value::Text(request.id),
            Field::MaxOutputTokens => count(request.max_output_tokens?),
            Field::Media => count(request.media.len() as u64),
            Field::Model => Value::Text(request.model),
            Field::Priority => Value::Int(request.priority.into()),
            Field::PromptBytes => count(request.prompt_bytes),
            Field::Prompts => count(request.prompts.len() as u64),
            Field::Streaming => Value::Bool(request.streaming),
            Field::TargetModel => Value::Text(request.target_model),
            Field::Tokens => count(request.token_count()),
            _ => return None,
        })
    }
}

impl<'a> Facts<'a, Field> for Candidate<'a, '_> {
    fn field(&self, field: Field) -> Option<Value<'a>> {
        if let Some(value) = self.of_request(field) {
            return Some(value);
        }
        let ix = self.endpoint as usize;
        let (metrics, endpoint) = (&self.cx.columns.metrics, self.cx.endpoints.get(self.endpoint)?);
        let engine = |column: &[u32]| Value::Int(column.get(ix).copied().unwrap_or(0).into());
        let prefix = || self.prefix().unwrap_or_default();
        let in_flight = || self.in_flight().unwrap_or_default();
        Some(match field {
            Field::Address => Value::Text(&endpoint.address),
            Field::CacheBlockSize => engine(&metrics.cache_block_size),
            Field::CacheNumBlocks => engine(&metrics.cache_num_blocks),
            Field::CachedBlocks => count(prefix().cached_blocks.into()),
            Field::EndpointId => Value::Text(&endpoint.id),
            Field::Fresh => Value::Bool(metrics.fresh.get(ix).copied().unwrap_or(false)),
            Field::InFlightRequests => count(in_flight().requests.into()),
            Field::InFlightTokens => count(in_flight().tokens),
            Field::KvUsage => Value::Double(metrics.kv_usage.get(ix).copied().unwrap_or(0.0)),
            Field::MatchBlocks => count(prefix().match_blocks.into()),
            Field::Metric(at) => Value::Double(self.metric(at)?),
            Field::Name => Value::Text(&endpoint.name),
            Field::Namespace => Value::Text(&endpoint.namespace),
            Field::Pod => Value::Text(&endpoint.pod_name),
            Field::Port => Value::Int(endpoint.port.into()),
            Field::PrefixRatio => {
                let PrefixMatch { match_blocks, total_blocks, .. } = prefix();
                let ratio = f64::from(match_blocks) / f64::from(total_blocks.max(1));
                Value::Double(ratio)
            }
            Field::Rank => Value::Int(endpoint.rank.into()),
            Field::Running => engine(&metrics.running),
            Field::TotalBlocks => count(prefix().total_blocks.into()),
            Field::Tpot => Value::Double(self.column(self.columns.latency)?.tpot),
            Field::Ttft => Value::Double(self.column(self.columns.latency)?.ttft),
            Field::Uncached => Value::Int(self.column(self.columns.uncached)?.0),
            Field::Waiting => engine(&metrics.waiting),
            _ => return None,
        })
    }

    fn has(&self, field: Field) -> bool {
        match field {
            Field::CachedBlocks | Field::MatchBlocks | Field::PrefixRatio | Field::TotalBlocks => {
                self.prefix().is_some()
            }
            Field::InFlightRequests | Field::InFlightTokens => self.in_flight().is_some(),
            _ => self.field(field).is_some(),
        }
    }

    fn entry(&self, map: Field, key: &str) -> Option<Value<'a>> {
        let cx = self.cx;
        match map {
            Field::Attributes => {
                let mut attributes = cx.state.attributes().iter();
                attributes.find(|a| a.name == key).map(|a| Value::Text(&a.value))
            }
            Field::Headers => cx.request.headers.get(key).map(Value::Text),
            Field::Labels => cx.endpoints.get(self.endpoint)?.label(key).map(Value::Text),
            Field::Metrics => {
                let at = self.columns.metrics.iter().position(|(name, _)| name == key)?;
                self.metric(u16::try_from(at).ok()?).map(Value::Double)
            }
            _ => None,
        }
    }
}

fn count(value: u64) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
