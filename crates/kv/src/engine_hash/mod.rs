//! Block hashes as vLLM computes them.
//!
//! The scheduler does not need them to route: it keys blocks by [`keys`](crate::keys). They tell
//! whether an engine is configured as believed (algorithm, seed, adapter paths), and a simulated
//! engine sends them.
//!
//! `H(block) = hash((parent, tokens, extras))`: a Python tuple, pickled or as CBOR, hashed by
//! SHA-256 or XXH3-128. The parent of the first block is [`none_hash`](EngineHasher::start).

mod cbor;
mod pickle;

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use crate::event::engine_key;

/// `--prefix-caching-hash-algo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256 of a pickle.
    #[default]
    Sha256,
    /// SHA-256 of CBOR.
    Sha256Cbor,
    /// XXH3-128 of a pickle; from vLLM 0.14.
    Xxhash,
    /// XXH3-128 of CBOR; from vLLM 0.14.
    XxhashCbor,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Sha256, Self::Sha256Cbor, Self::Xxhash, Self::XxhashCbor];

    /// The algorithm of a flag's value.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The flag's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha256Cbor => "sha256_cbor",
            Self::Xxhash => "xxhash",
            Self::XxhashCbor => "xxhash_cbor",
        }
    }

    fn hash(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 | Self::Sha256Cbor => Digest::new(&Sha256::digest(bytes)),
            Self::Xxhash | Self::XxhashCbor => Digest::new(&xxh3_128(bytes).to_be_bytes()),
        }
    }

    fn is_pickled(self) -> bool {
        matches!(self, Self::Sha256 | Self::Xxhash)
    }
}

/// How a version of vLLM writes extras into the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtraForm {
    /// To 0.10.2: an adapter by its number, media without their offsets.
    Numbered,
    /// From 0.11.2 to 0.18.1: everything by its name alone.
    Named,
    /// From 0.20.2 to 0.26.0: media with their offset in the block.
    Placed,
    /// 0.32.0: each with a tag, adapters with their path.
    #[default]
    Tagged,
}

/// What a block's hash depends on besides its tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockExtras<'a> {
    /// The adapter, of every block of a LoRA request.
    pub lora: Option<Lora<'a>>,
    /// Media that overlap the block: identifier and offset from the block's first token, which is
    /// negative if the item began before it.
    pub media: &'a [(&'a str, i64)],
    /// The salt, of a prompt's first block.
    pub salt: Option<&'a str>,
    /// The digest of prompt embeddings.
    pub embeds: Option<&'a [u8]>,
}

/// An adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lora<'a> {
    /// The engine's number for it.
    pub id: i64,
    /// Its name.
    pub name: &'a str,
    /// Where the engine has loaded it from.
    pub path: &'a str,
}

/// A digest of 16 or 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; 32],
    len: usize,
}

impl Digest {
    fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Self { bytes, len: digest.len().min(32) }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The number that stands for it in events.
    pub fn key(&self) -> u64 {
        engine_key(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes the blocks of prompts.
///
/// ```
/// use inlane_kv::engine_hash::{Algorithm, BlockExtras, EngineHasher, ExtraForm};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hasher = EngineHasher::new(Algorithm::Sha256, ExtraForm::Tagged, "vllm-none-hash");
/// let mut buffer = Vec::new();
/// let first = hasher.next(&hasher.start(), &[1, 2], &BlockExtras::default(), &mut buffer);
/// let first = first.ok_or("a block of two tokens is short enough")?;
/// assert_eq!(first.as_bytes().len(), 32);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct EngineHasher {
    algorithm: Algorithm,
    form: ExtraForm,
    none: Digest,
}

/// Where neither `PYTHONHASHSEED` is set nor the algorithm takes a random start, vLLM 0.32 starts
/// from this seed (`sha256` and `sha256_cbor`).
pub const DEFAULT_SEED: &str = "vllm-none-hash";

impl EngineHasher {
    /// Of an engine whose `PYTHONHASHSEED`, as text, is `seed`.
    pub fn new(algorithm: Algorithm, form: ExtraForm, seed: &str) -> Self {
        let mut buffer = Vec::new();
        if algorithm.is_pickled() {
            pickle::text(seed, &mut buffer);
        } else {
            cbor::text(seed, &mut buffer);
        }
        Self { algorithm, form, none: algorithm.hash(&buffer) }
    }

    /// The parent of a prompt's first block: NONE_HASH.
    pub fn start(&self) -> Digest {
        self.none
    }

    /// The hash of the block after `parent`. `buffer` is only there to be used again.
    ///
    /// None for a block whose pickle exceeds one frame (64 KiB: some 13,000 tokens), which Python
    /// writes in another way.
    pub fn next(
        &self,
        parent: &Digest,
        tokens: &[u32],
        extras: &BlockExtras<'_>,
        buffer: &mut Vec<u8>,
    ) -> Option<Digest> {
        let entries = self.entries(extras);
        buffer.clear();
        if self.algorithm.is_pickled() {
            pickle::block(parent.as_bytes(), tokens, &entries, buffer)?;
        } else {
            cbor::block(parent.as_bytes(), tokens, &entries, buffer);
        }
        Some(self.algorithm.hash(buffer))
    }

    fn entries<'a>(&self, extras: &BlockExtras<'a>) -> Vec<Entry<'a>> {
        let (form, mut entries) = (self.form, Vec::new());
        entries.extend(extras.lora.map(|lora| match form {
            ExtraForm::Numbered => Entry::One(Atom::Int(lora.id)),
            ExtraForm::Named | ExtraForm::Placed => Entry::One(Atom::Text(lora.name)),
            ExtraForm::Tagged => {
                Entry::Three([Atom::Tag("lora"), Atom::Text(lora.name), Atom::Text(lora.path)])
            }
        }));
        entries.extend(extras.media.iter().map(|(identifier, offset)| {
            let (identifier, offset) = (Atom::Text(identifier), Atom::Int(*offset));
            match form {
                ExtraForm::Numbered | ExtraForm::Named => Entry::One(identifier),
                ExtraForm::Placed => Entry::Two([identifier, offset]),
                ExtraForm::Tagged => Entry::Three([Atom::Tag("mm"), identifier, offset]),
            }
        }));
        let tagged = |tag, atom| match form {
            ExtraForm::Tagged => Entry::Two([Atom::Tag(tag), atom]),
            _ => Entry::One(atom),
        };
        entries.extend(extras.salt.map(|salt| tagged("cache_salt", Atom::Text(salt))));
        entries.extend(extras.embeds.map(|digest| tagged("prompt_embeds", Atom::Bytes(digest))));
        entries
    }
}

