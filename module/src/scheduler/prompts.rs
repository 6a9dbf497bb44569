//! The prompts of a body: packed into blocks while it arrives, and as token ids where it has ids.

use std::ops::Range;

use inlane_text::{BlockHasher, BlockSize, Media, Sink};

/// Ids that a sink keeps memory for from one body to the next.
const KEPT_IDS: usize = 64 << 10;

/// Hashes the blocks of prompts, and keeps the ids of prompts that come as ids.
///
/// Keeps 4 bytes per id, which take at least 2 in the body.
#[derive(Debug, Clone)]
pub struct PromptSink {
    blocks: BlockHasher,
    ids: Vec<u32>,
    /// Where the ids of each prompt lie; empty for a prompt of text.
    prompts: Vec<Range<usize>>,
}

impl PromptSink {
    /// A sink of blocks of this size, of which it hashes so many per prompt at most.
    pub fn new(size: BlockSize, max_blocks: usize) -> Self {
        let blocks = BlockHasher::new(size, max_blocks);
        Self { blocks, ids: Vec::new(), prompts: Vec::new() }
    }

    /// Changes block size and cap, and forgets everything.
    pub fn configure(&mut self, size: BlockSize, max_blocks: usize) {
        self.blocks.configure(size, max_blocks);
        self.forget_ids();
    }

    /// The prompts as blocks.
    pub fn blocks(&self) -> &BlockHasher {
        &self.blocks
    }

    /// The ids of each prompt, if all of them came as ids.
    pub fn ids(&self) -> Option<impl ExactSizeIterator<Item = &[u32]>> {
        let complete = !self.prompts.is_empty() && self.prompts.iter().all(|ids| !ids.is_empty());
        let ids = |range: &Range<usize>| self.ids.get(range.clone()).unwrap_or_default();
        complete.then(|| self.prompts.iter().map(ids))
    }

    fn forget_ids(&mut self) {
        self.ids.clear();
        self.ids.shrink_to(KEPT_IDS);
        self.prompts.clear();
    }
}

impl Sink for PromptSink {
    fn reset(&mut self) {
        self.blocks.reset();
        self.forget_ids();
    }

    fn begin_prompt(&mut self) {
        self.blocks.begin_prompt();
        self.prompts.push(self.ids.len()..self.ids.len());
    }

    #[inline]
    fn text(&mut self, piece: &[u8]) {
        self.blocks.text(piece);
    }

    fn token_ids(&mut self, ids: &[u32]) {
        self.blocks.token_ids(ids);
        self.ids.extend_from_slice(ids);
        if let Some(prompt) = self.prompts.last_mut() {
            prompt.end = self.ids.len();
        }
    }

    fn media(&mut self, media: Media) {
        self.blocks.media(media);
    }

    fn end_prompt(&mut self) {
        self.blocks.end_prompt();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use inlane_text::{Api, Limits, Scanner};

    use super::*;

    fn ids(body: &str) -> Option<Vec<Vec<u32>>> {
        let size = BlockSize::Tokens(NonZeroU32::new(2).unwrap());
        let mut scanner =
            Scanner::new(Api::Completions, Limits::default(), PromptSink::new(size, 9));
        scanner.feed(body.as_bytes()).unwrap();
        scanner.finish().unwrap();
        if scanner.needs_second_pass() {
            scanner.second_pass(&[body.as_bytes()]).unwrap();
        }
        assert!(scanner.sink().blocks().tokens() > 0);
        Some(scanner.sink().ids()?.map(<[u32]>::to_vec).collect())
    }

    #[test]
    fn ids_are_kept_as_they_came() {
        assert_eq!(ids(r#"{"prompt":[1,2,4294967295]}"#), Some(vec![vec![1, 2, u32::MAX]]));
        assert_eq!(ids(r#"{"prompt":[1],"prompt":[7,8]}"#), Some(vec![vec![7, 8]]));
    }

    #[test]
    fn text_has_no_ids() {
        assert_eq!(ids(r#"{"prompt":"one"}"#), None);
        assert_eq!(ids(r#"{"prompt":["one","two"]}"#), None);
    }

    #[test]
    fn a_body_leaves_nothing_to_the_next() {
        let size = BlockSize::Bytes(NonZeroU32::new(8).unwrap());
        let mut sink = PromptSink::new(size, 9);
        sink.begin_prompt();
        sink.token_ids(&[5; 3]);
        sink.end_prompt();
        sink.configure(size, 9);
        assert!(sink.ids().is_none());
        assert_eq!(sink.blocks().prompts().len(), 0);
    }
}
