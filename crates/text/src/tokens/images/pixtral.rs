//! Pixtral in the form of Hugging Face (`LlavaForConditionalGeneration` with a vision part of that
//! kind) and Mistral 3.
//!
//! vLLM's `pixtral.py` (`PixtralHFEncoderInfo`) and `mistral3.py`: an image above the largest side is
//! scaled down with its aspect kept; each begun patch (patch × merge for Mistral 3) is a token
//! `[IMG]`, each row ends with `[IMG_BREAK]`, the last one with `[IMG_END]`.

use super::{Family, Files, llava, small, small_or};
use crate::media::Picture;
use crate::template::ImageStyle;

#[derive(Debug)]
pub(super) struct Pixtral {
    image: u32,
    row_end: u32,
    end: u32,
    largest: u32,
    unit: u32,
    placeholder: Option<&'static str>,
}

impl Pixtral {
    pub(super) fn llava(files: &Files<'_>) -> Option<Box<dyn Family>> {
        let vision = &files.config["vision_config"];
        // Only Mistral 3 merges, but where this is said it counts.
        let merge = small_or(&files.config["spatial_merge_size"], 1)?;
        let largest = small(&vision["image_size"])?;
        Self::make(files, largest, merge, Some("<image>"))
    }

    pub(super) fn mistral3(files: &Files<'_>) -> Option<Box<dyn Family>> {
        let merge = small_or(&files.config["spatial_merge_size"], 2)?;
        let largest = small(&files.image_processor()?["size"]["longest_edge"])?;
        Self::make(files, largest, merge, None)
    }

    fn make(
        files: &Files<'_>,
        largest: u32,
        merge: u32,
        placeholder: Option<&'static str>,
    ) -> Option<Box<dyn Family>> {
        let vision = &files.config["vision_config"];
        if files.mistral || vision["model_type"].as_str() != Some("pixtral") {
            return None;
        }
        let unit = small(&vision["patch_size"])?.checked_mul(merge)?;
        let named = |name: &str, default: &'static str| {
            files.id(files.processor[name].as_str().unwrap_or(default))
        };
        Some(Box::new(Self {
            image: llava::image(files)?,
            row_end: named("image_break_token", "[IMG_BREAK]")?,
            end: named("image_end_token", "[IMG_END]")?,
            largest,
            unit,
            placeholder,
        }))
    }

    /// Columns and rows of tokens.
    fn grid(&self, picture: Picture) -> Option<(u32, u32)> {
        let (mut width, mut height) = (picture.width, picture.height);
        let largest = f64::from(self.largest);
        let ratio = (f64::from(width) / largest).max(f64::from(height) / largest);
        if ratio > 1.0 {
            width = (f64::from(width) / ratio).floor() as u32;
            height = (f64::from(height) / ratio).floor() as u32;
        }
        // A side of nothing has no patches; the engine fails.
        let count = |side: u32| side.checked_sub(1).map(|side| side / self.unit + 1);
        Some((count(width)?, count(height)?))
    }
}

impl Family for Pixtral {
    fn style(&self) -> ImageStyle<'static> {
        ImageStyle { placeholder: self.placeholder }
    }

    fn target(&self) -> u32 {
        self.image
    }

    fn append(&self, picture: Picture, ids: &mut Vec<u32>) -> Option<()> {
        let (columns, rows) = self.grid(picture)?;
        if (u64::from(columns) + 1) * u64::from(rows) > super::MOST as u64 {
            return None;
        }
        for row in 1..=rows {
            ids.resize(ids.len() + columns as usize, self.image);
            ids.push(if row == rows { self.end } else { self.row_end });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_with_a_mark_and_the_last_with_another() {
        let (image, row_end, end) = (1, 2, 3);
        let pixtral = Pixtral { image, row_end, end, largest: 64, unit: 16, placeholder: None };
        let tokens = |width, height| {
            let mut ids = Vec::new();
            pixtral.append(Picture { width, height, rgb: true }, &mut ids)?;
            Some(ids)
        };
        assert_eq!(tokens(17, 16), Some(vec![1, 1, 3]));
        assert_eq!(tokens(33, 48), Some(vec![1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 3]));
        assert_eq!(tokens(640, 160), Some(vec![1, 1, 1, 1, 3]));
        assert_eq!(tokens(6400, 10), None);
    }
}
