//! What can be wrong with a body.

use thiserror::Error;

/// Why a body was refused.
///
/// The text of a [`Syntax`](ScanError::Syntax) or [`TooDeep`](ScanError::TooDeep) error names no
/// byte of the body itself, so that it may be shown to the client.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanError {
    /// The slices given to a second pass are not the body that was scanned: a defect of the
    /// caller.
    #[error("the body of the second pass differs from that of the first")]
    BodyChanged,

    /// The JSON is valid, the request is not.
    #[error(transparent)]
    Request(#[from] RequestError),

    /// The bytes are not JSON.
    #[error("error unmarshaling request bodyMap: {expected} at byte {offset}")]
    Syntax {
        /// Bytes before the offending one.
        offset: u64,
        /// What the grammar allows there.
        expected: Expected,
    },

    /// More open containers than the limit.
    #[error("error unmarshaling request bodyMap: nested deeper than {limit} at byte {offset}")]
    TooDeep {
        /// Bytes before the container that is too deep.
        offset: u64,
        /// Open containers allowed.
        limit: u8,
    },

    /// A part of the request that must be held exceeds its bound.
    #[error("{what} exceeds {limit} {}", what.unit())]
    TooLarge {
        /// The part.
        what: Bounded,
        /// Its bound, from [`Limits`](crate::Limits).
        limit: usize,
    },
}

/// What the JSON grammar expected.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A colon after a key.
    #[error("expected a colon")]
    Colon,
    /// A comma or the end of the container.
    #[error("expected a comma or the end of the container")]
    CommaOrEnd,
    /// A digit of a number.
    #[error("expected a digit")]
    Digit,
    /// Nothing but white space after the value.
    #[error("expected the end of the body")]
    End,
    /// One of the escapes `"\/bfnrtu`.
    #[error("expected a valid escape")]
    Escape,
    /// A hexadecimal digit.
    #[error("expected a hexadecimal digit")]
    HexDigit,
    /// A key.
    #[error("expected a key")]
    Key,
    /// Surrogates come in pairs, high before low.
    #[error("expected a surrogate pair")]
    LowSurrogate,
    /// The body ends too early.
    #[error("unexpected end of the body")]
    MoreInput,
    /// Control characters in strings must be escaped.
    #[error("expected no control character")]
    NoControl,
    /// A number that fits a double.
    #[error("expected a number in range")]
    NumberInRange,
    /// Strings must be UTF-8.
    #[error("expected valid UTF-8")]
    Utf8,
    /// A value.
    #[error("expected a value")]
    Value,
}

/// The parts of a request that have a bound of their own.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bounded {
    /// The string `cache_salt`.
    #[error("cache_salt")]
    CacheSalt,
    /// `features` of a generate request.
    #[error("features")]
    Features,
    /// The string `model`.
    #[error("model")]
    Model,
    /// The prompts of one completion request.
    #[error("prompt")]
    Prompts,
    /// The tree of `tools`.
    #[error("tools")]
    Tools,
}

impl Bounded {
    fn unit(self) -> &'static str {
        match self {
            Bounded::Prompts => "prompts",
            Bounded::CacheSalt | Bounded::Features | Bounded::Model | Bounded::Tools => "bytes",
        }
    }
}

/// A body that is JSON, but no request of its API. The texts are those of the reference scheduler.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// A message of an Anthropic request is no object, or its role or content has the wrong type.
    #[error("error parsing messages request: expected messages with a role and content")]
    AnthropicMessage,
    /// `messages` of an Anthropic request is absent, empty, or no list.
    #[error("invalid messages request: must have at least one message")]
    AnthropicMessages,
    /// `input` of an embedding request is absent, empty, or in none of the forms of a prompt.
    #[error("invalid embeddings request: must have input field")]
    EmbeddingInput,
    /// `features` of a generate request has another form than hashes and places by modality.
    #[error(
        "invalid generate request: expected features with lists of mm_hashes and mm_placeholders \
         by modality"
    )]
    Features,
    /// `prompt` of an image request is absent, empty, or no string.
    #[error("invalid images generations request: must have prompt field")]
    ImagePrompt,
    /// `input` of a response is absent or null.
    #[error("invalid responses request: must have input field")]
    Input,
    /// `items` of a conversation is absent, empty, or holds something that is no item.
    #[error("invalid conversations request: must have items field")]
    Items,
    /// `messages` is absent, empty, or holds something that is no message.
    #[error("invalid chat completions request: must have valid messages field")]
    Messages,
    /// The outermost value is no object.
    #[error("error unmarshaling request bodyMap: the body is not a JSON object")]
    NotAnObject,
    /// `prompt` is absent, empty, or neither a string, a list of strings, a list of token ids nor a
    /// list of lists of these.
    #[error("invalid completions request: must have prompt field")]
    Prompt,
    /// `token_ids` is absent, empty, or no list of token ids.
    #[error("invalid generate request: must have non-empty token_ids field")]
    TokenIds,
}
