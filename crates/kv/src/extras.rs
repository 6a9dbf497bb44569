//! What a block's key depends on besides its tokens.

use std::ops::Range;

/// The extras of a run of tokens: media items that lie in them and the prompt's salt.
///
/// A media item enters the key of every block that it overlaps, in the order of the items; the salt
/// enters that of the first block only, after its items. The adapter of a LoRA request is not an
/// extra: it takes the place of the model's name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    items: &'a [Item<'a>],
    salt: Option<&'a str>,
}

impl<'a> Extras<'a> {
    /// Of a text prompt without a salt.
    pub const NONE: Self = Self { items: &[], salt: None };

    /// `items` in the order of their starts; as media do not overlap, that is the order of their
    /// ends too. The `salt` belongs to the first block of the run, so
    /// it may be given only where the run starts a prompt; an empty salt is none.
    pub fn new(items: &'a [Item<'a>], salt: Option<&'a str>) -> Self {
        Self { items, salt: salt.filter(|salt| !salt.is_empty()) }
    }

    /// Whether no block has any.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.salt.is_none()
    }

    /// The items, in the order of their starts.
    pub fn items(&self) -> &'a [Item<'a>] {
        self.items
    }

    /// The salt of the first block.
    pub fn salt(&self) -> Option<&'a str> {
        self.salt
    }

    /// The texts that enter the key of the block of the tokens `block`. Blocks are asked in their
    /// order; `from` is zero for the first and keeps what no later block needs to look at.
    pub(crate) fn of(
        &self,
        block: Range<u32>,
        from: &mut usize,
    ) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let rest = self.items.get(*from..).unwrap_or_default();
        let passed = rest.iter().take_while(|item| item.end <= block.start).count();
        *from += passed;
        let salt = self.salt.filter(|_| block.start == 0);
        rest.iter()
            .skip(passed)
            .take_while(move |item| item.start < block.end)
            .filter(move |item| item.end > block.start)
            .map(|item| item.identifier)
            .chain(salt)
    }
}

/// A media item (an image, a clip) in the tokens of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Position of its first placeholder token.
    pub start: u32,
    /// Position after its last one.
    pub end: u32,
    /// The digest of its content, as the engine names it.
    pub identifier: &'a str,
}
