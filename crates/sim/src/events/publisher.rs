//! The publishing end of one pod.

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;

use super::{
    EventsError, Plan,
    plan::Endpoint,
    replay::Replay,
    wire::{self, Style},
};
use crate::{engine::events::Event, pod::unix_time};

/// See the [module](self). Its sockets are closed, and their ports free again, when its drop returns.
pub(crate) struct Publisher {
    // Dropped in this order: the last owner of the context waits until every socket is closed.
    socket: zmq::Socket,
    _replay: Option<Replay>,
    _context: zmq::Context,
    topic: Arc<[u8]>,
    style: Style,
    next: u64,
    past: Arc<Past>,
}

/// The last batches, for replays.
#[derive(Debug)]
pub(super) struct Past {
    limit: usize,
    batches: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

impl Past {
    fn push(&self, sequence: u64, payload: &[u8]) {
        if self.limit == 0 {
            return;
        }
        let mut batches = self.batches.lock();
        if batches.len() >= self.limit {
            batches.pop_front();
        }
        batches.push_back((sequence, payload.into()));
    }

    /// The kept batches with these numbers or later ones.
    pub(super) fn since(&self, sequence: u64) -> Vec<(u64, Arc<[u8]>)> {
        let batches = self.batches.lock();
        let first = batches.partition_point(|(kept, _)| *kept < sequence);
        batches.range(first..).cloned().collect()
    }
}

impl Publisher {
    /// Opens the sockets of `plan`, and notes in it the ports that the system chose.
    pub(crate) fn open(plan: &mut Plan) -> Result<Self, EventsError> {
        let context = zmq::Context::new();
        let system = |error: zmq::Error| EventsError::System(error.to_string());
        let socket = context.socket(zmq::PUB).map_err(system)?;
        socket.set_sndhwm(plan.high_water_mark()).map_err(system)?;
        attach(&socket, &mut plan.endpoint)?;
        let past = Arc::new(Past { limit: plan.buffer_steps(), batches: Mutex::default() });
        let topic: Arc<[u8]> = plan.topic.as_bytes().into();
        let replay = match plan.replay.clone() {
            None => None,
            Some(mut endpoint) => {
                let router = context.socket(zmq::ROUTER).map_err(system)?;
                // A whole replay fits, whatever the speed of its reader.
                let room = i32::try_from(plan.buffer_steps()).unwrap_or(i32::MAX - 1) + 1;
                router.set_sndhwm(room).map_err(system)?;
                attach(&router, &mut endpoint)?;
                plan.replay = Some(endpoint);
                Some(Replay::start(&context, router, plan.dialect, &topic, &past)?)
            }
        };
        let style = Style {
            dialect: plan.dialect,
            block_size: plan.block_size,
            rank: plan.rank,
            digests: plan.whole_hashes.then(Default::default),
        };
        Ok(Self { socket, _replay: replay, _context: context, topic, style, next: 0, past })
    }

    /// Sends the events of one step.
    pub(crate) fn publish(&mut self, events: &[Event]) {
        let sequence = self.next;
        self.next += 1;
        let mut payload = Vec::with_capacity(256);
        wire::batch(events, unix_time().as_secs_f64(), &mut self.style, &mut payload);
        self.past.push(sequence, &payload);
        let sequence = sequence.to_be_bytes();
        let frames: [&[u8]; 3] = [&self.topic, &sequence, &payload];
        // A publisher never waits; what goes wrong is a loss that subscribers see by the sequence.
        let _ = self.socket.send_multipart(frames, zmq::DONTWAIT);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Publisher").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Binds or connects.
fn attach(socket: &zmq::Socket, endpoint: &mut Endpoint) -> Result<(), EventsError> {
    let attached = (|| {
        socket.set_linger(0)?;
        socket.set_ipv6(endpoint.is_v6())?;
        if !endpoint.binds {
            return socket.connect(&endpoint.address);
        }
        socket.bind(&endpoint.address)?;
        if let Ok(bound) = socket.get_last_endpoint()? {
            endpoint.settle(&bound);
        }
        Ok(())
    })();
    attached.map_err(|source| EventsError::Endpoint { endpoint: endpoint.address.clone(), source })
}
