//! The thread that owns the sockets.
//!
//! ```text
//! engines ──► SUB sockets, one or a few for all ─┐
//! engines ──► SUB that binds (central mode) ─────┼──► events ──► queue
//! engines ◄─► DEALER, one per replay ────────────┘
//! ```
//!
//! It drains every socket whatever becomes of the messages: a subscriber that does not read makes an
//! engine's queue grow. It keeps no state of a stream and no clock.
//!
//! libzmq allows about a thousand sockets in a context, and polling takes time in proportion to their
//! number, so publishers share sockets: a *lane* connects to any number of publishers with distinct
//! addresses, and the address of the peer, which libzmq knows of each message, says whose it is. A
//! fleet of pods of eight ranks needs eight lanes. libzmq reconnects by itself; a monitor tells of it.

mod central;
mod frames;
mod lane;
mod replay;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use self::central::Central;
use self::frames::{Frames, Models};
use self::lane::Lane;
use self::replay::Replay;
use super::queue::{Event, Operation, PublisherId, Queue};

/// Largest frame that a peer may send, in bytes; one who sends more is disconnected.
const MAX_FRAME: i64 = 64 << 20;

/// Messages that libzmq holds per connection while this thread is busy.
const HIGH_WATER: i32 = 10_000;

/// Messages taken from a socket before others get their turn.
const TURN: usize = 512;

/// Lanes at most: each takes three of libzmq's sockets.
const MAX_LANES: usize = 300;

/// Wait before something that failed is tried again, in ms.
const RETRY_MS: i64 = 5_000;

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Bind here, or not at all, for topics of this prefix.
    Central { url: Option<String>, filter: Vec<u8> },
    /// Know this publisher, under the name that topics give it.
    Register { id: PublisherId, name: String, address: IpAddr },
    /// Connect to a publisher, in place of any connection to it before.
    Connect { id: PublisherId, url: String, address: IpAddr, filter: Vec<u8> },
    /// Ask for what a publisher still has, from a sequence number on.
    Replay { id: PublisherId, run: u64, url: String, from: u64 },
    /// Stop listening to the replay of this publisher.
    EndReplay { id: PublisherId },
    /// Forget a publisher.
    Remove { id: PublisherId },
    /// End.
    Stop,
}

/// Gives commands.
pub(crate) struct Commander {
    commands: Sender<Command>,
    wake: zmq::Socket,
}

impl Commander {
    pub(crate) fn send(&self, command: Command) {
        // Errors mean that the thread has ended, which its owner notices elsewhere. A full pipe of
        // wake-ups wakes all the same.
        let _ = self.commands.send(command);
        let _ = self.wake.send(&b""[..], zmq::DONTWAIT);
    }
}

/// Counts of messages that are nobody's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strays {
    /// Not three frames, or no sequence number.
    pub(crate) malformed: u64,
    /// A topic that names no endpoint of the pool.
    pub(crate) unknown: u64,
    /// A topic that names another endpoint than the sender's.
    pub(crate) foreign: u64,
}

/// The thread's state.
pub(crate) struct Io {
    context: zmq::Context,
    commands: Receiver<Command>,
    wake: zmq::Socket,
    queue: Arc<Queue>,
    strays: Arc<Mutex<Strays>>,
    /// Who is registered.
    known: HashSet<PublisherId>,
    lanes: Vec<Lane>,
    central: Central,
    replays: Vec<Replay>,
    /// What is handed over at the end of a turn.
    out: Vec<(PublisherId, Event)>,
    frames: Frames,
    models: Models,
    lanes_made: u64,
}

impl Io {
    /// The thread's state, and who gives it commands.
    ///
    /// # Errors
    /// libzmq cannot make a socket.
    pub(crate) fn new(
        queue: Arc<Queue>,
        strays: Arc<Mutex<Strays>>,
    ) -> zmq::Result<(Self, Commander)> {
        let context = zmq::Context::new();
        let wake = context.socket(zmq::PULL)?;
        wake.bind("inproc://wake")?;
        let (sender, commands) = channel();
        let waker = context.socket(zmq::PUSH)?;
        waker.set_linger(0)?;
        waker.connect("inproc://wake")?;
        let commander = Commander { commands: sender, wake: waker };
        let io = Self {
            context,
            commands,
            wake,
            queue,
            strays,
            known: HashSet::new(),
            lanes: Vec::new(),
            central: Central::default(),
            replays: Vec::new(),
            out: Vec::new(),
            frames: Frames::default(),
            models: Models::default(),
            lanes_made: 0,
        };
        Ok((io, commander))
    }

