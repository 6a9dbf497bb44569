//! The request body on its way through: scanned where it lies, counted while it is held.
//!
//! Envoy shows a body as what it has buffered so far followed by what the current call brings, and
//! may show the last piece in either. The reader remembers how many bytes it has scanned and goes on
//! from there.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterExt;
use inlane_core::request::{BlockUnit, Headers, Prompt};
use inlane_text::{Api, BlockSize, Feature, MediaRange, MediaRules, ScanError, Scanner, Summary};

use crate::runtime::{Runtime, Served};
use crate::worker::{self, BodyScanner};

/// Blocks hashed of one prompt at most: beyond any model's context.
const MAX_BLOCKS: usize = 1 << 20;

/// Scans one body and accounts for its bytes.
pub(super) struct BodyReader {
    runtime: Arc<Runtime>,
    scanner: Option<BodyScanner>,
    unit: BlockUnit,
    /// Bytes of a body that is not read.
    raw: Option<u64>,
    scanned: usize,
    held: u64,
}

impl BodyReader {
    /// A reader for the body of a request to `api` with `headers`. Block unit and the estimate of
    /// media are those of what is served now.
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        api: Api,
        headers: &dyn Headers,
        served: &Served,
    ) -> Self {
        let wish = worker::with(runtime, |w| served.serving()?.block_unit(&mut w.first));
        // Without a producer that matches prefixes only the tokens count.
        let (unit, blocks) = wish.flatten().unwrap_or((BlockUnit::Tokens(64), 0));
        let size = match unit {
            BlockUnit::Bytes(n) => BlockSize::Bytes(NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)),
            BlockUnit::Tokens(n) => {
                BlockSize::Tokens(NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN))
            }
        };
        let rules = match (api, served.serving()) {
            (api, Some(serving)) if api.is_chat() => serving.media.rules(headers),
            _ => MediaRules::default(),
        };
        let scanner = worker::with(runtime, |worker| {
            let mut scanner = worker.take_scanner(api, size, blocks.min(MAX_BLOCKS));
            scanner.set_media_rules(rules);
            scanner
        });
        Self { runtime: Arc::clone(runtime), scanner, unit, raw: None, scanned: 0, held: 0 }
    }

    /// Stands for a body of so many bytes, or of 0 if nobody knows, that is not read.
    pub(super) fn raw(runtime: &Arc<Runtime>, bytes: u64) -> Self {
        let (scanner, unit) = (None, BlockUnit::Tokens(64));
        Self { runtime: Arc::clone(runtime), scanner, unit, raw: Some(bytes), scanned: 0, held: 0 }
    }

    /// Whether the body is not read.
    pub(super) fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// What the body says, once it is complete; nothing if it is not read. `None` if it should have
    /// been and was not.
    pub(super) fn summary(&self) -> Option<Summary<'_>> {
        let mut unread = Summary::default();
        match (&self.scanner, self.raw) {
            (Some(scanner), _) => Some(scanner.summary()),
            (None, Some(bytes)) => {
                unread.bytes = bytes;
                Some(unread)
            }
            (None, None) => None,
        }
    }

    /// Bytes that Envoy holds or has received of the body so far.
    pub(super) fn size<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF) -> u64 {
        (envoy.get_buffered_request_body_size() + envoy.get_received_request_body_size()) as u64
    }

    /// Accounts for the body's present size. `false` when all streams together would hold more than
    /// `limit`.
    pub(super) fn hold(&mut self, size: u64, limit: u64) -> bool {
        let more = size.saturating_sub(self.held);
        let before = self.runtime.held_bytes.fetch_add(more, Ordering::Relaxed);
        self.held += more;
        before.saturating_add(more) <= limit
    }

    /// Gives the account back: the body has gone upstream, or nowhere.
    pub(super) fn let_go(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.runtime.held_bytes.fetch_sub(held, Ordering::Relaxed);
    }

    /// Scans what has not been scanned yet.
    ///
    /// # Errors
    /// A body that is no JSON, or no request of its API.
    pub(super) fn scan<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
    ) -> Result<(), ScanError> {
        let Some(scanner) = self.scanner.as_mut() else { return Ok(()) };
        let buffered = envoy.get_buffered_request_body_size();
        let in_buffer = buffered > self.scanned;
        let mut skip = if in_buffer { self.scanned } else { self.scanned - buffered };
        let mut scanned = self.scanned;
        let mut outcome = Ok(());
        let mut feed = |chunk: &[u8]| {
            let fresh = chunk.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(chunk.len());
            scanned += fresh.len();
            if outcome.is_ok() && !fresh.is_empty() {
                outcome = scanner.feed(fresh);
            }
        };
        if in_buffer {
            envoy.for_each_buffered_request_body_chunk(&mut feed);
        }
        envoy.for_each_received_request_body_chunk(&mut feed);
        self.scanned = scanned;
        outcome
    }

    /// Completes the scan; a body in an unusual key order is read once more.
    ///
    /// # Errors
    /// A body that is no JSON, or no request of its API.
    pub(super) fn finish<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
    ) -> Result<(), ScanError> {
        self.scan(envoy)?;
        let Some(scanner) = self.scanner.as_mut() else { return Ok(()) };
        scanner.finish()?;
        if scanner.needs_second_pass() {
            let mut body = Vec::new();
            Self::copy_to(envoy, &mut body);
            scanner.second_pass(&[&body])?;
        }
        Ok(())
    }

    /// The body's size in bytes, once it is complete.
    pub(super) fn bytes(&self) -> u64 {
        self.scanned as u64
    }

    /// Appends the body, which Envoy still holds, to `out`.
    pub(super) fn copy_to<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF, out: &mut Vec<u8>) {
        envoy.for_each_buffered_request_body_chunk(&mut |chunk| out.extend_from_slice(chunk));
        envoy.for_each_received_request_body_chunk(&mut |chunk| out.extend_from_slice(chunk));
    }

    /// Whether a prompt has media parts.
    pub(super) fn has_media(&self) -> bool {
        let mut prompts = self.scanner.iter().flat_map(|s| s.sink().blocks().prompts());
        prompts.any(|prompt| !prompt.media.is_empty())
    }

    /// The scanner, once the body is complete.
    pub(super) fn scanner(&self) -> Option<&BodyScanner> {
        self.scanner.as_ref()
    }

    /// The prompts as the token ids that the body has in place of text.
    pub(super) fn ids(&self) -> Option<impl ExactSizeIterator<Item = &[u32]>> {
        self.scanner.as_ref()?.sink().ids()
    }

    /// The prompts packed into blocks, in the core's terms.
    pub(super) fn packed(&self) -> Vec<Prompt<'_>> {
        let blocks = self.scanner.iter().flat_map(|scanner| scanner.sink().blocks().prompts());
        blocks
            .map(|prompt| Prompt::Blocks {
                unit: self.unit,
                tokens: prompt.tokens,
                contents: prompt.contents,
            })
            .collect()
    }

    /// Bytes of the prompts' text.
    pub(super) fn prompt_bytes(&self) -> u64 {
        let prompts = self.scanner.iter().flat_map(|scanner| scanner.sink().blocks().prompts());
        prompts.map(|prompt| prompt.text_bytes).sum()
    }

    /// The media that the body names in the engine's own terms.
    pub(super) fn features(&self) -> Vec<MediaRange> {
        self.scanner.as_ref().map(Scanner::features).unwrap_or_default()
    }

    /// The media parts of all prompts, each with the index of its prompt and its hash as text.
    pub(super) fn media(&self) -> Vec<(u32, Feature, String)> {
        let prompts = self.scanner.iter().flat_map(|scanner| scanner.sink().blocks().prompts());
        let parts = (0..).zip(prompts).flat_map(|(prompt, blocks)| {
            blocks.media.iter().map(move |&part| (prompt, part, format!("{:x}", part.hash)))
        });
        parts.collect()
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        self.let_go();
        if let Some(scanner) = self.scanner.take() {
            worker::with(&self.runtime, |worker| worker.put_scanner(scanner));
        }
    }
}
