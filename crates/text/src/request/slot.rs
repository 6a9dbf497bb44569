//! Where a value stands: the field that it fills.

use super::Api;

/// The field that the next value fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A field of no interest.
    Ignore,
    Root,

    CacheSalt,
    /// `features` of a generate request.
    Features,
    IncludeUsage,
    MaxCompletionTokens,
    MaxTokens,
    Model,
    N,
    /// `sampling_params` of a generate request.
    SamplingParams,
    Stream,
    StreamOptions,

    /// `mm_hashes`: lists of hashes by modality.
    MediaHashes,
    MediaHashList,
    MediaHash,
    /// `mm_placeholders`: lists of ranges by modality.
    MediaPlaces,
    MediaPlaceList,
    MediaPlace,
    MediaLength,
    MediaOffset,

    Prompt,
    PromptItem,
    /// An item of an item of `prompt`.
    PromptId,

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

    /// `system` or `instructions`.
    System,
    SystemPart,
    SystemText,
    /// `messages` of Anthropic, `input` of a response, or `items` of a conversation.
    Turns,
    Turn,
    TurnRole,
    /// A string, or a list of parts.
    TurnContent,
    TurnPart,
    /// A string of a turn or of a part.
    TurnText,
    /// Any value whose keys and strings are text of the turn.
    TurnAny,
    /// What a tool answered: a string, or a list of parts.
    TurnResult,
    TurnResultPart,
    /// An image: its URL, or an object that has it.
    Source,
    SourceUrl,
    SourceData,
}

impl Slot {
    /// The field that `key` names in an object that stands in this slot.
    #[inline]
    pub(crate) fn member(self, key: &[u8], api: Api) -> Slot {
        match self {
            Slot::Root => root(key, api),
            Slot::StreamOptions if key == b"include_usage" => Slot::IncludeUsage,
            Slot::SamplingParams if key == b"max_tokens" => Slot::MaxTokens,
            Slot::SamplingParams if key == b"n" => Slot::N,
            Slot::Features if key == b"mm_hashes" => Slot::MediaHashes,
            Slot::Features if key == b"mm_placeholders" => Slot::MediaPlaces,
            Slot::MediaHashes => Slot::MediaHashList,
            Slot::MediaPlaces => Slot::MediaPlaceList,
            Slot::MediaPlace if key == b"offset" => Slot::MediaOffset,
            Slot::MediaPlace if key == b"length" => Slot::MediaLength,
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
            Slot::SystemPart if key == b"text" => Slot::SystemText,
            Slot::Turn => turn(key, api),
            Slot::TurnPart => turn_part(key, api),
            Slot::TurnResultPart => match key {
                b"text" => Slot::TurnText,
                b"source" => Slot::Source,
                _ => Slot::Ignore,
            },
            Slot::Source => match key {
                b"url" => Slot::SourceUrl,
                b"data" => Slot::SourceData,
                _ => Slot::Ignore,
            },
            _ => Slot::Ignore,
        }
    }

    /// The slot of each item of an array that stands in this slot; `None` if it may be skipped.
    pub(crate) fn item(self) -> Option<Slot> {
        match self {
            Slot::Prompt => Some(Slot::PromptItem),
            Slot::Messages => Some(Slot::Message),
            Slot::Content => Some(Slot::Part),
            Slot::PromptItem => Some(Slot::PromptId),
            Slot::MediaHashList => Some(Slot::MediaHash),
            Slot::MediaPlaceList => Some(Slot::MediaPlace),
            Slot::System => Some(Slot::SystemPart),
            Slot::Turns => Some(Slot::Turn),
            Slot::TurnContent => Some(Slot::TurnPart),
            Slot::TurnResult => Some(Slot::TurnResultPart),
            _ => None,
        }
    }

    /// Whether it is a part of the prompt of messages or responses.
    #[inline]
    pub(crate) fn is_talk(self) -> bool {
        matches!(
            self,
            Slot::System
                | Slot::SystemPart
                | Slot::SystemText
                | Slot::Turns
                | Slot::Turn
                | Slot::TurnRole
                | Slot::TurnContent
                | Slot::TurnPart
                | Slot::TurnText
                | Slot::TurnAny
                | Slot::TurnResult
                | Slot::TurnResultPart
                | Slot::Source
                | Slot::SourceUrl
                | Slot::SourceData
        )
    }

