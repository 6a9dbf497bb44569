//! The text of a configuration: its value, and where in the text each field stands.
//!
//! The value comes from `serde_yaml` (or `serde_json`, when the text is JSON); positions from a
//! second pass over the YAML events, which is made only when an error needs them. Where the two
//! see a text differently the position is that of the nearest field around it, never a failure.

use saphyr_parser::{Event, Marker, Parser};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::error::{ConfigError, Fault, Location};
use super::hint;

/// Larger documents are refused. Kubernetes keeps objects below 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// A configuration text.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    /// The document of the text that paths are about.
    document: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, document: 0 }
    }

    /// The same text, with paths about one of its documents.
    pub(crate) fn document(&self, document: usize) -> Self {
        Self { document, ..*self }
    }

    /// Reads the text as YAML or JSON: its documents that are not empty, with their indices; the
    /// first one where all are.
    pub(crate) fn values(&self) -> Result<Vec<(usize, Value)>, ConfigError> {
        if self.text.len() > MAX_BYTES {
            return Err(self.decode_error(None, &format!("longer than {MAX_BYTES} bytes")));
        }
        // JSON is YAML but for some string escapes, so JSON is tried where a text looks like it.
        if self.text.trim_start().starts_with('{')
            && let Ok(value) = serde_json::from_str(self.text)
        {
            return Ok(vec![(0, value)]);
        }
        let mut values = Vec::new();
        for (index, document) in serde_yaml::Deserializer::from_str(self.text).enumerate() {
            let value = Value::deserialize(document).map_err(|error| {
                let location = error.location();
                let location = location.map(|l| Location { line: l.line(), column: l.column() });
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or(&text);
                self.decode_error(location, text)
            })?;
            if !value.is_null() {
                values.push((index, value));
            }
        }
        if values.is_empty() {
            values.push((0, Value::Null));
        }
        Ok(values)
    }

    fn decode_error(&self, location: Option<Location>, text: &str) -> ConfigError {
        ConfigError {
            source_name: self.name.to_owned(),
            location,
            path: String::new(),
            message: format!("failed to decode configuration: {text}"),
            hint: None,
        }
    }

    /// Finds the place of a fault.
    pub(crate) fn locate(&self, fault: Fault) -> ConfigError {
        let location = Spot::of(self.text, self.document).map(|root| root.find(&fault.path));
        let Fault { path, message, hint } = fault;
        ConfigError { source_name: self.name.to_owned(), location, path, message, hint }
    }
}

/// Decodes a value; a misfit is a fault with the path of the field, below `path`.
pub(crate) fn decode<T: DeserializeOwned>(value: Value, path: &str) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let below = error.path().to_string();
        let message = error.into_inner().to_string();
        let below = if below == "." { "" } else { below.as_str() };
        let dot =
            if path.is_empty() || below.is_empty() || below.starts_with('[') { "" } else { "." };
        let hint = hint::for_unknown_field(&message);
        Fault::at(format!("{path}{dot}{below}"), message).hint(hint)
    })
}

/// A node of the document and where it begins.
struct Spot {
    at: Location,
    shape: Shape,
}

enum Shape {
    Leaf,
    List(Vec<Spot>),
    /// Key, and the value with the position of the key.
    Map(Vec<(String, Spot)>),
}

/// A collection whose end has not been seen, and the key it waits to give a value.
struct Open {
    spot: Spot,
    key: Option<(String, Location)>,
}

fn location(mark: &Marker) -> Location {
    Location { line: mark.line(), column: mark.col() + 1 }
}

