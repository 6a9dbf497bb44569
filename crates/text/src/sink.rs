//! Where the text of a request goes.

/// What a media part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modality {
    /// `input_audio`
    Audio,
    /// `image_url`
    Image,
    /// `video_url`
    Video,
}

impl Modality {
    /// The name in feature records: `audio`, `image` or `video`.
    pub fn name(self) -> &'static str {
        match self {
            Modality::Audio => "audio",
            Modality::Image => "image",
            Modality::Video => "video",
        }
    }
}

/// A media part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// What it is.
    pub modality: Modality,
    /// xxh64 (seed 0) of the URL, or of the data and the format of an audio part one after the
    /// other, as written in the body after unescaping.
    pub digest: u64,
    /// Tokens it is estimated to take, at least 1.
    pub tokens: u32,
}

/// Receives the prompts of a request in packing order.
///
/// Text is unescaped and comes in pieces of any size that never split a character; how a string is
/// divided into pieces depends on chunks and escapes and has no meaning. A prompt is either text
/// and media, or token ids.
pub trait Sink {
    /// Forgets everything: a new request, or a second pass over the same one.
    fn reset(&mut self);

    /// A prompt starts.
    fn begin_prompt(&mut self);

    /// More text of the prompt.
    fn text(&mut self, piece: &[u8]);

    /// More token ids of the prompt.
    fn token_ids(&mut self, ids: &[u32]);

    /// A media part stands here.
    fn media(&mut self, media: Media);

    /// The prompt is complete.
    fn end_prompt(&mut self);
}

/// Ignores everything: for callers that need the fields only.
impl Sink for () {
    fn reset(&mut self) {}
    fn begin_prompt(&mut self) {}
    fn text(&mut self, _piece: &[u8]) {}
    fn token_ids(&mut self, _ids: &[u32]) {}
    fn media(&mut self, _media: Media) {}
    fn end_prompt(&mut self) {}
}
