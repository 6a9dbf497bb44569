//! Block hashes, shared by everything that compares prompts by blocks.
//!
//! A block's content hash is the xxh64, with seed 0, of its token ids, 32 bits little endian each;
//! [`inlane_text::chain`] ties it to the model, the salt and the blocks before it. The last block of
//! a prompt may be shorter than the others and counts as one.

use inlane_core::request::{BlockUnit, Prompt};
pub use inlane_text::seed;
use inlane_text::{chain, link};
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Token ids that are put into bytes at a time.
const BATCH: usize = 64;

/// Appends the chained hashes of at most `limit` blocks of a prompt. A prompt that was packed into
/// blocks of another size has none: they cannot be compared.
pub fn chain_prompt(
    seed: u64,
    prompt: &Prompt<'_>,
    unit: BlockUnit,
    limit: usize,
    out: &mut Vec<u64>,
) {
    match (*prompt, unit) {
        (Prompt::Tokens(ids), BlockUnit::Tokens(block)) => {
            chain_tokens(seed, ids, block as usize, limit, out);
        }
        (Prompt::Tokens(ids), BlockUnit::Bytes(block)) => {
            chain_token_bytes(seed, ids, block as usize, limit, out);
        }
        (Prompt::Blocks { unit: packed, contents, .. }, _) if packed == unit => {
            chain_contents(seed, contents, limit, out);
        }
        (Prompt::Blocks { .. }, _) => {}
    }
}

/// Appends the chained hashes of at most `limit` blocks with the given contents.
pub fn chain_contents(seed: u64, contents: &[u64], limit: usize, out: &mut Vec<u64>) {
    out.extend(chain(&contents[..limit.min(contents.len())], seed));
}

/// Appends the chained hashes of at most `limit` blocks of `block` token ids each.
pub fn chain_tokens(seed: u64, ids: &[u32], block: usize, limit: usize, out: &mut Vec<u64>) {
    let mut previous = seed;
    out.extend(ids.chunks(block.max(1)).take(limit).map(|block| {
        previous = link(previous, tokens_content(block));
        previous
    }));
}

/// Appends the chained hashes of at most `limit` blocks of `block` bytes each, of token ids that
/// stand for text: four bytes per id.
pub fn chain_token_bytes(seed: u64, ids: &[u32], block: usize, limit: usize, out: &mut Vec<u64>) {
    let block = block.max(1);
    let wanted = block.saturating_mul(limit).min(ids.len() * 4);
    let (mut previous, mut hasher, mut filled) = (seed, Xxh64::new(0), 0);
    for (at, byte) in ids.iter().flat_map(|id| id.to_le_bytes()).take(wanted).enumerate() {
        hasher.update(&[byte]);
        filled += 1;
        if filled == block || at + 1 == wanted {
            previous = link(previous, hasher.digest());
            out.push(previous);
            hasher.reset(0);
            filled = 0;
        }
    }
}

fn tokens_content(ids: &[u32]) -> u64 {
    let mut bytes = [0; BATCH * 4];
    let mut hasher = Xxh64::new(0);
    for batch in ids.chunks(BATCH) {
        let bytes = &mut bytes[..batch.len() * 4];
        for (bytes, id) in bytes.chunks_exact_mut(4).zip(batch) {
            bytes.copy_from_slice(&id.to_le_bytes());
        }
        if batch.len() == ids.len() {
            return xxh64(bytes, 0);
        }
        hasher.update(bytes);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(model: &str, salt: &str, ids: &[u32], block: usize, limit: usize) -> Vec<u64> {
        let mut out = Vec::new();
        chain_tokens(seed(model, salt), ids, block, limit, &mut out);
        out
    }

    /// Computed by llm-d-router itself.
    #[test]
    fn vectors_of_the_reference() {
        let ids: Vec<u32> = (0..200).collect();
        let expected = [
            0x4b4e_4259_7861_5622,
            0x72cf_2ef1_006f_2d73,
            0x0845_18dc_cfeb_77dd,
            0x1c2d_c983_8b27_54f3,
        ];
        assert_eq!(tokens("llama", "", &ids, 64, 100), expected);
        assert_eq!(tokens("llama", "", &ids, 64, 3), expected[..3]);
        let ids: Vec<u32> = (1..=6).collect();
        assert_eq!(
            tokens("model-a", "s", &ids, 4, 100),
            [0xf198_5224_91c7_05b3, 0x6b1b_99f6_dcb8_f4df]
        );
        assert_eq!(tokens("model-a", "", &ids[..4], 4, 100), [0xdf6c_5797_44e1_2147]);
        assert_eq!(tokens("m", "", &[], 4, 10), [0u64; 0]);
    }

    proptest! {
        #[test]
        fn a_common_prefix_has_common_hashes(
            ids in proptest::collection::vec(any::<u32>(), 0..600),
            block in 1..200usize,
            cut in 0..600usize,
        ) {
            let whole = tokens("m", "", &ids, block, usize::MAX);
            prop_assert_eq!(whole.len(), ids.len().div_ceil(block));
            let cut = cut.min(ids.len()) / block * block;
            let part = tokens("m", "", &ids[..cut], block, usize::MAX);
            prop_assert_eq!(&whole[..part.len()], &part[..]);
        }

        #[test]
        fn contents_and_bytes_agree_with_tokens(
            ids in proptest::collection::vec(any::<u32>(), 0..300),
            block in 1..100usize,
            limit in 0..20usize,
        ) {
            let expected = tokens("m", "s", &ids, block, limit);
            let mut out = Vec::new();
            chain_token_bytes(seed("m", "s"), &ids, block * 4, limit, &mut out);
            prop_assert_eq!(&out, &expected);
            let contents: Vec<u64> = ids
                .chunks(block)
                .map(|b| xxh64(&b.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>(), 0))
                .collect();
            out.clear();
            chain_contents(seed("m", "s"), &contents, limit, &mut out);
            prop_assert_eq!(out, expected);
        }
    }
}
