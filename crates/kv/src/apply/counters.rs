//! What was not applied, and why.

use crate::kind::CacheKind;

/// Why a store or a removal was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A group's blocks have tokens, and the size of a block is zero.
    InvalidBlockSize,
    /// The mirror is full.
    NoRoom,
    /// The tokens are not those of the blocks: the engine has kept only some of them.
    NonDenseBlockSpan,
    /// The blocks depend on prompt embeddings, which no request can be matched with.
    PromptEmbeds,
    /// The publisher holds as much as one may.
    Quota,
    /// Extra keys whose hashing would take disproportionate time.
    TooManyExtras,
    /// More KV-cache groups than a publisher may have.
    TooManyGroups,
    /// More media than there are tiers, or a name that is none.
    TooManyTiers,
    /// A removal from a group that has stored nothing.
    UnknownGroup,
    /// The block before the first is not held, so that no request can come to these.
    UnknownParent,
    /// Blocks of an adapter that the engine names by a number of its own.
    UnnamedAdapter,
    /// A group whose blocks do not make a prefix.
    UnsupportedCacheKind,
}

impl Reason {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::InvalidBlockSize,
        Self::NoRoom,
        Self::NonDenseBlockSpan,
        Self::PromptEmbeds,
        Self::Quota,
        Self::TooManyExtras,
        Self::TooManyGroups,
        Self::TooManyTiers,
        Self::UnknownGroup,
        Self::UnknownParent,
        Self::UnnamedAdapter,
        Self::UnsupportedCacheKind,
    ];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidBlockSize => "invalid_block_size",
            Self::NoRoom => "no_room",
            Self::NonDenseBlockSpan => "non_dense_block_span",
            Self::PromptEmbeds => "prompt_embeds",
            Self::Quota => "quota",
            Self::TooManyExtras => "too_many_extras",
            Self::TooManyGroups => "too_many_groups",
            Self::TooManyTiers => "too_many_tiers",
            Self::UnknownGroup => "unknown_group",
            Self::UnknownParent => "unknown_parent",
            Self::UnnamedAdapter => "unnamed_adapter",
            Self::UnsupportedCacheKind => "unsupported_cache_kind",
        }
    }
}

/// Events since the start, of all publishers.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Hashes whose last store was taken back, so that their blocks are gone.
    pub removals_forwarded: u64,
    /// Hashes removed that another block still backs, or that were not held.
    pub removals_suppressed: u64,
    stores: Skipped,
    removals: Skipped,
}

impl Counters {
    /// Stores passed over: kind of the group, reason, how many. Only what happened is listed.
    pub fn stores_skipped(&self) -> impl Iterator<Item = (CacheKind, Reason, u64)> {
        self.stores.iter()
    }

    /// Removals passed over, likewise.
    pub fn removals_skipped(&self) -> impl Iterator<Item = (CacheKind, Reason, u64)> {
        self.removals.iter()
    }

    pub(super) fn skip_store(&mut self, kind: CacheKind, reason: Reason) {
        self.stores.add(kind, reason);
    }

    pub(super) fn skip_removal(&mut self, kind: CacheKind, reason: Reason) {
        self.removals.add(kind, reason);
    }
}

#[derive(Clone, Debug, Default)]
struct Skipped([[u64; Reason::ALL.len()]; CacheKind::ALL.len()]);

impl Skipped {
    fn add(&mut self, kind: CacheKind, reason: Reason) {
        let row = self.0.get_mut(kind as usize);
        if let Some(count) = row.and_then(|row| row.get_mut(reason as usize)) {
            *count += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (CacheKind, Reason, u64)> {
        CacheKind::ALL.into_iter().zip(&self.0).flat_map(|(kind, row)| {
            Reason::ALL
                .into_iter()
                .zip(row)
                .filter(|(_, count)| **count > 0)
                .map(move |(reason, count)| (kind, reason, *count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_listed_with_kind_and_reason() {
        let mut counters = Counters::default();
        counters.skip_store(CacheKind::Unknown, Reason::UnsupportedCacheKind);
        counters.skip_store(CacheKind::Unknown, Reason::UnsupportedCacheKind);
        let listed: Vec<_> = counters.stores_skipped().collect();
        assert_eq!(listed, [(CacheKind::Unknown, Reason::UnsupportedCacheKind, 2)]);
        assert_eq!(counters.removals_skipped().count(), 0);
        assert!(Reason::ALL.into_iter().enumerate().all(|(i, reason)| reason as usize == i));
    }
}
