//! `features` of a generate request: what the engine calls its media, and where they stand.
//!
//! Two objects of lists by modality, `mm_hashes` and `mm_placeholders`, which belong together item by
//! item. Everything else in them, such as the data itself, is passed over. Of equal keys the last
//! counts: each list has a number of its own, and a modality knows the number of its last one.

use super::Limits;
use super::slot::Slot;
use crate::error::{Bounded, RequestError, ScanError};
use crate::json::{KeyBuffer, Kind, Number};

/// Modalities that are told apart; engines know three. Media of further ones are left out.
const MODALITIES: usize = 8;

/// What an item counts for beside its own bytes.
const ITEM_BYTES: usize = 64;

/// An image, a video or a sound in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange {
    /// `image`, `video` or `audio`.
    pub modality: String,
    /// The engine's digest of the content.
    pub hash: String,
    /// Index of its prompt.
    pub prompt: u32,
    /// Position of its first placeholder token.
    pub offset: u64,
    /// Number of placeholder tokens.
    pub length: u64,
}

/// Lists of one modality, by number; 0 is none.
#[derive(Clone, Debug)]
struct Modality {
    name: String,
    hashes: u32,
    places: u32,
}

/// A hash, empty if there is none.
#[derive(Clone, Debug)]
struct Hash {
    list: u32,
    text: String,
}

/// Where an item stands.
#[derive(Clone, Debug)]
struct Place {
    list: u32,
    offset: Option<u64>,
    length: Option<u64>,
}

/// The state of `features`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Features {
    modalities: Vec<Modality>,
    hashes: Vec<Hash>,
    places: Vec<Place>,
    /// Lists begun so far.
    lists: u32,
    /// The modality of the present list.
    current: Option<usize>,
    bytes: usize,
    invalid: bool,
}

impl Features {
    pub(crate) fn reset(&mut self) {
        self.modalities.clear();
        self.hashes.clear();
        self.places.clear();
        (self.lists, self.current, self.bytes, self.invalid) = (0, None, 0, false);
    }

    pub(crate) fn verdict(&self) -> Result<(), RequestError> {
        if self.invalid { Err(RequestError::Features) } else { Ok(()) }
    }

    /// The next value stands under `key`.
    pub(crate) fn key(&mut self, slot: Slot, key: &[u8]) {
        if !matches!(slot, Slot::MediaHashList | Slot::MediaPlaceList) {
            return;
        }
        let known = self.modalities.iter().position(|modality| modality.name.as_bytes() == key);
        self.current = match (known, std::str::from_utf8(key)) {
            (Some(known), _) => Some(known),
            // Of keys longer than any that matters not all pieces are known.
            (None, Ok(name))
                if (1..=KeyBuffer::MOST).contains(&name.len())
                    && self.modalities.len() < MODALITIES =>
            {
                self.modalities.push(Modality { name: name.to_owned(), hashes: 0, places: 0 });
                Some(self.modalities.len() - 1)
            }
            _ => None,
        };
    }

    pub(crate) fn open(
        &mut self,
        slot: Slot,
        kind: Kind,
        limits: &Limits,
    ) -> Result<(), ScanError> {
        let wanted = match slot {
            Slot::Features | Slot::MediaHashes | Slot::MediaPlaces | Slot::MediaPlace => {
                Kind::Object
            }
            Slot::MediaHashList | Slot::MediaPlaceList => Kind::Array,
            Slot::MediaHash => Kind::String,
            _ => Kind::Number,
        };
        match slot {
            Slot::Features => self.reset(),
            Slot::MediaHashes => self.modalities.iter_mut().for_each(|m| m.hashes = 0),
            Slot::MediaPlaces => self.modalities.iter_mut().for_each(|m| m.places = 0),
            Slot::MediaHashList | Slot::MediaPlaceList => self.begin(slot),
            Slot::MediaHash => {
                self.hold(ITEM_BYTES, limits)?;
                self.hashes.push(Hash { list: self.lists, text: String::new() });
            }
            Slot::MediaPlace => {
                self.hold(ITEM_BYTES, limits)?;
                self.places.push(Place { list: self.lists, offset: None, length: None });
            }
            Slot::MediaLength | Slot::MediaOffset => self.set(slot, None),
            _ => {}
        }
        self.invalid |= kind != wanted && kind != Kind::Null;
        Ok(())
    }

    /// A list of the present modality replaces what that had.
    fn begin(&mut self, slot: Slot) {
        self.lists += 1;
        let modality = self.current.and_then(|current| self.modalities.get_mut(current));
        match (modality, slot) {
            (Some(modality), Slot::MediaHashList) => modality.hashes = self.lists,
            (Some(modality), _) => modality.places = self.lists,
            (None, _) => {}
        }
    }

    /// More text of a hash.
    pub(crate) fn text(&mut self, piece: &[u8], limits: &Limits) -> Result<(), ScanError> {
        self.hold(piece.len(), limits)?;
        if let Some(hash) = self.hashes.last_mut() {
            // Pieces are whole characters: nothing is ever dropped here.
            hash.text.push_str(std::str::from_utf8(piece).unwrap_or_default());
        }
        Ok(())
    }

    pub(crate) fn number(&mut self, slot: Slot, number: Number) {
        let value = match number {
            Number::Unsigned(value) => Some(value),
            _ => None,
        };
        self.invalid |= value.is_none();
        self.set(slot, value);
    }

    fn set(&mut self, slot: Slot, value: Option<u64>) {
        if let Some(place) = self.places.last_mut() {
            match slot {
                Slot::MediaOffset => place.offset = value,
                _ => place.length = value,
            }
        }
    }

    pub(crate) fn close(&mut self, slot: Slot) {
        if matches!(slot, Slot::MediaHashList | Slot::MediaPlaceList) {
            self.current = None;
        }
    }