    /// Whether it is a part of `features`.
    #[inline]
    pub(crate) fn is_feature(self) -> bool {
        matches!(
            self,
            Slot::Features
                | Slot::MediaHashes
                | Slot::MediaHashList
                | Slot::MediaHash
                | Slot::MediaPlaces
                | Slot::MediaPlaceList
                | Slot::MediaPlace
                | Slot::MediaLength
                | Slot::MediaOffset
        )
    }

    /// Whether an object that stands in this slot is looked into.
    pub(crate) fn has_members(self) -> bool {
        matches!(
            self,
            Slot::Root
                | Slot::StreamOptions
                | Slot::SamplingParams
                | Slot::Features
                | Slot::MediaHashes
                | Slot::MediaPlaces
                | Slot::MediaPlace
                | Slot::Message
                | Slot::Part
                | Slot::Image
                | Slot::Audio
                | Slot::Video
                | Slot::SystemPart
                | Slot::Turn
                | Slot::TurnPart
                | Slot::TurnResultPart
                | Slot::Source
        )
    }
}

fn root(key: &[u8], api: Api) -> Slot {
    match (key, api) {
        (b"model", _) => Slot::Model,
        (b"stream", _) => Slot::Stream,
        (b"cache_salt", _) => Slot::CacheSalt,
        (b"sampling_params", Api::Generate) => Slot::SamplingParams,
        (b"features", Api::Generate) => Slot::Features,
        (b"n", Api::Generate) => Slot::Ignore,
        (b"n", _) => Slot::N,
        (b"stream_options", _) => Slot::StreamOptions,
        (b"max_output_tokens", Api::Responses) => Slot::MaxTokens,
        (b"max_tokens", Api::ChatCompletions | Api::Completions | Api::Messages) => Slot::MaxTokens,
        (b"max_completion_tokens", Api::ChatCompletions) => Slot::MaxCompletionTokens,
        (b"messages", Api::ChatCompletions) => Slot::Messages,
        (b"messages", Api::Messages) | (b"input", Api::Responses) => Slot::Turns,
        (b"items", Api::Conversations) => Slot::Turns,
        (b"system", Api::Messages) | (b"instructions", Api::Responses) => Slot::System,
        (b"tools", Api::ChatCompletions | Api::Messages | Api::Responses) => Slot::Tools,
        (b"prompt", Api::Completions | Api::ImagesGenerations) => Slot::Prompt,
        (b"input", Api::Embeddings) | (b"token_ids", Api::Generate) => Slot::Prompt,
        _ => Slot::Ignore,
    }
}

/// A message, or an item of a response's input or of a conversation: a message, a call of a function, its output, or
/// reasoning.
fn turn(key: &[u8], api: Api) -> Slot {
    match (key, api) {
        (b"role", _) => Slot::TurnRole,
        (b"content", _) => Slot::TurnContent,
        (b"name", Api::Conversations | Api::Responses) => Slot::TurnText,
        (b"arguments", Api::Conversations | Api::Responses) => Slot::TurnAny,
        (b"output" | b"summary", Api::Conversations | Api::Responses) => Slot::TurnResult,
        _ => Slot::Ignore,
    }
}

fn turn_part(key: &[u8], api: Api) -> Slot {
    match (key, api) {
        (b"text", _) => Slot::TurnText,
        (b"thinking" | b"id" | b"name", Api::Messages) => Slot::TurnText,
        (b"input", Api::Messages) => Slot::TurnAny,
        (b"content", Api::Messages) => Slot::TurnResult,
        (b"source", Api::Messages) => Slot::Source,
        (b"image_url", Api::Conversations | Api::Responses) => Slot::Source,
        (b"refusal", Api::Conversations | Api::Responses) => Slot::TurnText,
        _ => Slot::Ignore,
    }
}
