//! Columns: every number that a decision may read, one value per endpoint.
//!
//! Readers fill columns before a decision; scorers and filters only read them. A recorded set of
//! columns therefore reproduces a decision. Storage is reused from request to request: after
//! warm-up, filling columns does not allocate.
//!
//! [`Metrics`] are the engine's own numbers, always present. Attributes come from data producers;
//! an attribute column is addressed by a typed handle [`Col`] that configuration loading hands
//! out, one per pair of attribute type and producer instance.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::exact;

/// The engine's metrics of each endpoint, as last scraped.
///
/// All vectors have one entry per endpoint of the set.
#[derive(Debug, Default, Clone)]
pub struct Metrics {
    /// Requests waiting in the engine's queue.
    pub waiting: Vec<u32>,
    /// Requests running in the engine.
    pub running: Vec<u32>,
    /// KV-cache use, a fraction (0 to 1; engines may report more).
    pub kv_usage: Vec<f64>,
    /// Tokens per engine cache block, 0 = not reported.
    pub cache_block_size: Vec<u32>,
    /// Engine cache blocks, 0 = not reported.
    pub cache_num_blocks: Vec<u32>,
    /// LoRA adapters; filled and reset only while [`with_adapters`](Self::with_adapters) is set.
    pub adapters: Vec<Adapters>,
    /// Whether the configuration reads [`adapters`](Self::adapters). Most do not, and 24 bytes
    /// per endpoint and request are worth saving.
    pub with_adapters: bool,
    /// Whether the numbers may be used. Scorers that read metrics give an endpoint whose numbers
    /// are not fresh the mean score of the others, see [`crate::plugin::Scorer::reads_metrics`].
    pub fresh: Vec<bool>,
    /// Milliseconds since the numbers were read from the engine; [`NEVER_SCRAPED`] when they never
    /// were. For plugins that have a bound of their own.
    pub age_ms: Vec<u32>,
}

/// The age of numbers that have never been read.
pub const NEVER_SCRAPED: u32 = u32::MAX;

impl Metrics {
    fn copy_from(&mut self, other: &Self) {
        let Self { waiting, running, kv_usage, adapters, with_adapters, fresh, .. } = other;
        self.waiting.clone_from(waiting);
        self.running.clone_from(running);
        self.kv_usage.clone_from(kv_usage);
        self.cache_block_size.clone_from(&other.cache_block_size);
        self.cache_num_blocks.clone_from(&other.cache_num_blocks);
        self.adapters.clone_from(adapters);
        self.with_adapters = *with_adapters;
        self.fresh.clone_from(fresh);
        self.age_ms.clone_from(&other.age_ms);
    }

    /// Sets the number of endpoints; every value becomes 0 and fresh.
    pub fn reset(&mut self, len: usize) {
        fn fill<T: Clone>(column: &mut Vec<T>, len: usize, value: T) {
            column.clear();
            column.resize(len, value);
        }
        fill(&mut self.waiting, len, 0);
        fill(&mut self.running, len, 0);
        fill(&mut self.kv_usage, len, 0.0);
        fill(&mut self.cache_block_size, len, 0);
        fill(&mut self.cache_num_blocks, len, 0);
        fill(&mut self.fresh, len, true);
        fill(&mut self.age_ms, len, 0);
        let adapters = if self.with_adapters { len } else { 0 };
        fill(&mut self.adapters, adapters, Adapters::default());
    }
}

/// Adapters of one endpoint. A set has bit `i` for the name at `i` of
/// [`EndpointSet::adapters`](crate::endpoint::EndpointSet::adapters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Adapters {
    /// Adapters running.
    pub active: u64,
    /// Adapters waiting.
    pub waiting: u64,
    /// Models that the engine says it serves, base models included; 0 = it was not asked.
    pub served: u64,
    /// Adapters that fit at once, 0 = not reported.
    pub max_active: u32,
    /// Adapters running or waiting, those without a bit included.
    pub loaded: u32,
}

