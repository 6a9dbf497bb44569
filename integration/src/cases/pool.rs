//! The endpoints of a case, and the columns that they fill.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::columns::{Columns, InFlight, PrefixMatch, UncachedTokens};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::registry::Schema;
use serde_json::Value;

use super::schema::EndpointSpec;

const NAMESPACE: &str = "default";
const DEFAULT_PORT: &str = "8000";
/// Producers whose attributes a case gives without naming one.
const PREFIX_PRODUCER: &str = "approx-prefix-cache-producer";
const LOAD_PRODUCER: &str = "inflight-load-producer";

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
                labels: spec.labels.clone(),
                slot: Slot { index, generation: 1 },
            });
        }
        let endpoints = Arc::new(EndpointSet::new(1, endpoints));
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

    /// Columns with the metrics and attributes of the case.
    pub(super) fn columns(&self, schema: &Schema) -> Columns {
        let mut columns = Columns::default();
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
        }
    }
}
