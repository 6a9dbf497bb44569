//! A tokenizer, and the parts of texts that it need not see twice.

use std::cell::RefCell;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};

use tokenizers::Tokenizer;
use xxhash_rust::xxh3::xxh3_64;

use super::cache::{Key, TokenCache};
use super::check;
use super::cuts::{Cuts, Points, Sizes};
use super::error::PromptError;
use super::memo::{Memo, WORD_BYTES};

/// Turns text into token ids as the Python library that wraps the same tokenizer does, without
/// truncation and padding.
#[derive(Debug)]
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    /// Tells this tokenizer's pieces from others' in the cache.
    identity: u64,
    cuts: Option<Cuts>,
    /// What the post-processor puts around any text, `None` if it does something else.
    around: Option<Around>,
    /// Of threads that are not at work: each takes one for itself.
    memos: Mutex<Vec<Memo>>,
}

/// Special tokens before and after a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

/// How much of a text was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of text.
    pub bytes: u64,
    /// Bytes whose tokens the cache held.
    pub cached: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.cached += other.cached;
    }
}

/// Buffers that a thread keeps from text to text.
#[derive(Default)]
struct Scratch {
    points: Points,
    /// Those inside a part.
    fine: Points,
    lens: Vec<usize>,
    keys: Vec<Key>,
    found: Vec<Option<Arc<[u32]>>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A text of more parts than this leaves no buffers behind.
const SCRATCH_PARTS: usize = 16 * 1024;

impl Encoder {
    /// Takes a tokenizer as it stands in its file. `source` is what makes it differ from others:
    /// the file's bytes and what was added to it.
    pub(super) fn new(mut tokenizer: Tokenizer, source: &[u8]) -> Result<Self, String> {
        // Engines truncate and pad by the request, not by the file.
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        let around = check::around(&tokenizer);
        let cuts = check::cuts(&tokenizer);
        Ok(Self { tokenizer, identity: xxh3_64(source), cuts, around, memos: Mutex::default() })
    }

    /// Whether it was made of this source.
    pub(super) fn is_of(&self, source: &[u8]) -> bool {
        self.identity == xxh3_64(source)
    }

    /// The id of a token of the vocabulary.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The tokens of a text by itself, past any cache.
    pub(super) fn plain(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        self.whole(text, false)
    }

    /// What stands around any text with special tokens.
    pub(super) fn around(&self) -> Option<&Around> {
        self.around.as_ref()
    }

    /// Where texts are cut for the cache: `"messages"`, `"words"` (there and inside messages), or
    /// `"never"`.
    pub(super) fn cut_at(&self) -> &'static str {
        match &self.cuts {
            Some(cuts) if cuts.words => "words",
            Some(_) => "messages",
            None => "never",
        }
    }

    /// The tokens of `text`, exactly those of the tokenizer itself.
    pub(super) fn encode(
        &self,
        text: &str,
        special: bool,
        cache: &TokenCache,
        work: &mut Work,
    ) -> Result<Vec<u32>, PromptError> {
        work.bytes += text.len() as u64;
        let around = match (special, &self.around) {
            (false, _) => None,
            (true, Some(around)) => Some(around),
            (true, None) => return self.whole(text, true),
        };
        let mut ids = around.map_or_else(Vec::new, |around| around.before.clone());
        match &self.cuts {
            Some(cuts) if cache.budget() > 0 => {
                SCRATCH.with_borrow_mut(|scratch| {
                    self.parts(cuts, text, cache, scratch, work, &mut ids)
                })?;
            }
            _ => ids.append(&mut self.whole(text, false)?),
        }
        ids.extend(around.map_or(&[][..], |around| &around.after));
        Ok(ids)
    }

    fn parts(
        &self,
        cuts: &Cuts,
        text: &str,
        cache: &TokenCache,
        scratch: &mut Scratch,
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), PromptError> {
        let Scratch { points, fine, lens, keys, found } = scratch;
        lens.clear();
        keys.clear();
        found.clear();
        cuts.parts(text, Sizes::default(), points, |part| {
            lens.push(part.len());
            keys.push(cache.key(self.identity, part));
        });
        cache.get(keys, found);
        let mut new = Vec::new();
        let mut memo = None;
        let mut rest = text;
        for ((&len, key), found) in lens.iter().zip(keys.iter()).zip(found.iter()) {
            let (part, tail) = rest.split_at(len);
            rest = tail;
            if let Some(tokens) = found {
                work.cached += len as u64;
                ids.extend_from_slice(tokens);
            } else {
                let from = ids.len();
                if cuts.words {
                    let memo = memo.get_or_insert_with(|| self.take_memo());
                    self.words(cuts, part, cache, fine, memo, ids)?;
                } else {
                    ids.append(&mut self.whole(part, false)?);
                }
                new.push((*key, ids[from..].into()));
            }
        }
        cache.put(new);
        if let Some(memo) = memo {
            self.memos.lock().unwrap_or_else(PoisonError::into_inner).push(memo);
        }
        // Tokens belong to the cache: nothing of it is held from text to text.
        found.clear();
        if keys.len() > SCRATCH_PARTS {
            *scratch = Scratch::default();
        }
        Ok(())
    }

    /// A part that is new, word by word.
    fn words(
        &self,
        cuts: &Cuts,
        part: &str,
        cache: &TokenCache,
        points: &mut Points,
        memo: &mut Memo,
        ids: &mut Vec<u32>,
    ) -> Result<(), PromptError> {
        let mut done = Ok(());
        cuts.parts(part, Sizes::FINEST, points, |word| {
            let key = cache.key(self.identity, word);
            let kept = word.len() <= WORD_BYTES;
            if done.is_err() || kept && memo.find(key, ids) {
                return;
            }
            match self.whole(word, false) {
                Ok(tokens) => {
                    ids.extend_from_slice(&tokens);
                    if kept {
                        memo.keep(key, &tokens);
                    }
                }
                Err(error) => done = Err(error),
            }
        });
        done
    }

    fn take_memo(&self) -> Memo {
        let memo = self.memos.lock().unwrap_or_else(PoisonError::into_inner).pop();
        memo.unwrap_or_default()
    }

    /// Without any cache.
    pub(super) fn whole(&self, text: &str, special: bool) -> Result<Vec<u32>, PromptError> {
        match self.tokenizer.encode_fast(text, special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(PromptError::Tokenizer(error.to_string())),
        }
    }
}
