//! Kinds of KV-cache groups.

/// What kind of attention a KV-cache group serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CacheKind {
    /// Attention within chunks.
    ChunkedLocalAttention,
    /// Of a decoder to its encoder.
    CrossAttention,
    /// Of an encoder.
    EncoderOnlyAttention,
    /// Every token sees all before it.
    FullAttention,
    /// A state-space model.
    Mamba,
    /// Full attention over a latent vector.
    MlaAttention,
    /// Full attention with sinks.
    SinkFullAttention,
    /// A token sees the last ones only.
    SlidingWindow,
    /// The same over a latent vector.
    SlidingWindowMla,
    /// The engine does not tell, or names one that is not known here.
    Unknown,
}

impl CacheKind {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::ChunkedLocalAttention,
        Self::CrossAttention,
        Self::EncoderOnlyAttention,
        Self::FullAttention,
        Self::Mamba,
        Self::MlaAttention,
        Self::SinkFullAttention,
        Self::SlidingWindow,
        Self::SlidingWindowMla,
        Self::Unknown,
    ];

    /// The kind of an engine's name for it.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Unknown)
    }

    /// The engine's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChunkedLocalAttention => "chunked_local_attention",
            Self::CrossAttention => "cross_attention",
            Self::EncoderOnlyAttention => "encoder_only_attention",
            Self::FullAttention => "full_attention",
            Self::Mamba => "mamba",
            Self::MlaAttention => "mla_attention",
            Self::SinkFullAttention => "sink_full_attention",
            Self::SlidingWindow => "sliding_window",
            Self::SlidingWindowMla => "sliding_window_mla",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a block of such a group means that the engine can reuse the prefix up to it.
    pub fn is_prefix_indexable(self) -> bool {
        matches!(self, Self::FullAttention | Self::MlaAttention | Self::SinkFullAttention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_kinds() {
        for (index, kind) in CacheKind::ALL.into_iter().enumerate() {
            assert_eq!(CacheKind::from_name(kind.name()), kind);
            assert_eq!(kind as usize, index);
        }
        assert_eq!(CacheKind::from_name("quantum"), CacheKind::Unknown);
    }
}
