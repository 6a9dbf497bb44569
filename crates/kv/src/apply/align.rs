//! From the extra keys of an event to the extras of its tokens.

use std::num::NonZeroU32;

use super::counters::Reason;
use crate::event::{Extra, Stored};
use crate::extras::{Extras, Item};

/// Bytes of extras that the keys of one event may cost to hash: a few times what the largest image
/// prompts have.
const MOST_BYTES: u64 = 64 << 20;

/// The extras of a run of tokens, with what the extra keys of engines leave open.
#[derive(Debug, Default)]
pub(super) struct Aligned<'a> {
    items: Vec<Item<'a>>,
    salt: Option<&'a str>,
}

impl<'a> Aligned<'a> {
    /// Of tokens that an earlier event has left over.
    pub(super) fn pending(items: Vec<Item<'a>>, salt: Option<&'a str>) -> Self {
        Self { items, salt }
    }

    /// Adds those of a store whose first token is the `at`-th of the run; with `first` it is the
    /// first of its prompt.
    ///
    /// The name of the adapter leads every block of a LoRA request and is dropped: the key of the
    /// prompt's start has it. The salt is the last text of the prompt's first block; it belongs to
    /// the first block of whatever size. An item goes on from block to block; where it ends within
    /// the last of them is not told, so that it counts up to the start of the next item or to the
    /// end of that block.
    pub(super) fn add(
        &mut self,
        stored: &Stored<'a>,
        block_size: NonZeroU32,
        at: u32,
        first: bool,
    ) -> Result<(), Reason> {
        let adapter = stored.lora_name.filter(|name| !name.is_empty());
        let blocks = stored.extra_keys.blocks().take(stored.hashes.len());
        let mut begin = at;
        for (index, block) in blocks.enumerate() {
            let end = begin.saturating_add(block_size.get());
            let may_be_salted = first && index == 0;
            let keys = block.iter().enumerate();
            let keys = keys.filter(|(place, key)| {
                *place > 0 || !matches!(key, Extra::Text(text) if Some(*text) == adapter)
            });
            // Only the first item of a block can have begun before it.
            let mut may_continue = true;
            for (_, key) in keys {
                let (identifier, offset) = match key {
                    Extra::Digest(_) => return Err(Reason::PromptEmbeds),
                    Extra::Item { identifier, offset } => (identifier, offset),
                    Extra::Other => continue,
                    Extra::Text(text) if may_be_salted && !is_digest(text) => {
                        match self.salt.replace(text) {
                            Some(item) => (item, None),
                            None => continue,
                        }
                    }
                    Extra::Text(text) => (text, None),
                };
                self.push(identifier, offset, begin, end, may_continue);
                may_continue = false;
            }
            begin = end;
        }
        Ok(())
    }

    /// Whether hashing these into blocks of so many tokens takes disproportionate time.
    pub(super) fn check(&self, block_tokens: NonZeroU32) -> Result<(), Reason> {
        let cost = self.items.iter().fold(0u64, |cost, item| {
            let blocks = u64::from((item.end - item.start) / block_tokens) + 2;
            cost.saturating_add(blocks * (item.identifier.len() as u64 + 16))
        });
        if cost > MOST_BYTES { Err(Reason::TooManyExtras) } else { Ok(()) }
    }

    pub(super) fn extras(&self) -> Extras<'_> {
        Extras::new(&self.items, self.salt)
    }

    fn push(
        &mut self,
        identifier: &'a str,
        offset: Option<i64>,
        begin: u32,
        end: u32,
        may_continue: bool,
    ) {
        let mut start = begin;
        if let Some(last) = self.items.last_mut() {
            let began_before = offset.is_none_or(|offset| offset < 0);
            let reaches = last.end == begin && last.identifier == identifier;
            if may_continue && began_before && reaches {
                last.end = end;
                return;
            }
            start = start.max(last.start);
        }
        if let Some(offset) = offset {
            let told = i64::from(begin).saturating_add(offset);
            let told = u32::try_from(told.max(0)).unwrap_or(u32::MAX);
            start = told.clamp(start, end.saturating_sub(1).max(start));
            if let Some(last) = self.items.last_mut().filter(|last| last.start < start) {
                last.end = last.end.min(start);
            }
        }
        self.items.push(Item { start, end, identifier });
    }
}

/// Whether a text is the digest of a media item rather than a salt: engines that do not tell the
/// two apart name items by hexadecimal digests.
fn is_digest(text: &str) -> bool {
    text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
