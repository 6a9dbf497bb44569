//! The index as the server's entries concern it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{HeldPair, MirrorReader};
use parking_lot::Mutex;

use super::super::queue::PublisherId;
use super::super::{Guarded, SegmentTable};

/// How old a list of members may be.
const FRESH: Duration = Duration::from_millis(100);

/// A pod that is followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) id: PublisherId,
    pub(super) slot: u16,
    /// Nothing is known of it at first hand.
    pub(super) is_deaf: bool,
    /// Its stream is followed, and nothing is being made up for.
    pub(super) is_settled: bool,
    /// Only what it has said after a gap is known.
    pub(super) is_partial: bool,
}

/// See the [module](self).
pub(super) struct View {
    guarded: Arc<Mutex<Guarded>>,
    /// By the server's name for them.
    members: HashMap<String, Member>,
    /// The deaf among them, by slot.
    deaf: HashMap<u16, PublisherId>,
    tiers: Vec<String>,
    looked: Option<Instant>,
}

impl View {
    pub(super) fn new(guarded: Arc<Mutex<Guarded>>) -> Self {
        let (members, deaf) = (HashMap::new(), HashMap::new());
        Self { guarded, members, deaf, tiers: Vec::new(), looked: None }
    }

    /// Looks again. A reader of the blocks, `None` while the segment moves.
    pub(super) fn look(&mut self) -> Option<MirrorReader<MappedWords>> {
        let guarded = Arc::clone(&self.guarded);
        let guarded = guarded.lock();
        let core = &guarded.core;
        if self.looked.is_none_or(|looked| looked.elapsed() >= FRESH) {
            self.members.clear();
            self.deaf.clear();
            for (id, publisher) in core.publishers() {
                let follower = &publisher.follower;
                let (is_deaf, is_settled) = (follower.is_deaf(), follower.is_settled());
                let slot = publisher.who.slot;
                if is_deaf {
                    self.deaf.insert(slot, id);
                }
                let is_partial = follower.is_partial();
                let member = Member { id, slot, is_deaf, is_settled, is_partial };
                self.members.insert(publisher.who.shared_name(), member);
            }
            self.looked = Some(Instant::now());
        }
        self.tiers.clear();
        self.tiers.extend_from_slice(core.applier().tiers());
        core.table().map(SegmentTable::reader)
    }

    /// Has the next look see everything.
    pub(super) fn expire(&mut self) {
        self.looked = None;
    }

    pub(super) fn member(&self, pod: &str) -> Option<Member> {
        self.members.get(pod).copied()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, Member)> {
        self.members.iter().map(|(pod, &member)| (pod.as_str(), member))
    }

    pub(super) fn deaf(&self) -> &HashMap<u16, PublisherId> {
        &self.deaf
    }

    pub(super) fn tier_name(&self, tier: u8) -> Option<&str> {
        self.tiers.get(usize::from(tier)).map(String::as_str)
    }

    /// The number of a tier.
    pub(super) fn tier(&self, name: &str) -> Option<u8> {
        let found = self.tiers.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(found).ok()
    }

    /// The same, which may be the first of its name.
    pub(super) fn learn_tier(&mut self, name: &str) -> Option<u8> {
        let mut guarded = self.guarded.lock();
        let tier = guarded.core.tier(name);
        self.tiers.clear();
        self.tiers.extend_from_slice(guarded.core.applier().tiers());
        tier
    }

    /// What a pod holds, unless nothing is known of it at first hand.
    pub(super) fn held(&self, id: PublisherId) -> Vec<HeldPair> {
        self.content(id, false, SegmentTable::pairs)
    }

    /// What a pod holds that was lent to it.
    pub(super) fn lent(&self, id: PublisherId) -> Vec<(u8, u64)> {
        self.content(id, true, SegmentTable::held)
    }

    fn content<T>(
        &self,
        id: PublisherId,
        is_lent: bool,
        of: impl FnOnce(&SegmentTable, u16) -> Vec<T>,
    ) -> Vec<T> {
        let guarded = self.guarded.lock();
        let (Some(publisher), Some(table)) = (guarded.core.publisher(id), guarded.core.table())
        else {
            return Vec::new();
        };
        let slot = publisher.who.slot;
        if table.is_lent(slot) == is_lent { of(table, slot) } else { Vec::new() }
    }

    /// Lends keys to a pod if still nothing is known of it at first hand. Returns how many found no
    /// room.
    pub(super) fn lend(&self, id: PublisherId, tier: u8, keys: &[u64]) -> usize {
        let mut guarded = self.guarded.lock();
        let Some(slot) = deaf_slot(&guarded, id) else { return 0 };
        let Some(table) = guarded.core.table_mut() else { return 0 };
        table.lend(slot, tier, keys.iter().copied())
    }

    /// Takes keys back from a pod.
    pub(super) fn take_back(&self, id: PublisherId, tier: u8, keys: &[u64]) {
        let mut guarded = self.guarded.lock();
        let Some(slot) = deaf_slot(&guarded, id) else { return };
        if let Some(table) = guarded.core.table_mut() {
            table.take_back(slot, tier, keys.iter().copied());
        }
    }
}

fn deaf_slot(guarded: &Guarded, id: PublisherId) -> Option<u16> {
    let publisher = guarded.core.publisher(id)?;
    publisher.follower.is_deaf().then_some(publisher.who.slot)
}
