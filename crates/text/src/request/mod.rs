//! The meaning of a body: which values are the model, the prompt, the limits.

mod chat;
mod extract;
mod features;
mod fields;
mod limits;
mod part;
mod prompt;
mod rename;
mod replay;
mod scanner;
mod slot;
mod talk;
mod tools;

pub use features::MediaRange;
pub use fields::Summary;
pub use limits::{FrameRate, ImageRule, Limits, MediaRules, VideoEstimate};
pub use rename::Edit;
pub use scanner::Scanner;

/// Which API a body belongs to: decides what is looked for and what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `…/chat/completions`: `messages` is required.
    ChatCompletions,
    /// `…/completions` and any path that is not recognised: `prompt` is required.
    Completions,
    /// `…/conversations`: `items` is required.
    Conversations,
    /// `…/embeddings`: `input` is required, in the forms of a completion's `prompt`.
    Embeddings,
    /// vLLM's `/inference/v1/generate`: `token_ids` is required.
    Generate,
    /// `…/images/generations`: `prompt` is required, a text.
    ImagesGenerations,
    /// Anthropic's `…/messages`: `messages` is required.
    Messages,
    /// `…/responses`: `input` is required.
    Responses,
}

impl Api {
    /// Whether the request is a conversation: one prompt, which may have media.
    pub fn is_chat(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions | Self::Conversations | Self::Messages | Self::Responses
        )
    }
}
