//! `GET /kv_event_sources`: engines that say themselves where they publish (vLLM from 0.32), and
//! `GET /v1/models` for what their topics leave out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::scrape::{Body, Fetcher, SharedBuffer};

/// Longest answer that is read.
const MAX_BYTES: usize = 64 * 1024;

/// Longest wait for one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Wait before a pod that has said nothing is asked, and between two questions to one whose
/// connection is lost.
pub(super) const SILENT: Duration = Duration::from_secs(5);
/// Wait before a pod that has said nothing is asked again.
const AGAIN: Duration = Duration::from_secs(60);

/// When pods are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ask {
    /// When they are discovered.
    Always,
    /// When nothing comes from where they are expected to publish.
    Auto,
    /// Not at all.
    Never,
}

impl Ask {
    /// Time from discovery to the first question.
    pub(super) fn first(self) -> Option<Duration> {
        match self {
            Self::Always => Some(Duration::ZERO),
            Self::Auto => Some(SILENT),
            Self::Never => None,
        }
    }

    /// Time to the next one.
    pub(super) fn again(self) -> Option<Duration> {
        (self != Self::Never).then_some(AGAIN)
    }

    pub(super) fn is_always(self) -> bool {
        self == Self::Always
    }
}

/// What a pod says of its publisher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it publishes, if it can be connected to.
    pub(super) events: Option<String>,
    /// Whether it connects to a subscriber instead.
    pub(super) connects: bool,
    /// Where it can be asked for what was missed.
    pub(super) replays: Option<String>,
    pub(super) topic: String,
}

/// What a pod answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its publisher, if it says.
    pub(super) found: Option<Found>,
    /// The model it serves, where no topic is known that says.
    pub(super) model: Option<String>,
}

impl Found {
    /// Whether its topic does not begin as those subscribed to.
    pub(super) fn is_elsewhere(&self, filter: &str) -> bool {
        !self.topic.starts_with(filter)
    }
}

/// Asks a pod about its rank's publisher; `base` is the port at which rank 0 is expected.
pub(crate) async fn ask(at: SocketAddr, rank: u32, base: Option<u16>) -> Answer {
    let page = get(at, "/kv_event_sources").await;
    let found = page.and_then(|page| read(&page, at.ip(), rank, base));
    let is_named = found.as_ref().is_some_and(|found| found.topic.split('@').count() >= 3);
    let model = match is_named {
        true => None,
        false => get(at, "/v1/models").await.and_then(|page| served(&page)),
    };
    Answer { found, model }
}

async fn get(at: SocketAddr, path: &str) -> Option<Value> {
    let mut body = Page::default();
    let mut fetcher = Fetcher::new(at, path);
    let buffer = SharedBuffer::new();
    let fetched = timeout(PATIENCE, fetcher.fetch(&buffer, &mut body)).await;
    if !matches!(fetched, Ok(Ok(_))) {
        return None;
    }
    serde_json::from_slice(&body.0).ok()
}

/// A page that is kept, up to its bound.
#[derive(Default)]
struct Page(Vec<u8>);

impl Body for Page {
    fn begin(&mut self) {
        self.0.clear();
    }