/// How much of a request's prefix an endpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// Blocks of the prompts that the endpoint holds (tier-weighted with a precise producer).
    pub match_blocks: u32,
    /// Blocks of the prompts.
    pub total_blocks: u32,
    /// Tokens per block.
    pub block_size_tokens: u32,
    /// Contiguous blocks held, unweighted.
    pub cached_blocks: u32,
}

/// Requests and tokens now in flight on an endpoint, and the ledger word they were read from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct InFlight {
    /// Requests booked and not yet released.
    pub requests: u32,
    /// Projected tokens booked and not yet released.
    pub tokens: u64,
    /// The packed ledger word that was observed: booking compares against it.
    pub word: u64,
}

/// Projected cost of this request on an endpoint, in tokens that its cache does not cover.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct UncachedTokens(
    /// Tokens.
    pub i64,
);

/// Blocks of a request's prefix that an endpoint holds, by the tier they are in. Each count is that
/// of a contiguous run from the first block on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CachedTiers {
    /// In accelerator memory.
    pub gpu: u32,
    /// In host memory.
    pub cpu: u32,
    /// Anywhere else.
    pub other: u32,
    /// Expected, not confirmed by the engine.
    pub speculative: u32,
}

/// Predicted latency of this request on an endpoint, and what the client's targets leave of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LatencyInfo {
    /// Whether the predicted time to first token is within the target.
    pub ttft_valid: bool,
    /// Whether the predicted time per output token is within the target.
    pub tpot_valid: bool,
    /// Target minus predicted time to first token, ms.
    #[serde(with = "exact")]
    pub ttft_headroom: f64,
    /// Target minus predicted time per output token, ms.
    #[serde(with = "exact")]
    pub tpot_headroom: f64,
    /// Predicted time to first token, ms.
    #[serde(with = "exact")]
    pub ttft: f64,
    /// Predicted time per output token, ms.
    #[serde(with = "exact")]
    pub tpot: f64,
    /// Requests that this scheduler has running on the endpoint.
    pub dispatched: u32,
}

/// How many of a request's media items an endpoint has encoded before, by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EncoderMatch {
    /// Total size of the items that it has.
    pub matched: u64,
    /// Total size of the request's items.
    pub requested: u64,
}

/// Where an endpoint stands, as hashes of the names; 0 = not known. Equal names have equal hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Topology {
    /// Host.
    pub host: u64,
    /// Rack.
    pub rack: u64,
    /// Zone.
    pub zone: u64,
    /// Region.
    pub region: u64,
}

impl Topology {
    /// The hash of a name: 64-bit FNV-1a, 0 for the empty name. A collision makes two places look
    /// like one and costs some latency, no more.
    pub fn digest(name: &str) -> u64 {
        if name.is_empty() {
            return 0;
        }
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step).max(1)
    }
}

/// A custom metric. Its data key is the metric's own name, see
/// [`Build::scalar`](crate::registry::Build::scalar).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Scalar(
    /// The value.
    #[serde(with = "exact")]
    pub f64,
);

/// A kind of attribute that producers publish, one optional value per endpoint.
pub trait Attribute:
    Copy + fmt::Debug + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// Name of the data key, as configuration errors print it.
    const KEY: &'static str;
    /// The table of this kind.
    fn table(columns: &Columns) -> &Table<Self>;
    /// The table of this kind, to write.
    fn table_mut(columns: &mut Columns) -> &mut Table<Self>;
}

/// Handle of one attribute column: the kind is in the type, the producer behind the index.
pub struct Col<T> {
    index: u16,
    kind: PhantomData<fn() -> T>,
}

impl<T> Col<T> {
    /// The handle of the column at `index` of its table.
    pub fn at(index: u16) -> Self {
        Self { index, kind: PhantomData }
    }

    /// Position in the table.
    pub fn index(self) -> u16 {
        self.index
    }
}

impl<T> Clone for Col<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Col<T> {}

impl<T> fmt::Debug for Col<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Col({})", self.index)
    }
}

