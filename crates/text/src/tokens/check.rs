//! What is assumed of a tokenizer is tried on it when it is loaded.

use tokenizers::Tokenizer;

use super::cuts::{Cuts, Points, Sizes};
use super::encoder::Around;

/// Texts tried per tokenizer: some ten thousand bytes in all, so a few milliseconds.
const TEXTS: usize = 160;

/// Fragments of texts on which tokenizers are known to differ.
const FRAGMENTS: [&str; 48] = [
    "a",
    "I",
    " the",
    "word",
    " Two",
    "THE",
    "don",
    "'t",
    "it's",
    "We'LL",
    " ",
    "  ",
    "\n",
    "\n\n",
    " \n ",
    "\t",
    "\r\n",
    "   x",
    "1",
    "23",
    " 4567",
    "x9y",
    "é",
    "e\u{301}",
    "\u{301}",
    "ﬁ",
    "ſ",
    "日本",
    "語。",
    "ひ",
    "한국",
    "🙂",
    "👩\u{200d}🔬",
    "\u{a0}",
    "\u{3000}",
    "▁",
    "Ġ",
    ".",
    "...",
    "?!",
    "\"",
    "{\"k\": ",
    "}",
    "/path",
    "<",
    "<|",
    "|>",
    "[",
];

/// What the post-processor puts around a text, if that is all it does.
pub(super) fn around(tokenizer: &Tokenizer) -> Option<Around> {
    let ids = |text: &str, special| {
        let encoding = tokenizer.encode_fast(text, special).ok()?;
        Some((encoding.get_ids().to_vec(), encoding.get_special_tokens_mask().to_vec()))
    };
    let (with, mask) = ids("a b", true)?;
    let special = |mask: &&u32| **mask == 1;
    let before = mask.iter().take_while(special).count();
    let after = mask[before..].iter().rev().take_while(special).count();
    let around =
        Around { before: with[..before].to_vec(), after: with[with.len() - after..].to_vec() };
    for text in ["a b", "", "x", "Two words.\nAnd more"] {
        let (with, _) = ids(text, true)?;
        let (without, _) = ids(text, false)?;
        let joined = [around.before.as_slice(), &without, &around.after].concat();
        if joined != with {
            return None;
        }
    }
    Some(around)
}

/// The rules by which this tokenizer's texts are cut: the widest of which no text tried says
/// that it changes a token.
pub(super) fn cuts(tokenizer: &Tokenizer) -> Option<Cuts> {
    let mut cuts = Cuts::of(tokenizer)?;
    if holds(tokenizer, &cuts) {
        return Some(cuts);
    }
    cuts.words = false;
    holds(tokenizer, &cuts).then_some(cuts)
}

/// Cuts random texts wherever the rules allow and compares.
fn holds(tokenizer: &Tokenizer, cuts: &Cuts) -> bool {
    let mut added: Vec<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    added.sort();
    let ids = |text: &str| Some(tokenizer.encode_fast(text, false).ok()?.get_ids().to_vec());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut points = Points::default();
    (0..TEXTS).all(|_| {
        let text = random.text(&added);
        let mut parts = Some(Vec::new());
        cuts.parts(&text, Sizes::FINEST, &mut points, |part| {
            parts = parts.take().zip(ids(part)).map(|(mut all, part)| {
                all.extend(part);
                all
            });
        });
        // A text that cannot be tokenized says nothing.
        ids(&text).is_none_or(|whole| parts.is_some_and(|parts| parts == whole))
    })
}

/// Xorshift: the same texts at every load.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % bound.max(1)
    }

    fn text(&mut self, added: &[String]) -> String {
        let mut text = String::new();
        for _ in 0..self.below(24) {
            match added.get(self.below(added.len())) {
                Some(token) if self.below(5) == 0 => {
                    // Now and then torn, so that a token is almost there.
                    let torn = token.char_indices().map(|(at, _)| at).nth(self.below(64));
                    text.push_str(&token[..torn.unwrap_or(token.len())]);
                }
                _ => text.push_str(FRAGMENTS[self.below(FRAGMENTS.len())]),
            }
        }
        text
    }
}
