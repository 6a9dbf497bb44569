//! LLaVA 1.5: every image is scaled to one size, so that all take as many tokens.
//!
//! vLLM's `llava.py`, `clip.py` and `siglip.py`: the patches of a square image, with CLIP one more
//! for the class; the strategy `default` leaves the first out. With a vision part of Pixtral's kind
//! images have their own size: see [`Pixtral`].

use super::pixtral::Pixtral;
use super::{Family, Files, small, token};
use crate::media::Picture;
use crate::template::ImageStyle;

/// `image_token_index` where a configuration names none.
const IMAGE: u32 = 32_000;

#[derive(Debug)]
pub(super) struct Llava {
    image: u32,
    count: usize,
}

impl Llava {
    pub(super) fn make(files: &Files<'_>) -> Option<Box<dyn Family>> {
        let vision = &files.config["vision_config"];
        let class = match vision["model_type"].as_str() {
            None | Some("clip_vision_model") => 1,
            Some("siglip_vision_model") => 0,
            Some("pixtral") => return Pixtral::llava(files),
            Some(_) => return None,
        };
        let (size, patch) = (small(&vision["image_size"])?, small(&vision["patch_size"])?);
        // The engine refuses CLIP with a remainder.
        if class == 1 && size % patch != 0 {
            return None;
        }
        let grid = u64::from(size / patch);
        let count = grid * grid + class;
        let strategy = &files.config["vision_feature_select_strategy"];
        let count = match strategy.as_str() {
            None if strategy.is_null() => count.checked_sub(1)?,
            Some("default") => count.checked_sub(1)?,
            Some("full") => count,
            _ => return None,
        };
        let count =
            usize::try_from(count).ok().filter(|count| (1..=super::MOST).contains(count))?;
        Some(Box::new(Self { image: image(files)?, count }))
    }
}

/// The token of an image.
pub(super) fn image(files: &Files<'_>) -> Option<u32> {
    let index = [&files.config["image_token_index"], &files.config["image_token_id"]];
    let index = index.into_iter().find(|index| !index.is_null());
    index.map_or(Some(IMAGE), token)
}

impl Family for Llava {
    fn style(&self) -> ImageStyle<'static> {
        ImageStyle { placeholder: Some("<image>") }
    }

    fn target(&self) -> u32 {
        self.image
    }

    fn append(&self, _: Picture, ids: &mut Vec<u32>) -> Option<()> {
        ids.resize(ids.len() + self.count, self.image);
        Some(())
    }
}
