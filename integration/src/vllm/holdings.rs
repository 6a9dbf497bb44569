//! Who holds what of a prompt, as the index in the segment has it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use inlane_core::snapshot::{IndexDocument, Topology};
use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_segment::mapped::MappedView;
use inlane_segment::table::{MAX_TIERS, MirrorReader};
use inlane_segment::{Document, SnapshotReader};

/// A prompt with all that its blocks are filed under.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The model, or the adapter.
    pub model: String,
    /// The request's `cache_salt`, or nothing.
    pub salt: String,
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// An open index.
pub struct Holdings {
    hasher: Hasher,
    reader: MirrorReader<MappedView>,
    slots: BTreeMap<String, u16>,
}

impl std::fmt::Debug for Holdings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holdings").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Holdings {
    /// Opens the segment as a proxy does.
    ///
    /// # Errors
    /// A segment without an index.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let snapshot = SnapshotReader::open(dir).map_err(other)?;
        let snapshot = snapshot.snapshot();
        let document = |kind| {
            let found = snapshot.document(kind).map_err(other)?;
            found.map(|found| found.bytes).ok_or_else(|| other("the segment has no index"))
        };
        let index: IndexDocument = serde_json::from_slice(&document(Document::Index)?)?;
        let topology: Topology = serde_json::from_slice(&document(Document::Topology)?)?;
        let slots = topology.endpoints.into_iter();
        let slots = slots.filter_map(|e| Some((e.name, u16::try_from(e.slot).ok()?))).collect();
        let algorithm = Algorithm::from_name(&index.algorithm);
        let block = NonZeroU32::new(index.block_tokens);
        let (Some(algorithm), Some(block)) = (algorithm, block) else {
            return Err(other(format!("an index of nothing: {index:?}")));
        };
        let hasher = Hasher::new(algorithm, &index.seed, block);
        let reader = MirrorReader::open(snapshot.table()).map_err(other)?;
        Ok(Self { hasher, reader, slots })
    }

    /// Tokens per block of the index.
    pub fn block(&self) -> u64 {
        u64::from(self.hasher.block_tokens().get())
    }

    /// How many tokens from the front of a prompt the endpoint holds, in whole blocks.
    pub fn tokens(&self, endpoint: &str, prompt: &Prompt) -> u64 {
        let Some(&slot) = self.slots.get(endpoint) else { return 0 };
        let extras = Extras::new(&[], Some(&prompt.salt));
        let mut keys = Vec::new();
        let start = self.hasher.start(&prompt.model);
        self.hasher.extend(start, &prompt.tokens, &extras, &mut keys);
        // An engine without other tiers holds a block in one of them.
        let of_tier = |tier: u8| {
            let mut out = vec![0; self.reader.slots()];
            self.reader.longest_prefix(tier, &keys, &mut out);
            out.get(usize::from(slot)).copied().unwrap_or(0)
        };
        let blocks = (0..MAX_TIERS as u8).map(of_tier).max().unwrap_or(0);
        u64::from(blocks) * self.block()
    }
}

fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}
