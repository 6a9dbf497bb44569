//! Keys of cache blocks.
//!
//! A key names a block *and everything before it*: FNV-1a (64 bit) over the canonical CBOR array
//! `[parent key, tokens, null]`, with `[{"Hash": salt}]` in place of null for the first block of a salted prompt.
//! The chain starts at a key made from the hash seed and the model name, so that
//! two models (or two adapters) never share a block. This is the function by which schedulers index prompts,
//! which makes the cache contents comparable with a scheduler's view of them.

/// The start of the chains of one model or adapter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Root(u64);

impl Root {
    /// The start for `model`.
    pub fn new(seed: &str, model: &str) -> Self {
        let seed = seed.bytes().fold(Fnv::default(), Fnv::byte).0;
        let hash = Fnv::default().byte(0x83).unsigned(seed).byte(NULL).text(model);
        Self(hash.0)
    }
}

/// The keys of the leading blocks of one prompt and its answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    root: Root,
    /// Separates this prompt from those with another salt; a part of its first block.
    salt: Option<Box<str>>,
    keys: Vec<u64>,
    /// As many as keys, or none when keys are the whole.
    hashes: Vec<BlockHash>,
}

/// The whole hash of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockHash {
    bytes: [u8; 32],
    length: u8,
}

impl BlockHash {
    /// A hash of at most 32 bytes; what is longer is cut off.
    pub fn new(hash: &[u8]) -> Self {
        let length = hash.len().min(32);
        let mut bytes = [0; 32];
        bytes[..length].copy_from_slice(&hash[..length]);
        Self { bytes, length: length as u8 }
    }

    /// The hash as bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Chain {
    /// No block yet.
    pub fn new(root: Root, salt: Option<&str>) -> Self {
        // An empty salt is none.
        let salt = salt.filter(|salt| !salt.is_empty()).map(Box::from);
        Self { root, salt, keys: Vec::new(), hashes: Vec::new() }
    }

    /// The keys so far.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// The whole hashes of the same blocks; none where a key is the whole.
    pub fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// Continues to `blocks` blocks of `size` tokens; `token` tells the token at a position.
    pub fn extend(&mut self, blocks: usize, size: usize, token: impl Fn(usize) -> u32) {
        while self.keys.len() < blocks {
            let start = self.keys.len() * size;
            let parent = self.keys.last().copied().unwrap_or(self.root.0);
            let tokens = (start..start + size).map(&token);
            let hash = Fnv::default().byte(0x83).unsigned(parent).head(ARRAY, size as u64);
            let hash = tokens.fold(hash, |hash, token| hash.unsigned(u64::from(token)));
            let hash = match &self.salt {
                Some(salt) if self.keys.is_empty() => {
                    hash.head(ARRAY, 1).head(MAP, 1).text("Hash").text(salt)
                }
                _ => hash.byte(NULL),
            };
            self.keys.push(hash.0);
        }
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
        let mut chain = Chain::new(Root::new(seed, model), salt);
        chain.extend(tokens.len() / size, size, |at| tokens[at]);
        chain.keys().to_vec()
    }

    #[test]
    fn roots() {
        assert_eq!(Root::new("", "m"), Root(11_374_735_546_233_341_228));
        assert_eq!(Root::new("42", "m"), Root(13_673_417_957_312_747_559));
        assert_eq!(Root::new("", ""), Root(155_877_178_866_718_358));
        assert_eq!(Root::new("", "modèle/日本"), Root(4_798_607_406_299_676_697));
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
