//! The index in a segment.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use inlane_core::snapshot::{IndexDocument, Topology};
use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_segment::mapped::MappedView;
use inlane_segment::table::{MAX_TIERS, MirrorReader, MirrorWriter};
use inlane_segment::words::{HeapWords, Words, WordsMut};
use inlane_segment::{Document, SnapshotReader};

/// What is asked about.
pub(super) enum Question<'q> {
    Keys(Vec<u64>),
    Tokens { tokens: &'q [u32], model: &'q str, salt: Option<&'q str> },
}

/// Blocks that the same endpoints hold.
pub(super) struct Run {
    pub(super) at: usize,
    pub(super) blocks: usize,
    /// Slots and tiers.
    pub(super) holders: Vec<(u16, u8)>,
}

/// An open index.
pub(super) struct Contents {
    document: IndexDocument,
    reader: MirrorReader<MappedView>,
    words: MappedView,
    /// Ids by slot.
    names: BTreeMap<u16, String>,
}

impl Contents {
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let reader = SnapshotReader::open(dir).map_err(|e| e.to_string())?;
        let snapshot = reader.snapshot();
        let none = || format!("{}: the segment has no index of cached blocks", dir.display());
        let document = snapshot.document(Document::Index).map_err(|e| e.to_string())?;
        let document = serde_json::from_slice(&document.ok_or_else(none)?.bytes);
        let document: IndexDocument = document.map_err(|e| format!("index document: {e}"))?;
        if document == IndexDocument::default() {
            return Err(none());
        }
        let topology = snapshot.document(Document::Topology).map_err(|e| e.to_string())?;
        let topology = topology.map(|found| serde_json::from_slice(&found.bytes)).transpose();
        let topology: Topology =
            topology.map_err(|e| format!("topology document: {e}"))?.unwrap_or_default();
        let names = topology.endpoints.iter();
        let names = names.filter_map(|e| Some((u16::try_from(e.slot).ok()?, e.id()))).collect();
        let words = snapshot.table();
        let reader = MirrorReader::open(words.clone()).map_err(|e| e.to_string())?;
        Ok(Self { document, reader, words, names })
    }

    pub(super) fn parameters(&self) -> &IndexDocument {
        &self.document
    }

    /// The tiers by number.
    pub(super) fn tiers(&self) -> impl Iterator<Item = (u8, &str)> {
        (0..MAX_TIERS as u8).zip(&self.document.tiers).map(|(tier, name)| (tier, name.as_str()))
    }

    pub(super) fn tier(&self, tier: u8) -> String {
        let name = self.document.tiers.get(usize::from(tier)).cloned();
        name.unwrap_or_else(|| format!("tier {tier}"))
    }

    pub(super) fn held_in(&self, tier: u8) -> u64 {
        self.reader.tier_total(tier)
    }

    pub(super) fn held_by(&self, slot: u16) -> usize {
        self.reader.len(slot)
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&str, u16)> {
        self.names.iter().map(|(&slot, id)| (id.as_str(), slot))
    }

    pub(super) fn name_of(&self, slot: u16) -> String {
        self.names.get(&slot).cloned().unwrap_or_else(|| format!("slot {slot}"))
    }

    pub(super) fn slot_of(&self, endpoint: &str) -> Result<u16, String> {
        let found = self.names.iter().find(|(_, id)| *id == endpoint);
        found.map(|(&slot, _)| slot).ok_or_else(|| format!("no endpoint is called {endpoint:?}"))
    }

    /// Tier and key of every block that a slot holds, in order. Works on a copy: readers of the
    /// segment have no way from an endpoint to its blocks. What changes meanwhile may be missing.
    pub(super) fn blocks_of(&self, slot: u16) -> Result<Vec<(u8, u64)>, String> {
        let copy = HeapWords::new(self.words.len());
        for at in 0..self.words.len() {
            copy.store(at, self.words.load(at, Ordering::Relaxed), Ordering::Relaxed);
        }
        let writer = MirrorWriter::recover(copy).map_err(|e| e.to_string())?;
        let mut blocks: Vec<_> = writer.iter(slot).collect();
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// The keys of what is asked about.
    pub(super) fn keys(&self, question: Question<'_>) -> Result<Vec<u64>, String> {
        let (tokens, model, salt) = match question {
            Question::Keys(keys) => return Ok(keys),
            Question::Tokens { tokens, model, salt } => (tokens, model, salt),
        };
        let IndexDocument { algorithm, seed, block_tokens, .. } = &self.document;
        let known = Algorithm::from_name(algorithm);
        let algorithm = known.ok_or_else(|| format!("unknown algorithm {algorithm:?}"))?;
        let size = NonZeroU32::new(*block_tokens).ok_or("blocks of no tokens")?;
        let hasher = Hasher::new(algorithm, seed, size);
        let mut keys = Vec::new();
        hasher.extend(hasher.start(model), tokens, &Extras::new(&[], salt), &mut keys);
        Ok(keys)
    }

    /// Who holds what, front to back, until nobody does.
    pub(super) fn runs(&self, keys: &[u64]) -> Vec<Run> {
        let mut runs = Vec::new();
        self.reader.runs(keys, |run| {
            let mut holders = Vec::new();
            run.for_each(|slot, tier| holders.push((slot, tier)));
            runs.push(Run { at: run.at, blocks: run.blocks, holders });
            ControlFlow::Continue(())
        });
        runs
    }

    /// Slot, tier and how many blocks from the front on it holds there, the longest first.
    pub(super) fn prefixes(&self, keys: &[u64]) -> Vec<(u16, u8, u32)> {
        let mut all = Vec::new();
        let mut out = vec![0; self.reader.slots()];
        for tier in 0..MAX_TIERS as u8 {
            out.fill(0);
            self.reader.longest_prefix(tier, keys, &mut out);
            let held = (0..).zip(&out).filter(|(_, blocks)| **blocks > 0);
            all.extend(held.map(|(slot, &blocks)| (slot, tier, blocks)));
        }
        all.sort_by_key(|&(slot, tier, blocks)| (std::cmp::Reverse(blocks), tier, slot));
        all
    }
}