    /// Works until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            self.wait(&mut ready);
            self.drain(&ready);
            while self.wake.recv_bytes(zmq::DONTWAIT).is_ok() {}
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) => return,
                    Ok(command) => self.obey(command),
                    Err(_) => break,
                }
            }
            self.central.retry(&self.context);
            self.queue.push(&mut self.out);
        }
    }

    /// Waits until a socket has something, or something is due. `ready` says which lanes, their
    /// monitors and replays have something, in this order, the central socket in front.
    fn wait(&self, ready: &mut Vec<bool>) {
        let mut items = Vec::with_capacity(2 + 2 * self.lanes.len() + self.replays.len());
        items.push(self.wake.as_poll_item(zmq::POLLIN));
        let has_central = self.central.socket().map(|s| items.push(s.as_poll_item(zmq::POLLIN)));
        for lane in &self.lanes {
            items.push(lane.socket.as_poll_item(zmq::POLLIN));
            items.push(lane.monitor.as_poll_item(zmq::POLLIN));
        }
        items.extend(self.replays.iter().map(|replay| replay.socket.as_poll_item(zmq::POLLIN)));
        let timeout = if self.central.is_due() { RETRY_MS } else { -1 };
        ready.clear();
        if zmq::poll(&mut items, timeout).is_err() {
            // Interrupted: look at nothing but the commands.
            return;
        }
        if has_central.is_none() {
            ready.push(false);
        }
        ready.extend(items.iter().skip(1).map(zmq::PollItem::is_readable));
    }

    fn drain(&mut self, ready: &[bool]) {
        let Self { frames, models, out, queue, strays, .. } = self;
        let mut ready = ready.iter().copied();
        if ready.next() == Some(true) {
            self.central.drain(frames, models, out, strays);
            queue.push(out);
        }
        for lane in &mut self.lanes {
            let has = [ready.next(), ready.next()].map(|r| r == Some(true));
            if has[1] {
                lane.look_at_monitor(out);
            }
            if has[0] {
                lane.drain(frames, models, out, strays);
                queue.push(out);
            }
        }
        self.replays.retain_mut(|replay| {
            let goes_on = ready.next() != Some(true) || replay.drain(frames, models, out, strays);
            queue.push(out);
            goes_on
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Central { url, filter } => self.central.set(&self.context, url, filter),
            Command::Register { id, name, address } => {
                self.known.insert(id);
                self.central.register(id, name, address);
            }
            Command::Connect { id, url, address, filter } => {
                self.disconnect(id);
                if let Err(error) = self.connect(id, &url, address, filter) {
                    tracing::error!(error = %error, url, "cannot subscribe to KV-cache events");
                    self.out.push((id, Event::Failed(Operation::Connect)));
                }
            }
            Command::Replay { id, run, url, from } if self.known.contains(&id) => {
                self.replays.retain(|replay| replay.id != id);
                match Replay::start(&self.context, id, run, &url, from) {
                    Ok(replay) => self.replays.push(replay),
                    Err((operation, error)) => {
                        tracing::warn!(error = %error, url, "cannot ask for a replay");
                        self.out.push((id, Event::ReplayFailed { run, operation }));
                    }
                }
            }
            Command::EndReplay { id } => self.replays.retain(|replay| replay.id != id),
            Command::Remove { id } => {
                self.known.remove(&id);
                self.replays.retain(|replay| replay.id != id);
                self.central.forget(id);
                self.disconnect(id);
            }
            Command::Replay { .. } | Command::Stop => {}
        }
    }

    fn connect(
        &mut self,
        id: PublisherId,
        url: &str,
        address: IpAddr,
        filter: Vec<u8>,
    ) -> zmq::Result<()> {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.has_room(address, &filter)) {
            return lane.connect(id, url, address);
        }
        if self.lanes.len() >= MAX_LANES {
            return Err(zmq::Error::EMFILE);
        }
        self.lanes_made += 1;
        let mut lane = Lane::new(&self.context, self.lanes_made, filter)?;
        lane.connect(id, url, address)?;
        self.lanes.push(lane);
        Ok(())
    }

    fn disconnect(&mut self, id: PublisherId) {
        self.lanes.retain_mut(|lane| {
            lane.disconnect(id);
            !lane.is_empty()
        });
    }
}