    fn piece(&mut self, bytes: &[u8]) {
        let room = MAX_BYTES.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

/// The publisher of a rank among those listed, or the only one.
fn read(page: &Value, pod: IpAddr, rank: u32, base: Option<u16>) -> Option<Found> {
    let all = page.as_object()?;
    let own = all.get(&rank.to_string());
    let source = own.or_else(|| all.values().next().filter(|_| all.len() == 1))?;
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    if source.get("enable_kv_cache_events").and_then(Value::as_bool) == Some(false)
        || text("publisher") == "null"
    {
        return None;
    }
    // Every rank adds its number to the port. Where all say the same, or what the configuration
    // says of rank 0, the number has not been added.
    let endpoint = text("endpoint");
    let same = all.len() > 1
        && all.values().all(|s| s.get("endpoint").and_then(Value::as_str) == Some(endpoint));
    let added = if same || (base.is_some() && port_of(endpoint) == base) {
        u16::try_from(rank).unwrap_or(0)
    } else {
        0
    };
    let url = |text: &str| reachable(text, pod, added);
    Some(Found {
        events: url(endpoint),
        connects: host(endpoint).is_some_and(|host| !binds(host, pod)),
        replays: url(text("replay_endpoint")),
        topic: text("topic").to_owned(),
    })
}

/// The URL by which a publisher that binds is reached. The host is the pod's own, whatever it says:
/// it can speak for nobody else.
fn reachable(endpoint: &str, pod: IpAddr, added: u16) -> Option<String> {
    let port = port_of(endpoint).filter(|&port| port != 0)?.checked_add(added)?;
    binds(host(endpoint)?, pod).then(|| format!("tcp://{}", SocketAddr::new(pod, port)))
}

/// Whether a publisher binds an endpoint of this host, as vLLM decides it; its own address is what
/// it has bound already.
fn binds(host: &str, pod: IpAddr) -> bool {
    let own = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|host| host == pod);
    host.contains('*') || host.contains("::") || own
}

fn host(endpoint: &str) -> Option<&str> {
    Some(endpoint.strip_prefix("tcp://")?.rsplit_once(':')?.0)
}

fn port_of(endpoint: &str) -> Option<u16> {
    endpoint.rsplit_once(':')?.1.parse().ok()
}

/// The first model of a list that is no adapter.
fn served(page: &Value) -> Option<String> {
    let models = page.get("data")?.as_array()?;
    let base = models.iter().find(|model| model.get("parent").is_none_or(Value::is_null))?;
    base.get("id")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn source(endpoint: &str, replay: Option<&str>, topic: &str) -> Value {
        json!({
            "enable_kv_cache_events": true, "publisher": "zmq", "endpoint": endpoint,
            "replay_endpoint": replay, "buffer_steps": 10_000, "hwm": 100_000,
            "max_queue_size": 100_000, "topic": topic,
        })
    }

    fn urls(
        page: &Value,
        rank: u32,
        base: Option<u16>,
    ) -> Option<(Option<String>, Option<String>)> {
        read(page, POD, rank, base).map(|found| (found.events, found.replays))
    }

    fn url(port: u16) -> Option<String> {
        Some(format!("tcp://10.0.0.7:{port}"))
    }

    #[test]
    fn a_publisher_that_binds_is_reached_at_its_pod() {
        let page = json!({"0": source("tcp://*:6000", Some("tcp://*:6100"), "kv@a@m")});
        assert_eq!(urls(&page, 0, Some(5_557)), Some((url(6_000), url(6_100))));
        assert_eq!(read(&page, POD, 0, None).unwrap().topic, "kv@a@m");
        for (endpoint, reached) in [
            ("tcp://[::]:6000", url(6_000)),
            ("tcp://10.0.0.7:41000", url(41_000)),
            ("tcp://10.0.0.8:41000", None),
            ("tcp://indexer:5557", None),
            ("tcp://*:0", None),
            ("tcp://*:none", None),
            ("ipc:///tmp/x", None),
            ("", None),
        ] {
            let page = json!({"0": source(endpoint, None, "")});
            assert_eq!(urls(&page, 0, None), Some((reached, None)), "{endpoint}");
            let connects = ["tcp://10.0.0.8:41000", "tcp://indexer:5557"].contains(&endpoint);
            assert_eq!(read(&page, POD, 0, None).unwrap().connects, connects, "{endpoint}");
        }
    }

    #[test]
    fn ranks_are_added_to_ports_where_they_are_not_yet() {
        let same =
            json!({"0": source("tcp://*:6000", None, ""), "1": source("tcp://*:6000", None, "")});
        assert_eq!(urls(&same, 1, None), Some((url(6_001), None)));
        let own =
            json!({"0": source("tcp://*:6000", None, ""), "1": source("tcp://*:6001", None, "")});
        assert_eq!(urls(&own, 1, None), Some((url(6_001), None)));
        let alone = json!({"3": source("tcp://*:5557", None, "")});
        assert_eq!(urls(&alone, 3, Some(5_557)), Some((url(5_560), None)));
        assert_eq!(urls(&alone, 3, Some(6_000)), Some((url(5_557), None)));
    }

    #[test]
    fn who_publishes_nothing_says_nothing() {
        for page in [
            json!({}),
            json!([]),
            json!({"0": 1, "1": 2}),
            json!({"0": {"enable_kv_cache_events": false, "endpoint": "tcp://*:1"}}),
            json!({"0": {"publisher": "null", "endpoint": "tcp://*:1"}}),
        ] {
            assert_eq!(urls(&page, 5, None), None, "{page}");
        }
    }

    #[test]
    fn the_base_model_is_the_one_without_a_parent() {
        let page = json!({"data": [{"id": "a", "parent": "m"}, {"id": "m", "parent": null}]});
        assert_eq!(served(&page).as_deref(), Some("m"));
        assert_eq!(served(&json!({"data": []})), None);
    }
}
