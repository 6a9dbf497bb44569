//! The text of an answer, cut into tokens.
//!
//! An answer is known in full when its request arrives; the engine only decides when each token may be seen.
//! The text is therefore one string with the end of every token, shared by the engine (which hashes the ids of
//! generated blocks) and the response (which sends slices).

use std::sync::LazyLock;

use fastrand::Rng;

use super::tokenizer;

/// A generated answer.
#[derive(Debug, Default)]
pub struct Reply {
    text: String,
    ends: Vec<u32>,
    ids: Vec<u32>,
}

impl Reply {
    /// Random sentences, cut after `length` tokens. The same generator state gives the same text.
    pub fn random(length: usize, rng: &mut Rng) -> Self {
        let corpus = &*CORPUS;
        let mut reply = Self {
            text: String::with_capacity(length * 5),
            ends: Vec::with_capacity(length),
            ids: Vec::with_capacity(length),
        };
        while reply.len() < length {
            let sentence = &corpus[rng.usize(..corpus.len())];
            for (text, id) in sentence.iter().take(length - reply.len()) {
                reply.push(text, *id);
            }
        }
        reply
    }

    /// `text` itself. What the tokenizer skips is sent along with the token before it (or the first one).
    pub fn echo(text: String) -> Self {
        let mut reply = Self::default();
        for token in tokenizer::tokens(&text) {
            if !reply.ids.is_empty() {
                reply.ends.push(token.start as u32);
            }
            reply.ids.push(token.id);
        }
        if reply.ids.is_empty() && !text.is_empty() {
            reply.ids.push(0);
        }
        if !reply.ids.is_empty() {
            reply.ends.push(text.len() as u32);
        }
        reply.text = text;
        reply
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids of the tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of token `index`; empty when there is no such token.
    pub fn token(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.end(before));
        self.text.get(start..self.end(index)).unwrap_or_default()
    }

    fn end(&self, index: usize) -> usize {
        self.ends.get(index).map_or(self.text.len(), |&end| end as usize)
    }

    /// Adds a token with its text.
    pub(super) fn push(&mut self, text: &str, id: u32) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
        self.ids.push(id);
    }
}

/// What random answers say.
pub(super) const SENTENCES: [&str; 11] = [
    "A queue is a promise that somebody else will be patient. ",
    "The prefix you already know is the cheapest prompt to read. ",
    "Give a river a shorter way to the sea and it will not ask for directions. ",
    "Three pods went out to serve, and the least busy one came home first. ",
    "Today the weather over the data centre is warm, dry and quite loud. ",
    "Nobody remembers the request that was answered in time. ",
    "To measure is to admit that you might be wrong. ",
    "Every cache forgets; a good one forgets in the right order. ",
    "Testing, testing: one, two, three! ",
    "Is the shortest line the fastest, or only the shortest? ",
    "When in doubt, the old miller said, look at the water and not at the wheel. ",
];

/// The sentences as tokens with their ids. Every sentence ends in white space and starts with a word, so that the
/// tokens of a concatenation are the concatenation of the tokens.
static CORPUS: LazyLock<Vec<Vec<(&'static str, u32)>>> = LazyLock::new(|| {
    let cut = |sentence: &'static str| {
        tokenizer::tokens(sentence).map(|t| (&sentence[t.start..t.end], t.id)).collect()
    };
    SENTENCES.into_iter().map(cut).collect()
});

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    fn rejoined(reply: &Reply) -> String {
        (0..reply.len()).map(|index| reply.token(index)).collect()
    }

    #[test]
    fn same_seed_same_text() {
        let text = |seed| Reply::random(60, &mut Rng::with_seed(seed)).text().to_owned();
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }

    #[test]
    fn echo_keeps_what_the_tokenizer_skips() {
        let reply = Reply::echo("à bientôt, 日本".to_owned());
        assert_eq!(rejoined(&reply), "à bientôt, 日本");
        assert_eq!(reply.len(), 3);
        assert_eq!(Reply::echo("日本".to_owned()).len(), 1);
        assert!(Reply::echo(String::new()).is_empty());
    }

    proptest! {
        #[test]
        fn tokens_of_a_random_reply_are_those_of_its_text(length in 0_usize..300, seed: u64) {
            let reply = Reply::random(length, &mut Rng::with_seed(seed));
            prop_assert_eq!(reply.len(), length);
            prop_assert_eq!(tokenizer::encode(reply.text()), reply.ids());
            prop_assert_eq!(rejoined(&reply), reply.text());
        }

        #[test]
        fn echo_rejoins(text in ".{0,60}") {
            let reply = Reply::echo(text.clone());
            prop_assert_eq!(rejoined(&reply), text);
        }
    }
}
