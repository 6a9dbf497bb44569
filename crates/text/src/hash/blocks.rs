//! The sink of the hot path: content hashes of fixed-size blocks, computed in place.

use std::num::NonZeroU32;
use std::ops::Range;

use xxhash_rust::xxh64::xxh64;

use super::collect::Feature;
use crate::sink::{Media, Sink};

/// Bytes of text per estimated token.
const TOKEN: usize = 4;

/// The size of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSize {
    /// Blocks of this many bytes of text, without any notion of tokens: the `hashBlockSize` of old
    /// configurations. A token id counts as its 4 little-endian bytes, a media part as the 8 of
    /// its digest.
    Bytes(NonZeroU32),
    /// Blocks of this many tokens: 4 bytes of text each, zero padded where text ends; token ids as
    /// given; media parts as their digest's low half, once per token.
    Tokens(NonZeroU32),
}

impl BlockSize {
    fn bytes(self) -> usize {
        match self {
            BlockSize::Bytes(bytes) => bytes.get() as usize,
            BlockSize::Tokens(tokens) => tokens.get() as usize * TOKEN,
        }
    }
}

/// One prompt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptBlocks<'a> {
    /// Content hashes of its blocks in order, the last and shorter one included; no more than the
    /// hasher's cap. See [`chain`](crate::chain).
    pub contents: &'a [u64],
    /// Its size in tokens (4 bytes of text, rounded up), whatever the block size is and beyond the
    /// cap.
    pub tokens: u64,
    /// Its size in bytes, padding included, beyond the cap too. Not a multiple of the block size
    /// means that the last block is a shorter one.
    pub bytes: u64,
    /// Its text alone in bytes, without padding and media; a token id counts as 4.
    pub text_bytes: u64,
    /// Its media parts in order.
    pub media: &'a [Feature],
}

/// Hashes the prompts of a request block by block as they arrive.
///
/// Owns 8 bytes per block and one block of pending bytes; both are reused from request to request,
/// so that a warm hasher allocates nothing. A block that lies in one piece is hashed where it
/// lies.
#[derive(Clone, Debug)]
pub struct BlockHasher {
    size: BlockSize,
    cap: usize,
    contents: Vec<u64>,
    prompts: Vec<Prompt>,
    /// Media parts of all prompts.
    media: Vec<Feature>,
    /// The block in progress: fewer than `size` bytes.
    pending: Vec<u8>,
    open: Prompt,
}

#[derive(Clone, Debug, Default)]
struct Prompt {
    contents: Range<usize>,
    media: Range<usize>,
    bytes: u64,
    text_bytes: u64,
}

impl BlockHasher {
    /// A hasher of blocks of this size that stops hashing a prompt after `max_blocks` blocks.
    pub fn new(size: BlockSize, max_blocks: usize) -> Self {
        Self {
            size,
            cap: max_blocks,
            contents: Vec::new(),
            prompts: Vec::new(),
            media: Vec::new(),
            pending: Vec::new(),
            open: Prompt::default(),
        }
    }

    /// Changes the block size and the cap, and forgets what was hashed.
    pub fn configure(&mut self, size: BlockSize, max_blocks: usize) {
        self.size = size;
        self.cap = max_blocks;
        self.reset();
    }

    /// The prompts that ended, in order.
    pub fn prompts(&self) -> impl ExactSizeIterator<Item = PromptBlocks<'_>> {
        self.prompts.iter().map(|prompt| PromptBlocks {
            contents: &self.contents[prompt.contents.clone()],
            tokens: prompt.bytes.div_ceil(TOKEN as u64),
            bytes: prompt.bytes,
            text_bytes: prompt.text_bytes,
            media: &self.media[prompt.media.clone()],
        })
    }

    /// Tokens of all prompts that ended.
    pub fn tokens(&self) -> u64 {
        self.prompts().map(|prompt| prompt.tokens).sum()
    }

    #[inline]
    fn bytes(&mut self, mut bytes: &[u8]) {
        self.open.bytes += bytes.len() as u64;
        if self.is_full() {
            return;
        }
        let block = self.size.bytes();
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(block - self.pending.len()));
            self.pending.extend_from_slice(head);
            if self.pending.len() < block {
                return;
            }
            self.contents.push(xxh64(&self.pending, 0));
            self.pending.clear();
            bytes = rest;
        }
        let mut blocks = bytes.chunks_exact(block);
        for whole in &mut blocks {
            if self.is_full() {
                return;
            }
            self.contents.push(xxh64(whole, 0));
        }
        if !self.is_full() {
            self.pending.extend_from_slice(blocks.remainder());
        }
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.contents.len() - self.open.contents.start >= self.cap
    }

    /// Fills the last token with zeros.
    fn pad(&mut self) {
        if let BlockSize::Tokens(_) = self.size {
            let over = self.open.bytes % TOKEN as u64;
            if over != 0 {
                // Below 4, hence within the slice.
                self.bytes(&[0; TOKEN][over as usize..]);
            }
        }
    }
}

impl Sink for BlockHasher {
    fn reset(&mut self) {
        self.contents.clear();
        self.prompts.clear();
        self.media.clear();
        self.pending.clear();
        self.open = Prompt::default();
    }

    fn begin_prompt(&mut self) {
        self.pending.clear();
        let (start, media) = (self.contents.len(), self.media.len());
        let (contents, media) = (start..start, media..media);
        self.open = Prompt { contents, media, bytes: 0, text_bytes: 0 };
    }

    #[inline]
    fn text(&mut self, piece: &[u8]) {
        self.open.text_bytes += piece.len() as u64;
        self.bytes(piece);
    }

    fn token_ids(&mut self, ids: &[u32]) {
        self.open.text_bytes += (ids.len() * TOKEN) as u64;
        for id in ids {
            self.bytes(&id.to_le_bytes());
        }
    }

    fn media(&mut self, media: Media) {
        self.pad();
        self.media.push(Feature {
            modality: media.modality,
            hash: media.digest,
            offset: self.open.bytes.div_ceil(TOKEN as u64),
            length: media.tokens,
        });
        if let BlockSize::Bytes(_) = self.size {
            self.bytes(&media.digest.to_le_bytes());
            return;
        }
        let token = (media.digest as u32).to_le_bytes();
        let row = [token; 32];
        let mut left = media.tokens as usize;
        while left > 0 {
            let tokens = &row[..left.min(row.len())];
            self.bytes(tokens.as_flattened());
            left -= tokens.len();
        }
    }

    fn end_prompt(&mut self) {
        self.pad();
        if !self.pending.is_empty() {
            self.contents.push(xxh64(&self.pending, 0));
            self.pending.clear();
        }
        self.open.contents.end = self.contents.len();
        self.open.media.end = self.media.len();
        self.prompts.push(std::mem::take(&mut self.open));
    }
}
