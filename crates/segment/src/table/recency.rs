//! Exact recency order per endpoint: one doubly linked list per slot, oldest first.
//!
//! A node is a `u32`: a entry number for the owner of an entry (its links lie beside the entry),
//! or [`ARENA`] plus an arena unit for any other holder (two words: links, and entry and slot).
//!
//! The forward chain is the truth; `prev` is a convenience of the live writer. Every change is a
//! sequence of single stores after each of which the forward walk from the head still meets all
//! nodes of the slot in order, but for the one node in flight. That node is always the one being
//! made the most recent, so a writer that takes over and appends what it did not meet restores the
//! exact order ([`recover`](super::recover)).

use std::sync::atomic::Ordering::Release;

use super::memory::Table;
use crate::words::WordsMut;

pub(super) const NIL: u32 = u32::MAX;
/// Set in the ids of nodes that lie in the arena.
pub(super) const ARENA: u32 = 1 << 31;

/// A holder of a block: which entry, which slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) entry: usize,
    pub(super) slot: u16,
}

impl<M: WordsMut> Table<M> {
    /// The list's ends: (oldest, newest).
    pub(super) fn oldest_newest(&self, slot: u16) -> (u32, u32) {
        split(self.ends(slot))
    }

    /// The node's neighbours: (older, newer).
    pub(super) fn links(&self, node: u32) -> (u32, u32) {
        split(self.load(self.link_word(node)))
    }

    pub(super) fn set_links(&self, node: u32, older: u32, newer: u32) {
        self.store(self.link_word(node), join(older, newer));
    }

    /// Makes an unlinked node the slot's newest.
    pub(super) fn append(&self, slot: u16, node: u32) {
        let (oldest, newest) = self.oldest_newest(slot);
        self.set_links(node, newest, NIL);
        if newest == NIL {
            self.set_ends(slot, join(node, node));
            return;
        }
        self.set_newer(newest, node);
        self.set_ends(slot, join(oldest, node));
    }

    /// Takes a node out of the slot's list.
    pub(super) fn unlink(&self, slot: u16, node: u32) {
        let (older, newer) = self.links(node);
        self.bridge(slot, older, newer, newer, older);
    }

    /// Puts `new`, an unlinked node, in the place of `old`.
    pub(super) fn replace(&self, slot: u16, old: u32, new: u32) {
        let (older, newer) = self.links(old);
        self.set_links(new, older, newer);
        self.bridge(slot, older, newer, new, new);
    }

    /// Points the neighbours at `forward` (from the older side) and `backward` (from the newer).
    fn bridge(&self, slot: u16, older: u32, newer: u32, forward: u32, backward: u32) {
        let (mut oldest, mut newest) = self.oldest_newest(slot);
        if older == NIL {
            oldest = forward;
        } else {
            self.set_newer(older, forward);
        }
        if newer == NIL {
            newest = backward;
        } else {
            self.set_links(newer, backward, self.links(newer).1);
        }
        if older == NIL || newer == NIL {
            self.set_ends(slot, join(oldest, newest));
        }
    }

    fn set_newer(&self, node: u32, newer: u32) {
        self.set_links(node, self.links(node).0, newer);
    }

    fn link_word(&self, node: u32) -> usize {
        if node & ARENA == 0 {
            self.layout.link_base + node as usize
        } else {
            self.layout.arena_word(node & !ARENA)
        }
    }

    /// Whose node this is. A entry's own node belongs to the entry's owner.
    pub(super) fn held(&self, slot: u16, node: u32) -> Held {
        if node & ARENA == 0 {
            return Held { entry: node as usize, slot };
        }
        unpack(self.load(self.layout.arena_word(node & !ARENA) + 1))
    }

    /// Names the holder a recycled cell now belongs to. The fence is the one every recycled cell
    /// begins with ([`membership`](super::membership)).
    pub(super) fn set_held(&self, unit: u32, held: Held) {
        self.words.fence(Release);
        self.store(self.layout.arena_word(unit) + 1, pack(held));
    }
}

fn pack(held: Held) -> u64 {
    (held.entry as u64) << 16 | u64::from(held.slot)
}

fn unpack(word: u64) -> Held {
    Held { entry: (word >> 16) as usize, slot: word as u16 }
}

pub(super) fn join(oldest: u32, newest: u32) -> u64 {
    u64::from(newest) << 32 | u64::from(oldest)
}

fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}
