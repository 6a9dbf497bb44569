//! How an index lies in a server: the Go scheduler's layout, so that both can share one.
//!
//! A request key is a hash whose name is the key in decimal. Each of its fields is an [`Entry`] in
//! JSON, with an empty value. An engine hash is a sorted set `engine:HASH` of the request keys that
//! it stands for, in decimal, by their order. Nothing expires.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Longest field that is read: what is longer names no pod.
const LONGEST: usize = 1_024;

/// Somebody holds a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Entry<'a> {
    /// `ADDRESS:PORT`.
    #[serde(borrow)]
    pub(super) pod_identifier: Cow<'a, str>,
    /// In lower case.
    #[serde(borrow)]
    pub(super) device_tier: Cow<'a, str>,
    /// Expected there for a moment, by whoever sent a request.
    pub(super) speculative: bool,
    pub(super) has_group: bool,
    pub(super) group_idx: i64,
}

impl<'a> Entry<'a> {
    /// What this control plane writes: it tells no groups apart.
    pub(super) fn new(pod: &'a str, tier: &'a str) -> Self {
        Self { pod_identifier: pod.into(), device_tier: tier.into(), ..Self::default() }
    }

    /// Reads a field.
    pub(super) fn read(field: &'a [u8]) -> Option<Self> {
        if field.len() > LONGEST {
            return None;
        }
        serde_json::from_slice(field).ok()
    }

    /// Whether it says what [`new`](Self::new) makes.
    pub(super) fn is_plain(&self) -> bool {
        !self.speculative && !self.has_group && self.group_idx == 0
    }

    /// The tier, where none is said the GPU's.
    pub(super) fn tier(&self) -> &str {
        if self.device_tier.is_empty() { "gpu" } else { &self.device_tier }
    }

    /// The field, byte for byte as Go encodes it.
    pub(super) fn field(&self) -> String {
        // Strings, booleans and a number: there is nothing that JSON could not express.
        let json = serde_json::to_string(self).unwrap_or_default();
        if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            return json;
        }
        let mut out = String::with_capacity(json.len() + 16);
        for char in json.chars() {
            match char {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    out.push_str(&format!("\\u{:04x}", u32::from(char)));
                }
                _ => out.push(char),
            }
        }
        out
    }
}

/// The name of an engine hash.
pub(super) fn engine_name(engine: u64) -> String {
    format!("engine:{engine}")
}

/// A name if it is that of an engine hash.
pub(super) fn is_engine_name(name: &[u8]) -> Option<&str> {
    key_of(name.strip_prefix(b"engine:")?)?;
    std::str::from_utf8(name).ok()
}

/// The request key that a name stands for.
pub(super) fn key_of(name: &[u8]) -> Option<u64> {
    let is_number =
        name.iter().all(u8::is_ascii_digit) && (name.len() == 1 || name.first() != Some(&b'0'));
    if !is_number {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_as_go_encodes_them() {
        assert_eq!(
            Entry::new("10.0.0.1:8000", "gpu").field(),
            r#"{"PodIdentifier":"10.0.0.1:8000","DeviceTier":"gpu","Speculative":false,"HasGroup":false,"GroupIdx":0}"#
        );
        assert!(Entry::new("p", "<a&b>").field().contains(r#""\u003ca\u0026b\u003e""#));
    }

    #[test]
    fn fields_are_read_whatever_they_leave_out_or_add() {
        let read = |text: &str| Entry::read(text.as_bytes()).map(|entry| entry.field());
        let own = Entry::new("p", "cpu").field();
        assert_eq!(read(&own), Some(own.clone()));
        assert!(Entry::read(own.as_bytes()).unwrap().is_plain());
        let text = r#"{"New":[1],"PodIdentifier":"\u0070","DeviceTier":"cpu"}"#;
        assert_eq!(read(text), Some(own));
        let grouped = br#"{"PodIdentifier":"p","DeviceTier":"","HasGroup":true,"GroupIdx":2}"#;
        let grouped = Entry::read(grouped).unwrap();
        assert!(!grouped.is_plain());
        assert_eq!(grouped.tier(), "gpu");
        for text in ["", "p@gpu", "[]x", r#"{"PodIdentifier":1}"#] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!(r#"{{"PodIdentifier":"{}"}}"#, "x".repeat(LONGEST))), None);
    }

    #[test]
    fn engine_hashes_have_names_of_their_own() {
        assert_eq!(engine_name(7), "engine:7");
        assert_eq!(is_engine_name(b"engine:7"), Some("engine:7"));
        for name in [&b"engine:"[..], b"engine:x", b"7", b"engine:engine:7"] {
            assert_eq!(is_engine_name(name), None);
        }
    }

    #[test]
    fn only_decimal_names_are_keys() {
        assert_eq!(key_of(b"0"), Some(0));
        assert_eq!(key_of(b"18446744073709551615"), Some(u64::MAX));
        for name in [&b"engine:1"[..], b"", b"01", b"+1", b"-1", b"18446744073709551616", b"1\xff"]
        {
            assert_eq!(key_of(name), None);
        }
    }
}
