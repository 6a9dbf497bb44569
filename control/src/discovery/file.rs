//! The endpoints file of `file-discovery` and `multicluster-file-discovery`.
//!
//! YAML or JSON: `endpoints: [{name, namespace, address, port, rank, labels}]`. The port is a string and
//! the address an IPv4 literal, as in the original, or with clusters anything that has an address;
//! unknown keys are ignored, as the original ignores `rank`; of two entries with the same namespace and
//! name the last one counts. The file is untrusted: its size is bounded, and an entry that makes no
//! sense is reported by itself, so that a reload can apply the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use inlane_plugins::multicluster::file_discovery::{METRICS_ADDRESS, METRICS_PORT};
use serde::Deserialize;
use thiserror::Error;

use super::Member;

/// Longest endpoints file in bytes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// What the entries of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entries {
    /// Clusters. An address may also be IPv6 or a DNS name, which is looked up while the file is read
    /// and may take as long as that takes; labels say where metrics are.
    Clusters,
    /// Pods.
    Pods,
}

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
    #[error("endpoint '{id}': address '{address}' is no IP address and no DNS name with one")]
    Name { id: String, address: String },
    #[error("endpoint '{id}': port '{port}' is not a number from 1 to 65535")]
    Port { id: String, port: String },
    #[error("endpoint '{id}': rank {rank} is not a number from 0 to 65535")]
    Rank { id: String, rank: String },
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
    /// Anything, so that what is no rank is the entry's fault and not the file's.
    #[serde(default)]
    rank: serde_yaml::Value,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads an endpoints file.
pub(crate) fn parse(bytes: &[u8], of: Entries) -> Result<Endpoints, FileError> {
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
        match member(entry, of) {
            Ok(member) => {
                members.insert((member.namespace.clone(), member.name.clone()), member);
            }
            Err(error) => invalid.push(error),
        }
    }
    Ok(Endpoints { members: members.into_values().collect(), invalid })
}

fn member(entry: Entry, of: Entries) -> Result<Member, EntryError> {
    let namespace = if entry.namespace.is_empty() { "default".to_owned() } else { entry.namespace };
    let id = format!("{namespace}/{}", entry.name);
    let labels = entry.labels.unwrap_or_default();
    let (address, metrics) = match of {
        Entries::Clusters => {
            let address = lookup(&entry.address, &id)?;
            (address, metrics(&labels, address, &entry.port, &id)?)
        }
        Entries::Pods => match entry.address.parse::<Ipv4Addr>() {
            Ok(address) => (address.into(), None),
            Err(_) => return Err(EntryError::Address { id, address: entry.address }),
        },
    };
    let port = port(&entry.port, &id)?;
    let rank = rank(&entry.rank, &id)?;
    Ok(Member {
        namespace,
        pod_name: entry.name.clone(),
        name: entry.name,
        address,
        port,
        rank,
        labels,
        metrics,
    })
}

fn port(text: &str, id: &str) -> Result<u16, EntryError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(EntryError::Port { id: id.to_owned(), port: text.to_owned() }),
    }
}

/// The number of a data-parallel rank; 0 where none is given.
fn rank(value: &serde_yaml::Value, id: &str) -> Result<u32, EntryError> {
    use serde_yaml::Value;
    let number = match value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    number.and_then(|number| u16::try_from(number).ok()).map(u32::from).ok_or_else(|| {
        let rank = serde_yaml::to_string(value).unwrap_or_default();
        EntryError::Rank { id: id.to_owned(), rank: rank.trim_end().to_owned() }
    })
}

/// Where the labels of a cluster say that its metrics are.
fn metrics(
    labels: &BTreeMap<String, String>,
    address: IpAddr,
    serving_port: &str,
    id: &str,
) -> Result<Option<SocketAddr>, EntryError> {
    let (name, number) = (labels.get(METRICS_ADDRESS), labels.get(METRICS_PORT));
    if name.is_none() && number.is_none() {
        return Ok(None);
    }
    let address = name.map_or(Ok(address), |name| lookup(name, id))?;
    let port = port(number.map_or(serving_port, String::as_str), id)?;
    Ok(Some(SocketAddr::new(address, port)))
}

/// The address that a text is, or the first one that it is the name of.
fn lookup(text: &str, id: &str) -> Result<IpAddr, EntryError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = is_name(text).then(|| (text, 0).to_socket_addrs().ok()?.next()).flatten();
    found
        .map(|found| found.ip())
        .ok_or_else(|| EntryError::Name { id: id.to_owned(), address: text.to_owned() })
}

