//! `mm-embeddings-cache-producer`: which of a request's images, videos and sounds each endpoint was
//! sent before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inlane_core::columns::{Col, Columns, EncoderMatch};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::{Endpoint, EndpointIx, Slot};
use inlane_core::exposition::{Exposition, Histogram};
use inlane_core::plugin::{Collector, Cycle, DataProducer, PostChoice, Producing, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::state::{CycleData, CycleState, StateSlot};
use inlane_segment::table::MAX_SLOTS;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use crate::prefix::PrefixIndex;
use crate::token_producer;

/// Memory of an engine's encoder cache in MB, unless configured.
const DEFAULT_MEGABYTES: i64 = 4_096;
/// Memory that one item takes of it, in MB.
const ITEM_MEGABYTES: i64 = 2;

/// Modalities that are counted apart; the last stands for all others.
const MODALITIES: [&str; 4] = ["image", "video", "audio", "other"];
/// Pods whose hits are counted at most.
const MAX_PODS: usize = 16_384;
/// Upper bounds of the hit-ratio histogram.
const RATIO_BOUNDS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Fractions are added up in units of 2⁻³².
const FRACTION: f64 = (1u64 << 32) as f64;

/// The type `mm-embeddings-cache-producer`.
pub const TYPE: PluginType = PluginType::new("mm-embeddings-cache-producer", build)
    .default_producer_of(&["MultiModalEncoderCacheMatchInfoKey"]);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Memory of an engine's encoder cache in MB; not positive = the default.
    #[serde(rename = "cacheSizeInMBPerServer")]
    cache_size_in_mb_per_server: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { cache_size_in_mb_per_server: DEFAULT_MEGABYTES }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { mut cache_size_in_mb_per_server } = params.decode()?;
    if cache_size_in_mb_per_server <= 0 {
        cache_size_in_mb_per_server = DEFAULT_MEGABYTES;
    }
    let items = (cache_size_in_mb_per_server / ITEM_MEGABYTES).max(1);
    let capacity = u32::try_from(items).unwrap_or(u32::MAX);
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let index = build
        .try_kept_state(&format!("lru={capacity}"), PrefixIndex::new)
        .map_err(|e| BuildError::new(format!("no memory for the index: {e}")))?;
    let plugin = Arc::new(MmEmbeddingsCacheProducer {
        capacity,
        index,
        counts: build.kept_state("counts", Counts::default),
        instance: build.instance(),
        name: build.name().to_owned(),
        type_name: build.type_name(),
        column: build.produce(),
        state: build.cycle_state(),
    });
    Ok(Roles::default().producer(plugin.clone()).post_choice(plugin.clone()).collector(plugin))
}

/// Remembers per endpoint the items of the requests it was sent, least recently sent ones going
/// first, and says how many of a request's items are among them (llm-d-router
/// `mm-embeddings-cache-producer`). An item counts once per request, and has the size
/// 1; one without a hash does not count.
#[derive(Debug)]
struct MmEmbeddingsCacheProducer {
    /// Items remembered per endpoint.
    capacity: u32,
    /// Items are independent of each other here: every chain is one item long.
    index: Arc<PrefixIndex>,
    counts: Arc<Counts>,
    instance: PluginIx,
    name: String,
    type_name: &'static str,
    column: Col<EncoderMatch>,
    state: StateSlot<Items>,
}

/// The items of the running request.
#[derive(Debug, Default)]
struct Items {
    /// Hashes, each once, and their modalities.
    items: Vec<(u64, usize)>,
    hashes: Vec<u64>,
    /// Matches by slot, for each modality.
    counts: [Vec<u32>; MODALITIES.len()],
}

impl Items {
    fn held(&self, modality: usize, slot: Slot) -> u32 {
        let counts = self.counts.get(modality);
        counts.and_then(|counts| counts.get(slot.index as usize)).copied().unwrap_or(0)
    }
}

impl CycleData for Items {
    fn clear(&mut self) {
        self.items.clear();
        self.hashes.clear();
    }
}

/// What the metrics page shows.
#[derive(Debug)]
struct Counts {
    queries: [AtomicU64; MODALITIES.len()],
    /// By pod and modality. Only touched after the choice, and only by requests with media.
    hits: Mutex<BTreeMap<String, [u64; MODALITIES.len()]>>,
    ratio: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let (queries, hits) = Default::default();
        Self { queries, hits, ratio: Histogram::new(RATIO_BOUNDS, FRACTION) }
    }
}

impl Counts {
    fn hits(&self) -> MutexGuard<'_, BTreeMap<String, [u64; MODALITIES.len()]>> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the items of a request that was sent to `target`, which had some of them.
    fn observe(&self, items: &Items, target: &Endpoint, found: EncoderMatch) {
        for (_, modality) in &items.items {
            if let Some(queries) = self.queries.get(*modality) {
                queries.fetch_add(1, Relaxed);
            }
        }
        self.ratio.observe(found.matched as f64 / found.requested.max(1) as f64);
        if found.matched == 0 {
            return;
        }
        let mut hits = self.hits();
        if !hits.contains_key(&target.name) {
            if hits.len() >= MAX_PODS {
                return;
            }
            hits.insert(target.name.clone(), Default::default());
        }
        for (modality, hits) in hits.get_mut(&target.name).into_iter().flatten().enumerate() {
            *hits += u64::from(items.held(modality, target.slot));
        }
    }
}