/// The columns of one attribute kind, one per producer.
#[derive(Debug, Clone)]
pub struct Table<T> {
    columns: Vec<Vec<Option<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { columns: Vec::new() }
    }
}

impl<T: Clone> Table<T> {
    fn reset(&mut self, len: usize) {
        for column in &mut self.columns {
            column.clear();
            column.resize(len, None);
        }
    }
}

/// Does something for each kind of attribute.
pub(crate) trait KindVisitor {
    fn visit<T: Attribute>(&mut self);
}

macro_rules! attributes {
    ($($field:ident: $kind:ty = $key:literal),+ $(,)?) => {
        /// All numbers of one decision.
        #[derive(Debug, Default, Clone)]
        pub struct Columns {
            len: usize,
            /// The engine's metrics.
            pub metrics: Metrics,
            $($field: Table<$kind>,)+
        }

        impl Columns {
            /// Sets the number of endpoints; metrics become 0 and fresh, attributes absent.
            pub fn reset(&mut self, len: usize) {
                self.len = len;
                self.metrics.reset(len);
                $(self.$field.reset(len);)+
            }

            /// Becomes a copy of `other` in the memory that is there.
            pub fn copy_from(&mut self, other: &Self) {
                self.len = other.len;
                self.metrics.copy_from(&other.metrics);
                $(self.$field.columns.clone_from(&other.$field.columns);)+
            }

            /// Calls `visitor` once for each kind of attribute.
            pub(crate) fn visit_kinds(visitor: &mut impl KindVisitor) {
                $(visitor.visit::<$kind>();)+
            }
        }

        $(impl Attribute for $kind {
            const KEY: &'static str = $key;
            fn table(columns: &Columns) -> &Table<Self> {
                &columns.$field
            }
            fn table_mut(columns: &mut Columns) -> &mut Table<Self> {
                &mut columns.$field
            }
        })+
    };
}

attributes! {
    prefix: PrefixMatch = "PrefixCacheMatchInfoDataKey",
    in_flight: InFlight = "InFlightLoadDataKey",
    uncached: UncachedTokens = "UncachedRequestTokensDataKey",
    tiers: CachedTiers = "PrefixCacheTiersDataKey",
    latency: LatencyInfo = "LatencyPredictionInfoDataKey",
    encoder: EncoderMatch = "MultiModalEncoderCacheMatchInfoKey",
    topology: Topology = "TopologyDataKey",
    scalars: Scalar = "ScalarMetric",
}

impl Columns {
    /// Number of endpoints that every column has a value for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of columns of an attribute kind that have been made.
    pub fn count<T: Attribute>(&self) -> u16 {
        T::table(self).columns.len() as u16
    }

    /// The values of an attribute column; empty when the column was never made.
    pub fn get<T: Attribute>(&self, col: Col<T>) -> &[Option<T>] {
        T::table(self).columns.get(col.index as usize).map_or(&[], Vec::as_slice)
    }

    /// The values of an attribute column, to write. Makes the column when it is missing.
    pub fn get_mut<T: Attribute>(&mut self, col: Col<T>) -> &mut [Option<T>] {
        let len = self.len;
        let table = T::table_mut(self);
        let index = col.index as usize;
        while table.columns.len() <= index {
            table.columns.push(vec![None; len]);
        }
        &mut table.columns[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_forgets_values_and_keeps_columns() {
        let mut columns = Columns::default();
        columns.reset(2);
        let col = Col::<PrefixMatch>::at(1);
        columns.get_mut(col)[1] = Some(PrefixMatch { match_blocks: 3, ..Default::default() });
        columns.metrics.waiting[0] = 9;
        assert_eq!(columns.get(col)[1].map(|m| m.match_blocks), Some(3));
        assert!(columns.get(Col::<PrefixMatch>::at(0)).iter().all(Option::is_none));

        columns.reset(3);
        assert_eq!(columns.get(col), [None, None, None]);
        assert_eq!(columns.metrics.waiting, [0, 0, 0]);
        assert!(columns.get(Col::<InFlight>::at(0)).is_empty());
    }
}
