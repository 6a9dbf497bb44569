//! A SUB socket that many publishers share.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;

use super::super::queue::{Event, Operation, PublisherId};
use super::frames::{Frames, Models};
use super::{HIGH_WATER, MAX_FRAME, Strays, TURN};

/// Publishers that share a lane at most.
const MAX_MEMBERS: usize = 4_096;

/// Between two attempts of libzmq to reconnect, in ms: the first wait, and what it doubles up to.
const RECONNECT_MS: (i32, i32) = (100, 5_000);

/// Between two signs of life that peers are asked for, and how long they may take, in ms.
const HEARTBEAT_MS: (i32, i32) = (5_000, 15_000);

pub(super) struct Lane {
    pub(super) socket: zmq::Socket,
    /// Says who connects and disconnects.
    pub(super) monitor: zmq::Socket,
    filter: Vec<u8>,
    members: HashMap<IpAddr, (PublisherId, String)>,
    /// Whether there was ever more than one member.
    shared: bool,
}

impl Lane {
    pub(super) fn new(context: &zmq::Context, number: u64, filter: Vec<u8>) -> zmq::Result<Self> {
        let socket = subscriber(context, &filter)?;
        let place = format!("inproc://monitor-{number}");
        let events = zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() as i32
            | zmq::SocketEvent::DISCONNECTED.to_raw() as i32;
        socket.monitor(&place, events)?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&place)?;
        Ok(Self { socket, monitor, filter, members: HashMap::new(), shared: false })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has_room(&self, address: IpAddr, filter: &[u8]) -> bool {
        self.filter == filter
            && self.members.len() < MAX_MEMBERS
            && !self.members.contains_key(&address)
    }

    pub(super) fn connect(
        &mut self,
        id: PublisherId,
        url: &str,
        address: IpAddr,
    ) -> zmq::Result<()> {
        self.socket.connect(url)?;
        self.members.insert(address, (id, url.to_owned()));
        self.shared |= self.members.len() > 1;
        Ok(())
    }

    pub(super) fn disconnect(&mut self, id: PublisherId) {
        let found = self.members.iter().find(|(_, member)| member.0 == id);
        let Some(address) = found.map(|(&address, _)| address) else { return };
        if let Some((_, url)) = self.members.remove(&address) {
            // What it has left to say is nobody's.
            let _ = self.socket.disconnect(&url);
        }
    }

    pub(super) fn look_at_monitor(&mut self, out: &mut Vec<(PublisherId, Event)>) {
        for _ in 0..TURN {
            let Ok(parts) = self.monitor.recv_multipart(zmq::DONTWAIT) else { return };
            let [event, url] = &parts[..] else { continue };
            let Some(&[low, high]) = event.first_chunk() else { continue };
            let event = match u16::from_ne_bytes([low, high]) {
                e if e == zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() => Event::Connected,
                _ => Event::Disconnected,
            };
            // A connection that is made again is named by its resolved address.
            let place = std::str::from_utf8(url).ok().and_then(|url| url.strip_prefix("tcp://"));
            let place: Option<SocketAddr> = place.and_then(|place| place.parse().ok());
            let address = place.map(|place| place.ip().to_canonical());
            if let Some((id, _)) = address.and_then(|address| self.members.get(&address)) {
                out.push((*id, event));
            }
        }
    }

    pub(super) fn drain(
        &mut self,
        frames: &mut Frames,
        models: &mut Models,
        out: &mut Vec<(PublisherId, Event)>,
        strays: &Mutex<Strays>,
    ) {
        for _ in 0..TURN {
            match frames.receive(&self.socket) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(error = %error, "cannot receive KV-cache events");
                    let members = self.members.values();
                    out.extend(members.map(|(id, _)| (*id, Event::Failed(Operation::Recv))));
                    return;
                }
            }
            let Some(id) = self.sender(frames) else {
                strays.lock().unknown += 1;
                continue;
            };
            match frames.live(models) {
                Some(message) => out.push((id, Event::Live(message))),
                None => strays.lock().malformed += 1,
            }
        }
    }

    /// Whose message it is: that of the only member there ever was, else the peer's address says it.
    fn sender(&self, frames: &mut Frames) -> Option<PublisherId> {
        if !self.shared {
            return self.members.values().next().map(|(id, _)| *id);
        }
        let peer: IpAddr = frames.peer()?.parse().ok()?;
        self.members.get(&peer.to_canonical()).map(|(id, _)| *id)
    }
}

/// A socket that receives topics of this prefix.
pub(super) fn subscriber(context: &zmq::Context, filter: &[u8]) -> zmq::Result<zmq::Socket> {
    let socket = context.socket(zmq::SUB)?;
    socket.set_linger(0)?;
    socket.set_ipv6(true)?;
    socket.set_rcvhwm(HIGH_WATER)?;
    socket.set_maxmsgsize(MAX_FRAME)?;
    socket.set_reconnect_ivl(RECONNECT_MS.0)?;
    socket.set_reconnect_ivl_max(RECONNECT_MS.1)?;
    socket.set_heartbeat_ivl(HEARTBEAT_MS.0)?;
    socket.set_heartbeat_timeout(HEARTBEAT_MS.1)?;
    socket.set_subscribe(filter)?;
    Ok(socket)
}
