//! From the token ids of a prompt to the keys of its blocks.
//!
//! The keys are the scheduler's own ([`inlane_kv::keys`]): they equal those under which the index files
//! what engines report, whatever hashes the engines use themselves. A key covers the model's name,
//! all tokens up to its block, the media that lie in them and the cache salt.

use std::fmt;
use std::num::NonZeroU32;

use inlane_core::request::{Media, Prompt, Request};
use inlane_core::snapshot::IndexDocument;
use inlane_kv::extras::{Extras, Item};
use inlane_kv::keys::Hasher;

use super::parameters::HashAlgorithm;

/// Media of one prompt whose keys are made without a detour.
const MEDIA: usize = 32;

/// How keys are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keying {
    hasher: Hasher,
    algorithm: HashAlgorithm,
    seed: String,
}

impl Keying {
    /// Keys of blocks of `block_tokens` tokens.
    pub fn new(algorithm: HashAlgorithm, seed: &str, block_tokens: NonZeroU32) -> Self {
        let hasher = Hasher::new(algorithm.into(), seed, block_tokens);
        Self { hasher, algorithm, seed: seed.to_owned() }
    }

    /// Tokens per block.
    pub fn block_tokens(&self) -> u32 {
        self.hasher.block_tokens().get()
    }

    /// How they are hashed.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// What they are seeded with.
    pub fn seed(&self) -> &str {
        &self.seed
    }

    /// The first parameter in which an index was written otherwise: what it has nobody can look up
    /// with these keys.
    pub fn difference(&self, index: &IndexDocument) -> Option<Difference> {
        let differ = |field, index: String, keys: String| {
            (index != keys).then_some(Difference { field, index, keys })
        };
        if index.block_tokens != self.block_tokens() {
            let (index, keys) = (index.block_tokens.to_string(), self.block_tokens().to_string());
            return differ("blockSizeTokens", index, keys);
        }
        if index.algorithm != self.algorithm.name() {
            return differ("hashAlgorithm", index.algorithm.clone(), self.algorithm.name().into());
        }
        if index.seed != self.seed {
            return differ("hashSeed", format!("{:?}", index.seed), format!("{:?}", self.seed));
        }
        None
    }

    /// Appends the keys of the whole blocks of prompt number `prompt`. A prompt without token ids
    /// has none. One pass over the tokens; allocates only where `out` must grow, and for a prompt
    /// with more than 32 media.
    ///
    /// The model is the one that the engine is asked for, after all rewrites; of a LoRA request that
    /// is the adapter.
    pub fn keys(&self, request: &Request<'_>, prompt: usize, out: &mut Vec<u64>) {
        let Some(Prompt::Tokens(ids)) = request.prompts.get(prompt) else { return };
        let start = self.hasher.start(request.target_model);
        let salt = Some(request.cache_salt);
        let of_prompt = |media: &&Media<'_>| media.prompt as usize == prompt;
        let media = || request.media.iter().filter(of_prompt).map(item);
        let mut room = [Item { start: 0, end: 0, identifier: "" }; MEDIA];
        let mut more = Vec::new();
        let count = media().count();
        let items = match room.get_mut(..count) {
            Some(room) => {
                room.iter_mut().zip(media()).for_each(|(place, item)| *place = item);
                room
            }
            None => {
                more.extend(media());
                &mut more[..]
            }
        };
        items.sort_unstable_by_key(|item| (item.start, item.end));
        self.hasher.extend(start, ids, &Extras::new(items, salt), out);
    }
}

/// A parameter with which an index cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name below `tokenProcessorConfig`.
    pub field: &'static str,
    /// What the index was written with.
    pub index: String,
    /// What the keys are made with.
    pub keys: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, index, keys } = self;
        write!(f, "tokenProcessorConfig.{field} is {keys}, the index was written with {index}")
    }
}

