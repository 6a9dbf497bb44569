//! Where one pod publishes.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Dialect, EventsError};
use crate::config::{Config, events::EventSettings};

/// Which pod it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Where it listens.
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    /// How many ports before it on its address belong to other pods of this process.
    pub(crate) offset: u16,
    /// Its data-parallel rank.
    pub(crate) rank: u32,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) endpoint: Endpoint,
    pub(super) replay: Option<Endpoint>,
    pub(super) topic: String,
    pub(super) rank: u32,
    pub(super) dialect: Dialect,
    pub(super) whole_hashes: bool,
    pub(super) block_size: u32,
    settings: EventSettings,
}

impl Plan {
    /// The plan of the pod at `place` that serves `model`; `None` if it shall not publish.
    pub(crate) fn new(
        config: &Config,
        model: &str,
        place: Place,
    ) -> Result<Option<Self>, EventsError> {
        let flags = &config.events;
        let Some(settings) = flags.settings().filter(|_| config.enable_kvcache) else {
            return Ok(None);
        };
        let shown = match flags.pod_ip {
            Some(ip) if place.ip.is_unspecified() => ip,
            _ => place.ip,
        };
        let topic = settings.topic.clone();
        Ok(Some(Self {
            endpoint: Endpoint::new(&settings.endpoint, place)?,
            replay: settings
                .replay_endpoint
                .as_deref()
                .filter(|endpoint| !endpoint.is_empty())
                .map(|endpoint| Endpoint::bound(endpoint, place))
                .transpose()?,
            topic: topic.unwrap_or_else(|| format!("kv@{shown}:{}@{model}", place.port)),
            rank: place.rank,
            dialect: flags.kv_events_version,
            whole_hashes: !flags.kv_events_int_block_hashes,
            block_size: config.block_size,
            settings,
        }))
    }

    pub(super) fn buffer_steps(&self) -> usize {
        self.settings.buffer_steps
    }

    pub(super) fn high_water_mark(&self) -> i32 {
        self.settings.hwm.max(0)
    }

    /// The answer of `/kv_event_sources`.
    pub(crate) fn sources(&self) -> Value {
        json!({(self.rank.to_string()): {
            "enable_kv_cache_events": true,
            "publisher": "zmq",
            "endpoint": self.endpoint.shown,
            "replay_endpoint": self.replay.as_ref().map(|endpoint| &endpoint.shown),
            "buffer_steps": self.settings.buffer_steps,
            "hwm": self.settings.hwm,
            "max_queue_size": self.settings.max_queue_size,
            "topic": self.topic,
        }})
    }
}

/// Where a socket binds or connects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    /// For ZeroMQ.
    pub(super) address: String,
    /// As the engine tells it: `*` stays.
    pub(super) shown: String,
    pub(super) binds: bool,
}

impl Endpoint {
    /// An endpoint that binds if its text says so.
    fn new(text: &str, place: Place) -> Result<Self, EventsError> {
        Self::parse(
            text,
            place,
            text.contains('*') || text.contains("::") || text.starts_with("ipc://"),
        )
    }

    fn bound(text: &str, place: Place) -> Result<Self, EventsError> {
        Self::parse(text, place, true)
    }

    /// What is bound differs between the pods of a process; what is connected to only between ranks.
    fn parse(text: &str, place: Place, binds: bool) -> Result<Self, EventsError> {
        let form = || EventsError::Form(text.to_owned());
        let offset = if binds { place.offset } else { u16::try_from(place.rank).unwrap_or(0) };
        if let Some(path) = text.strip_prefix("ipc://") {
            if path.is_empty() {
                return Err(form());
            }
            let suffix = if offset == 0 { String::new() } else { format!("_dp{offset}") };
            let address = format!("{text}{suffix}");
            return Ok(Self { shown: address.clone(), address, binds });
        }
        let (host, port) =
            text.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(form)?;
        let port: u16 = port.parse().map_err(|_| form())?;
        if host.is_empty() || (port == 0 && !binds) {
            return Err(form());
        }
        let port = match port {
            0 => 0,
            port => port.checked_add(offset).ok_or_else(form)?,
        };
        // A pod's addresses are those it listens on, not all of the machine that simulates it.
        let any = matches!(host, "*" | "[::]" | "::");
        let host_bound = match place.ip {
            _ if !any => host.to_owned(),
            IpAddr::V4(ip) if ip.is_unspecified() => host.to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Ok(Self {
            address: format!("tcp://{host_bound}:{port}"),
            shown: format!("tcp://{host}:{port}"),
            binds,
        })
    }

    /// Fixes a port that the system has chosen, so that it stays when the pod is revived.
    pub(super) fn settle(&mut self, bound: &str) {
        if self.address.ends_with(":0") {
            bound.clone_into(&mut self.address);
            bound.clone_into(&mut self.shown);
        }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.address.contains('[') || self.address.contains("::")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ip: &str, offset: u16, rank: u32) -> Place {
        Place { ip: ip.parse().unwrap(), port: 8000, offset, rank }
    }

    fn endpoint(text: &str, place: Place) -> (String, String, bool) {
        let Endpoint { address, shown, binds } = Endpoint::new(text, place).unwrap();
        (address, shown, binds)
    }

    #[test]
    fn binding_is_decided_by_the_text() {
        let own = place("127.0.0.2", 0, 0);
        for (text, address, binds) in [
            ("tcp://*:5557", "tcp://127.0.0.2:5557", true),
            ("tcp://[::]:5557", "tcp://127.0.0.2:5557", true),
            ("tcp://127.0.0.1:5557", "tcp://127.0.0.1:5557", false),
            ("tcp://indexer:5557", "tcp://indexer:5557", false),
            ("ipc:///tmp/x", "ipc:///tmp/x", true),
        ] {
            let shown = text.to_owned();
            assert_eq!(endpoint(text, own), (address.to_owned(), shown, binds));
        }
        assert_eq!(endpoint("tcp://*:5557", place("0.0.0.0", 0, 0)).0, "tcp://*:5557");
        for bad in [
            "",
            "tcp://*",
            "tcp://*:x",
            "tcp://:1",
            "tcp://a:0",
            "udp://*:1",
            "ipc://",
            "inproc://x",
        ] {
            assert!(Endpoint::new(bad, own).is_err(), "{bad}");
        }
    }

    #[test]
    fn pods_and_ranks_take_consecutive_ports() {
        let third = place("127.0.0.1", 2, 1);
        assert_eq!(endpoint("tcp://*:5557", third).1, "tcp://*:5559");
        assert_eq!(endpoint("tcp://*:0", third).1, "tcp://*:0");
        assert_eq!(endpoint("tcp://central:5557", third).1, "tcp://central:5558");
        assert_eq!(endpoint("ipc:///tmp/x", third).0, "ipc:///tmp/x_dp2");
        assert!(Endpoint::new("tcp://*:65535", third).is_err());
    }

    #[test]
    fn a_chosen_port_is_kept() {
        let mut endpoint = Endpoint::new("tcp://*:0", place("127.0.0.1", 0, 0)).unwrap();
        endpoint.settle("tcp://127.0.0.1:41234");
        assert_eq!(endpoint.address, "tcp://127.0.0.1:41234");
        endpoint.settle("tcp://127.0.0.1:5");
        assert_eq!(endpoint.address, "tcp://127.0.0.1:41234");
    }
}
