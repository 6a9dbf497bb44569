//! The endpoints file of `file-discovery`.
//!
//! YAML or JSON: `endpoints: [{name, namespace, address, port, labels}]`. The port is a string and
//! the address an IPv4 literal, as in the original; unknown keys are ignored; of two entries with
//! the same namespace and name the last one counts. The file is untrusted: its size is bounded, and
//! an entry that makes no sense is reported by itself, so that a reload can apply the others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use thiserror::Error;

use super::Member;

/// Longest endpoints file in bytes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// What an endpoints file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Entries that make sense, ordered by namespace and name.
    pub(crate) members: Vec<Member>,
    /// What is wrong with the others.
    pub(crate) invalid: Vec<EntryError>,
}

/// Why a file as a whole says nothing.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error("cannot decode the endpoints file: {0}")]
    Decode(#[from] serde_yaml::Error),
    #[error("the endpoints file is not UTF-8")]
    Encoding,
    #[error("the endpoints file has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
}

/// Why an entry is no endpoint.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum EntryError {
    #[error("endpoint '{id}': address '{address}' is not an IPv4 address")]
    Address { id: String, address: String },
    #[error("endpoint '{id}': port '{port}' is not a number from 1 to 65535")]
    Port { id: String, port: String },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    endpoints: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads an endpoints file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Endpoints, FileError> {
    if bytes.len() > MAX_BYTES {
        return Err(FileError::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| FileError::Encoding)?;
    // An empty document is an empty pool, as an empty list is.
    let file: Option<File> = match text.trim() {
        "" => None,
        // By way of a value, which unlike the text knows a number from a string.
        _ => serde_yaml::from_value(serde_yaml::from_str(text)?)?,
    };
    let entries = file.and_then(|file| file.endpoints).unwrap_or_default();
    let mut members = BTreeMap::new();
    let mut invalid = Vec::new();
    for entry in entries {
        match member(entry) {
            Ok(member) => {
                members.insert((member.namespace.clone(), member.name.clone()), member);
            }
            Err(error) => invalid.push(error),
        }
    }
    Ok(Endpoints { members: members.into_values().collect(), invalid })
}

fn member(entry: Entry) -> Result<Member, EntryError> {
    let namespace = if entry.namespace.is_empty() { "default".to_owned() } else { entry.namespace };
    let id = || format!("{namespace}/{}", entry.name);
    let address: Ipv4Addr = match entry.address.parse() {
        Ok(address) => address,
        Err(_) => return Err(EntryError::Address { id: id(), address: entry.address }),
    };
    let digits = entry.port.bytes().all(|b| b.is_ascii_digit());
    let port = match entry.port.parse() {
        Ok(port) if digits && port != 0 => port,
        _ => return Err(EntryError::Port { id: id(), port: entry.port }),
    };
    Ok(Member {
        namespace,
        pod_name: entry.name.clone(),
        name: entry.name,
        address: address.into(),
        port,
        rank: 0,
        labels: entry.labels.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<String> {
        parse(text.as_bytes()).unwrap().members.iter().map(Member::id).collect()
    }

    #[test]
    fn yaml_and_json_read_the_same() {
        let yaml = "endpoints:\n- name: a\n  address: \"10.0.0.1\"\n  port: \"8000\"\n  \
                    labels: {llm-d.ai/role: decode}\n- {name: b, namespace: n, address: 10.0.0.2, port: '1'}";
        let json = r#"{"endpoints": [
            {"name": "a", "address": "10.0.0.1", "port": "8000", "labels": {"llm-d.ai/role": "decode"}},
            {"name": "b", "namespace": "n", "address": "10.0.0.2", "port": "1", "unknown": [1]}]}"#;
        let parsed = parse(yaml.as_bytes()).unwrap();
        assert_eq!(parsed, parse(json.as_bytes()).unwrap());
        assert_eq!(parsed.members[0].id(), "default/a");
        assert_eq!(parsed.members[0].labels["llm-d.ai/role"], "decode");
        assert_eq!((parsed.members[1].port, parsed.members[1].rank), (1, 0));
    }

    #[test]
    fn an_empty_pool_has_many_spellings() {
        for text in ["", "  \n", "{}", "endpoints:", "endpoints: []", "null", "other: 1"] {
            assert_eq!(parse(text.as_bytes()).unwrap(), Endpoints::default(), "{text:?}");
        }
    }

    #[test]
    fn the_last_of_two_counts() {
        let text = "endpoints:\n- {name: a, address: 10.0.0.1, port: '1'}\n\
                    - {name: b, address: 10.0.0.9, port: '1'}\n- {name: a, address: 10.0.0.2, port: '2'}";
        assert_eq!(ids(text), ["default/a", "default/b"]);
        assert_eq!(parse(text.as_bytes()).unwrap().members[0].port, 2);
    }

    #[test]
    fn a_number_as_port_breaks_the_file() {
        let text = "endpoints: [{name: a, address: 10.0.0.1, port: 8000}]";
        assert!(matches!(parse(text.as_bytes()), Err(FileError::Decode(_))));
        assert!(matches!(parse(b"endpoints: {"), Err(FileError::Decode(_))));
        assert!(matches!(parse(b"endpoints: 3"), Err(FileError::Decode(_))));
        assert!(matches!(parse(&[0xff, 0xfe]), Err(FileError::Encoding)));
        assert!(matches!(parse(&vec![b' '; MAX_BYTES + 1]), Err(FileError::TooLarge(_))));
    }

    #[test]
    fn bad_entries_are_reported_beside_the_good_ones() {
        let text = "endpoints:\n- {name: a, address: '::1', port: '1'}\n- {name: b, address: host, port: '1'}\n\
            - {name: c, address: 10.0.0.1, port: '0'}\n- {name: d, address: 10.0.0.1, port: '+5'}\n\
            - {name: e, address: 10.0.0.1, port: '65536'}\n- {name: f, address: 10.0.0.1}\n\
            - {name: g, address: 10.0.0.1, port: '65535'}";
        let parsed = parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.invalid.len(), 6);
        assert_eq!(
            parsed.invalid[0],
            EntryError::Address { id: "default/a".into(), address: "::1".into() }
        );
        assert_eq!(ids(text), ["default/g"]);
    }
}
