//! The endpoints of a case, and the columns that they fill.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::columns::{
    Adapters, CachedTiers, Columns, EncoderMatch, InFlight, LatencyInfo, PrefixMatch, Scalar,
    Topology, UncachedTokens,
};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::registry::Schema;
use serde_json::Value;

use super::schema::{AttributesSpec, EndpointSpec, RequestSpec};

const NAMESPACE: &str = "default";
const DEFAULT_PORT: &str = "8000";
/// Producers whose attributes a case gives without naming one.
const PREFIX_PRODUCER: &str = "approx-prefix-cache-producer";
const LOAD_PRODUCER: &str = "inflight-load-producer";
const LATENCY_PRODUCER: &str = "predicted-latency-producer";
const MEDIA_PRODUCER: &str = "mm-embeddings-cache-producer";
const TOPOLOGY_PRODUCER: &str = "topology-extractor";
const SCALAR_PRODUCER: &str = "core-metrics-extractor";
/// Labels that say where a pod stands: a case's topology is given as these, too.
const TOPOLOGY_LABELS: [&str; 4] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/rack",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// The endpoints of a case.
pub(super) struct Pool {
    pub(super) endpoints: Arc<EndpointSet>,
    specs: Vec<EndpointSpec>,
}

impl Pool {
    pub(super) fn new(specs: &[EndpointSpec]) -> Result<Self, String> {
        let mut by_id: BTreeMap<String, EndpointSpec> = BTreeMap::new();
        let mut endpoints = Vec::new();
        for (spec, index) in specs.iter().zip(0..) {
            let port = match &spec.port {
                None => DEFAULT_PORT.to_owned(),
                Some(Value::String(port)) => port.clone(),
                Some(other) => other.to_string(),
            };
            let port = port.parse().map_err(|_| format!("endpoint {}: port {port}", spec.id))?;
            let id = format!("{NAMESPACE}/{}", spec.id);
            by_id.insert(id.clone(), spec.clone());
            endpoints.push(Endpoint {
                id,
                namespace: NAMESPACE.into(),
                name: spec.id.clone(),
                pod_name: spec.id.clone(),
                address: spec.address.clone(),
                port,
                host_port: Endpoint::join_host_port(&spec.address, port),
                rank: 0,
                labels: labels(spec),
                slot: Slot { index, generation: 1 },
            });
        }
        let endpoints = EndpointSet::new(1, endpoints).with_adapters(adapters(specs));
        let endpoints = Arc::new(endpoints);
        let specs = endpoints.as_slice().iter().filter_map(|e| by_id.remove(&e.id)).collect();
        Ok(Self { endpoints, specs })
    }

    /// A pool of endpoints about which nothing is known but their names.
    pub(super) fn named<'a>(ids: impl Iterator<Item = &'a String>) -> Result<Self, String> {
        let spec = |id: &String| EndpointSpec { id: id.clone(), ..EndpointSpec::default() };
        Self::new(&ids.map(spec).collect::<Vec<_>>())
    }

    pub(super) fn ix(&self, id: &str) -> Result<EndpointIx, String> {
        let found = self.endpoints.find(&format!("{NAMESPACE}/{id}"));
        found.ok_or_else(|| format!("the case has no endpoint '{id}'"))
    }

    pub(super) fn name(&self, ix: EndpointIx) -> &str {
        self.endpoints.get(ix).map_or("(no such endpoint)", |e| &e.name)
    }

    pub(super) fn names(&self, ixs: &[EndpointIx]) -> Vec<String> {
        ixs.iter().map(|&ix| self.name(ix).to_owned()).collect()
    }

    /// All endpoints, or those of a list, in the order of the pool.
    pub(super) fn candidates(&self, ids: Option<&[String]>) -> Result<Vec<EndpointIx>, String> {
        let Some(ids) = ids else { return Ok((0..).take(self.endpoints.len()).collect()) };
        let mut ixs = ids.iter().map(|id| self.ix(id)).collect::<Result<Vec<_>, _>>()?;
        ixs.sort_unstable();
        Ok(ixs)
    }

    /// The endpoint that a request names as peer.
    pub(super) fn peer(&self, request: &RequestSpec) -> Result<Option<EndpointIx>, String> {
        request.peer_endpoint.as_deref().map(|id| self.ix(id)).transpose()
    }

    /// Columns with the metrics and attributes of the case.
    pub(super) fn columns(&self, schema: &Schema) -> Columns {
        let mut columns = Columns::default();
        columns.metrics.with_adapters = true;
        columns.reset(self.endpoints.len());
        self.fill_metrics(&mut columns);
        self.fill_attributes(schema, &mut columns);
        columns
    }

    pub(super) fn fill_metrics(&self, columns: &mut Columns) {
        let metrics = &mut columns.metrics;
        for (i, spec) in self.specs.iter().enumerate() {
            metrics.waiting[i] = spec.metrics.waiting;
            metrics.running[i] = spec.metrics.running;
            metrics.kv_usage[i] = spec.metrics.kv;
            metrics.cache_block_size[i] = spec.metrics.cache_block_size;
            metrics.cache_num_blocks[i] = spec.metrics.cache_num_blocks;
            let bits = |names: &[String]| {
                names.iter().fold(0, |set, name| set | self.endpoints.adapter_bit(name))
            };
            if let Some(adapters) = metrics.adapters.get_mut(i) {
                let spec = &spec.metrics;
                let loaded = spec.active_models.len() + spec.waiting_models.len();
                *adapters = Adapters {
                    active: bits(&spec.active_models),
                    waiting: bits(&spec.waiting_models),
                    served: 0,
                    max_active: spec.max_active_models,
                    loaded: u32::try_from(loaded).unwrap_or(u32::MAX),
                };
            }
        }
    }

    /// Writes the attributes that somebody reads; the others have no column.
    pub(super) fn fill_attributes(&self, schema: &Schema, columns: &mut Columns) {
        for (i, spec) in self.specs.iter().enumerate() {
            let attributes = &spec.attributes;
            for prefix in &attributes.prefix {
                let producer = prefix.producer.as_deref().unwrap_or(PREFIX_PRODUCER);
                if let Some(col) = schema.find::<PrefixMatch>(producer) {
                    columns.get_mut(col)[i] = Some(PrefixMatch {
                        match_blocks: prefix.match_blocks,
                        total_blocks: prefix.total_blocks,
                        block_size_tokens: prefix.block_size_tokens,
                        cached_blocks: prefix.cached_blocks.unwrap_or(prefix.match_blocks),
                    });
                }
            }
            let load = attributes.inflight.as_ref();
            if let Some((load, col)) = load.zip(schema.find::<InFlight>(LOAD_PRODUCER)) {
                columns.get_mut(col)[i] = Some(InFlight {
                    requests: u32::try_from(load.requests).unwrap_or(0),
                    tokens: u64::try_from(load.tokens).unwrap_or(0),
                    word: 0,
                });
            }
            let cost = attributes.uncached_request_tokens;
            if let Some((cost, col)) = cost.zip(schema.find::<UncachedTokens>(LOAD_PRODUCER)) {
                columns.get_mut(col)[i] = Some(UncachedTokens(cost));
            }
            fill_rare(attributes, schema, columns, i);
        }
    }
}

