//! What the engine is asked to do, and what it answers.

use std::{sync::Arc, time::Duration};

use super::{cache::BlockId, events::Origin, hash::Chain};
use crate::text::reply::Reply;

/// A running or waiting request, by a number that is never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JobId(pub(super) u64);

/// One prompt with its answer, before it runs.
#[derive(Debug)]
pub struct Job<L> {
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// The answer, to be released token by token.
    pub reply: Arc<Reply>,
    /// How the answer ends when nothing interferes.
    pub finish: Finish,
    /// The LoRA adapter, if any.
    pub adapter: Option<Arc<str>>,
    /// Keys of the prompt's full blocks; the engine continues it.
    pub chain: Chain,
    /// What events tell of the request.
    pub origin: Arc<Origin>,
    /// Events shall tell of the blocks that are found in the cache, too.
    pub report_reused: bool,
    /// The request's token limit, for metrics.
    pub max_tokens: Option<usize>,
    /// The request's number of choices, for metrics.
    pub choices: usize,
    /// Another pod has read the prompt.
    pub remote_prefill: bool,
    /// Finish at once, with no token, unless at least this share of the prompt is cached.
    pub cache_threshold: Option<f64>,
    /// Every token must be announced when it is due (a stream), not only the last one.
    pub stepwise: bool,
    /// Whom to tell.
    pub listener: L,
}

/// Is told what happens to a job, from within the engine.
pub trait Listener {
    /// So many tokens of the answer may be seen now.
    fn released(&self, tokens: usize);

    /// The job has ended; nothing follows.
    fn finished(&self, end: End);
}

/// How a job ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End {
    /// The reason.
    pub finish: Finish,
    /// Prompt tokens that the cache had when the job first started.
    pub cached: usize,
    /// The blocks it held.
    pub blocks: Vec<BlockId>,
    /// From arrival to the end.
    pub elapsed: Duration,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finish {
    /// Too little of the prompt was cached.
    CacheThreshold,
    /// At its token limit.
    Length,
    /// After the prefill, for another pod to go on.
    RemoteDecode,
    /// By itself.
    Stop,
}

impl Finish {
    /// The reason as answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CacheThreshold => "cache_threshold",
            Self::Length => "length",
            Self::RemoteDecode => "remote_decode",
            Self::Stop => "stop",
        }
    }
}

/// Why the engine does not take a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The job alone needs more blocks than there are.
    #[error("the kv cache does not have sufficient capacity to store this request")]
    CacheTooSmall,
    /// As many jobs wait as may.
    #[error("Failed to enqueue request, waiting requests queue is full")]
    QueueFull,
}
