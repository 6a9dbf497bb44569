//! The socket that publishers connect to, where topics say who speaks.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use super::super::queue::{Event, PublisherId};
use super::frames::{Frames, Models};
use super::lane::subscriber;
use super::{Strays, TURN};

/// The central socket, if one is wanted, and who publishes there.
#[derive(Default)]
pub(super) struct Central {
    url: Option<String>,
    filter: Vec<u8>,
    socket: Option<zmq::Socket>,
    names: HashMap<String, (PublisherId, IpAddr)>,
    /// The same by address, for topics that name no port.
    addresses: HashMap<IpAddr, Vec<PublisherId>>,
    complained: bool,
}

impl Central {
    pub(super) fn socket(&self) -> Option<&zmq::Socket> {
        self.socket.as_ref()
    }

    /// Whether binding failed and is to be tried again.
    pub(super) fn is_due(&self) -> bool {
        self.url.is_some() && self.socket.is_none()
    }

    pub(super) fn set(&mut self, context: &zmq::Context, url: Option<String>, filter: Vec<u8>) {
        if (&self.url, &self.filter) == (&url, &filter) {
            return;
        }
        (self.url, self.filter, self.socket, self.complained) = (url, filter, None, false);
        self.retry(context);
    }

    /// Binds if it has not worked yet.
    pub(super) fn retry(&mut self, context: &zmq::Context) {
        let (Some(url), None) = (&self.url, &self.socket) else { return };
        let bound =
            subscriber(context, &self.filter).and_then(|socket| socket.bind(url).map(|()| socket));
        match bound {
            Ok(socket) => {
                tracing::info!(url, "KV-cache events are received");
                self.socket = Some(socket);
            }
            Err(error) if !std::mem::replace(&mut self.complained, true) => {
                tracing::error!(error = %error, url, "cannot bind for KV-cache events, trying on");
            }
            Err(_) => {}
        }
    }

    /// A publisher is called `ADDRESS:PORT`; an IPv6 address stands there with brackets or, as the Go
    /// scheduler has it, without.
    pub(super) fn register(&mut self, id: PublisherId, name: String, address: IpAddr) {
        if address.is_ipv6() {
            self.names.insert(name.replace(['[', ']'], ""), (id, address));
        }
        self.names.insert(name, (id, address));
        self.addresses.entry(address).or_default().push(id);
    }

    pub(super) fn forget(&mut self, id: PublisherId) {
        self.names.retain(|_, (known, _)| *known != id);
        self.addresses.retain(|_, known| {
            known.retain(|known| *known != id);
            !known.is_empty()
        });
    }

    /// Whom a topic names: an endpoint, or the only one of an address.
    fn named(&self, pod: &str) -> Option<(PublisherId, IpAddr)> {
        if let Some(&found) = self.names.get(pod) {
            return Some(found);
        }
        let address = pod.trim_matches(['[', ']']).parse().ok()?;
        match self.addresses.get(&address)?.as_slice() {
            &[only] => Some((only, address)),
            _ => None,
        }
    }

    pub(super) fn drain(
        &mut self,
        frames: &mut Frames,
        models: &mut Models,
        out: &mut Vec<(PublisherId, Event)>,
        strays: &Mutex<Strays>,
    ) {
        let Some(socket) = &self.socket else { return };
        for _ in 0..TURN {
            match frames.receive(socket) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(error = %error, "cannot receive KV-cache events");
                    return;
                }
            }
            let sender = frames.topic().and_then(|topic| self.named(topic.pod));
            let Some((id, address)) = sender else {
                strays.lock().unknown += 1;
                continue;
            };
            // A pod can only speak for itself. A proxy beside this process hides who speaks.
            let peer = frames.peer().and_then(|peer| peer.parse::<IpAddr>().ok());
            let peer = peer.map(|peer| peer.to_canonical()).filter(|peer| !peer.is_loopback());
            if peer.is_some_and(|peer| peer != address) {
                strays.lock().foreign += 1;
                continue;
            }
            match frames.live(models) {
                Some(message) => out.push((id, Event::Live(message))),
                None => strays.lock().malformed += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_name_an_endpoint_or_the_only_one_of_an_address() {
        let mut central = Central::default();
        let (four, six) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        central.register(PublisherId(1), "10.0.0.1:8000".into(), four);
        central.register(PublisherId(2), "[fd00::1]:8000".into(), six);
        let named = |central: &Central, pod| central.named(pod).map(|(id, _)| id.0);
        for (pod, id) in [
            ("10.0.0.1:8000", Some(1)),
            ("10.0.0.1", Some(1)),
            ("10.0.0.1:8001", None),
            ("[fd00::1]:8000", Some(2)),
            ("fd00::1:8000", Some(2)),
            ("fd00::1", Some(2)),
            ("[fd00::1]", Some(2)),
            ("10.0.0.2", None),
            ("pod-1", None),
            ("", None),
        ] {
            assert_eq!(named(&central, pod), id, "{pod}");
        }
        // Which of two ranks an address means is not known.
        central.register(PublisherId(3), "10.0.0.1:8001".into(), four);
        assert_eq!(named(&central, "10.0.0.1"), None);
        central.forget(PublisherId(1));
        assert_eq!(named(&central, "10.0.0.1"), Some(3));
        assert_eq!(named(&central, "10.0.0.1:8000"), None);
        central.forget(PublisherId(2));
        central.forget(PublisherId(3));
        assert!(central.names.is_empty() && central.addresses.is_empty());
    }
}
