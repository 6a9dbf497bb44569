//! Why a chat has no rendered text.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a template could not be loaded, or a request not be rendered.
///
/// Everything but [`File`](TemplateError::File), [`Config`](TemplateError::Config),
/// [`Missing`](TemplateError::Missing) and [`Syntax`](TemplateError::Syntax) concerns one request.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The body is not a JSON object.
    #[error("expected {expected} at byte {offset} of the body")]
    Body {
        /// Bytes before the offending one.
        offset: usize,
        /// What was expected there.
        expected: &'static str,
    },

    /// A configuration file does not say what it should.
    #[error("{}: expected {expected}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: String,
    },

    /// A member of the request has a value that the engine refuses.
    #[error("{field}: expected {expected}")]
    Field {
        /// The member, for instance `messages[2].content`.
        field: String,
        /// What was expected.
        expected: &'static str,
    },

    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The template took too many steps.
    #[error("the template took more than {limit} steps")]
    Fuel {
        /// Steps allowed, from [`Limits`](super::Limits).
        limit: u64,
    },

    /// The request carries audio, video, or images of a form or for a model whose place in the prompt
    /// is known to the model's processor only.
    #[error("{field}: a part of type {kind:?} is not text")]
    Media {
        /// The part, for instance `messages[2].content[0]`.
        field: String,
        /// Its type.
        kind: String,
    },

    /// The model comes without a chat template.
    #[error("the model has no chat template{}", if *tools { " for requests with tools" } else { "" })]
    Missing {
        /// The request has tools.
        tools: bool,
    },

    /// The text became too long.
    #[error("the rendered text exceeds {limit} bytes")]
    Output {
        /// Bytes allowed, from [`Limits`](super::Limits).
        limit: usize,
    },

    /// The template called `raise_exception`: it refuses the conversation.
    #[error("the template refuses the conversation: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },

    /// The template failed.
    #[error("line {line} of the template: {reason}")]
    Render {
        /// Line, counted from 1; 0 if unknown.
        line: usize,
        /// What failed.
        reason: String,
    },

    /// The template is not valid.
    #[error("line {line} of the template {name:?}: {reason}")]
    Syntax {
        /// Name of the template; `default` for most.
        name: String,
        /// Line, counted from 1; 0 if unknown.
        line: usize,
        /// What is wrong.
        reason: String,
    },

    /// The values that the template made were too large, or too many.
    #[error("the template made values of more than {limit} bytes")]
    Values {
        /// Bytes allowed, from [`Limits`](super::Limits).
        limit: usize,
    },
}

impl TemplateError {
    pub(super) fn field(field: impl Into<String>, expected: &'static str) -> TemplateError {
        TemplateError::Field { field: field.into(), expected }
    }
}
