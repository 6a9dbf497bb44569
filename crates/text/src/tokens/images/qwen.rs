//! Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5.
//!
//! `smart_resize` of transformers' `image_processing_qwen2_vl.py`: both sides become multiples of
//! patch × merge pixels, as near as possible, and the area is brought between two bounds with the
//! aspect kept. A square of merge × merge patches is one token `<|image_pad|>`; the marks around
//! them are the template's.

use serde_json::Value;

use super::{Family, Files, small_or};
use crate::media::Picture;
use crate::template::ImageStyle;

/// The processor's defaults, and its kinds.
const SHORTEST: u64 = 56 * 56;
const LONGEST: u64 = 28 * 28 * 1280;
const PATCH: u32 = 14;
const MERGE: u32 = 2;
const PROCESSORS: [&str; 3] =
    ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2_5_VLImageProcessor"];

/// Sides whose ratio is above this are refused.
const RATIO: f64 = 200.0;

#[derive(Debug)]
pub(super) struct Qwen {
    pad: u32,
    patch: u32,
    merge: u32,
    least: u64,
    most: u64,
}

impl Qwen {
    pub(super) fn make(files: &Files<'_>) -> Option<Box<dyn Family>> {
        let processor = files.image_processor()?;
        let kind = &processor["image_processor_type"];
        let known = kind.is_null() || kind.as_str().is_some_and(|kind| PROCESSORS.contains(&kind));
        if !known || processor["do_resize"] == false {
            return None;
        }
        let size = &processor["size"];
        let edge = |pixels: &str, edge: &str, default: u64| match &processor[pixels] {
            Value::Null if size.is_null() => Some(default),
            Value::Null => size[edge].as_u64(),
            pixels => pixels.as_u64(),
        };
        let least = edge("min_pixels", "shortest_edge", SHORTEST)?;
        let most = edge("max_pixels", "longest_edge", LONGEST)?;
        let pad = files.id(files.named("image_token").unwrap_or("<|image_pad|>"))?;
        let patch = small_or(&processor["patch_size"], PATCH)?;
        let merge = small_or(&processor["merge_size"], MERGE)?;
        // The engine refuses bounds of zero.
        (least > 0 && most > 0).then(|| Box::new(Self { pad, patch, merge, least, most }) as _)
    }

    /// Height and width after resizing, in pixels.
    fn resized(&self, picture: Picture) -> Option<(u64, u64)> {
        let (height, width) = (f64::from(picture.height), f64::from(picture.width));
        if height.max(width) / height.min(width) > RATIO {
            return None;
        }
        let factor = f64::from(self.patch) * f64::from(self.merge);
        let (least, most) = (self.least as f64, self.most as f64);
        let mut high = (height / factor).round_ties_even() * factor;
        let mut wide = (width / factor).round_ties_even() * factor;
        if high * wide > most {
            let shrink = (height * width / most).sqrt();
            high = factor.max((height / shrink / factor).floor() * factor);
            wide = factor.max((width / shrink / factor).floor() * factor);
        } else if high * wide < least {
            let grow = (least / (height * width)).sqrt();
            high = (height * grow / factor).ceil() * factor;
            wide = (width * grow / factor).ceil() * factor;
        }
        Some((high as u64, wide as u64))
    }
}

impl Family for Qwen {
    fn style(&self) -> ImageStyle<'static> {
        ImageStyle { placeholder: Some("<|vision_start|><|image_pad|><|vision_end|>") }
    }

    fn target(&self) -> u32 {
        self.pad
    }

    fn append(&self, picture: Picture, ids: &mut Vec<u32>) -> Option<()> {
        let (high, wide) = self.resized(picture)?;
        let unit = u64::from(self.patch) * u64::from(self.merge);
        let count = usize::try_from((high / unit) * (wide / unit)).ok()?;
        if count > super::MOST {
            return None;
        }
        ids.resize(ids.len() + count, self.pad);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(width: u32, height: u32) -> Option<usize> {
        let qwen = Qwen { pad: 7, patch: 14, merge: 2, least: 3136, most: 1_003_520 };
        let mut ids = Vec::new();
        qwen.append(Picture { width, height, rgb: true }, &mut ids)?;
        Some(ids.len())
    }

    #[test]
    fn sides_are_rounded_and_the_area_is_bounded() {
        // 644 x 476 pixels are 23 x 17 units.
        assert_eq!(tokens(640, 480), Some(23 * 17));
        // Half of a unit goes to the even neighbour.
        assert_eq!(tokens(14 * 27, 14 * 29), Some(14 * 14));
        assert_eq!(tokens(1, 1), Some(4));
        assert_eq!(tokens(4000, 4000), Some(35 * 35));
        assert_eq!(tokens(2001, 10), None);
    }
}