/// One of the extras as Python has it.
#[derive(Clone, Copy, Debug)]
enum Entry<'a> {
    One(Atom<'a>),
    Three([Atom<'a>; 3]),
    Two([Atom<'a>; 2]),
}

impl<'a> Entry<'a> {
    /// Its atoms, and whether they are in a tuple.
    fn atoms(&self) -> (&[Atom<'a>], bool) {
        match self {
            Self::One(atom) => (std::slice::from_ref(atom), false),
            Self::Three(atoms) => (atoms, true),
            Self::Two(atoms) => (atoms, true),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Atom<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    /// A literal of vLLM's source: the same object wherever it occurs.
    Tag(&'static str),
    Text(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_hash_is_the_hash_of_the_seed() {
        let hasher = EngineHasher::new(Algorithm::Sha256, ExtraForm::Tagged, DEFAULT_SEED);
        let expected = "066b1e8987e027138e98701c46128929378935f9b6cd1549105ae6b4f0d71198";
        assert_eq!(format!("{:?}", hasher.start()), expected);
    }

    #[test]
    fn names_lead_back_to_their_algorithms() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("builtin"), None);
    }

    /// By `hashlib` and `pickle` of Python, as vLLM puts the tuples together.
    #[test]
    fn every_version_writes_extras_in_its_own_way() {
        let lora = Some(Lora { id: 3, name: "sql", path: "p/sql" });
        let (salt, embeds) = (Some("salt-b"), Some(&[1; 32][..]));
        let media = &[("img-a", 5), ("img-b", -6)];
        for (form, extras, expected) in [
            (
                ExtraForm::Numbered,
                BlockExtras { lora, media: &media[..1], salt, embeds: None },
                "d85af76c50399b34df4980d159b144b2d94f24939a6c31f502dbcd588b543978",
            ),
            (
                ExtraForm::Named,
                BlockExtras { lora, media: &media[..1], salt, embeds },
                "e6574b8873af84e34e343506610dc0c3c4e48ce6b8c7badaff614523d45ecef3",
            ),
            (
                ExtraForm::Tagged,
                BlockExtras { lora, media, salt, embeds },
                "94b53abf4a5097a9f8d2edb7a00305c59a02f59af7e7569d7eaff7e579337b7a",
            ),
        ] {
            let hasher = EngineHasher::new(Algorithm::Sha256, form, "42");
            let hash = hasher.next(&hasher.start(), &[1, 2], &extras, &mut Vec::new());
            assert_eq!(format!("{:?}", hash.unwrap()), expected, "{form:?}");
        }
    }

    #[test]
    fn a_pickle_longer_than_a_frame_is_refused() {
        let hasher = EngineHasher::new(Algorithm::Xxhash, ExtraForm::Tagged, "0");
        let (extras, mut buffer) = (BlockExtras::default(), Vec::new());
        let start = hasher.start();
        assert!(hasher.next(&start, &[70_000; 13_000], &extras, &mut buffer).is_some());
        assert!(hasher.next(&start, &[70_000; 14_000], &extras, &mut buffer).is_none());
    }
}