impl Spot {
    /// The positions of one document of a text that was already found to be well-formed and not
    /// too deep.
    fn of(text: &str, document: usize) -> Option<Self> {
        let mut open: Vec<Open> = Vec::new();
        let mut ended = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.ok()?;
            let at = location(&span.start);
            let (shape, scalar) = match event {
                Event::MappingStart(..) => {
                    open.push(Open { spot: Spot { at, shape: Shape::Map(Vec::new()) }, key: None });
                    continue;
                }
                Event::SequenceStart(..) => {
                    open.push(Open {
                        spot: Spot { at, shape: Shape::List(Vec::new()) },
                        key: None,
                    });
                    continue;
                }
                Event::Scalar(text, ..) => (Shape::Leaf, Some(text.into_owned())),
                Event::Alias(_) => (Shape::Leaf, None),
                Event::MappingEnd | Event::SequenceEnd => {
                    let Spot { at, shape } = open.pop()?.spot;
                    match open.last_mut() {
                        Some(parent) => parent.put(Spot { at, shape }, None),
                        None if ended == document => return Some(Spot { at, shape }),
                        None => ended += 1,
                    }
                    continue;
                }
                _ => continue,
            };
            match open.last_mut() {
                Some(parent) => parent.put(Spot { at, shape }, scalar),
                None if ended == document => return Some(Spot { at, shape }),
                None => ended += 1,
            }
        }
        None
    }

    /// Where the field at `path` stands, or the nearest field around it.
    fn find(&self, path: &str) -> Location {
        let path = path.strip_prefix('.').unwrap_or(path);
        let next = match &self.shape {
            Shape::Leaf => None,
            Shape::List(items) => path.strip_prefix('[').and_then(|rest| {
                let (index, rest) = rest.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest))
            }),
            Shape::Map(entries) => entries
                .iter()
                .filter_map(|(key, value)| {
                    let rest = path.strip_prefix(key.as_str())?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some((value, rest))
                })
                .min_by_key(|(_, rest)| rest.len()),
        };
        next.map_or(self.at, |(spot, rest)| spot.find(rest))
    }
}

impl Open {
    fn put(&mut self, value: Spot, scalar: Option<String>) {
        match &mut self.spot.shape {
            Shape::Leaf => {}
            Shape::List(items) => items.push(value),
            Shape::Map(entries) => match self.key.take() {
                None => self.key = Some((scalar.unwrap_or_default(), value.at)),
                Some((key, at)) => entries.push((key, Spot { at, shape: value.shape })),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
a: 1
list:
- x: {y: 2}
- &anchor
  x.z: 3
  x: 4
last: *anchor
";

    fn value(text: &str) -> Result<Value, ConfigError> {
        Ok(Source::new("c.yaml", text).values()?.remove(0).1)
    }

    fn find(path: &str) -> (usize, usize) {
        let at = Spot::of(TEXT, 0).unwrap().find(path);
        (at.line, at.column)
    }

    #[test]
    fn positions_are_those_of_keys_and_items() {
        assert_eq!(find("a"), (1, 1));
        assert_eq!(find("list"), (2, 1));
        assert_eq!(find("list[0].x.y"), (3, 7));
        assert_eq!(find("list[1].x"), (6, 3));
        assert_eq!(find("list[1].x.z"), (5, 3));
        assert_eq!(find("last.x"), (7, 1));
        assert_eq!(find("list[7]"), (2, 1));
    }

    #[test]
    fn json_and_yaml_are_read_and_duplicates_are_refused() {
        let json = value("{\"a\": \"\\ud83d\\ude00\"}").unwrap();
        assert_eq!(json["a"].as_str(), Some("😀"));
        assert_eq!(value("{a: 1}").unwrap()["a"].as_u64(), Some(1));
        for text in ["a: 1\na: 2\n", "{\"a\": 1, \"a\": 2}"] {
            let error = value(text).unwrap_err().to_string();
            assert!(error.contains("duplicate"), "{error}");
        }
        let error = value("a: [1\nb: 2").unwrap_err();
        assert!(error.location.is_some(), "{error}");
        assert!(error.to_string().starts_with("c.yaml:"), "{error}");
    }

    #[test]
    fn hostile_texts_end_in_errors() {
        let deep = "[".repeat(100_000);
        assert!(value(&deep).is_err());
        let mut laughs = "a0: &a0 [x]\n".to_owned();
        for i in 1..30 {
            let refs = format!("*a{0}, ", i - 1).repeat(9);
            laughs += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(value(&laughs).is_err());
        assert!(value(&" ".repeat(MAX_BYTES + 1)).is_err());
    }
}
