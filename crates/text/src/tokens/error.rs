//! What can go wrong between a body and its tokens.

use std::path::PathBuf;

use thiserror::Error;

use crate::template::TemplateError;

/// Why a request has no tokens. The request is routed all the same.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptError {
    /// The body is no request of its API.
    #[error("the body: {0}")]
    Body(String),
    /// The job was still queued when its deadline had passed.
    #[error("the deadline passed before a thread was free")]
    Late,
    /// The placeholders of these images, videos or sounds are known to the engine's own processor only.
    #[error("the prompt holds images, videos or sounds, which only the engine can place")]
    Media,
    /// The model has no chat template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// A defect: the job panicked.
    #[error("tokenizing panicked: {0}")]
    Panic(String),
    /// The pool was shut down.
    #[error("the pool of tokenizer threads is closed")]
    Stopped,
    /// The template refused the request, or is broken.
    #[error("the chat template: {0}")]
    Template(String),
    /// The tokenizer refused the text.
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
}

impl PromptError {
    /// Every value of [`reason`](Self::reason), in the order of the failure counters.
    pub const REASONS: [&'static str; 8] =
        ["body", "late", "media", "no-template", "panic", "stopped", "template", "tokenizer"];

    /// One word for a metric's label.
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    pub(super) fn index(&self) -> usize {
        match self {
            Self::Body(_) => 0,
            Self::Late => 1,
            Self::Media => 2,
            Self::NoTemplate => 3,
            Self::Panic(_) => 4,
            Self::Stopped => 5,
            Self::Template(_) => 6,
            Self::Tokenizer(_) => 7,
        }
    }
}

impl From<TemplateError> for PromptError {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::Body { .. } => Self::Body(error.to_string()),
            TemplateError::Media { .. } => Self::Media,
            TemplateError::Missing { .. } => Self::NoTemplate,
            _ => Self::Template(error.to_string()),
        }
    }
}

/// Why a model could not be loaded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}: {why}", path.display())]
pub struct LoadError {
    /// The file or directory at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl LoadError {
    pub(super) fn new(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }
}
