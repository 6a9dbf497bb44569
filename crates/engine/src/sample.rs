//! What one page says about its engine.

/// The most custom metrics that one engine may define.
pub const MAX_CUSTOM: usize = 48;

/// A number that a page can yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// Requests waiting in the engine's queue.
    Waiting,
    /// Requests running.
    Running,
    /// Fraction of the KV cache in use.
    KvUsage,
    /// Active and waiting LoRA adapters.
    Lora,
    /// Cache geometry, read from the labels of one series.
    CacheInfo,
    /// Tokens per cache block, read as a value.
    CacheBlockSize,
    /// Number of cache blocks, read as a value.
    CacheNumBlocks,
    /// Prompt tokens looked up in the prefix cache since the engine started.
    CacheQueries,
    /// Of those, found.
    CacheHits,
    /// The custom metric of this position in the engine's list, below [`MAX_CUSTOM`].
    Custom(u8),
}

impl Field {
    /// Whether all series of the page are added up, of all names that the engine has for it. Such
    /// a field is extra: a page counts as read and as complete without it.
    pub(crate) fn is_summed(self) -> bool {
        matches!(self, Self::CacheQueries | Self::CacheHits)
    }

    fn bit(self) -> u64 {
        let position = match self {
            Self::Waiting => 0,
            Self::Running => 1,
            Self::KvUsage => 2,
            Self::Lora => 3,
            Self::CacheInfo => 4,
            Self::CacheBlockSize => 5,
            Self::CacheNumBlocks => 6,
            Self::CacheQueries => 7,
            Self::CacheHits => 8,
            Self::Custom(i) => 9 + u32::from(i),
        };
        1_u64.checked_shl(position).unwrap_or(0)
    }
}

/// A set of [`Field`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(u64);

impl FieldSet {
    /// Adds a field.
    pub fn insert(&mut self, field: Field) {
        self.0 |= field.bit();
    }

    /// Takes a field out.
    pub fn remove(&mut self, field: Field) {
        self.0 &= !field.bit();
    }

    /// Whether the field is in the set.
    pub fn contains(self, field: Field) -> bool {
        self.0 & field.bit() != 0
    }

    /// Whether no field is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of fields.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The fields of `self` that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The values of one page. `None` leaves the earlier value of an endpoint as it was.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineSample {
    /// Requests waiting.
    pub waiting: Option<u32>,
    /// Requests running.
    pub running: Option<u32>,
    /// KV-cache use as the engine says it, normally a fraction from 0 to 1; always finite.
    pub kv_usage: Option<f64>,
    /// Tokens per cache block.
    pub cache_block_size: Option<u32>,
    /// Number of cache blocks.
    pub cache_num_blocks: Option<u32>,
    /// LoRA state, if the page has any.
    pub lora: Option<LoraSample>,
    /// Prompt tokens looked up in the prefix cache since the engine started.
    pub cache_queries: Option<u64>,
    /// Of those, found, in whatever tier.
    pub cache_hits: Option<u64>,
    /// Custom metrics in the order of the engine's list; always finite.
    pub custom: Vec<Option<f64>>,
    /// Fields for which the page had a usable series; counters of the prefix cache are never here.
    pub found: FieldSet,
    /// Configured fields without a usable series, or with one that did not parse. LoRA is never
    /// here: an engine without adapters has no such series. Nor are counters of the prefix cache.
    pub missing: FieldSet,
    /// Lines of interest that are not valid exposition format, or too long.
    pub malformed_lines: u32,
}

impl EngineSample {
    /// Whether the page told anything: only then does it count as a scrape.
    pub fn is_useful(&self) -> bool {
        !self.found.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        let mut custom = std::mem::take(&mut self.custom);
        custom.fill(None);
        *self = Self { custom, ..Self::default() };
    }
}

/// The LoRA series with the greatest value, which is the time of its last change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoraSample {
    /// Adapters that may be active at once.
    pub max_adapters: Option<u32>,
    /// Comma list of adapters in use, as the engine wrote it.
    pub active: String,
    /// Comma list of adapters that requests wait for, as the engine wrote it.
    pub waiting: String,
}

impl LoraSample {
    /// Names of the adapters in use; may repeat what the engine repeats.
    pub fn active(&self) -> impl Iterator<Item = &str> {
        names(&self.active)
    }

    /// Names of the adapters that requests wait for.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        names(&self.waiting)
    }
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapter_lists_are_trimmed_and_drop_empties() {
        let lora = LoraSample { active: " a, ,b,,".into(), ..LoraSample::default() };
        assert_eq!(lora.active().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(lora.waiting().count(), 0);
    }

    #[test]
    fn fields_have_bits_of_their_own() {
        let mut all = FieldSet::default();
        let custom = (0..MAX_CUSTOM as u8).map(Field::Custom);
        let fixed = [
            Field::Waiting,
            Field::Running,
            Field::KvUsage,
            Field::Lora,
            Field::CacheInfo,
            Field::CacheBlockSize,
            Field::CacheNumBlocks,
            Field::CacheQueries,
            Field::CacheHits,
        ];
        for (n, field) in fixed.into_iter().chain(custom).enumerate() {
            all.insert(field);
            assert_eq!(all.len() as usize, n + 1, "{field:?}");
        }
    }
}
