//! Keys of cache blocks.
//!
//! A key names a block *and everything before it*. It is the end of a hash over the key before it, the block's
//! tokens, and what else distinguishes it: the adapter, and the salt of a prompt's first block. Pods hash either as
//! the engine does that they stand for (which see: [`EngineHasher`]), or as schedulers key their indexes: FNV-1a
//! (64 bit) over the canonical CBOR array `[parent key, tokens, null]`, with `[{"Hash": salt}]` in place of null for
//! the first block of a salted prompt, and from a start made of the seed and the model's or adapter's name. That is
//! quicker, and makes the cache comparable with a scheduler's view of it.

use std::sync::Arc;

use inlane_kv::engine_hash::{BlockExtras, Digest, EngineHasher, Lora};

/// How the blocks of a pod are hashed.
#[derive(Clone, Copy, Debug)]
pub enum Hashing {
    /// As schedulers key their indexes, from this seed.
    CborFnv {
        /// The hash of the seed's text.
        seed: u64,
    },
    /// As an engine does.
    Engine(EngineHasher),
}

impl Hashing {
    /// The scheduler's hashes.
    pub fn cbor_fnv(seed: &str) -> Self {
        Self::CborFnv { seed: seed.bytes().fold(Fnv::default(), Fnv::byte).0 }
    }

    /// The start of the chains of `model`, or of one of its adapters.
    pub fn root(&self, model: &str, adapter: Option<Adapter>) -> Root {
        match *self {
            Self::CborFnv { seed } => {
                let name = adapter.as_ref().map_or(model, |adapter| &adapter.name);
                let hash = Fnv::default().byte(0x83).unsigned(seed).byte(NULL).text(name);
                Root(Start::CborFnv(hash.0))
            }
            // The model is no part of an engine's hashes: it serves but one.
            Self::Engine(hasher) => Root(Start::Engine(Box::new((hasher, adapter)))),
        }
    }
}

/// The start of the chains of one model or adapter.
#[derive(Clone, Debug)]
pub struct Root(Start);

#[derive(Clone, Debug)]
enum Start {
    CborFnv(u64),
    Engine(Box<(EngineHasher, Option<Adapter>)>),
}

/// A LoRA adapter as engines hash it.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The name that requests use.
    pub name: Arc<str>,
    /// Where it was loaded from.
    pub path: Arc<str>,
    /// Its number.
    pub id: u64,
}

/// The keys of the leading blocks of one prompt and its answer.
#[derive(Clone, Debug)]
pub struct Chain {
    root: Root,
    /// Separates this prompt from those with another salt; a part of its first block.
    salt: Option<Box<str>>,
    keys: Vec<u64>,
    /// The hashes that the keys are the ends of; none for those that are no longer than a key.
    digests: Vec<Digest>,
}

impl Chain {
    /// No block yet.
    pub fn new(root: Root, salt: Option<&str>) -> Self {
        // An empty salt is none.
        let salt = salt.filter(|salt| !salt.is_empty()).map(Box::from);
        Self { root, salt, keys: Vec::new(), digests: Vec::new() }
    }

    /// The keys so far.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// The whole hashes of the same blocks; none where a key is the whole.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Continues to `blocks` blocks of `size` tokens; `token` tells the token at a position.
    pub fn extend(&mut self, blocks: usize, size: usize, token: impl Fn(usize) -> u32) {
        let (mut tokens, mut buffer) = (Vec::with_capacity(size), Vec::new());
        while self.keys.len() < blocks {
            let start = self.keys.len() * size;
            tokens.clear();
            tokens.extend((start..start + size).map(&token));
            let salt = self.salt.as_deref().filter(|_| self.keys.is_empty());
            match &self.root.0 {
                Start::CborFnv(root) => {
                    let parent = self.keys.last().unwrap_or(root);
                    self.keys.push(cbor_fnv(*parent, &tokens, salt));
                }
                Start::Engine(engine) => {
                    let (hasher, adapter) = &**engine;
                    let lora = adapter.as_ref().map(|adapter| Lora {
                        id: i64::try_from(adapter.id).unwrap_or(i64::MAX),
                        name: &adapter.name,
                        path: &adapter.path,
                    });
                    let extras = BlockExtras { lora, salt, ..BlockExtras::default() };
                    let parent = self.digests.last().copied().unwrap_or_else(|| hasher.start());
                    let digest = hasher.next(&parent, &tokens, &extras, &mut buffer);
                    // Blocks of at most 128 tokens always have a hash.
                    let Some(digest) = digest else { return };
                    self.keys.push(digest.key());
                    self.digests.push(digest);
                }
            }
        }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new(Hashing::cbor_fnv("").root("", None), None)
    }
}

