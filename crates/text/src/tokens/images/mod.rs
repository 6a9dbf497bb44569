//! Images in a chat: the tokens that they take and the digests by which the engine knows them, for
//! models of which both follow from the request and the model's own files.
//!
//! vLLM 0.32 renders a chat with one placeholder token per image, and replaces the first of these by
//! the tokens of the first image, and so on (`multimodal/processing/processor.py`). How many they are
//! is the image processor's business. One file here per family of models whose processor has a
//! closed formula of the image's size; anything else has no family.

mod gemma3;
mod llava;
mod pixtral;
mod qwen;

use std::fmt::Debug;
use std::ops::Range;

use serde_json::Value;

use super::encoder::Encoder;
use crate::MediaRange;
use crate::media::{MediaHasher, Payload, Picture};
use crate::template::{ImagePart, ImageStyle};

/// Tokens of a prompt with images; no model takes more.
const MOST: usize = 1 << 20;

/// How a family is made of a model's files. `None`: they say something that its formula does not
/// cover.
type Make = fn(&Files<'_>) -> Option<Box<dyn Family>>;

/// Families by the architecture that `config.json` names first.
const FAMILIES: [(&str, Make); 8] = [
    ("Gemma3ForConditionalGeneration", gemma3::Gemma3::make),
    ("LlavaForConditionalGeneration", llava::Llava::make),
    ("Mistral3ForConditionalGeneration", pixtral::Pixtral::mistral3),
    ("Qwen2VLForConditionalGeneration", qwen::Qwen::make),
    ("Qwen2_5_VLForConditionalGeneration", qwen::Qwen::make),
    ("Qwen3VLForConditionalGeneration", qwen::Qwen::make),
    ("Qwen3VLMoeForConditionalGeneration", qwen::Qwen::make),
    ("Qwen3_5ForConditionalGeneration", qwen::Qwen::make),
];

/// What an engine was started with, as far as digests of media depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Its `--model`, which every digest covers; the model's own name if there is none.
    pub model: Option<String>,
    /// Its `--mm-hasher-algorithm`.
    pub media_hasher: MediaHasher,
}

/// How the images of one model become tokens.
#[derive(Debug)]
pub(super) struct Images {
    family: Box<dyn Family>,
    model: String,
    hasher: MediaHasher,
}

/// A prompt with its images in it.
pub(super) struct Placed {
    pub(super) ids: Vec<u32>,
    pub(super) media: Vec<MediaRange>,
}

/// The files of a model that decide about images. What is not there is an empty object.
pub(super) struct Files<'a> {
    pub(super) config: &'a Value,
    pub(super) preprocessor: &'a Value,
    pub(super) processor: &'a Value,
    pub(super) tokenizer: &'a Value,
    pub(super) encoder: &'a Encoder,
    /// The files of Mistral's own formats are there, which the engine prefers.
    pub(super) mistral: bool,
}

/// A kind of models whose images are known by their size.
trait Family: Debug + Send + Sync {
    /// What stands for images in templates that are given one text.
    fn style(&self) -> ImageStyle<'static>;

    /// The token of the rendered chat that an image replaces.
    fn target(&self) -> u32;

    /// Appends the tokens of an image. `None` if the engine refuses its size.
    fn append(&self, picture: Picture, ids: &mut Vec<u32>) -> Option<()>;

    /// Last changes to the whole prompt, and to the places of images in it.
    fn finish(&self, ids: Vec<u32>, places: Vec<Range<usize>>) -> Option<Expanded> {
        Some((ids, places))
    }
}

/// A prompt, and the places of its images.
type Expanded = (Vec<u32>, Vec<Range<usize>>);

impl Images {
    /// `None` for models of no known family.
    pub(super) fn new(name: &str, files: &Files<'_>, engine: &Engine) -> Option<Self> {
        let architecture = files.config["architectures"][0].as_str()?;
        let (_, make) = FAMILIES.iter().find(|(known, _)| *known == architecture)?;
        let model = engine.model.clone().unwrap_or_else(|| name.to_owned());
        Some(Self { family: make(files)?, model, hasher: engine.media_hasher })
    }