fn modality(name: &str) -> usize {
    MODALITIES.iter().position(|known| *known == name).unwrap_or(MODALITIES.len() - 1)
}

impl DataProducer for MmEmbeddingsCacheProducer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let Some(state) = state.get_mut(self.state) else {
            return Err(PluginError::new("the cycle state belongs to another configuration"));
        };
        state.clear();
        let Items { items, hashes, counts } = state;
        let media = cx.request.media.iter().filter(|m| !m.hash.is_empty());
        items.extend(media.map(|m| (xxh64(m.hash.as_bytes(), 0), modality(m.modality))));
        items.sort_unstable();
        items.dedup_by_key(|(hash, _)| *hash);
        if items.is_empty() {
            return Ok(());
        }
        hashes.extend(items.iter().map(|(hash, _)| *hash));
        let slots = cx.endpoints.slots();
        let own = cx.candidates.iter().filter_map(|&ix| slots.get(ix as usize));
        let bound = own.map(|slot| slot.index as usize + 1).max().unwrap_or(0);
        for counts in counts.iter_mut() {
            counts.clear();
            counts.resize(bound.min(MAX_SLOTS), 0);
        }
        for (hash, modality) in items.iter() {
            if let Some(counts) = counts.get_mut(*modality) {
                self.index.count_matches(std::slice::from_ref(hash), counts);
            }
        }
        let requested = hashes.len() as u64;
        let column = columns.get_mut(self.column);
        for &ix in cx.candidates {
            let ix = ix as usize;
            let (Some(&slot), Some(cell)) = (slots.get(ix), column.get_mut(ix)) else { continue };
            let held = (0..MODALITIES.len()).map(|modality| u64::from(state.held(modality, slot)));
            let held: u64 = held.sum();
            let matched = if held > 0 && self.index.is_tenant(slot) { held } else { 0 };
            *cell = Some(EncoderMatch { matched: matched.min(requested), requested });
        }
        Ok(())
    }
}

impl PostChoice for MmEmbeddingsCacheProducer {
    /// Records every target of the primary profile: each of them may be sent the request.
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        if cx.state.get(self.state).is_none_or(|state| state.items.is_empty()) {
            return;
        }
        let targets = decision.primary_run().map_or(&[][..], |run| &run.targets);
        let record = |(&endpoint, note): (&EndpointIx, u64)| Effect::Record {
            plugin: self.instance,
            endpoint,
            note,
        };
        effects.extend(targets.iter().zip(0..).map(record));
    }

    /// The first target, which has the note 0, is the one that is counted.
    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let &Effect::Record { plugin, endpoint, note } = effect else { return };
        let Some(state) = cx.state.get(self.state).filter(|_| plugin == self.instance) else {
            return;
        };
        let Some(target) = cx.endpoints.get(endpoint) else { return };
        if let (0, Some(Some(found))) =
            (note, cx.columns.get(self.column).get(endpoint as usize).copied())
        {
            self.counts.observe(state, target, found);
        }
        self.index.record(target.slot, self.capacity, &state.hashes);
    }
}

