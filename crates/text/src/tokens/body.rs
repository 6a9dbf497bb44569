//! Reads what decides the tokens out of a body: prompts, token ids, media ranges.
//!
//! Of equal keys the last counts, as in Python; unknown keys are skipped unread.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::PromptError;
use super::prompt::Side;
use crate::MediaRange;

/// The fields of a completion, generate or embedding request.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) prompts: Option<Prompts>,
    pub(super) add_special_tokens: Option<bool>,
    pub(super) truncate: Option<i64>,
    pub(super) side: Option<Side>,
    /// The client's cap on output tokens.
    pub(super) max_tokens: Option<u64>,
    pub(super) media: Vec<MediaRange>,
}

/// A prompt in one of its four forms.
#[derive(Debug, PartialEq)]
pub(super) enum Prompts {
    Ids(Vec<Vec<u32>>),
    Texts(Vec<String>),
}

/// Which keys hold the prompt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) prompt: &'static str,
}

impl Body {
    pub(super) fn read(body: &[u8], keys: Keys) -> Result<Self, PromptError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = keys.deserialize(&mut json).and_then(|read| json.end().map(|()| read));
        read.map_err(|error| PromptError::Body(error.to_string()))
    }
}

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Body;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key.0.as_str() {
                name if name == self.prompt => body.prompts = map.next_value()?,
                "add_special_tokens" => body.add_special_tokens = map.next_value()?,
                "truncate_prompt_tokens" => body.truncate = map.next_value()?,
                "truncation_side" => body.side = map.next_value()?,
                "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                    body.max_tokens = map.next_value()?;
                }
                "features" => {
                    let features: Option<Features> = map.next_value()?;
                    body.media = features.map(Features::ranges).unwrap_or_default();
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(body)
    }
}

/// A key: all that matter are short.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Short;

        impl Visitor<'_> for Short {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(Key(if key.len() <= 32 { key.to_owned() } else { String::new() }))
            }
        }

        deserializer.deserialize_str(Short)
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of texts, a list of token ids, or a list of such lists")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts::Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
                let mixed = || A::Error::custom("expected items of one kind");
                let prompts = match items.next_element()? {
                    None => return Err(A::Error::custom("expected at least one item")),
                    Some(Item::Text(first)) => {
                        let mut texts = vec![first];
                        while let Some(item) = items.next_element()? {
                            let Item::Text(text) = item else { return Err(mixed()) };
                            texts.push(text);
                        }
                        Prompts::Texts(texts)
                    }
                    Some(Item::Id(first)) => {
                        let mut ids = vec![first];
                        while let Some(item) = items.next_element()? {
                            let Item::Id(id) = item else { return Err(mixed()) };
                            ids.push(id);
                        }
                        Prompts::Ids(vec![ids])
                    }
                    Some(Item::Ids(first)) => {
                        let mut lists = vec![first];
                        while let Some(item) = items.next_element()? {
                            let Item::Ids(ids) = item else { return Err(mixed()) };
                            lists.push(ids);
                        }
                        Prompts::Ids(lists)
                    }
                };
                Ok(prompts)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

