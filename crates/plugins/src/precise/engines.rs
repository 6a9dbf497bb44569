//! The index of what engines say they hold, and of what they are expected to hold.
//!
//! The control plane listens to the engines and keeps a mirror of their caches in the segment. The
//! proxy's watcher hands a reader of it over ([`EngineIndex::follow`]), again whenever the data file or
//! what the document says about it changes; workers read the mirror where it lies. Blocks of requests
//! that were just sent are expected in memory of this process, which the proxy's owner thread
//! looks after ([`EngineIndex::pass`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::snapshot::IndexDocument;
use inlane_segment::mapped::MappedView;
use inlane_segment::table::{MirrorReader, PrefixError};

use super::expected::Expected;
use super::keying::Keying;
use super::merge::{self, TIERS};
use super::score::{Tier, TierWeights, Walk};
use super::{Inquiry, PreciseIndex};

/// What the control plane writes, and what is expected beside it.
#[derive(Debug, Default)]
pub struct EngineIndex {
    followed: ArcSwapOption<Followed>,
    expected: OnceLock<Expected>,
    /// What the owner has seen of slots of which something is expected. No worker asks for it.
    seen: Mutex<Seen>,
}

/// How often slots of a mirror had been cleared.
#[derive(Debug, Default)]
struct Seen {
    of: Option<Arc<Followed>>,
    clears: HashMap<u16, u16>,
}

/// A mirror, and how it is written.
#[derive(Debug)]
struct Followed {
    mirror: MirrorReader<MappedView>,
    document: IndexDocument,
}

impl EngineIndex {
    /// Reads `mirror` from now on, which was written as the document says; `None` = nothing.
    pub fn follow(&self, mirror: Option<(MirrorReader<MappedView>, IndexDocument)>) {
        let followed = mirror.map(|(mirror, document)| Arc::new(Followed { mirror, document }));
        self.followed.store(followed);
    }

    /// How the mirror that is read was written; `None` = there is none.
    pub fn document(&self) -> Option<IndexDocument> {
        self.followed.load().as_ref().map(|followed| followed.document.clone())
    }

    /// Blocks that the mirror holds of a slot, or with `None` of all of them; `None` = there is no
    /// mirror.
    pub(super) fn held(&self, slot: Option<u16>) -> Option<u64> {
        let followed = self.followed.load();
        let mirror = &followed.as_ref()?.mirror;
        Some(match slot {
            Some(slot) => mirror.len(slot) as u64,
            None => (0..TIERS as u8).map(|tier| mirror.tier_total(tier)).sum(),
        })
    }

    /// Makes room to expect blocks, once.
    ///
    /// # Errors
    /// When there is no memory to be had.
    pub fn make_room(&self) -> Result<(), PrefixError> {
        if self.expected.get().is_none() {
            // Of two that come at the same time one is dropped.
            let _ = self.expected.set(Expected::new()?);
        }
        Ok(())
    }

    /// Drops expectations that are due or whose endpoint has cleared its cache, and applies those
    /// that wait. Returns how many there were. For the owner thread.
    pub fn pass(&self, now_ms: u64) -> usize {
        let Some(expected) = self.expected.get() else { return 0 };
        let passed = expected.pass(now_ms);
        if !expected.is_empty() {
            self.follow_clears(expected, now_ms);
        }
        passed
    }

    /// An engine that has cleared its cache will not have what was expected of it.
    fn follow_clears(&self, expected: &Expected, now_ms: u64) {
        let followed = self.followed.load_full();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |seen: &Arc<Followed>| followed.as_ref().is_some_and(|f| Arc::ptr_eq(seen, f));
        if !seen.of.as_ref().is_some_and(same) {
            // Counts of another mirror say nothing.
            *seen = Seen { of: followed.clone(), clears: HashMap::new() };
        }
        let Some(followed) = followed else { return };
        let (before, mut cleared) = (std::mem::take(&mut seen.clears), Vec::new());
        expected.slots(|slot| {
            let now = followed.mirror.clears(slot);
            if before.get(&slot).is_some_and(|before| *before != now) {
                cleared.push(slot);
            }
            seen.clears.insert(slot, now);
        });
        cleared.into_iter().for_each(|slot| expected.clear(slot, now_ms));
    }

    /// Forgets what is expected of endpoints that are no longer in the pool. For the owner thread,
    /// after every change of the topology.
    pub fn retain(&self, endpoints: &EndpointSet, now_ms: u64) {
        if let Some(expected) = self.expected.get() {
            expected.retain(endpoints, now_ms);
        }
    }

    /// Blocks that are expected at all endpoints together.
    pub fn expected_blocks(&self) -> u64 {
        self.expected.get().map_or(0, Expected::size)
    }

