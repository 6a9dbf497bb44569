//! Bounds and estimates that the caller sets.

/// What one request may make the scanner hold or do. The body's own size is the caller's bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of `model` and of `cache_salt` each (default 4096). More is an error.
    pub string_bytes: usize,
    /// Bytes of the tree that holds `tools` until its keys can be sorted (default 1 MiB). More is
    /// an error.
    pub tools_bytes: usize,
    /// Bytes that `features` of a generate request are held in (default 1 MiB): its hashes, and 64
    /// for each of them and for each place. More is an error.
    pub features_bytes: usize,
    /// Prompts of one completion request (default 16 384). More is an error.
    pub prompts: usize,
    /// Tokens that all media parts of a request add up to (default 1 048 576). A part that would
    /// exceed it is cut, to no less than one token: a few bytes of a hostile image header could
    /// otherwise claim any amount of hashing.
    pub media_tokens: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            string_bytes: 4 << 10,
            tools_bytes: 1 << 20,
            features_bytes: 1 << 20,
            prompts: 16 << 10,
            media_tokens: 1 << 20,
        }
    }
}

/// How many tokens media parts are estimated to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRules {
    /// The rule for images.
    pub image: ImageRule,
    /// Tokens of every video of this request (see [`VideoEstimate`]); at least 1 is counted.
    pub video_tokens: u32,
}

impl Default for MediaRules {
    fn default() -> Self {
        Self { image: ImageRule::default(), video_tokens: VideoEstimate::default().tokens() }
    }
}

/// The rule for images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRule {
    /// `max(1, width · height / factor)`, the size taken from the header of a PNG, JPEG, GIF or
    /// WebP image in a base64 data URL.
    Dynamic {
        /// Pixels per token; 0 counts as 1.
        factor: u32,
        /// Pixels of an image whose size is not known.
        unknown_pixels: u64,
    },
    /// The same number for every image.
    Static(u32),
}

impl Default for ImageRule {
    /// 1024 pixels per token; 640 × 360 if unknown, hence 225 tokens.
    fn default() -> Self {
        ImageRule::Dynamic { factor: 1024, unknown_pixels: 640 * 360 }
    }
}

impl ImageRule {
    /// Tokens of an image of this size in pixels.
    pub(crate) fn tokens(&self, size: Option<(u32, u32)>) -> u32 {
        match *self {
            ImageRule::Static(tokens) => tokens.max(1),
            ImageRule::Dynamic { factor, unknown_pixels } => {
                let pixels = size.map_or(unknown_pixels, |(w, h)| u64::from(w) * u64::from(h));
                u32::try_from(pixels / u64::from(factor.max(1))).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

/// How many frames of a video the engine looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FrameRate {
    /// So many per second, each `merge` of them taken as one (0 and 1: each by itself).
    Sampled {
        /// Frames sampled per second.
        per_second: f64,
        /// Frames that make one group of tokens.
        merge: u32,
    },
    /// Each `stride`th of the video's own frames (0 counts as 1).
    Strided {
        /// Frames per second of the video.
        per_second: f64,
        /// Frames per frame that is kept.
        stride: u32,
    },
}

/// What is known of a request's videos, mostly from its `x-llm-d-video-*` headers.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoEstimate {
    /// Seconds (default 10).
    pub seconds: f64,
    /// Which frames count (default: 2 per second).
    pub rate: FrameRate,
    /// The fewest frames (default 0), before they are merged.
    pub min_frames: u32,
    /// The most frames (default: no bound), before they are merged.
    pub max_frames: Option<u32>,
    /// Tokens of a frame. The default is that of images: 640 × 360 pixels, 1024 pixels per token.
    pub frame: ImageRule,
    /// The most tokens a video may take (default: no bound).
    pub max_tokens: Option<u32>,
}

impl Default for VideoEstimate {
    fn default() -> Self {
        Self {
            seconds: 10.0,
            rate: FrameRate::Sampled { per_second: 2.0, merge: 1 },
            min_frames: 0,
            max_frames: None,
            frame: ImageRule::default(),
            max_tokens: None,
        }
    }
}

impl VideoEstimate {
    /// Frames (rounded down) times tokens per frame, at least 1: 4500 by default.
    pub fn tokens(&self) -> u32 {
        let frames = self.frames().saturating_mul(u64::from(self.frame.tokens(None)));
        let tokens = u32::try_from(frames).unwrap_or(u32::MAX);
        tokens.min(self.max_tokens.unwrap_or(u32::MAX)).max(1)
    }

    fn frames(&self) -> u64 {
        let (FrameRate::Sampled { per_second, .. } | FrameRate::Strided { per_second, .. }) =
            self.rate;
        let all = (self.seconds * per_second) as u64;
        let most = self.max_frames.map_or(u64::MAX, u64::from);
        let bounded = |frames: u64| frames.max(u64::from(self.min_frames)).min(most);
        match self.rate {
            FrameRate::Sampled { merge, .. } => bounded(all) / u64::from(merge.max(1)),
            FrameRate::Strided { stride, .. } => bounded(all / u64::from(stride.max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let rule = ImageRule::default();
        assert_eq!(rule.tokens(None), 225);
        assert_eq!(rule.tokens(Some((1, 1))), 1);
        assert_eq!(rule.tokens(Some((1024, 768))), 768);
        assert_eq!(rule.tokens(Some((u32::MAX, u32::MAX))), u32::MAX);
        assert_eq!(ImageRule::Static(0).tokens(Some((9, 9))), 1);
        assert_eq!(ImageRule::Dynamic { factor: 0, unknown_pixels: 5 }.tokens(None), 5);
    }

    #[test]
    fn videos() {
        assert_eq!(VideoEstimate::default().tokens(), 4500);
        let sampled = |per_second, merge| FrameRate::Sampled { per_second, merge };
        let odd = VideoEstimate { seconds: 1.9, rate: sampled(1.0, 1), ..Default::default() };
        assert_eq!(odd.tokens(), 225);
        let merged = VideoEstimate { rate: sampled(2.0, 3), ..Default::default() };
        assert_eq!(merged.tokens(), 6 * 225);
        let strided = VideoEstimate {
            rate: FrameRate::Strided { per_second: 24.0, stride: 4 },
            max_frames: Some(16),
            frame: ImageRule::Static(256),
            ..Default::default()
        };
        assert_eq!(strided.tokens(), 16 * 256);
        let short = VideoEstimate { seconds: 0.1, min_frames: 4, ..Default::default() };
        assert_eq!(short.tokens(), 4 * 225);
        let nothing = VideoEstimate { seconds: 0.1, ..Default::default() };
        assert_eq!(nothing.tokens(), 1);
        let capped = VideoEstimate { max_tokens: Some(1000), ..Default::default() };
        assert_eq!(capped.tokens(), 1000);
        for hostile in [f64::NAN, f64::INFINITY, -1.0] {
            let video = VideoEstimate { seconds: hostile, ..Default::default() };
            assert!(video.tokens() >= 1);
        }
    }
}
