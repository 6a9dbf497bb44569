//! Request headers as the scheduler reads and removes them.

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterExt;
use inlane_core::request::Headers;
use inlane_text::Api;

use super::control_headers::STEERING;
use super::path::{self, Claim, Parser};

/// Reads headers from Envoy's memory.
pub(super) struct EnvoyHeaders<'a, EHF>(pub &'a EHF);

impl<EHF: EnvoyHttpFilterExt> Headers for EnvoyHeaders<'_, EHF> {
    fn get(&self, name: &str) -> Option<&str> {
        // The usual answer is "absent", which costs no allocation; of several values the last counts.
        self.0.get_request_header_value(name)?;
        let last = self.0.get_request_header_values(name).last().copied()?;
        std::str::from_utf8(last.as_slice()).ok()
    }
}

/// What is noted of a request when its headers arrive.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The parser that claims the path, and what it makes of it.
    pub(super) claim: Option<(Parser, Claim)>,
    /// Announced length of the body.
    pub(super) length: Option<u64>,
    /// The request's id; empty without one.
    pub(super) id: String,
    /// Under the current name and under the deprecated one.
    fairness_ids: [Option<String>; 2],
}

impl Noted {
    /// Takes note of a request's headers and removes those that steer, in one pass: there are fewer
    /// headers than lookups would cost.
    pub(super) fn of<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF) -> Self {
        let mut noted = Self::default();
        let mut present = 0;
        envoy.for_each_request_header(&mut |key, value| {
            noted.see(key, value);
            present |= bit(STEERING, key);
        });
        remove_present(envoy, STEERING, present);
        noted
    }

    /// The inference API that the body is a request to.
    pub(super) fn api(&self) -> Option<Api> {
        match self.claim {
            Some((_, Claim::Body(api))) => Some(api),
            _ => None,
        }
    }

    /// The flow that the request says it belongs to. An empty id under the current name is none.
    pub(super) fn fairness_id(&self) -> Option<&str> {
        self.fairness_ids.iter().flatten().next().map(String::as_str).filter(|id| !id.is_empty())
    }

    /// Of several values the first counts.
    fn see(&mut self, key: &[u8], value: &[u8]) {
        let text = || std::str::from_utf8(value).ok();
        let copy = || String::from_utf8_lossy(value).into_owned();
        match key {
            b":path" if self.claim.is_none() => self.claim = text().and_then(path::claim),
            b"content-length" if self.length.is_none() => {
                self.length = text().and_then(|length| length.parse().ok());
            }
            b"x-request-id" if self.id.is_empty() => self.id = copy(),
            b"x-llm-d-inference-fairness-id" => {
                self.fairness_ids[0].get_or_insert_with(copy);
            }
            b"x-gateway-inference-fairness-id" => {
                self.fairness_ids[1].get_or_insert_with(copy);
            }
            _ => {}
        }
    }
}

/// Removes headers that are present. One pass over the request's headers finds out which: there are
/// fewer of them than lookups would cost.
pub(super) fn remove<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF, names: &[&str]) {
    let mut present = 0;
    envoy.for_each_request_header(&mut |key, _| present |= bit(names, key));
    remove_present(envoy, names, present);
}

/// The bit of `key` among at most 32 names, or 0.
fn bit(names: &[&str], key: &[u8]) -> u32 {
    debug_assert!(names.len() <= u32::BITS as usize);
    // All of them start alike, and few other headers do.
    if !key.starts_with(b"x-") {
        return 0;
    }
    names.iter().position(|name| name.as_bytes() == key).map_or(0, |at| 1 << at)
}

fn remove_present<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF, names: &[&str], present: u32) {
    for (at, name) in names.iter().enumerate() {
        if present >> at & 1 == 1 {
            envoy.remove_request_header(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(headers: &[(&str, &str)]) -> Noted {
        let mut noted = Noted::default();
        headers.iter().for_each(|(key, value)| noted.see(key.as_bytes(), value.as_bytes()));
        noted
    }

    #[test]
    fn the_first_value_counts() {
        let seen = noted(&[
            (":path", "/v1/completions?x=1"),
            ("x-request-id", "r-1"),
            ("x-request-id", "r-2"),
            ("content-length", "7"),
        ]);
        assert_eq!((seen.id.as_str(), seen.length), ("r-1", Some(7)));
        assert!(seen.api().is_some() && seen.fairness_id().is_none());
        assert_eq!(noted(&[("content-length", "-1")]).length, None);
    }

    #[test]
    fn the_current_fairness_id_wins_over_the_deprecated_one() {
        let (current, old) = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id");
        assert_eq!(noted(&[(old, "b"), (current, "a")]).fairness_id(), Some("a"));
        assert_eq!(noted(&[(old, "b")]).fairness_id(), Some("b"));
        assert_eq!(noted(&[(old, "b"), (current, "")]).fairness_id(), None);
    }
}
