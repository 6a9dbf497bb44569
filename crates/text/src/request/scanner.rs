//! The scanner: lexer and extractor, and the order of calls.

use super::extract::Extractor;
use super::features::MediaRange;
use super::fields::Summary;
use super::replay::Replay;
use super::slot::Slot;
use super::{Api, Limits, MediaRules};
use crate::error::ScanError;
use crate::json::{Body, Lexer};
use crate::sink::Sink;

/// Reads one body after another, chunk by chunk, and sends its text to a [`Sink`].
///
/// Calls: [`feed`](Self::feed) for every chunk, [`finish`](Self::finish) once; if
/// [`needs_second_pass`](Self::needs_second_pass) then says so,
/// [`second_pass`](Self::second_pass); [`reset`](Self::reset) before the next body. After an error
/// every call returns that error until then.
#[derive(Clone)]
pub struct Scanner<S> {
    lexer: Lexer,
    extractor: Extractor<S>,
    failed: Option<ScanError>,
}

impl<S: Sink> Scanner<S> {
    /// A scanner for one body of this API.
    pub fn new(api: Api, limits: Limits, sink: S) -> Self {
        Self { lexer: Lexer::new(0), extractor: Extractor::new(api, limits, sink), failed: None }
    }

    /// Makes ready for the next body; buffers are kept.
    pub fn reset(&mut self, api: Api) {
        self.lexer = Lexer::new(0);
        self.extractor.reset(api);
        self.failed = None;
    }

    /// Sets how media parts are estimated, from now on. Call it before the first
    /// [`feed`](Self::feed): headers are known before the body.
    pub fn set_media_rules(&mut self, rules: MediaRules) {
        self.extractor.rules = rules;
    }

    /// Takes the next bytes of the body, however it was split.
    ///
    /// # Errors
    /// Bytes that are no JSON, or no request of this API, as soon as they tell; a bound of [`Limits`]
    /// that is exceeded. The first error stays until [`reset`](Self::reset).
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        self.failed.map_or(Ok(()), Err)?;
        let fed = self.lexer.feed(chunk, &mut self.extractor);
        let fed = self.extractor.fault().and(fed);
        self.keep(fed)
    }

    /// Says that the body is complete and returns what it says.
    ///
    /// # Errors
    /// A body that ends too soon or is no request of this API; the error that [`feed`](Self::feed) had.
    pub fn finish(&mut self) -> Result<Summary<'_>, ScanError> {
        self.failed.map_or(Ok(()), Err)?;
        let finished = self.lexer.finish(&mut self.extractor);
        let verdict = || self.extractor.verdict().map_err(ScanError::from);
        let finished = finished.and_then(|()| verdict());
        self.keep(finished)?;
        Ok(self.summary())
    }

    /// True if the order of the body was not the packing order, so that the sink has not seen the
    /// right text. Known after [`finish`](Self::finish). The [`Summary`] is right either way.
    pub fn needs_second_pass(&self) -> bool {
        self.extractor.is_stale()
    }

    /// Sends the text of the same body to the sink anew, in packing order.
    ///
    /// `body` is all of it, in slices of any size. Only the fields that hold the prompt are read
    /// again: once if they were merely in the wrong place, up to five times if the messages of a chat
    /// completion are themselves out of order.
    ///
    /// # Errors
    /// A body of another length than the one that was scanned; the error that the first pass had.
    pub fn second_pass(&mut self, body: &[&[u8]]) -> Result<(), ScanError> {
        self.failed.map_or(Ok(()), Err)?;
        let body = Body::new(body);
        if body.len() != self.lexer.offset() {
            return self.keep(Err(ScanError::BodyChanged));
        }
        let replayed = self.replay(&body);
        self.keep(replayed)
    }

    /// What the body says; complete after [`finish`](Self::finish).
    pub fn summary(&self) -> Summary<'_> {
        let fields = &self.extractor.fields;
        Summary {
            model: &fields.model,
            model_span: fields.model_span.clone(),
            members_at: fields.members_at,
            is_empty: !fields.has_members,
            stream: fields.stream,
            include_usage: fields.include_usage,
            max_tokens: fields.max_completion_tokens.or(fields.max_tokens),
            n: fields.n,
            cache_salt: &fields.cache_salt,
            prompts: match self.extractor.api.is_chat() {
                true => 1,
                false => self.extractor.prompt.count(),
            },
            bytes: self.lexer.offset(),
        }
    }

    /// The media that a generate request names, in the order of their places; complete after
    /// [`finish`](Self::finish). Those without a hash or a place are left out. Allocates for each.
    pub fn features(&self) -> Vec<MediaRange> {
        self.extractor.features.ranges()
    }

    /// The sink.
    pub fn sink(&self) -> &S {
        &self.extractor.sink
    }

    /// The sink, for changing its configuration between bodies.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.extractor.sink
    }

    fn replay(&mut self, body: &Body<'_>) -> Result<(), ScanError> {
        let extractor = &mut self.extractor;
        let span = extractor.span.clone();
        extractor.sink.reset();
        if extractor.api == Api::ChatCompletions && extractor.chat.is_disordered() {
            extractor.chat.begin(&mut extractor.tools, &mut extractor.sink);
            let budget = extractor.limits.media_tokens;
            let (rules, sink) = (&extractor.rules, &mut extractor.sink);
            Replay { body, rules, budget, sink }.messages(span)?;
            extractor.sink.end_prompt();
            extractor.chat.settle();
            return Ok(());
        }
        extractor.chat.restart();
        extractor.talk.restart();
        extractor.prompt.reset();
        if let Some(system) = extractor.talk.system() {
            extractor.restart(Slot::System);
            body.lex(system, extractor)?;
        }
        extractor.restart(match extractor.api {
            Api::ChatCompletions => Slot::Messages,
            Api::Completions | Api::Embeddings | Api::Generate | Api::ImagesGenerations => {
                Slot::Prompt
            }
            Api::Conversations | Api::Messages | Api::Responses => Slot::Turns,
        });
        body.lex(span, extractor)?;
        extractor.fault()?;
        if extractor.is_stale() || extractor.verdict().is_err() {
            return Err(ScanError::BodyChanged);
        }
        Ok(())
    }

    fn keep(&mut self, result: Result<(), ScanError>) -> Result<(), ScanError> {
        self.failed = result.err();
        result
    }
}
