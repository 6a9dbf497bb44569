//! Token usage, read from the response as it passes through.
//!
//! The engine reports usage near the end: in the JSON of a complete answer, or in one of the last
//! events of a stream. Anthropic's streams report the prompt in their first event and the answer in
//! the last, hence several reports are put together. The tracker looks for the key in each chunk and
//! parses only the object behind it. Chunks are not held or copied, but for a few hundred bytes where the object is split
//! between two chunks. A quoted `"usage"` inside generated text cannot be mistaken for the key: its
//! quotes are escaped there.

use memchr::memmem;
use serde::Deserialize;

/// Longest usage object that is read; engines send a few hundred bytes.
const LIMIT: usize = 2_048;
const KEY: &[u8] = b"\"usage\":";

/// Token counts of one request, as the engine reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// Tokens of the prompt.
    pub prompt: Option<u64>,
    /// Tokens generated.
    pub completion: Option<u64>,
    /// Prompt tokens found in the engine's cache.
    pub cached: Option<u64>,
    /// Tokens of the prompt that do not count in `prompt`: Anthropic's form counts there only what
    /// was neither found in the cache nor put into it.
    pub apart: Option<u64>,
}

impl Usage {
    /// All tokens of the prompt.
    pub(super) fn whole_prompt(&self) -> Option<u64> {
        Some(self.prompt?.saturating_add(self.apart.unwrap_or(0)))
    }
}

/// Chat and text completions, then responses and messages, then messages alone.
#[derive(Deserialize)]
struct Reported {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// Finds the usage objects of a response. Of a number that several of them have, the last counts,
/// unless it is 0.
#[derive(Debug, Default)]
pub(super) struct UsageTracker {
    usage: Usage,
    found: bool,
    carry: Vec<u8>,
}

impl UsageTracker {
    /// The next piece of the response.
    pub(super) fn chunk(&mut self, chunk: &[u8]) {
        if self.carry.is_empty() {
            self.search(chunk);
            return;
        }
        // The object began in an earlier chunk: join just enough to finish it.
        let mut joined = std::mem::take(&mut self.carry);
        let taken = chunk.len().min(LIMIT);
        joined.extend_from_slice(&chunk[..taken]);
        self.search(&joined);
        if taken < chunk.len() {
            self.carry.clear();
            self.search(chunk);
        }
    }

    /// What was reported, if anything was.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.found.then_some(self.usage)
    }

    fn search(&mut self, bytes: &[u8]) {
        let mut from = 0;
        while let Some(at) = memmem::find(&bytes[from..], KEY) {
            let object = from + at + KEY.len();
            match complete(&bytes[object..]) {
                Extent::Whole(len) => {
                    self.read(&bytes[object..object + len]);
                    from = object + len;
                }
                Extent::Other => from = object,
                Extent::Partial => {
                    self.keep(&bytes[from + at..]);
                    return;
                }
            }
        }
        let tail = (1..KEY.len()).rev().find(|&n| bytes[from..].ends_with(&KEY[..n]));
        self.keep(&bytes[bytes.len() - tail.unwrap_or(0)..]);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.carry.clear();
        if bytes.len() <= LIMIT {
            self.carry.extend_from_slice(bytes);
        }
    }

    fn read(&mut self, object: &[u8]) {
        if let Ok(reported) = serde_json::from_slice::<Reported>(object) {
            self.found = true;
            let details = reported.prompt_tokens_details.or(reported.input_tokens_details);
            let cached = details.and_then(|details| details.cached_tokens);
            merge(&mut self.usage.prompt, reported.prompt_tokens.or(reported.input_tokens));
            merge(
                &mut self.usage.completion,
                reported.completion_tokens.or(reported.output_tokens),
            );
            let (read, made) =
                (reported.cache_read_input_tokens, reported.cache_creation_input_tokens);
            let apart = read.unwrap_or(0).saturating_add(made.unwrap_or(0));
            merge(&mut self.usage.apart, read.or(made).map(|_| apart));
            merge(&mut self.usage.cached, cached.or(reported.cache_read_input_tokens));
        }
    }
}

fn merge(known: &mut Option<u64>, told: Option<u64>) {
    if told.is_some_and(|told| told > 0 || known.is_none()) {
        *known = told;
    }
}

enum Extent {
    /// An object of that many bytes.
    Whole(usize),
    /// The object's end is not there yet.
    Partial,
    /// Something else than an object.
    Other,
}

/// The extent of the object at the start of `bytes`. Usage objects hold no strings with braces.
fn complete(bytes: &[u8]) -> Extent {
    let Some(start) = bytes.iter().position(|b| !b.is_ascii_whitespace()) else {
        return Extent::Partial;
    };
    if bytes[start] != b'{' {
        return Extent::Other;
    }
    let mut depth = 0usize;
    for (at, byte) in bytes.iter().enumerate().skip(start).take(LIMIT) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Extent::Whole(at + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    if bytes.len() >= LIMIT { Extent::Other } else { Extent::Partial }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = br#"{"id":"x","usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}},"choices":[{"text":"say \"usage\": {} twice"}]}"#;
    const STREAM: &[u8] = b"data: {\"usage\":null,\"choices\":[{}]}\n\ndata: {\"choices\":[],\"usage\": {\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

    const MESSAGE: &[u8] = br#"{"type":"message","usage":{"input_tokens":25,"cache_creation":{"x":1},"cache_read_input_tokens":16,"output_tokens":15}}"#;
    const MESSAGES: &[u8] = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1,\"cache_read_input_tokens\":16}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"input_tokens\":0,\"output_tokens\":15}}\n\n";
    const RESPONSES: &[u8] = b"data: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":2}}}\n\n";

    #[test]
    fn every_split_finds_the_same() {
        let message =
            Usage { prompt: Some(25), completion: Some(15), cached: Some(16), apart: Some(16) };
        assert_eq!(message.whole_prompt(), Some(41));
        let usage = |prompt, completion, cached| Usage {
            prompt: Some(prompt),
            completion: Some(completion),
            cached,
            apart: None,
        };
        for (body, expected) in [
            (MESSAGE, message),
            (MESSAGES, message),
            (RESPONSES, usage(9, 2, Some(0))),
            (ANSWER, usage(9, 2, Some(4))),
            (STREAM, usage(7, 3, None)),
        ] {
            for first in 0..body.len() {
                for second in [first, (first + 7).min(body.len()), body.len()] {
                    let mut tracker = UsageTracker::default();
                    tracker.chunk(&body[..first]);
                    tracker.chunk(&body[first..second]);
                    tracker.chunk(&body[second..]);
                    assert_eq!(tracker.usage(), Some(expected), "split at {first}, {second}");
                }
            }
            let mut tracker = UsageTracker::default();
            body.iter().for_each(|byte| tracker.chunk(&[*byte]));
            assert_eq!(tracker.usage(), Some(expected));
        }
    }

    #[test]
    fn nothing_reported_is_nothing() {
        let mut tracker = UsageTracker::default();
        tracker.chunk(b"data: {\"usage\":null}\n\n");
        tracker.chunk(b"\"usage\":{");
        tracker.chunk(&vec![b' '; 3 * LIMIT]);
        assert_eq!(tracker.usage(), None);
        assert!(tracker.carry.len() <= LIMIT);
    }
}
