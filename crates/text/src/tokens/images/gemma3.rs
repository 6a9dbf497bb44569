//! Gemma 3 without pan and scan: every image is scaled to one size.
//!
//! vLLM's `gemma3_mm.py`: `<start_of_image>` becomes two line feeds, itself, as many soft tokens as
//! the processor says, `<end_of_image>` and two line feeds. Line feeds that meet others then join to
//! the longer tokens that the vocabulary has for three and four of them.

use std::ops::Range;

use super::{Expanded, Family, Files, small_or};
use crate::media::Picture;
use crate::template::ImageStyle;

/// `image_seq_length` where the processor names none.
const SOFT_TOKENS: u32 = 256;

#[derive(Debug)]
pub(super) struct Gemma3 {
    start: u32,
    image: Vec<u32>,
    /// Tokens of one to four line feeds.
    lines: [u32; 4],
}

impl Gemma3 {
    pub(super) fn make(files: &Files<'_>) -> Option<Box<dyn Family>> {
        let scan = &files.image_processor()?["do_pan_and_scan"];
        if !scan.is_null() && scan != false {
            return None;
        }
        let count = small_or(&files.processor["image_seq_length"], SOFT_TOKENS)?;
        let (start, end) = (files.named("boi_token")?, files.named("eoi_token")?);
        let soft = files.named("image_token")?.repeat(usize::try_from(count).ok()?);
        let image = files.encoder.plain(&format!("\n\n{start}{soft}{end}\n\n")).ok()?;
        let lines = [1, 2, 3, 4].map(|count| files.id(&"\n".repeat(count)));
        let [Some(one), Some(two), Some(three), Some(four)] = lines else { return None };
        let start = files.id(start)?;
        Some(Box::new(Self { start, image, lines: [one, two, three, four] }))
    }

    /// The token as it was before line feeds were joined.
    fn apart(&self, id: u32) -> (u32, Option<u32>) {
        let [one, two, three, four] = self.lines;
        match id {
            id if id == three => (one, Some(two)),
            id if id == four => (two, Some(two)),
            id => (id, None),
        }
    }
}

impl Family for Gemma3 {
    fn style(&self) -> ImageStyle<'static> {
        ImageStyle { placeholder: Some("<start_of_image>") }
    }

    fn target(&self) -> u32 {
        self.start
    }

    fn append(&self, _: Picture, ids: &mut Vec<u32>) -> Option<()> {
        ids.extend_from_slice(&self.image);
        Some(())
    }

    /// Joins line feeds as the engine does, and looks for the images again as it does: one whose
    /// line feeds were joined the other way round is not found, and the request refused.
    fn finish(&self, ids: Vec<u32>, places: Vec<Range<usize>>) -> Option<Expanded> {
        let [one, two, three, four] = self.lines;
        let ids = joined(ids, [one, two], three);
        let ids = joined(ids, [two, one], three);
        let ids = joined(ids, [two, two], four);
        let mut apart = Vec::with_capacity(ids.len());
        let mut origins = Vec::with_capacity(ids.len());
        for (origin, id) in ids.iter().enumerate() {
            let (first, second) = self.apart(*id);
            apart.push(first);
            apart.extend(second);
            origins.resize(apart.len(), origin);
        }
        let mut found = Vec::with_capacity(places.len());
        let mut at = 0;
        while found.len() < places.len() {
            let rest = apart.get(at..)?;
            let place = at + position_of(rest, &self.image)?;
            let start = *origins.get(place)?;
            // The engine keeps the length that it was before.
            found.push(start..start + self.image.len());
            at = place + self.image.len();
        }
        Some((ids, found))
    }
}

/// The first place of `sought`.
fn position_of(ids: &[u32], sought: &[u32]) -> Option<usize> {
    ids.windows(sought.len()).position(|window| window == sought)
}

/// Pairs become one token, from the left.
fn joined(ids: Vec<u32>, pair: [u32; 2], with: u32) -> Vec<u32> {
    if !ids.windows(2).any(|window| window == pair) {
        return ids;
    }
    let mut joined = Vec::with_capacity(ids.len());
    let mut rest = &ids[..];
    while let [first, after @ ..] = rest {
        rest = match after {
            [second, behind @ ..] if [*first, *second] == pair => {
                joined.push(with);
                behind
            }
            _ => {
                joined.push(*first);
                after
            }
        };
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::super::expand;
    use super::*;

    fn placed(ids: &[u32]) -> Option<Expanded> {
        // Line feeds are 1 to 4, an image is 2 50 60 51 2.
        let gemma = Gemma3 { start: 50, image: vec![2, 50, 60, 51, 2], lines: [1, 2, 3, 4] };
        let picture = Picture { width: 9, height: 9, rgb: true };
        let count = ids.iter().filter(|id| **id == 50).count();
        expand(&gemma, ids, &vec![picture; count])
    }

    #[test]
    fn line_feeds_around_an_image_are_joined() {
        let (ids, places) = placed(&[7, 50, 8]).expect("a prompt");
        assert_eq!(ids, [7, 2, 50, 60, 51, 2, 8]);
        assert_eq!((places.len(), &places[0]), (1, &(1..6)));
        let (ids, places) = placed(&[7, 1, 50, 8]).expect("a prompt");
        assert_eq!(ids, [7, 3, 50, 60, 51, 2, 8]);
        assert_eq!(places[0], 1..6);
        let (ids, places) = placed(&[50, 50]).expect("a prompt");
        assert_eq!(ids, [2, 50, 60, 51, 4, 50, 60, 51, 2]);
        assert_eq!(places, [0..5, 4..9]);
    }

    #[test]
    fn an_image_that_the_engine_does_not_find_again_is_none() {
        assert_eq!(placed(&[7, 50, 1]), None);
    }
}