fn cbor_fnv(parent: u64, tokens: &[u32], salt: Option<&str>) -> u64 {
    let hash = Fnv::default().byte(0x83).unsigned(parent).head(ARRAY, tokens.len() as u64);
    let hash = tokens.iter().fold(hash, |hash, token| hash.unsigned(u64::from(*token)));
    match salt {
        Some(salt) => hash.head(ARRAY, 1).head(MAP, 1).text("Hash").text(salt).0,
        None => hash.byte(NULL).0,
    }
}

const UNSIGNED: u8 = 0 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
const NULL: u8 = 0xf6;

/// FNV-1a over CBOR items, without building them.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn unsigned(self, value: u64) -> Self {
        self.head(UNSIGNED, value)
    }

    fn text(self, text: &str) -> Self {
        text.bytes().fold(self.head(TEXT, text.len() as u64), Self::byte)
    }

    /// The head of an item: its major type and its argument in the shortest form.
    fn head(self, major: u8, argument: u64) -> Self {
        let bytes = argument.to_be_bytes();
        let (additional, width) = match argument {
            0..=23 => return self.byte(major | bytes[7]),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        bytes[8 - width..].iter().fold(self.byte(major | additional), |hash, &b| hash.byte(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(seed: &str, model: &str, tokens: &[u32], size: usize) -> Vec<u64> {
        salted(seed, model, None, tokens, size)
    }

    fn salted(
        seed: &str,
        model: &str,
        salt: Option<&str>,
        tokens: &[u32],
        size: usize,
    ) -> Vec<u64> {
        let mut chain = Chain::new(Hashing::cbor_fnv(seed).root(model, None), salt);
        chain.extend(tokens.len() / size, size, |at| tokens[at]);
        chain.keys().to_vec()
    }

    fn root(seed: &str, model: &str) -> u64 {
        match Hashing::cbor_fnv(seed).root(model, None).0 {
            Start::CborFnv(root) => root,
            Start::Engine(_) => unreachable!(),
        }
    }

    #[test]
    fn roots() {
        assert_eq!(root("", "m"), 11_374_735_546_233_341_228);
        assert_eq!(root("42", "m"), 13_673_417_957_312_747_559);
        assert_eq!(root("", ""), 155_877_178_866_718_358);
        assert_eq!(root("", "modèle/日本"), 4_798_607_406_299_676_697);
    }

    #[test]
    fn reference_vectors() {
        let upto = |n: u32| (1..=n).collect::<Vec<_>>();
        assert_eq!(chain("", "m", &upto(16), 16), [18_216_873_062_712_665_045]);
        assert_eq!(
            chain("", "m", &upto(10), 4),
            [14_686_617_092_727_577_033, 9_856_792_211_163_113_858]
        );
        assert_eq!(
            chain("42", "m", &upto(32), 16),
            [10_537_172_267_815_616_279, 12_405_703_473_848_005_276]
        );
        assert_eq!(
            salted("", "m", Some("tenant-a"), &upto(8), 4),
            [6_039_877_359_522_808_157, 11_399_821_565_797_804_721]
        );
        assert_eq!(salted("", "m", Some(""), &upto(8), 4), chain("", "m", &upto(8), 4));
        let widths = [0, 23, 24, 255, 256, 65_535, 65_536, u32::MAX, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(chain("", "m", &widths, 16), [9_738_717_045_712_292_855]);
    }

    #[test]
    fn keys_recorded_from_the_reference_simulator() {
        let ids = crate::text::tokenizer::encode("a b c d e f g h i j k l m n o p q");
        assert_eq!(
            chain("", "random", &ids, 8),
            [809_027_027_727_914_040, 8_176_532_042_634_072_587]
        );
    }
}