    /// Prompts, or parts of long ones, that could not be expected because too many were.
    pub fn expectations_dropped(&self) -> u64 {
        self.expected.get().map_or(0, Expected::dropped)
    }

    /// Puts the number of blocks that are expected into the walk's memory, by slot.
    fn look_ahead(&self, inquiry: &Inquiry<'_>, walk: &mut Walk) {
        let slots = inquiry.endpoints.slots();
        let room = &mut walk.room.expected;
        room.clear();
        let Some(expected) = self.expected.get().filter(|expected| !expected.is_empty()) else {
            return;
        };
        let bound = slots.iter().map(|slot| slot.index as usize + 1).max().unwrap_or(0);
        room.resize(bound.min(1 << 16), 0);
        expected.prefixes(inquiry.keys, room);
        let mut anything = false;
        for slot in slots {
            if let Some(ahead) = room.get_mut(slot.index as usize).filter(|ahead| **ahead > 0) {
                if expected.is_tenant(*slot) {
                    anything = true;
                } else {
                    *ahead = 0;
                }
            }
        }
        if !anything {
            room.clear();
        }
    }
}

impl PreciseIndex for EngineIndex {
    fn answers(&self, keying: &Keying) -> bool {
        self.followed
            .load()
            .as_ref()
            .is_some_and(|followed| keying.difference(&followed.document).is_none())
    }

    fn walk(&self, inquiry: &Inquiry<'_>, walk: &mut Walk) -> u32 {
        let followed = self.followed.load();
        let Some(Followed { mirror, document }) = followed.as_deref() else { return 0 };
        let tiers = tiers(document, inquiry.weights);
        self.look_ahead(inquiry, walk);
        merge::walk(mirror, inquiry.keys, &tiers, inquiry.endpoints, walk);
        u32::try_from(inquiry.keys.len()).unwrap_or(u32::MAX)
    }

    fn expect(&self, inquiry: &Inquiry<'_>, endpoint: EndpointIx, ttl_ms: u64) {
        if let (Some(expected), Some(target)) =
            (self.expected.get(), inquiry.endpoints.get(endpoint))
        {
            expected.expect(target.slot, inquiry.keys, ttl_ms);
        }
    }
}

