//! Where a value stands: the field that it fills.

use super::Api;

/// The field that the next value fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A field of no interest.
    Ignore,
    Root,

    CacheSalt,
    IncludeUsage,
    MaxCompletionTokens,
    MaxTokens,
    Model,
    N,
    Stream,
    StreamOptions,

    Prompt,
    PromptItem,

    Tools,
    Messages,
    Message,
    Role,
    Content,
    Part,
    PartType,
    PartText,
    Image,
    ImageUrl,
    Audio,
    AudioData,
    AudioFormat,
    Video,
    VideoUrl,
}

impl Slot {
    /// The field that `key` names in an object that stands in this slot.
    #[inline]
    pub(crate) fn member(self, key: &[u8], api: Api) -> Slot {
        match self {
            Slot::Root => root(key, api),
            Slot::StreamOptions if key == b"include_usage" => Slot::IncludeUsage,
            Slot::Message => match key {
                b"role" => Slot::Role,
                b"content" => Slot::Content,
                _ => Slot::Ignore,
            },
            Slot::Part => match key {
                b"type" => Slot::PartType,
                b"text" => Slot::PartText,
                b"image_url" => Slot::Image,
                b"input_audio" => Slot::Audio,
                b"video_url" => Slot::Video,
                _ => Slot::Ignore,
            },
            Slot::Image if key == b"url" => Slot::ImageUrl,
            Slot::Audio if key == b"data" => Slot::AudioData,
            Slot::Audio if key == b"format" => Slot::AudioFormat,
            Slot::Video if key == b"url" => Slot::VideoUrl,
            _ => Slot::Ignore,
        }
    }

    /// The slot of each item of an array that stands in this slot; `None` if it may be skipped.
    pub(crate) fn item(self) -> Option<Slot> {
        match self {
            Slot::Prompt => Some(Slot::PromptItem),
            Slot::Messages => Some(Slot::Message),
            Slot::Content => Some(Slot::Part),
            _ => None,
        }
    }

    /// Whether an object that stands in this slot is looked into.
    pub(crate) fn has_members(self) -> bool {
        matches!(
            self,
            Slot::Root
                | Slot::StreamOptions
                | Slot::Message
                | Slot::Part
                | Slot::Image
                | Slot::Audio
                | Slot::Video
        )
    }
}

fn root(key: &[u8], api: Api) -> Slot {
    match (key, api) {
        (b"model", _) => Slot::Model,
        (b"stream", _) => Slot::Stream,
        (b"max_tokens", _) => Slot::MaxTokens,
        (b"cache_salt", _) => Slot::CacheSalt,
        (b"n", _) => Slot::N,
        (b"stream_options", _) => Slot::StreamOptions,
        (b"messages", Api::ChatCompletions) => Slot::Messages,
        (b"tools", Api::ChatCompletions) => Slot::Tools,
        (b"max_completion_tokens", Api::ChatCompletions) => Slot::MaxCompletionTokens,
        (b"prompt", Api::Completions) => Slot::Prompt,
        _ => Slot::Ignore,
    }
}