impl Collector for MmEmbeddingsCacheProducer {
    fn collect(&self, page: &mut Exposition) {
        let (name, kind) = (("plugin_name", self.name.as_str()), ("plugin_type", self.type_name));
        let family = |suffix| format!("llm_d_epp_encoder_cache_{suffix}");
        let help = "[ALPHA] Media items of requests, each counted once per request.";
        for (modality, queries) in MODALITIES.into_iter().zip(&self.counts.queries) {
            let queries = queries.load(Relaxed);
            if queries > 0 {
                let labels = [name, kind, ("modality", modality)];
                page.counter(&family("queries_total"), help, &labels, queries as f64);
            }
        }
        let help = "[ALPHA] Media items that the chosen endpoint was sent before.";
        for (pod, hits) in self.counts.hits().iter() {
            for (modality, &hits) in MODALITIES.into_iter().zip(hits).filter(|(_, hits)| **hits > 0)
            {
                let labels = [name, kind, ("modality", modality), ("pod", pod.as_str())];
                page.counter(&family("hits_total"), help, &labels, hits as f64);
            }
        }
        let help = "[ALPHA] Share of a request's media items that the chosen endpoint was sent.";
        page.histogram(&family("hit_ratio"), help, &[name, kind], self.counts.ratio.snapshot());
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::EncoderMatch;
    use inlane_core::endpoint::EndpointIx;
    use inlane_core::exposition::Exposition;
    use inlane_core::request::{Media, Request};

    use crate::prefix::PrefixIndex;
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "mm-embeddings-cache-producer";

    fn media<'a>(items: &[&'a str]) -> Vec<Media<'a>> {
        let item = |item: &&'a str| {
            let (modality, hash) = item.split_once(' ').unwrap_or(("image", item));
            Media { modality, hash, prompt: 0, offset: 0, length: 1 }
        };
        items.iter().map(item).collect()
    }

    /// (matched, requested) per endpoint.
    fn matches(world: &mut World, built: &Built, items: &[&str]) -> Vec<Option<(u64, u64)>> {
        world.columns.reset(world.endpoints.len());
        let media = media(items);
        let request = Request { media: &media, ..Default::default() };
        world.produce(built, &request, &Idle).unwrap();
        let column = world.column::<EncoderMatch>(NAME);
        world.columns.get_mut(column).iter().map(|m| m.map(|m| (m.matched, m.requested))).collect()
    }

    fn send(world: &mut World, built: &Built, items: &[&str], results: &[(&str, EndpointIx)]) {
        matches(world, built, items);
        let media = media(items);
        let request = Request { media: &media, ..Default::default() };
        let effects = world.choose(built, &request, results);
        world.apply(built, &request, &effects);
        for (_, index) in world.kept.all::<PrefixIndex>() {
            index.drain();
        }
    }

    #[test]
    fn the_primary_target_learns_and_an_item_counts_once() {
        let mut world = World::new(2);
        let built = world.build(NAME, "").unwrap();
        let first = ["x", "y", "x"];
        assert_eq!(matches(&mut world, &built, &first), [Some((0, 2)), Some((0, 2))]);
        send(&mut world, &built, &first, &[("default", 0), ("encode", 1)]);
        assert_eq!(matches(&mut world, &built, &["x", "z"]), [Some((1, 2)), Some((0, 2))]);
        // Whatever else is not there, and in any order.
        assert_eq!(matches(&mut world, &built, &["w", "z", "y", "x"])[0], Some((2, 4)));
    }

    #[test]
    fn without_media_nothing_is_written_or_learnt() {
        let mut world = World::new(1);
        let built = world.build(NAME, "").unwrap();
        assert_eq!(matches(&mut world, &built, &[]), [None]);
        assert!(world.choose(&built, &Request::default(), &[("default", 0)]).is_empty());
    }

    #[test]
    fn what_has_no_hash_cannot_be_found_again() {
        let mut world = World::new(1);
        let built = world.build(NAME, "").unwrap();
        let mut matches = |items: &[&str]| matches(&mut world, &built, items)[0];
        assert_eq!(matches(&[""]), None);
        assert_eq!(matches(&["", "x"]), Some((0, 1)));
    }

    #[test]
    fn the_least_recently_sent_items_go_first() {
        let mut world = World::new(1);
        let built = world.build(NAME, "{cacheSizeInMBPerServer: 5}").unwrap();
        for item in ["a", "b", "a", "c"] {
            send(&mut world, &built, &[item], &[("default", 0)]);
        }
        for (item, held) in [("a", 1), ("b", 0), ("c", 1)] {
            assert_eq!(matches(&mut world, &built, &[item]), [Some((held, 1))], "{item}");
        }
        let tiny = world.build(NAME, "{cacheSizeInMBPerServer: 1}").unwrap();
        send(&mut world, &tiny, &["a"], &[("default", 0)]);
        assert_eq!(matches(&mut world, &tiny, &["a"]), [Some((1, 1))]);
    }

    #[test]
    fn hits_are_counted_by_modality_and_pod() {
        let mut world = World::new(2);
        let built = world.build(NAME, "").unwrap();
        let items = ["x", "video v", "smell s"];
        send(&mut world, &built, &items, &[("default", 1)]);
        send(&mut world, &built, &items, &[("default", 1)]);
        send(&mut world, &built, &items[..1], &[("default", 0)]);
        let mut page = Exposition::default();
        built.roles.collector.as_ref().unwrap().collect(&mut page);
        let text = page.render();
        let who = format!("plugin_name=\"{NAME}\",plugin_type=\"{NAME}\"");
        for line in [
            format!("queries_total{{{who},modality=\"image\"}} 3"),
            format!("queries_total{{{who},modality=\"other\"}} 2"),
            format!("hits_total{{{who},modality=\"image\",pod=\"b\"}} 1"),
            format!("hits_total{{{who},modality=\"video\",pod=\"b\"}} 1"),
            format!("hit_ratio_count{{{who}}} 3"),
        ] {
            assert!(text.contains(&format!("llm_d_epp_encoder_cache_{line}\n")), "{line}\n{text}");
        }
        assert!(!text.contains("pod=\"a\""));
    }

    #[test]
    fn parameters() {
        let mut world = World::new(0);
        assert!(world.build(NAME, "{cacheSizeInMBPerServer: -1}").is_ok());
        assert!(world.build(NAME, "{cacheSize: 1}").is_err());
    }
}