    pub(super) fn style(&self) -> ImageStyle<'static> {
        self.family.style()
    }

    /// Puts the tokens of images in the places of their placeholders. `None` if an image is not in the
    /// request, of a kind that is not known for certain, or refused by the engine.
    ///
    /// One pass over each image's data for its digest, some gigabytes per second.
    pub(super) fn place(&self, ids: &[u32], parts: &[ImagePart]) -> Option<Placed> {
        let payloads: Option<Vec<_>> =
            parts.iter().map(|part| Payload::of_url(&part.url)).collect();
        let payloads = payloads?;
        let pictures: Option<Vec<_>> = payloads.iter().map(Picture::read).collect();
        let pictures = pictures?;
        let (ids, places) = expand(&*self.family, ids, &pictures)?;
        let shown = parts.iter().zip(&payloads).zip(&pictures).zip(places);
        let media = shown.map(|(((part, payload), picture), place)| {
            let hash = match &part.uuid {
                Some(uuid) if uuid.is_empty() => return None,
                Some(uuid) => uuid.to_string(),
                None => self.hasher.image(payload, !picture.rgb, &self.model),
            };
            let (offset, length) = (place.start as u64, place.len() as u64);
            Some(MediaRange { modality: "image".to_owned(), hash, prompt: 0, offset, length })
        });
        Some(Placed { media: media.collect::<Option<_>>()?, ids })
    }
}

fn expand(family: &dyn Family, ids: &[u32], pictures: &[Picture]) -> Option<Expanded> {
    let mut expanded = Vec::with_capacity(ids.len());
    let mut places = Vec::with_capacity(pictures.len());
    let mut rest = ids;
    for picture in pictures {
        let target = rest.iter().position(|id| *id == family.target())?;
        expanded.extend_from_slice(&rest[..target]);
        rest = &rest[target + 1..];
        let start = expanded.len();
        family.append(*picture, &mut expanded)?;
        places.push(start..expanded.len());
        if expanded.len() > MOST {
            return None;
        }
    }
    expanded.extend_from_slice(rest);
    family.finish(expanded, places)
}

impl Files<'_> {
    /// What the image processor is configured with.
    fn image_processor(&self) -> Option<&Value> {
        let nested = &self.processor["image_processor"];
        [nested, self.preprocessor]
            .into_iter()
            .find(|value| value.as_object().is_some_and(|object| !object.is_empty()))
    }

    /// A special token that the tokenizer's configuration names.
    fn named(&self, name: &str) -> Option<&str> {
        let named = [&self.tokenizer[name], &self.tokenizer["extra_special_tokens"][name]];
        named.into_iter().find_map(|value| value.as_str().or_else(|| value["content"].as_str()))
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.encoder.id(token)
    }
}

/// A positive number of moderate size.
fn small(value: &Value) -> Option<u32> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok())?;
    (1..=1 << 20).contains(&number).then_some(number)
}

/// The same, another one if the member is not there.
fn small_or(value: &Value, default: u32) -> Option<u32> {
    if value.is_null() { Some(default) } else { small(value) }
}

/// An id of a token.
fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token of 9 per pixel in height.
    #[derive(Debug)]
    struct Rows;

    impl Family for Rows {
        fn style(&self) -> ImageStyle<'static> {
            ImageStyle { placeholder: None }
        }

        fn target(&self) -> u32 {
            1
        }

        fn append(&self, picture: Picture, ids: &mut Vec<u32>) -> Option<()> {
            ids.extend((0..picture.height).map(|_| 9));
            Some(())
        }
    }

    fn picture(height: u32) -> Picture {
        Picture { width: 1, height, rgb: true }
    }

    #[test]
    fn images_replace_placeholders_in_order() {
        let (ids, places) =
            expand(&Rows, &[5, 1, 6, 1, 1, 7], &[picture(2), picture(3)]).expect("a prompt");
        assert_eq!(ids, [5, 9, 9, 6, 9, 9, 9, 1, 7]);
        assert_eq!(places, [1..3, 4..7]);
    }

    #[test]
    fn an_image_without_a_placeholder_is_an_error_of_the_engine() {
        assert!(expand(&Rows, &[5, 1], &[picture(2), picture(3)]).is_none());
    }

    #[test]
    fn a_prompt_that_no_model_takes_is_not_made() {
        assert!(expand(&Rows, &[1], &[picture(MOST as u32 + 1)]).is_none());
    }
}
