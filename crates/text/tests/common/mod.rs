//! The scanner beside a plain reference: `serde_json::Value` and the packing rules written down
//! naively. Shared by the tests and the fuzz target.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod doc;
pub mod generate;
pub mod reference;

use std::num::NonZeroU32;

use inlane_text::{
    Api, BlockHasher, BlockSize, CollectedPrompt, Limits, Media, MediaRange, ScanError, Scanner,
    Sink, TokenCollector,
};

pub const APIS: [Api; 8] = [
    Api::ChatCompletions,
    Api::Completions,
    Api::Conversations,
    Api::Embeddings,
    Api::Generate,
    Api::ImagesGenerations,
    Api::Messages,
    Api::Responses,
];
pub const BLOCK_TOKENS: usize = 4;
pub const BLOCK_BYTES: usize = 5;

/// Everything that a scan yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub model: String,
    pub stream: bool,
    pub include_usage: bool,
    pub max_tokens: Option<u64>,
    pub n: Option<u64>,
    pub cache_salt: String,
    pub prompts: Vec<CollectedPrompt>,
    pub features: Vec<MediaRange>,
    /// Content hashes of blocks of tokens and of blocks of bytes.
    pub blocks: [Vec<Vec<u64>>; 2],
}

/// Both hashers and the collector in one sink.
pub struct Everything {
    tokens: TokenCollector,
    blocks: [BlockHasher; 2],
}

impl Everything {
    pub fn new() -> Self {
        let size = |n: usize| NonZeroU32::new(n as u32).unwrap();
        Self {
            tokens: TokenCollector::new(),
            blocks: [
                BlockHasher::new(BlockSize::Tokens(size(BLOCK_TOKENS)), usize::MAX),
                BlockHasher::new(BlockSize::Bytes(size(BLOCK_BYTES)), usize::MAX),
            ],
        }
    }

    fn each(&mut self, act: impl Fn(&mut dyn Sink)) {
        act(&mut self.tokens);
        self.blocks.iter_mut().for_each(|blocks| act(blocks));
    }
}

impl Sink for Everything {
    fn reset(&mut self) {
        self.each(|sink| sink.reset());
    }
    fn begin_prompt(&mut self) {
        self.each(|sink| sink.begin_prompt());
    }
    fn text(&mut self, piece: &[u8]) {
        assert!(std::str::from_utf8(piece).is_ok(), "a piece splits a character");
        self.each(|sink| sink.text(piece));
    }
    fn token_ids(&mut self, ids: &[u32]) {
        self.each(|sink| sink.token_ids(ids));
    }
    fn media(&mut self, media: Media) {
        self.each(|sink| sink.media(media));
    }
    fn end_prompt(&mut self) {
        self.each(|sink| sink.end_prompt());
    }
}

/// Scans `chunks` with a scanner that has already read something else.
pub fn scan(
    scanner: &mut Scanner<Everything>,
    api: Api,
    chunks: &[&[u8]],
) -> Result<Outcome, ScanError> {
    scanner.reset(api);
    for chunk in chunks {
        scanner.feed(chunk)?;
    }
    scanner.finish()?;
    if scanner.needs_second_pass() {
        scanner.second_pass(chunks)?;
    }
    let summary = scanner.summary();
    let body = chunks.concat();
    if let Some(span) = summary.model_span.clone() {
        let value = &body[span.start as usize..span.end as usize];
        let value: serde_json::Value = serde_json::from_slice(value).expect("the span is a value");
        assert_eq!(value.as_str().unwrap_or_default(), summary.model);
    }
    assert_eq!(body[summary.members_at as usize - 1], b'{');
    let sink = scanner.sink();
    assert_eq!(summary.prompts, sink.tokens.prompts().len());
    for (prompt, blocks) in sink.tokens.prompts().iter().zip(sink.blocks[0].prompts()) {
        assert_eq!(prompt.tokens.len() as u64, blocks.tokens);
    }
    let contents =
        |blocks: &BlockHasher| blocks.prompts().map(|prompt| prompt.contents.to_vec()).collect();
    Ok(Outcome {
        model: summary.model.to_owned(),
        stream: summary.stream,
        include_usage: summary.include_usage,
        max_tokens: summary.max_tokens,
        n: summary.n,
        cache_salt: summary.cache_salt.to_owned(),
        prompts: sink.tokens.prompts().to_vec(),
        features: scanner.features(),
        blocks: [contents(&sink.blocks[0]), contents(&sink.blocks[1])],
    })
}

pub fn scanner() -> Scanner<Everything> {
    Scanner::new(Api::Completions, Limits::default(), Everything::new())
}

/// Asserts that scanner and reference agree on a body, and that splitting it changes nothing.
/// Returns whether it was accepted.
pub fn check(scanner: &mut Scanner<Everything>, api: Api, body: &[u8], seed: u64) -> bool {
    let whole = scan(scanner, api, &[body]);
    let want = reference::read(api, body);
    match (&whole, &want) {
        (Ok(_), Some(_)) if !reference::is_sure(body) => {}
        (Ok(got), Some(want)) => {
            assert_eq!(got, want, "{api:?} {}", String::from_utf8_lossy(body));
        }
        (Err(_), None) => {}
        _ => panic!("{api:?} {}\n{whole:?}\n{want:?}", String::from_utf8_lossy(body)),
    }
    let chunks = generate::split(body, seed);
    assert_eq!(scan(scanner, api, &chunks), whole, "{api:?} {chunks:?}");
    whole.is_ok()
}