/// Attributes that few cases give.
fn fill_rare(attributes: &AttributesSpec, schema: &Schema, columns: &mut Columns, i: usize) {
    for prefix in &attributes.prefix {
        let producer = prefix.producer.as_deref().unwrap_or(PREFIX_PRODUCER);
        let tiers = prefix.cached_blocks_by_tier.as_ref();
        if let Some((tiers, col)) = tiers.zip(schema.find::<CachedTiers>(producer)) {
            let of = |tier: &str| tiers.get(tier).copied().unwrap_or(0);
            let known = ["gpu", "cpu", "speculative"];
            let other = tiers.iter().filter(|(tier, _)| !known.contains(&tier.as_str()));
            columns.get_mut(col)[i] = Some(CachedTiers {
                gpu: of("gpu"),
                cpu: of("cpu"),
                other: other.map(|(_, blocks)| *blocks).max().unwrap_or(0),
                speculative: of("speculative"),
            });
        }
    }
    let latency = attributes.latency.as_ref();
    if let Some((latency, col)) = latency.zip(schema.find::<LatencyInfo>(LATENCY_PRODUCER)) {
        columns.get_mut(col)[i] = Some(LatencyInfo {
            ttft_valid: latency.ttft_valid,
            tpot_valid: latency.tpot_valid,
            ttft_headroom: latency.ttft_headroom,
            tpot_headroom: latency.tpot_headroom,
            ttft: latency.ttft,
            tpot: latency.tpot,
            dispatched: latency.dispatched_requests,
        });
    }
    let topology = attributes.topology.as_ref();
    if let Some((at, col)) = topology.zip(schema.find::<Topology>(TOPOLOGY_PRODUCER)) {
        columns.get_mut(col)[i] = Some(Topology {
            host: Topology::digest(&at.hostname),
            rack: Topology::digest(&at.rack),
            zone: Topology::digest(&at.zone),
            region: Topology::digest(&at.region),
        });
    }
    for scalar in &attributes.scalars {
        let producer = scalar.producer.as_deref().unwrap_or(SCALAR_PRODUCER);
        // At the reference the key without a producer is one of its own.
        let of_name = |key: &inlane_core::registry::DataKey| {
            key.name == scalar.name && key.producer == producer
        };
        let cols: Vec<_> =
            schema.keys::<Scalar>().filter(|(key, _)| of_name(key)).map(|(_, col)| col).collect();
        for col in cols {
            columns.get_mut(col)[i] = Some(Scalar(scalar.value));
        }
    }
    let media = attributes.mm.as_ref();
    if let Some((media, col)) = media.zip(schema.find::<EncoderMatch>(MEDIA_PRODUCER)) {
        columns.get_mut(col)[i] = Some(EncoderMatch {
            matched: media.matched.iter().map(|item| item.size).sum(),
            requested: media.request.iter().map(|item| item.size).sum(),
        });
    }
}

/// Labels of an endpoint, those of its topology included.
fn labels(spec: &EndpointSpec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    if let Some(at) = &spec.attributes.topology {
        let names = [&at.hostname, &at.rack, &at.zone, &at.region];
        for (label, name) in TOPOLOGY_LABELS.iter().zip(names).filter(|(_, name)| !name.is_empty())
        {
            labels.entry((*label).to_owned()).or_insert_with(|| name.clone());
        }
    }
    labels
}

/// The names of all adapters, each once.
fn adapters(specs: &[EndpointSpec]) -> Vec<String> {
    let mut names: Vec<String> = specs
        .iter()
        .flat_map(|spec| spec.metrics.active_models.iter().chain(&spec.metrics.waiting_models))
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}
