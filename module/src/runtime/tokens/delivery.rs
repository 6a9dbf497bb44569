//! From the thread that tokenizes to the stream that waits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterScheduler;
use inlane_text::tokens::{PromptError, Tokenized};

use crate::clock;

/// Why a request that should have tokens has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missed {
    /// Text and tokenizer, or text and template, do not go together.
    Failed(PromptError),
    /// The tokens were not there in time.
    Late,
    /// There is no tokenizer of its model, on this machine or elsewhere.
    NoModel,
    /// As many bodies wait as may.
    Overloaded,
    /// The server that renders prompts did not.
    Render(String),
}

impl Missed {
    /// Every value of [`reason`](Self::reason) beside those of [`PromptError`].
    pub const REASONS: [&'static str; 3] = ["no-model", "overloaded", "render"];

    /// One word for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed(error) => error.reason(),
            Self::Late => PromptError::Late.reason(),
            Self::NoModel => Self::REASONS[0],
            Self::Overloaded => Self::REASONS[1],
            Self::Render(_) => Self::REASONS[2],
        }
    }
}

impl std::fmt::Display for Missed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Late => f.write_str("they were not there in time"),
            Self::NoModel => f.write_str("there is no tokenizer of that model"),
            Self::Overloaded => f.write_str("too many requests wait for tokens"),
            Self::Render(why) => write!(f, "the server that renders prompts: {why}"),
        }
    }
}

/// The tokens of one request, or something on the way to them: put here once, by whichever thread has
/// them, and read by the worker that its stream belongs to. Neither ever waits for the other.
pub struct Delivery<T = Tokenized> {
    outcome: OnceLock<Result<T, Missed>>,
    /// The stream does not wait any more: it has gone on, or it has ended.
    over: AtomicBool,
    stream: Box<dyn EnvoyHttpFilterScheduler>,
    event: u64,
    asked_ns: u64,
    /// How long it took, once there is an outcome.
    taken_ns: OnceLock<u64>,
}

impl<T: std::fmt::Debug> std::fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { outcome, over, .. } = self;
        f.debug_struct("Delivery").field("outcome", outcome).field("over", over).finish()
    }
}

impl<T> Delivery<T> {
    /// Nothing yet; `stream` is told `event` when there is.
    pub fn new(stream: Box<dyn EnvoyHttpFilterScheduler>, event: u64) -> Self {
        let (outcome, over, taken_ns) = Default::default();
        Self { outcome, over, stream, event, asked_ns: clock::now_ns(), taken_ns }
    }

    /// Hands the outcome over and wakes the stream, if it still waits. What comes second is
    /// dropped.
    pub fn deliver(&self, outcome: Result<T, Missed>) {
        let _ = self.taken_ns.set(clock::now_ns().saturating_sub(self.asked_ns));
        if self.outcome.set(outcome).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        if !self.is_over() {
            self.stream.commit(self.event);
        }
    }

    /// Whether nobody waits for it any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends the wait. The outcome so far; what comes later wakes nobody.
    pub fn settle(&self) -> Option<&Result<T, Missed>> {
        self.over.store(true, Ordering::Release);
        self.outcome.get()
    }

    /// The tokens.
    pub fn tokens(&self) -> Option<&T> {
        self.outcome.get()?.as_ref().ok()
    }

    /// Nanoseconds from the asking to the outcome, or until now.
    pub fn taken_ns(&self) -> u64 {
        let until_now = || clock::now_ns().saturating_sub(self.asked_ns);
        self.taken_ns.get().copied().unwrap_or_else(until_now)
    }
}

/// A wait that may end without an outcome.
pub(super) trait Expires: Send + Sync {
    /// Whether nobody waits any more.
    fn is_over(&self) -> bool;

    /// Time is up: wakes the stream unless there is an outcome.
    fn expire(&self);
}

impl<T: Send + Sync> Expires for Delivery<T> {
    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn expire(&self) {
        if self.outcome.get().is_none() {
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Counts the events of a stream.
    #[derive(Default, Clone)]
    struct Woken(Arc<AtomicU64>);

    impl EnvoyHttpFilterScheduler for Woken {
        fn commit(&self, event: u64) {
            self.0.fetch_add(event, Ordering::Relaxed);
        }
    }

    fn delivery() -> (Delivery, Woken) {
        let woken = Woken::default();
        (Delivery::new(Box::new(woken.clone()), 1), woken)
    }

    #[test]
    fn a_stream_is_woken_once_by_its_tokens() {
        let (delivery, woken) = delivery();
        delivery.deliver(Ok(Tokenized { prompts: vec![vec![7]], ..Tokenized::default() }));
        delivery.deliver(Err(Missed::NoModel));
        delivery.expire();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(delivery.settle().is_some());
        assert_eq!(delivery.tokens().unwrap().prompts, [[7]]);
        assert_eq!(delivery.taken_ns(), delivery.taken_ns());
    }

    #[test]
    fn what_comes_after_the_wait_wakes_nobody() {
        let (delivery, woken) = delivery();
        delivery.expire();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(delivery.settle(), None);
        delivery.deliver(Err(Missed::Overloaded));
        delivery.expire();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