/// The tiers by number. One that the document does not name (yet) weighs what unknown tiers do.
fn tiers(document: &IndexDocument, weights: &TierWeights) -> [Tier; TIERS] {
    let name = |number: usize| document.tiers.get(number).map_or("", String::as_str);
    std::array::from_fn(|number| weights.tier(name(number)))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use inlane_core::endpoint::Slot;
    use inlane_core::request::Request;
    use inlane_segment::mapped::MappedWords;
    use inlane_segment::table::{MirrorSpec, MirrorWriter};

    use super::*;
    use crate::precise::parameters::HashAlgorithm;
    use crate::testing::endpoint_in;

    /// An index, and the mirror that it follows.
    struct World {
        index: EngineIndex,
        writer: MirrorWriter<MappedWords>,
        view: MappedView,
        endpoints: EndpointSet,
    }

    impl World {
        /// Endpoints in slots 2, 1 and 0; nothing is followed yet.
        fn new() -> Self {
            let spec = MirrorSpec::within(64, 1 << 20);
            let words = MappedWords::anonymous(spec.words().unwrap()).unwrap();
            let view = words.view();
            let index = EngineIndex::default();
            index.make_room().unwrap();
            let writer = MirrorWriter::create(words, &spec, 1).unwrap();
            Self { index, writer, view, endpoints: pool(1) }
        }

        fn followed() -> Self {
            let world = Self::new();
            world.follow(&["gpu", "cpu"]);
            world
        }

        fn follow(&self, tiers: &[&str]) {
            let document = IndexDocument {
                block_tokens: 4,
                algorithm: "cbor-fnv".into(),
                seed: String::new(),
                tiers: tiers.iter().map(|name| (*name).to_owned()).collect(),
            };
            let mirror = MirrorReader::open(self.view.clone()).unwrap();
            self.index.follow(Some((mirror, document)));
        }

        fn hold(&mut self, slot: u16, tier: u8, keys: &[u64]) {
            assert_eq!(self.writer.hold(slot, tier, keys, keys), 0);
        }

        fn ask<R>(&self, keys: &[u64], ask: impl FnOnce(&Inquiry<'_>) -> R) -> R {
            let (request, weights) = (Request::default(), TierWeights::default());
            let endpoints = &self.endpoints;
            ask(&Inquiry { request: &request, prompt: 0, keys, endpoints, weights: &weights })
        }

        fn expect(&self, endpoint: EndpointIx, keys: &[u64]) {
            self.ask(keys, |inquiry| self.index.expect(inquiry, endpoint, 100));
        }

        /// Score and blocks of the endpoints in slots 0, 1 and 2.
        fn walk(&self, keys: &[u64]) -> [(f64, u32); 3] {
            let mut walk = Walk::default();
            walk.begin(self.endpoints.len());
            let blocks = self.ask(keys, |inquiry| self.index.walk(inquiry, &mut walk));
            assert_eq!(blocks as usize, keys.len());
            [2, 1, 0].map(|ix: usize| {
                let standing = walk.standings()[ix];
                (standing.score(), standing.blocks())
            })
        }
    }

    fn pool(generation: u32) -> EndpointSet {
        let endpoint =
            |index: u32| endpoint_in(Slot { index, generation }, format!("default/{}", 9 - index));
        EndpointSet::new(u64::from(generation), (0..3).map(endpoint).collect())
    }

    #[test]
    fn it_answers_for_keys_like_those_of_the_mirror() {
        let world = World::new();
        let keying = |block| {
            let block = NonZeroU32::new(block).unwrap();
            Keying::new(HashAlgorithm::CborFnv, "", block)
        };
        assert!(!world.index.answers(&keying(4)));
        world.follow(&[]);
        assert!(world.index.answers(&keying(4)) && !world.index.answers(&keying(16)));
        assert_eq!(world.index.document().unwrap().block_tokens, 4);
        world.index.follow(None);
        assert!(!world.index.answers(&keying(4)));
        let mut walk = Walk::default();
        assert_eq!(world.ask(&[1], |inquiry| world.index.walk(inquiry, &mut walk)), 0);
    }

    #[test]
    fn tiers_weigh_by_their_names() {
        let mut world = World::followed();
        world.hold(0, 0, &[1, 2, 3]);
        world.hold(1, 1, &[1, 2, 3]);
        world.hold(2, 2, &[1]);
        let cpu = 0.8 + 0.8 + 0.8;
        assert_eq!(world.walk(&[1, 2, 3, 4]), [(3.0, 3), (cpu, 3), (1.0, 1)]);
        world.follow(&["cpu", "gpu", "disk"]);
        assert_eq!(world.walk(&[1, 2, 3, 4]), [(cpu, 3), (3.0, 3), (1.0, 1)]);
    }

    #[test]
    fn what_is_expected_counts_beside_what_is_held() {
        let mut world = World::followed();
        world.hold(0, 0, &[1, 2]);
        world.expect(2, &[1, 2, 3]);
        world.expect(1, &[1]);
        assert_eq!(world.walk(&[1, 2, 3, 4]), [(2.0, 2), (0.0, 0), (0.0, 0)]);
        assert_eq!(world.index.pass(0), 2);
        assert_eq!(world.walk(&[1, 2, 3, 4]), [(3.0, 3), (1.0, 1), (0.0, 0)]);
        assert_eq!(world.index.expected_blocks(), 4);
        // Confirmed before the time is up.
        world.hold(0, 0, &[1, 2, 3]);
        world.index.pass(100);
        assert_eq!(world.walk(&[1, 2, 3, 4]), [(3.0, 3), (0.0, 0), (0.0, 0)]);
    }

    #[test]
    fn an_engine_that_cleared_its_cache_is_expected_nothing_of() {
        let mut world = World::followed();
        world.hold(0, 0, &[1]);
        world.expect(2, &[1, 2]);
        world.expect(1, &[1, 2]);
        world.index.pass(0);
        world.writer.clear(0);
        world.index.pass(1);
        assert_eq!(world.walk(&[1, 2]), [(0.0, 0), (2.0, 2), (0.0, 0)]);
        // What is expected after that stays, and another mirror counts from the start.
        world.expect(2, &[1, 2]);
        world.index.pass(2);
        world.follow(&["gpu"]);
        world.index.pass(3);
        assert_eq!(world.walk(&[1, 2]), [(2.0, 2), (2.0, 2), (0.0, 0)]);
    }

    #[test]
    fn nothing_is_expected_of_a_successor() {
        let mut world = World::followed();
        world.expect(2, &[1, 2]);
        world.index.pass(0);
        world.endpoints = pool(2);
        assert_eq!(world.walk(&[1, 2]), [(0.0, 0); 3]);
        world.index.retain(&world.endpoints, 1);
        assert_eq!(world.index.expected_blocks(), 0);
        world.expect(2, &[1, 2]);
        world.index.pass(2);
        assert_eq!(world.walk(&[1, 2]), [(2.0, 2), (0.0, 0), (0.0, 0)]);
    }
}