/// Whether a text is a DNS-1123 name.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<String> {
        parse(text.as_bytes(), Entries::Pods).unwrap().members.iter().map(Member::id).collect()
    }

    #[test]
    fn yaml_and_json_read_the_same() {
        let yaml = "endpoints:\n- name: a\n  address: \"10.0.0.1\"\n  port: \"8000\"\n  \
                    labels: {llm-d.ai/role: decode}\n- {name: b, namespace: n, address: 10.0.0.2, port: '1'}";
        let json = r#"{"endpoints": [
            {"name": "a", "address": "10.0.0.1", "port": "8000", "labels": {"llm-d.ai/role": "decode"}},
            {"name": "b", "namespace": "n", "address": "10.0.0.2", "port": "1", "unknown": [1]}]}"#;
        let parsed = parse(yaml.as_bytes(), Entries::Pods).unwrap();
        assert_eq!(parsed, parse(json.as_bytes(), Entries::Pods).unwrap());
        assert_eq!(parsed.members[0].id(), "default/a");
        assert_eq!(parsed.members[0].labels["llm-d.ai/role"], "decode");
        assert_eq!((parsed.members[1].port, parsed.members[1].rank), (1, 0));
    }

    #[test]
    fn an_empty_pool_has_many_spellings() {
        for text in ["", "  \n", "{}", "endpoints:", "endpoints: []", "null", "other: 1"] {
            assert_eq!(
                parse(text.as_bytes(), Entries::Pods).unwrap(),
                Endpoints::default(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_last_of_two_counts() {
        let text = "endpoints:\n- {name: a, address: 10.0.0.1, port: '1'}\n\
                    - {name: b, address: 10.0.0.9, port: '1'}\n- {name: a, address: 10.0.0.2, port: '2'}";
        assert_eq!(ids(text), ["default/a", "default/b"]);
        assert_eq!(parse(text.as_bytes(), Entries::Pods).unwrap().members[0].port, 2);
    }

    #[test]
    fn a_number_as_port_breaks_the_file() {
        let text = "endpoints: [{name: a, address: 10.0.0.1, port: 8000}]";
        assert!(matches!(parse(text.as_bytes(), Entries::Pods), Err(FileError::Decode(_))));
        assert!(matches!(parse(b"endpoints: {", Entries::Pods), Err(FileError::Decode(_))));
        assert!(matches!(parse(b"endpoints: 3", Entries::Pods), Err(FileError::Decode(_))));
        assert!(matches!(parse(&[0xff, 0xfe], Entries::Pods), Err(FileError::Encoding)));
        assert!(matches!(
            parse(&vec![b' '; MAX_BYTES + 1], Entries::Pods),
            Err(FileError::TooLarge(_))
        ));
    }

    #[test]
    fn bad_entries_are_reported_beside_the_good_ones() {
        let text = "endpoints:\n- {name: a, address: '::1', port: '1'}\n- {name: b, address: host, port: '1'}\n\
            - {name: c, address: 10.0.0.1, port: '0'}\n- {name: d, address: 10.0.0.1, port: '+5'}\n\
            - {name: e, address: 10.0.0.1, port: '65536'}\n- {name: f, address: 10.0.0.1}\n\
            - {name: g, address: 10.0.0.1, port: '65535'}";
        let parsed = parse(text.as_bytes(), Entries::Pods).unwrap();
        assert_eq!(parsed.invalid.len(), 6);
        assert_eq!(
            parsed.invalid[0],
            EntryError::Address { id: "default/a".into(), address: "::1".into() }
        );
        assert_eq!(ids(text), ["default/g"]);
    }

    #[test]
    fn ranks_are_numbers_in_either_form() {
        let entry = |rank: &str| {
            let text = format!("endpoints: [{{name: a, address: 10.0.0.1, port: '1'{rank}}}]");
            parse(text.as_bytes(), Entries::Pods).unwrap()
        };
        for (text, rank) in
            [("", 0), (", rank: ", 0), (", rank: 7", 7), (", rank: '65535'", 65_535)]
        {
            assert_eq!(entry(text).members[0].rank, rank, "{text}");
        }
        for text in ["65536", "-1", "1.5", "gold", "'+1'", "[1]", "true"] {
            let found = entry(&format!(", rank: {text}"));
            assert!(found.members.is_empty(), "{text}");
            let error = found.invalid[0].to_string();
            assert!(error.starts_with("endpoint 'default/a': rank "), "{error}");
        }
    }

    #[test]
    fn clusters_have_names_and_metrics_of_their_own() {
        let text = "endpoints:\n- {name: a, address: '::1', port: '443'}\n\
            - {name: b, address: localhost, port: '443', labels: {metricsPort: '9090'}}\n\
            - {name: c, address: 10.0.0.1, port: '443', labels: {metricsAddress: 10.0.0.2}}\n\
            - {name: d, address: 10.0.0.1, port: '1', \
               labels: {metricsAddress: 'fd00::1', metricsPort: '5'}}";
        let parsed = parse(text.as_bytes(), Entries::Clusters).unwrap();
        assert!(parsed.invalid.is_empty(), "{:?}", parsed.invalid);
        let [a, b, c, d] = &parsed.members[..] else { panic!("{:?}", parsed.members) };
        assert_eq!((a.address.to_string().as_str(), a.metrics), ("::1", None));
        assert!(b.address.is_loopback());
        assert_eq!(b.metrics, Some(SocketAddr::new(b.address, 9_090)));
        assert_eq!(c.metrics, Some(SocketAddr::from(([10, 0, 0, 2], 443))));
        assert_eq!(d.metrics.map(|m| m.to_string()), Some("[fd00::1]:5".to_owned()));
        assert_eq!(d.address, IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn what_has_no_address_is_no_cluster() {
        let entry = |rest: &str| {
            let text = format!("endpoints: [{{name: a, port: '1', {rest}}}]");
            parse(text.as_bytes(), Entries::Clusters).unwrap().invalid.remove(0).to_string()
        };
        for rest in [
            "address: ''",
            "address: Upper.Case",
            "address: '-x'",
            "address: 'a b'",
            "address: 10.0.0.1:80",
            "address: 10.0.0.1, labels: {metricsAddress: '_'}",
        ] {
            assert!(entry(rest).contains("no IP address and no DNS name"), "{rest}");
        }
        let port = entry("address: 10.0.0.1, labels: {metricsPort: x}");
        assert!(port.contains("port 'x' is not a number"), "{port}");
    }
}
