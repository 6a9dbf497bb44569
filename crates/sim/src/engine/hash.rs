//! Keys of cache blocks.
//!
//! A key names a block *and everything before it*: FNV-1a (64 bit) over the canonical CBOR array
//! `[parent key, tokens, null]`. The chain starts at a key made from the hash seed and the model name, so that
//! two models (or two adapters) never share a block. This is the function by which schedulers index prompts,
//! which makes the cache contents comparable with a scheduler's view of them.

/// The key at the start of every chain of `model`.
pub fn root(seed: &str, model: &str) -> u64 {
    let seed = seed.bytes().fold(Fnv::default(), Fnv::byte).0;
    let hash = Fnv::default().byte(0x83).unsigned(seed).byte(NULL).head(TEXT, model.len() as u64);
    model.bytes().fold(hash, Fnv::byte).0
}

/// The key of a block of `tokens` behind `parent`.
pub fn block(parent: u64, tokens: impl ExactSizeIterator<Item = u32>) -> u64 {
    let hash = Fnv::default().byte(0x83).unsigned(parent).head(ARRAY, tokens.len() as u64);
    tokens.fold(hash, |hash, token| hash.unsigned(u64::from(token))).byte(NULL).0
}

const UNSIGNED: u8 = 0 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
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
        let mut parent = root(seed, model);
        let next = |tokens: &[u32]| {
            parent = block(parent, tokens.iter().copied());
            parent
        };
        tokens.chunks_exact(size).map(next).collect()
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
