//! Request keys: the scheduler's own hashes of prefix blocks.
//!
//! An engine's block hash depends on its algorithm, seed, version and block size, so a scheduler
//! cannot always compute it. It hashes the tokens itself, on both sides: those of an event and
//! those of a request. The result equals that of the Go scheduler, so that both may share an index.
//!
//! The chain of a prompt starts with the model's name; each full block is hashed with the key
//! before it. Two keys are equal exactly if model, all tokens up to there and all extras are.
//!
//! Cost: one pass over the tokens, no buffer. [`Algorithm::CborFnv`] multiplies once per byte of
//! CBOR and each multiplication waits for the one before; [`Algorithm::Xxh64`] is four times as
//! fast.

use std::num::NonZeroU32;
use std::ops::Range;

use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::extras::Extras;

/// How blocks are hashed; `hashAlgorithm` of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// FNV-1a-64 of the canonical CBOR of `[parent, tokens, extras]`: `cbor-fnv`.
    #[default]
    CborFnv,
    /// XXH64 of parent, tokens and extras, little-endian: `xxh64`.
    Xxh64,
}

impl Algorithm {
    /// The algorithm of a configuration's name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::CborFnv, Self::Xxh64].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::CborFnv => "cbor-fnv",
            Self::Xxh64 => "xxh64",
        }
    }
}

/// Hashes prompts to request keys.
///
/// ```
/// use std::num::NonZeroU32;
///
/// use inlane_kv::extras::Extras;
/// use inlane_kv::keys::{Algorithm, Hasher};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let block = NonZeroU32::new(4).ok_or("a block holds tokens")?;
/// let hasher = Hasher::new(Algorithm::CborFnv, "", block);
/// let mut keys = Vec::new();
/// let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
/// hasher.extend(hasher.start("m"), &tokens, &Extras::NONE, &mut keys);
/// assert_eq!(keys, [14686617092727577033, 9856792211163113858]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hasher {
    algorithm: Algorithm,
    seed: u64,
    block_tokens: NonZeroU32,
}

impl Hasher {
    /// A hasher of blocks of `block_tokens` tokens, seeded with the text `seed` (`hashSeed`).
    pub fn new(algorithm: Algorithm, seed: &str, block_tokens: NonZeroU32) -> Self {
        let seed = match algorithm {
            Algorithm::CborFnv => Fnv(Fnv::BASIS).bytes(seed.as_bytes()).0,
            Algorithm::Xxh64 => xxh64(seed.as_bytes(), 0),
        };
        Self { algorithm, seed, block_tokens }
    }

    /// How blocks are hashed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Tokens per block.
    pub fn block_tokens(&self) -> NonZeroU32 {
        self.block_tokens
    }

    /// The parent of a prompt's first block.
    pub fn start(&self, model: &str) -> u64 {
        match self.algorithm {
            Algorithm::CborFnv => {
                Fnv(Fnv::BASIS).head(4, 3).head(0, self.seed).null().text(model).0
            }
            Algorithm::Xxh64 => {
                let mut hash = Xxh64::new(0);
                hash.update(&self.seed.to_le_bytes());
                update_text(&mut hash, model);
                hash.digest()
            }
        }
    }

    /// Appends the key of each full block of `tokens`, which follow the block of key `parent`.
    ///
    /// Positions in `extras` count from the first of `tokens`. The tokens after the last full block
    /// are ignored. Allocates only if `out` must grow.
    pub fn extend(&self, parent: u64, tokens: &[u32], extras: &Extras<'_>, out: &mut Vec<u64>) {
        let block = usize::try_from(self.block_tokens.get()).unwrap_or(usize::MAX);
        out.reserve(tokens.len() / block);
        let mut key = parent;
        let (mut at, mut from) = (0u32, 0);
        for tokens in tokens.chunks_exact(block) {
            let end = at.saturating_add(self.block_tokens.get());
            key = match self.algorithm {
                Algorithm::CborFnv => cbor_fnv(key, tokens, extras, at..end, &mut from),
                Algorithm::Xxh64 if extras.is_empty() => xxh64_words(key, tokens),
                Algorithm::Xxh64 => xxh64_extras(key, tokens, extras, at..end, &mut from),
            };
            out.push(key);
            at = end;
        }
    }
}