    fn hold(&mut self, bytes: usize, limits: &Limits) -> Result<(), ScanError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let limit = limits.features_bytes;
        if self.bytes > limit {
            return Err(ScanError::TooLarge { what: Bounded::Features, limit });
        }
        Ok(())
    }

    /// Items that have both, in the order of their places.
    pub(crate) fn ranges(&self) -> Vec<MediaRange> {
        let mut ranges = Vec::new();
        for modality in self.modalities.iter().filter(|m| m.hashes > 0 && m.places > 0) {
            let hashes = self.hashes.iter().filter(|hash| hash.list == modality.hashes);
            let places = self.places.iter().filter(|place| place.list == modality.places);
            let items = hashes.zip(places).filter(|(hash, _)| !hash.text.is_empty());
            ranges.extend(items.filter_map(|(hash, place)| {
                Some(MediaRange {
                    modality: modality.name.clone(),
                    hash: hash.text.clone(),
                    prompt: 0,
                    offset: place.offset?,
                    length: place.length?,
                })
            }));
        }
        ranges.sort_by_key(|range| range.offset);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Api, Scanner};

    /// What every split of a body says of its media.
    fn ranges(features: &str) -> Result<Vec<MediaRange>, ScanError> {
        let body = format!(r#"{{"token_ids":[1,2,3],"features":{features},"model":"m"}}"#);
        let scan = |at: usize| {
            let mut scanner = Scanner::new(Api::Generate, Limits::default(), ());
            let (head, tail) = body.as_bytes().split_at(at);
            scanner.feed(head)?;
            scanner.feed(tail)?;
            scanner.finish()?;
            Ok(scanner.features())
        };
        let whole = scan(body.len());
        for at in 0..body.len() {
            assert_eq!(scan(at), whole, "split at {at}");
        }
        whole
    }

    fn range(modality: &str, hash: &str, offset: u64, length: u64) -> MediaRange {
        let (modality, hash) = (modality.to_owned(), hash.to_owned());
        MediaRange { modality, hash, prompt: 0, offset, length }
    }

    #[test]
    fn items_are_ranges_in_order_of_place() {
        let features = r#"{"mm_hashes":{"image":["h\u0032","h1",null],"audio":["s"]},
            "kwargs_data":{"image":["AAAA",{"mm_hashes":{"image":["x"]}}]},
            "mm_placeholders":{"image":[{"offset":9,"length":2},{"length":4,"offset":1},
            {"offset":20,"length":1}],"audio":[{"offset":5,"length":1,"is_embed":[true]}]}}"#;
        let want =
            [range("image", "h1", 1, 4), range("audio", "s", 5, 1), range("image", "h2", 9, 2)];
        assert_eq!(ranges(features), Ok(want.to_vec()));
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let features = r#"{"mm_hashes":{"image":["a","b"],"image":["c"]},
            "mm_placeholders":{"image":[{"offset":1,"length":1}]},
            "mm_placeholders":{"image":[{"offset":2,"length":3,"offset":4}]}}"#;
        assert_eq!(ranges(features), Ok(vec![range("image", "c", 4, 3)]));
        for gone in ["null", "{}", r#"{"image":null}"#, r#"{"image":[]}"#] {
            let features = format!(
                r#"{{"mm_hashes":{{"image":["a"]}},"mm_hashes":{gone},
                "mm_placeholders":{{"image":[{{"offset":1,"length":1}}]}}}}"#
            );
            assert_eq!(ranges(&features), Ok(Vec::new()), "{gone}");
        }
    }

    #[test]
    fn what_has_no_partner_is_left_out() {
        for features in [
            "null",
            "{}",
            r#"{"mm_hashes":{"image":["a"]}}"#,
            r#"{"mm_hashes":{"image":["a"]},"mm_placeholders":{"video":[{"offset":1,"length":1}]}}"#,
            r#"{"mm_hashes":{"image":["a"]},"mm_placeholders":{"image":[{"offset":1}]}}"#,
            r#"{"mm_hashes":{"a name that no modality will ever have":["a"]},"mm_placeholders":
                {"a name that no modality will ever have":[{"offset":1,"length":1}]}}"#,
        ] {
            assert_eq!(ranges(features), Ok(Vec::new()), "{features}");
        }
    }

    #[test]
    fn another_form_is_refused() {
        for features in [
            "[]",
            "1",
            r#"{"mm_hashes":[]}"#,
            r#"{"mm_hashes":{"image":"a"}}"#,
            r#"{"mm_hashes":{"image":[1]}}"#,
            r#"{"mm_placeholders":{"image":[[1,2]]}}"#,
            r#"{"mm_placeholders":{"image":[{"offset":-1,"length":1}]}}"#,
            r#"{"mm_placeholders":{"image":[{"offset":"1","length":1}]}}"#,
        ] {
            assert_eq!(ranges(features), Err(RequestError::Features.into()), "{features}");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let many = format!(r#"{{"mm_hashes":{{"image":[{}""]}}}}"#, r#""","#.repeat(20_000));
        let body = format!(r#"{{"token_ids":[1],"features":{many}}}"#);
        let mut scanner = Scanner::new(Api::Generate, Limits::default(), ());
        let limit = Limits::default().features_bytes;
        let error = ScanError::TooLarge { what: Bounded::Features, limit };
        assert_eq!(scanner.feed(body.as_bytes()), Err(error));
        let mut features = Features::default();
        for modality in 0..5_000 {
            features.key(Slot::MediaHashList, format!("m{modality}").as_bytes());
            assert_eq!(features.open(Slot::MediaHashList, Kind::Array, &Limits::default()), Ok(()));
        }
        assert_eq!(features.modalities.len(), MODALITIES);
    }
}
