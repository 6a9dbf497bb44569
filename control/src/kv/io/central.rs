//! The socket that publishers connect to, where topics say who speaks.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use super::super::queue::{Event, PublisherId};
use super::frames::{Frames, Models};
use super::lane::subscriber;
use super::{Strays, TURN};

/// The central socket, if one is wanted, and the names of all publishers.
#[derive(Default)]
pub(super) struct Central {
    url: Option<String>,
    filter: Vec<u8>,
    socket: Option<zmq::Socket>,
    names: HashMap<String, (PublisherId, IpAddr)>,
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

    pub(super) fn register(&mut self, id: PublisherId, name: String, address: IpAddr) {
        self.names.insert(name, (id, address));
    }

    pub(super) fn forget(&mut self, id: PublisherId) {
        self.names.retain(|_, (known, _)| *known != id);
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
            let sender = frames.topic().and_then(|topic| self.names.get(topic.pod)).copied();
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
