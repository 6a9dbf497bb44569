//! A real model's tokenizer and chat template, so that prompts have the ids that they have in a real server.

use std::{path::Path, sync::Arc};

use fastrand::Rng;
use inlane_text::tokens::{LoadError, Model, PromptApi, PromptError, TokenCache};

use super::reply::{Reply, SENTENCES};

/// Bytes of tokens that are remembered, of all texts of all pods of a process.
const MEMORY: usize = 64 << 20;

/// See the [module](self).
pub struct Vocabulary {
    model: Model,
    /// What random answers are made of.
    sentences: Vec<Vec<Piece>>,
}

/// A word with the space before it, or a mark, and its tokens.
struct Piece {
    text: String,
    ids: Vec<u32>,
}

impl Vocabulary {
    /// Loads `tokenizer.json` and what is beside it in `directory`.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let name = directory.to_string_lossy();
        let model = Model::load(&name, directory, Arc::new(TokenCache::new(MEMORY)))?;
        let sentence = |sentence: &str| {
            let pieces = pieces(sentence).into_iter();
            // What cannot be tokenized cannot be said.
            pieces
                .filter_map(|text| Some(Piece { ids: model.encode(&text, false).ok()?, text }))
                .filter(|piece| !piece.ids.is_empty())
                .collect()
        };
        let sentences: Vec<Vec<Piece>> = SENTENCES.into_iter().map(sentence).collect();
        Ok(Self { sentences: sentences.into_iter().filter(|s| !s.is_empty()).collect(), model })
    }

    /// The token ids of the prompts of a request.
    pub fn prompts(&self, api: PromptApi, body: &[u8]) -> Result<Vec<Vec<u32>>, PromptError> {
        Ok(self.model.tokenize(api, body)?.prompts)
    }

    /// Random sentences of `length` tokens. The same generator state gives the same text.
    ///
    /// The text gives the same ids again when it comes back in a prompt, as far as the tokenizer takes words one by
    /// one; not so the last word, which may be cut.
    pub fn random(&self, length: usize, rng: &mut Rng) -> Reply {
        let mut reply = Reply::default();
        while reply.len() < length && !self.sentences.is_empty() {
            for piece in &self.sentences[rng.usize(..self.sentences.len())] {
                let room = length - reply.len();
                let (first, rest) = (piece.ids.first(), piece.ids.iter().skip(1));
                // The text comes with the first token of a word, as nobody knows which letters are whose.
                for (index, id) in first.into_iter().chain(rest).take(room).enumerate() {
                    reply.push(if index == 0 { &piece.text } else { "" }, *id);
                }
            }
        }
        reply
    }

    /// `text` itself.
    pub fn echo(&self, text: &str) -> Result<Reply, PromptError> {
        let ids = self.model.encode(text, false)?;
        let mut reply = Reply::default();
        let mut left = text;
        for (index, id) in ids.iter().enumerate() {
            // An equal share of the letters per token, and what is left with the last one.
            let share = left.len() / (ids.len() - index);
            let end = (share..=left.len()).find(|end| left.is_char_boundary(*end));
            let (head, tail) = left.split_at(end.unwrap_or(left.len()));
            reply.push(head, *id);
            left = tail;
        }
        Ok(reply)
    }
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Vocabulary").field("model", &self.model.name()).finish_non_exhaustive()
    }
}

/// Words with a space before each, and marks, as most tokenizers split texts.
fn pieces(sentence: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    for word in sentence.split_whitespace() {
        let (word, marks) = match word.find(|c: char| c.is_ascii_punctuation()) {
            Some(at) => word.split_at(at),
            None => (word, ""),
        };
        pieces.push(format!(" {word}"));
        if !marks.is_empty() {
            pieces.push(marks.to_owned());
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Vocabulary {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm/model");
        Vocabulary::load(Path::new(directory)).unwrap()
    }

    fn rejoined(reply: &Reply) -> String {
        (0..reply.len()).map(|index| reply.token(index)).collect()
    }

    #[test]
    fn sentences_fall_into_words_and_marks() {
        assert_eq!(pieces("Testing, one "), [" Testing", ",", " one"]);
    }

    #[test]
    fn an_answer_has_the_same_ids_in_a_prompt() {
        let vocabulary = recorded();
        for seed in 0..20 {
            let reply = vocabulary.random(200, &mut Rng::with_seed(seed));
            assert_eq!((reply.len(), rejoined(&reply)), (200, reply.text().to_owned()));
            let again = vocabulary.model.encode(reply.text(), false).unwrap();
            let same = again.iter().zip(reply.ids()).take_while(|(a, b)| a == b).count();
            assert!(same >= 195, "{same} of 200 with seed {seed}");
        }
    }

    #[test]
    fn an_echo_is_the_whole_text() {
        let vocabulary = recorded();
        for text in ["", "hello there", "Grüße, 日本語 🙂", "a"] {
            let reply = vocabulary.echo(text).unwrap();
            assert_eq!((rejoined(&reply), reply.text()), (text.to_owned(), text));
            assert_eq!(reply.ids(), vocabulary.model.encode(text, false).unwrap());
        }
    }

    #[test]
    fn a_directory_without_tokenizer_is_an_error() {
        assert!(Vocabulary::load(Path::new("/nowhere")).is_err());
    }
}
