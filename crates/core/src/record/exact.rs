//! Numbers as they are: JSON has no infinities and no NaN, so these are written as words.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Exact {
    Number(f64),
    Word(String),
}

fn encode(value: f64) -> Exact {
    if value.is_finite() { Exact::Number(value) } else { Exact::Word(value.to_string()) }
}

/// `inf`, `-inf`, `NaN`, and nothing else: numbers are not written as text.
fn decode(exact: Exact) -> Option<f64> {
    match exact {
        Exact::Number(value) => Some(value),
        Exact::Word(word) => word.parse().ok().filter(|value: &f64| !value.is_finite()),
    }
}

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    encode(*value).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let exact = Exact::deserialize(deserializer)?;
    decode(exact).ok_or_else(|| serde::de::Error::custom("expected a number, inf, -inf or NaN"))
}

/// The same for lists.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Exact, Serializer, decode, encode};

    pub(crate) fn serialize<S: Serializer>(list: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|value| encode(*value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f64>, D::Error> {
        let list = Vec::<Exact>::deserialize(deserializer)?;
        list.into_iter()
            .map(decode)
            .collect::<Option<_>>()
            .ok_or_else(|| serde::de::Error::custom("expected a list of numbers, inf, -inf or NaN"))
    }
}