enum Item {
    Id(u32),
    Ids(Vec<u32>),
    Text(String),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token id or a list of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Item, E> {
                let id = u32::try_from(id);
                id.map(Item::Id).map_err(|_| E::custom("expected a token id of 32 bits"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = items.next_element()? {
                    ids.push(id);
                }
                Ok(Item::Ids(ids))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Hashes and placeholders by modality, as generate requests and render answers carry them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Features {
    #[serde(default)]
    mm_hashes: Option<ByModality<String>>,
    #[serde(default)]
    mm_placeholders: Option<ByModality<Placeholder>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Placeholder {
    offset: u64,
    length: u64,
}

/// Few modalities: a list, searched.
#[derive(Debug)]
struct ByModality<T>(Vec<(String, Vec<Option<T>>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByModality<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Modalities<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Modalities<T> {
            type Value = ByModality<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of lists by modality")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut lists: Vec<(String, Vec<Option<T>>)> = Vec::new();
                while let Some((key, list)) = map.next_entry::<String, Option<_>>()? {
                    lists.retain(|(seen, _)| *seen != key);
                    lists.push((key, list.unwrap_or_default()));
                }
                Ok(ByModality(lists))
            }
        }

        deserializer.deserialize_map(Modalities(std::marker::PhantomData))
    }
}

impl Features {
    /// The items in the order of their places; items without a hash or a place are left out.
    pub(super) fn ranges(self) -> Vec<MediaRange> {
        let places = self.mm_placeholders.map_or_else(Vec::new, |lists| lists.0);
        let mut ranges = Vec::new();
        for (modality, hashes) in self.mm_hashes.map_or_else(Vec::new, |lists| lists.0) {
            let Some((_, places)) = places.iter().find(|(other, _)| *other == modality) else {
                continue;
            };
            for (hash, place) in hashes.into_iter().zip(places) {
                if let (Some(hash), Some(place)) = (hash, place) {
                    let Placeholder { offset, length } = *place;
                    let modality = modality.clone();
                    ranges.push(MediaRange { modality, hash, prompt: 0, offset, length });
                }
            }
        }
        ranges.sort_by_key(|range| range.offset);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Body, PromptError> {
        Body::read(body.as_bytes(), Keys { prompt: "prompt" })
    }

    fn prompts(value: &str) -> Option<Prompts> {
        read(&format!(r#"{{"model":"m","prompt":{value},"n":{{"a":[1]}}}}"#))
            .expect("a body")
            .prompts
    }

    #[test]
    fn a_prompt_has_four_forms() {
        let texts = |texts: &[&str]| {
            Some(Prompts::Texts(texts.iter().map(|text| (*text).to_owned()).collect()))
        };
        assert_eq!(prompts(r#""a\nb""#), texts(&["a\nb"]));
        assert_eq!(prompts(r#"["a","b"]"#), texts(&["a", "b"]));
        assert_eq!(prompts("[1,2]"), Some(Prompts::Ids(vec![vec![1, 2]])));
        assert_eq!(prompts("[[1],[2,3]]"), Some(Prompts::Ids(vec![vec![1], vec![2, 3]])));
        assert_eq!(prompts("null"), None);
    }

    #[test]
    fn what_is_no_prompt_is_refused_with_a_reason() {
        for (value, why) in [
            ("[]", "at least one"),
            ("[1,\"a\"]", "one kind"),
            ("[[\"a\"]]", "invalid type"),
            ("[-1]", "invalid type"),
            ("[1.5]", "invalid type"),
            ("[4294967296]", "32 bits"),
            ("{}", "invalid type"),
            ("7", "invalid type"),
        ] {
            let error = read(&format!(r#"{{"prompt":{value}}}"#)).expect_err(value).to_string();
            assert!(error.contains(why), "{value}: {error}");
        }
        assert!(read("[]").is_err());
        assert!(read("{} x").is_err());
        assert!(read(&format!(r#"{{"x":{}}}"#, "[".repeat(100_000))).is_err());
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let body = read(
            r#"{"prompt":"a","add_special_tokens":true,"add_special_tokens":false,
            "prompt":[5],"truncate_prompt_tokens":-1,"truncation_side":"left","max_tokens":7}"#,
        );
        let body = body.expect("a body");
        assert_eq!(body.prompts, Some(Prompts::Ids(vec![vec![5]])));
        assert_eq!(body.add_special_tokens, Some(false));
        assert_eq!(
            (body.truncate, body.side, body.max_tokens),
            (Some(-1), Some(Side::Left), Some(7))
        );
    }

    #[test]
    fn features_are_ranges_in_order_of_place() {
        let body = read(
            r#"{"features":{"mm_hashes":{"image":["h2","h1",null],"audio":["s"]},
            "mm_placeholders":{"image":[{"offset":9,"length":2},{"offset":1,"length":4},
            {"offset":20,"length":1}],"audio":[{"offset":5,"length":1,"is_embed":null}]}}}"#,
        );
        let range = |modality: &str, hash: &str, offset, length| MediaRange {
            modality: modality.into(),
            hash: hash.into(),
            prompt: 0,
            offset,
            length,
        };
        assert_eq!(
            body.expect("a body").media,
            [range("image", "h1", 1, 4), range("audio", "s", 5, 1), range("image", "h2", 9, 2)]
        );
    }
}