fn cbor_fnv(
    parent: u64,
    tokens: &[u32],
    extras: &Extras<'_>,
    at: Range<u32>,
    from: &mut usize,
) -> u64 {
    let mut fnv = Fnv(Fnv::BASIS).head(4, 3).head(0, parent).head(4, tokens.len() as u64);
    for token in tokens {
        fnv = fnv.token(*token);
    }
    let texts = extras.of(at, from);
    let count = texts.clone().count();
    if count == 0 {
        return fnv.null().0;
    }
    fnv = fnv.head(4, count as u64);
    for text in texts {
        fnv = fnv.head(5, 1).text("Hash").text(text);
    }
    fnv.0
}

/// FNV-1a-64 of a stream of CBOR.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;

    #[inline(always)]
    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(Self::PRIME))
    }

    #[inline(always)]
    fn bytes(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |fnv, byte| fnv.byte(*byte))
    }

    /// Most tokens: an unsigned integer in its shortest form.
    #[inline(always)]
    fn token(self, token: u32) -> Self {
        let [a, b, c, d] = token.to_be_bytes();
        match token {
            0..24 => self.byte(d),
            24..0x100 => self.byte(0x18).byte(d),
            0x100..0x1_0000 => self.byte(0x19).byte(c).byte(d),
            _ => self.byte(0x1a).byte(a).byte(b).byte(c).byte(d),
        }
    }

    /// A major type and its argument, in the shortest form.
    fn head(self, major: u8, argument: u64) -> Self {
        let major = major << 5;
        match argument {
            0..24 => self.byte(major | argument as u8),
            24..0x100 => self.byte(major | 24).byte(argument as u8),
            0x100..0x1_0000 => self.byte(major | 25).bytes(&(argument as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => {
                self.byte(major | 26).bytes(&(argument as u32).to_be_bytes())
            }
            _ => self.byte(major | 27).bytes(&argument.to_be_bytes()),
        }
    }

    fn text(self, text: &str) -> Self {
        self.head(3, text.len() as u64).bytes(text.as_bytes())
    }

    fn null(self) -> Self {
        self.byte(0xf6)
    }
}

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// XXH64 (seed 0) of the parent's eight bytes and the tokens' four each, little-endian: all of its
/// input are words at hand, so nothing is laid out in memory first.
fn xxh64_words(parent: u64, tokens: &[u32]) -> u64 {
    let len = 8 + 4 * tokens.len() as u64;
    let (first, rest) = tokens.split_at(tokens.len().min(6));
    // The parent is the first word of the first stripe; every later stripe is eight tokens.
    let (mut hash, mut tail) = if let [a, b, c, d, e, f] = *first {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        for (lane, word) in lanes.iter_mut().zip([parent, pair(a, b), pair(c, d), pair(e, f)]) {
            *lane = round(*lane, word);
        }
        let mut stripes = rest.chunks_exact(8);
        for stripe in &mut stripes {
            let (pairs, _) = stripe.as_chunks::<2>();
            for (lane, [low, high]) in lanes.iter_mut().zip(pairs) {
                *lane = round(*lane, pair(*low, *high));
            }
        }
        let [a, b, c, d] = lanes;
        let mut hash = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
        (hash.wrapping_add(len), stripes.remainder())
    } else {
        (word(P5.wrapping_add(len), parent), first)
    };
    while let [low, high, ref rest @ ..] = *tail {
        hash = word(hash, pair(low, high));
        tail = rest;
    }
    if let [last] = *tail {
        hash = (hash ^ u64::from(last).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[inline(always)]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[inline(always)]
fn word(hash: u64, word: u64) -> u64 {
    (hash ^ round(0, word)).rotate_left(27).wrapping_mul(P1).wrapping_add(P4)
}

fn xxh64_extras(
    parent: u64,
    tokens: &[u32],
    extras: &Extras<'_>,
    at: Range<u32>,
    from: &mut usize,
) -> u64 {
    let texts = extras.of(at, from);
    if texts.clone().next().is_none() {
        return xxh64_words(parent, tokens);
    }
    let mut hash = Xxh64::new(0);
    hash.update(&parent.to_le_bytes());
    for token in tokens {
        hash.update(&token.to_le_bytes());
    }
    for text in texts {
        update_text(&mut hash, text);
    }
    hash.digest()
}

fn update_text(hash: &mut Xxh64, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extras::Item;

    fn hasher(algorithm: Algorithm, block: u32) -> Hasher {
        Hasher::new(algorithm, "", NonZeroU32::new(block).unwrap())
    }

    fn keys(hasher: &Hasher, tokens: &[u32], extras: &Extras<'_>) -> Vec<u64> {
        let mut keys = Vec::new();
        hasher.extend(hasher.start("m"), tokens, extras, &mut keys);
        keys
    }

    #[test]
    fn words_are_hashed_as_their_bytes_would_be() {
        for len in 0..70u32 {
            let tokens: Vec<u32> = (0..len).map(|at| at.wrapping_mul(0x9e37_79b9)).collect();
            let bytes: Vec<u8> = 77u64
                .to_le_bytes()
                .into_iter()
                .chain(tokens.iter().flat_map(|t| t.to_le_bytes()))
                .collect();
            assert_eq!(xxh64_words(77, &tokens), xxh64(&bytes, 0), "{len} tokens");
        }
    }

    #[test]
    fn an_item_changes_the_keys_from_its_first_block_on() {
        let tokens: Vec<u32> = (0..20).collect();
        let items = [
            Item { start: 4, end: 9, identifier: "a" },
            Item { start: 9, end: 10, identifier: "b" },
        ];
        for algorithm in [Algorithm::CborFnv, Algorithm::Xxh64] {
            let hasher = hasher(algorithm, 4);
            let plain = keys(&hasher, &tokens, &Extras::NONE);
            let found = keys(&hasher, &tokens, &Extras::new(&items, None));
            assert_eq!(plain.iter().zip(&found).take_while(|(a, b)| a == b).count(), 1);
            // Each block by itself, with what lies in it.
            let mut parent = hasher.start("m");
            for (index, extras) in
                [&items[..0], &items[..1], &items, &items[..0]].iter().enumerate()
            {
                let inside: Vec<Item<'_>> =
                    extras.iter().map(|item| Item { start: 0, end: 4, ..*item }).collect();
                let mut next = Vec::new();
                let block = &tokens[index * 4..][..4];
                hasher.extend(parent, block, &Extras::new(&inside, None), &mut next);
                assert_eq!(next, found[index..=index], "block {index}");
                parent = next[0];
            }
        }
    }

    #[test]
    fn a_salt_is_in_the_first_key_after_the_items() {
        let tokens = [1, 2, 3, 4];
        let item = |identifier| Item { start: 0, end: 1, identifier };
        for algorithm in [Algorithm::CborFnv, Algorithm::Xxh64] {
            let hasher = hasher(algorithm, 2);
            let salted = keys(&hasher, &tokens, &Extras::new(&[item("a")], Some("s")));
            let items = [item("a"), item("s")];
            assert_eq!(salted, keys(&hasher, &tokens, &Extras::new(&items, None)));
            let unsalted = keys(&hasher, &tokens, &Extras::new(&[], Some("")));
            assert_eq!(unsalted, keys(&hasher, &tokens, &Extras::NONE));
        }
    }

    #[test]
    fn names_lead_back_to_their_algorithms() {
        for algorithm in [Algorithm::CborFnv, Algorithm::Xxh64] {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("sha256"), None);
    }
}
