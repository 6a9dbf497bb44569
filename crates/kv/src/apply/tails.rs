//! Blocks of an engine that end within one of ours.
//!
//! With engine blocks of 16 tokens and keys of 64, three of four engine blocks complete no key. What
//! they leave over is kept until the blocks after them complete it, which may be events later: a
//! decode step stores one block at a time. A key counts as held as long as all of its engine blocks
//! are; it is filed under the one that completes it, and goes with any of them.
//!
//! Nothing is kept, and no cost arises, where engine blocks are multiples of ours. After a restart
//! of the scheduler the tails are not known: what would follow them is then not taken in until the
//! engine stores their blocks anew.

use std::collections::HashMap;

use super::tiers::MOST_TIERS;
use crate::extras::{Extras, Item};

/// The tails of one publisher.
///
/// Memory: per block some 200 bytes and the tokens left over, at most one less than a key has.
#[derive(Debug, Default)]
pub(super) struct Tails {
    nodes: HashMap<u64, Node>,
}

/// An engine block that shares a key with the one before it or the one after it.
#[derive(Debug)]
struct Node {
    /// The block before, if a key spans both.
    previous: Option<u64>,
    /// The blocks whose `previous` is this one.
    next: Vec<u64>,
    /// Stores less removals, by tier. Above zero only while that of `previous` is.
    counts: [u32; MOST_TIERS],
    /// Whether keys are filed under it in the mirror.
    completes: bool,
    tail: Option<Tail>,
}

/// What follows the last complete key of a chain.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    /// The last complete key; that of the start if there is none.
    pub(super) key: u64,
    /// Whether the prompt starts here.
    pub(super) first: bool,
    pub(super) tokens: Box<[u32]>,
    salt: Option<Box<str>>,
    items: Box<[(u32, u32, Box<str>)]>,
}

impl Tail {
    /// The tokens from `start` on of a run, with the extras that lie in them.
    pub(super) fn new(
        key: u64,
        first: bool,
        start: usize,
        tokens: &[u32],
        extras: &Extras<'_>,
    ) -> Self {
        let at = u32::try_from(start).unwrap_or(u32::MAX);
        let end = at.saturating_add(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        let inside = extras.items().iter().filter(|item| item.start < end && item.end > at);
        let items = inside.map(|item| {
            (item.start.saturating_sub(at), item.end.min(end) - at, item.identifier.into())
        });
        Self {
            key,
            first,
            tokens: tokens.into(),
            salt: extras.salt().filter(|_| first).map(Into::into),
            items: items.collect(),
        }
    }

    pub(super) fn salt(&self) -> Option<&str> {
        self.salt.as_deref()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let items = self.items.iter();
        items.map(|(start, end, identifier)| Item { start: *start, end: *end, identifier })
    }
}

/// How an engine block continues a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent<'a> {
    /// It ends where a key ends, as far as is known here.
    Aligned,
    /// It is not held in the tier.
    Missing,
    /// It leaves tokens over.
    Tail(&'a Tail),
}

impl PartialEq for Tail {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Tail {}

impl Tails {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn contains(&self, engine: u64) -> bool {
        self.nodes.contains_key(&engine)
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// How blocks go on after `engine` in a tier.
    pub(super) fn parent(&self, engine: u64, tier: u8) -> Parent<'_> {
        let Some(node) = self.nodes.get(&engine) else { return Parent::Aligned };
        match &node.tail {
            _ if node.count(tier) == 0 => Parent::Missing,
            None => Parent::Aligned,
            Some(tail) => Parent::Tail(tail),
        }
    }

    /// A block is stored that shares a key with `previous`, if given, and leaves `tail` over.
    pub(super) fn hold(
        &mut self,
        engine: u64,
        tier: u8,
        previous: Option<u64>,
        completes: bool,
        tail: impl FnOnce() -> Option<Tail>,
    ) {
        let mut linked = false;
        let node = self.nodes.entry(engine).or_insert_with(|| {
            linked = true;
            let counts = [0; MOST_TIERS];
            Node { previous, next: Vec::new(), counts, completes, tail: tail() }
        });
        if let Some(count) = node.counts.get_mut(usize::from(tier)) {
            *count = count.saturating_add(1);
        }
        if let Some(previous) = previous.filter(|_| linked)
            && let Some(node) = self.nodes.get_mut(&previous)
        {
            node.next.push(engine);
        }
    }

    /// A block that is known, without its tokens, is in `tier` too. Answers whether that stands:
    /// not if it shares a key with one that is not there.
    pub(super) fn also_in(&mut self, engine: u64, tier: u8) -> bool {
        let Some(node) = self.nodes.get(&engine) else { return true };
        let before = node.previous.and_then(|previous| self.nodes.get(&previous));
        if node.previous.is_some() && before.is_none_or(|before| before.count(tier) == 0) {
            return false;
        }
        self.hold(engine, tier, None, false, || None);
        true
    }

    /// A block is removed. `release` takes one count of a block from the mirror. Answers whether
    /// the block is gone; none if it is not one of these.
    pub(super) fn release(
        &mut self,
        engine: u64,
        tier: u8,
        mut release: impl FnMut(u64),
    ) -> Option<bool> {
        let at = usize::from(tier);
        let node = self.nodes.get_mut(&engine)?;
        let completes = node.completes;
        match node.counts.get_mut(at) {
            None | Some(0) => return Some(false),
            Some(count) => *count -= 1,
        }
        if completes {
            release(engine);
        }
        if node.count(tier) > 0 {
            return Some(false);
        }
        // Whatever shares a key with it goes too; each block is reached once.
        let mut gone = vec![engine];
        let mut reached = 0;
        while let Some(engine) = gone.get(reached).copied() {
            reached += 1;
            let next = self.nodes.get(&engine).map(|node| node.next.clone()).unwrap_or_default();
            for engine in next {
                let Some(node) = self.nodes.get_mut(&engine) else { continue };
                let count = node.counts.get_mut(at).map(std::mem::take).unwrap_or(0);
                if count == 0 {
                    continue;
                }
                if node.completes {
                    (0..count).for_each(|_| release(engine));
                }
                gone.push(engine);
            }
        }
        for engine in gone.into_iter().rev() {
            self.drop_if_gone(engine);
        }
        Some(true)
    }

    fn drop_if_gone(&mut self, engine: u64) {
        if self.nodes.get(&engine).is_none_or(|node| node.counts.iter().any(|count| *count > 0)) {
            return;
        }
        let previous = self.nodes.remove(&engine).and_then(|node| node.previous);
        if let Some(node) = previous.and_then(|previous| self.nodes.get_mut(&previous))
            && let Some(at) = node.next.iter().position(|next| *next == engine)
        {
            node.next.swap_remove(at);
        }
    }
}

impl Node {
    fn count(&self, tier: u8) -> u32 {
        self.counts.get(usize::from(tier)).copied().unwrap_or(0)
    }
}
