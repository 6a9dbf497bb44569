//! How many tokens media are estimated to take.

use inlane_core::registry::BuildError;
use inlane_core::request::Headers;
use inlane_text::{FrameRate, ImageRule, MediaRules, VideoEstimate};
use serde::Deserialize;

/// The `estimate` backend. A number that is absent or not positive means the default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EstimateParameters {
    image: Image,
    video: Video,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Image {
    /// `dynamic` (default) or `static`.
    mode: String,
    /// Of images whose size cannot be read.
    #[serde(rename = "defaultResolution")]
    default_resolution: Resolution,
    dynamic: Dynamic,
    #[serde(rename = "static")]
    fixed: StaticImage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Resolution {
    width: i64,
    height: i64,
}

/// Pixels per token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dynamic {
    factor: i64,
}

/// Tokens per image.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StaticImage {
    #[serde(rename = "staticToken")]
    token: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Video {
    default_resolution: Resolution,
    /// Seconds.
    default_duration: f64,
    tokens_per_frame: TokensPerFrame,
    frames: Frames,
    max_video_tokens: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TokensPerFrame {
    /// `dynamic` (default) or `static`.
    mode: String,
    dynamic: Dynamic,
    #[serde(rename = "static")]
    fixed: StaticFrame,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StaticFrame {
    #[serde(rename = "numTokensPerFrame")]
    tokens: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Frames {
    /// `sampled` (default) or `strided`.
    mode: String,
    min_frames: i64,
    max_frames: i64,
    sampled: Sampled,
    strided: Strided,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sampled {
    /// Frames per second.
    #[serde(rename = "sampleFPS")]
    rate: f64,
    /// Sampled frames that make one group of tokens.
    #[serde(rename = "temporalPatchSize")]
    merge: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Strided {
    /// Frames per second of the video.
    #[serde(rename = "defaultSourceFPS")]
    rate: f64,
    #[serde(rename = "frameStride")]
    stride: i64,
}

impl EstimateParameters {
    /// Checks the modes.
    pub(super) fn validate(&self, path: &str) -> Result<(), BuildError> {
        let Video { tokens_per_frame, frames, .. } = &self.video;
        for (field, mode, modes) in [
            ("image.mode", &self.image.mode, ["dynamic", "static"]),
            ("video.tokensPerFrame.mode", &tokens_per_frame.mode, ["dynamic", "static"]),
            ("video.frames.mode", &frames.mode, ["sampled", "strided"]),
        ] {
            if !mode.is_empty() && !modes.contains(&mode.as_str()) {
                let [one, other] = modes;
                let text = format!("must be {one:?} or {other:?}, found {mode:?}");
                return Err(BuildError::field(format!("{path}.{field}"), text));
            }
        }
        Ok(())
    }
}

/// How media are estimated; [`rules`](Self::rules) says it for one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimate {
    image: ImageRule,
    video: VideoEstimate,
}

fn positive(value: i64) -> Option<u32> {
    u32::try_from(value).ok().filter(|&value| value > 0)
}

/// Pixels per token.
const FACTOR: u32 = 1_024;
/// Pixels where the size is not known.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;

impl Resolution {
    fn pixels(self) -> u64 {
        let width = positive(self.width).unwrap_or(WIDTH);
        u64::from(width) * u64::from(positive(self.height).unwrap_or(HEIGHT))
    }
}

fn rule(mode: &str, fixed: i64, factor: i64, resolution: Resolution) -> ImageRule {
    if mode == "static" {
        return ImageRule::Static(positive(fixed).unwrap_or(1));
    }
    let factor = positive(factor).unwrap_or(FACTOR);
    ImageRule::Dynamic { factor, unknown_pixels: resolution.pixels() }
}

impl From<EstimateParameters> for Estimate {
    fn from(EstimateParameters { image, video }: EstimateParameters) -> Self {
        let Video { default_resolution, tokens_per_frame, frames, .. } = video;
        let TokensPerFrame { mode, dynamic, fixed } = tokens_per_frame;
        let or = |value: f64, default: f64| if value > 0.0 { value } else { default };
        let rate = if frames.mode == "strided" {
            let stride = positive(frames.strided.stride).unwrap_or(1);
            FrameRate::Strided { per_second: or(frames.strided.rate, 24.0), stride }
        } else {
            let merge = positive(frames.sampled.merge).unwrap_or(1);
            FrameRate::Sampled { per_second: or(frames.sampled.rate, 2.0), merge }
        };
        Self {
            image: rule(
                &image.mode,
                image.fixed.token,
                image.dynamic.factor,
                image.default_resolution,
            ),
            video: VideoEstimate {
                seconds: or(video.default_duration, 10.0),
                rate,
                min_frames: positive(frames.min_frames).unwrap_or(0),
                max_frames: positive(frames.max_frames),
                frame: rule(&mode, fixed.tokens, dynamic.factor, default_resolution),
                max_tokens: positive(video.max_video_tokens),
            },
        }
    }
}

impl Estimate {
    /// The rules for a request with these headers: `x-llm-d-video-duration-seconds`,
    /// `x-llm-d-video-resolution` (`WIDTHxHEIGHT`) and, where frames are strided,
    /// `x-llm-d-video-fps` go before the configuration. What cannot be read is ignored.
    pub fn rules(&self, headers: &dyn Headers) -> MediaRules {
        let mut video = self.video.clone();
        if let Some(seconds) = number(headers, "x-llm-d-video-duration-seconds") {
            video.seconds = seconds;
        }
        if let FrameRate::Strided { per_second, .. } = &mut video.rate
            && let Some(rate) = number(headers, "x-llm-d-video-fps")
        {
            *per_second = rate;
        }
        let size = headers.get("x-llm-d-video-resolution").and_then(pixels);
        if let (Some(unknown_pixels), ImageRule::Dynamic { factor, .. }) = (size, &video.frame) {
            video.frame = ImageRule::Dynamic { factor: *factor, unknown_pixels };
        }
        MediaRules { image: self.image.clone(), video_tokens: video.tokens() }
    }
}

fn number(headers: &dyn Headers, name: &str) -> Option<f64> {
    headers.get(name)?.parse().ok().filter(|&value| value > 0.0)
}

/// The product of `WIDTHxHEIGHT`.
fn pixels(text: &str) -> Option<u64> {
    let (width, height) = text.split_once(['x', 'X'])?;
    let side = |text: &str| text.trim().parse().ok().and_then(positive).map(u64::from);
    Some(side(width)? * side(height)?)
}

#[cfg(test)]
mod tests {
    use inlane_core::request::Headers;

    use super::*;

    fn estimate(yaml: &str) -> Estimate {
        let parameters: EstimateParameters = serde_yaml::from_str(yaml).unwrap();
        parameters.validate("estimate").unwrap();
        Estimate::from(parameters)
    }

    fn video(yaml: &str, headers: &[(&str, &str)]) -> u32 {
        estimate(yaml).rules(&headers.to_vec() as &dyn Headers).video_tokens
    }

    #[test]
    fn nothing_configured_means_the_defaults() {
        assert_eq!(estimate("{}"), Estimate::default());
        let none: [(&str, &str); 0] = [];
        assert_eq!(estimate("{}").rules(&none), MediaRules::default());
    }

    #[test]
    fn images() {
        let none: [(&str, &str); 0] = [];
        let image = |yaml: &str| estimate(yaml).rules(&none).image;
        assert_eq!(
            image("{image: {mode: static, static: {staticToken: 5}}}"),
            ImageRule::Static(5)
        );
        assert_eq!(image("{image: {mode: static}}"), ImageRule::Static(1));
        assert_eq!(
            image("{image: {dynamic: {factor: 784}, defaultResolution: {width: 100, height: 0}}}"),
            ImageRule::Dynamic { factor: 784, unknown_pixels: 36_000 }
        );
    }

    #[test]
    fn videos_of_two_families_of_models() {
        let sampled = "{video: {frames: {minFrames: 4, sampled: {temporalPatchSize: 2}}, \
                       maxVideoTokens: 12288}}";
        assert_eq!(video(sampled, &[]), 10 * 225);
        assert_eq!(video(sampled, &[("x-llm-d-video-duration-seconds", "1")]), 2 * 225);
        assert_eq!(video(sampled, &[("x-llm-d-video-duration-seconds", "1e9")]), 12_288);
        let strided = "{video: {tokensPerFrame: {mode: static, static: {numTokensPerFrame: 256}}, \
                       frames: {mode: strided, maxFrames: 16, \
                       strided: {defaultSourceFPS: 24, frameStride: 4}}}}";
        assert_eq!(video(strided, &[]), 16 * 256);
        let headers = [("x-llm-d-video-fps", "4"), ("x-llm-d-video-resolution", "9x9")];
        assert_eq!(video(strided, &headers), 10 * 256);
    }

    #[test]
    fn headers_go_before_the_configuration() {
        let resolution = |text| video("{}", &[("x-llm-d-video-resolution", text)]);
        assert_eq!(resolution("1280x720"), 20 * 900);
        assert_eq!(resolution(" 1280 X 720 "), 20 * 900);
        for malformed in ["", "x", "1280", "0x720", "-1x720", "1280x", "1x2x3"] {
            assert_eq!(resolution(malformed), 4_500, "{malformed}");
        }
        for malformed in ["", "-1", "0", "NaN", "ten", " 5"] {
            let headers = [("x-llm-d-video-duration-seconds", malformed)];
            assert_eq!(video("{}", &headers), 4_500, "{malformed}");
        }
        // The rate of sampling is the model's, not the video's.
        assert_eq!(video("{}", &[("x-llm-d-video-fps", "60")]), 4_500);
    }

    #[test]
    fn modes_are_checked() {
        for yaml in [
            "{image: {mode: Static}}",
            "{video: {frames: {mode: all}}}",
            "{video: {tokensPerFrame: {mode: sampled}}}",
        ] {
            let parameters: EstimateParameters = serde_yaml::from_str(yaml).unwrap();
            let error = parameters.validate("estimate").unwrap_err();
            assert!(error.field.unwrap().ends_with(".mode"), "{yaml}");
        }
        for yaml in ["{audio: {}}", "{image: {factor: 1}}", "{video: {frames: {sampleFPS: 1}}}"] {
            assert!(serde_yaml::from_str::<EstimateParameters>(yaml).is_err(), "{yaml}");
        }
    }
}