/// A medium in the terms of the hasher. No prompt has 2^32 tokens.
fn item<'a>(media: &Media<'a>) -> Item<'a> {
    let place = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    let end = place(media.offset.saturating_add(media.length));
    Item { start: place(media.offset), end, identifier: media.hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(request: &Request<'_>, prompt: usize) -> Vec<u64> {
        let block = NonZeroU32::new(4).unwrap();
        let mut out = Vec::new();
        Keying::new(HashAlgorithm::CborFnv, "", block).keys(request, prompt, &mut out);
        out
    }

    fn image<'a>(hash: &'a str, prompt: u32, offset: u64, length: u64) -> Media<'a> {
        Media { modality: "image", hash, prompt, offset, length }
    }

    #[test]
    fn salt_and_media_enter_the_keys_as_in_the_reference() {
        let ids: Vec<u32> = (1..=8).collect();
        let prompts = [Prompt::Tokens(&ids)];
        let plain = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        assert_eq!(keys(&plain, 0), [14_686_617_092_727_577_033, 9_856_792_211_163_113_858]);
        let salted = Request { cache_salt: "tenant-a", ..plain };
        assert_eq!(keys(&salted, 0), [6_039_877_359_522_808_157, 11_399_821_565_797_804_721]);
        // Both images lie in the second block, and are named in the order of their starts.
        let media = [image("imghash2", 0, 6, 2), image("imghash1", 0, 4, 1), image("x", 1, 0, 8)];
        let shown = Request { media: &media, ..plain };
        assert_eq!(keys(&shown, 0), [14_686_617_092_727_577_033, 16_520_450_473_166_387_297]);
    }

    #[test]
    fn many_media_are_as_good_as_few() {
        let ids: Vec<u32> = (0..400).collect();
        let prompts = [Prompt::Tokens(&ids)];
        let many: Vec<_> = (0..40).map(|n| image("i", 0, n * 4, 4)).collect();
        let request = |media| Request { prompts: &prompts, media, ..Request::default() };
        let all = keys(&request(&many), 0);
        let few = keys(&request(&many[..20]), 0);
        assert_eq!(all.len(), 100);
        assert_eq!(all[..20], few[..20]);
        assert_ne!(all[20], few[20]);
    }

    #[test]
    fn prompts_are_chains_of_their_own_and_need_ids() {
        let ids: Vec<u32> = (1..=11).collect();
        let unit = inlane_core::request::BlockUnit::Tokens(4);
        let packed = Prompt::Blocks { unit, tokens: 8, contents: &[1, 2] };
        let prompts = [packed, Prompt::Tokens(&ids), Prompt::Tokens(&ids[..3])];
        let request = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        assert_eq!(keys(&request, 0), [0u64; 0]);
        assert_eq!(keys(&request, 1).len(), 2);
        assert_eq!(keys(&request, 2), [0u64; 0]);
        assert_eq!(keys(&request, 3), [0u64; 0]);
        let other = Request { target_model: "n", ..request };
        assert_ne!(keys(&request, 1), keys(&other, 1));
    }

    #[test]
    fn the_first_difference_to_an_index_is_named() {
        let keying =
            |algorithm, seed, block| Keying::new(algorithm, seed, NonZeroU32::new(block).unwrap());
        let index = IndexDocument {
            block_tokens: 16,
            algorithm: "xxh64".into(),
            seed: "42".into(),
            tiers: vec!["gpu".into()],
        };
        assert_eq!(keying(HashAlgorithm::Xxh64, "42", 16).difference(&index), None);
        for (algorithm, seed, block, text) in [
            (
                HashAlgorithm::CborFnv,
                "",
                64,
                "blockSizeTokens is 64, the index was written with 16",
            ),
            (
                HashAlgorithm::CborFnv,
                "",
                16,
                "hashAlgorithm is cbor-fnv, the index was written with xxh64",
            ),
            (HashAlgorithm::Xxh64, "", 16, "hashSeed is \"\", the index was written with \"42\""),
        ] {
            let difference = keying(algorithm, seed, block).difference(&index).unwrap();
            assert_eq!(difference.to_string(), format!("tokenProcessorConfig.{text}"));
        }
        let nothing = IndexDocument::default();
        assert!(keying(HashAlgorithm::CborFnv, "", 16).difference(&nothing).is_some());
    }
}
