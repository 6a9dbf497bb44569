//! The tokens of words that a tokenizer has met.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::cache::{Identity, Key};

/// Words and tokens of one generation.
const WORDS: usize = 1 << 15;
const TOKENS: usize = 1 << 17;

/// Bytes of a word that is worth keeping.
pub(super) const WORD_BYTES: usize = 64;

/// What one thread remembers of one tokenizer: the words met since the generation before last.
///
/// Texts that are new as a whole are made of words that are not, and to find one takes a fiftieth
/// of what the library takes to tokenize it. At most 5 MB.
#[derive(Debug, Default)]
pub(super) struct Memo {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    /// Where the word's tokens stand.
    words: HashMap<u128, (u32, u32), BuildHasherDefault<Identity>>,
    tokens: Vec<u32>,
}

impl Memo {
    /// Appends the tokens of a word, if they are known.
    pub(super) fn find(&mut self, word: Key, out: &mut Vec<u32>) -> bool {
        if let Some(tokens) = self.young.get(word) {
            out.extend_from_slice(tokens);
            return true;
        }
        let Some(tokens) = self.old.get(word) else { return false };
        let from = out.len();
        out.extend_from_slice(tokens);
        if let Some(tokens) = out.get(from..) {
            self.keep(word, tokens);
        }
        true
    }

    pub(super) fn keep(&mut self, word: Key, tokens: &[u32]) {
        let full = self.young.tokens.len() + tokens.len() > TOKENS;
        if full || self.young.words.len() >= WORDS {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.words.clear();
            self.young.tokens.clear();
        }
        let at = self.young.tokens.len();
        self.young.tokens.extend_from_slice(tokens);
        self.young.words.insert(word.0, (at as u32, tokens.len() as u32));
    }
}

impl Generation {
    fn get(&self, word: Key) -> Option<&[u32]> {
        let (at, len) = *self.words.get(&word.0)?;
        self.tokens.get(at as usize..)?.get(..len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::TokenCache;
    use super::*;

    fn find(memo: &mut Memo, word: Key) -> Option<Vec<u32>> {
        let mut out = Vec::new();
        memo.find(word, &mut out).then_some(out)
    }

    #[test]
    fn words_in_use_outlive_those_that_are_not() {
        let cache = TokenCache::seeded(0, 3);
        let mut memo = Memo::default();
        let used = cache.key(1, "used");
        memo.keep(used, &[1, 2]);
        for word in 0..3 * WORDS as u32 {
            let key = cache.key(1, &word.to_string());
            memo.keep(key, &[word]);
            assert_eq!(find(&mut memo, key), Some(vec![word]));
            assert_eq!(find(&mut memo, used), Some(vec![1, 2]));
        }
        assert_eq!(find(&mut memo, cache.key(1, "0")), None);
        assert!(memo.young.words.len() <= WORDS && memo.old.words.len() <= WORDS);
    }

    #[test]
    fn tokens_are_bounded_too() {
        let cache = TokenCache::seeded(0, 3);
        let mut memo = Memo::default();
        for word in 0..100_u32 {
            memo.keep(cache.key(1, &word.to_string()), &vec![word; TOKENS / 10]);
        }
        assert!(memo.young.tokens.len() <= TOKENS && memo.old.tokens.len() <= TOKENS);
        let none = cache.key(1, "none");
        memo.keep(none, &[]);
        assert_eq!(find(&mut memo, none), Some(vec![]));
    }
}
