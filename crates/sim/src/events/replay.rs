//! Repeating past batches to whoever asks.

use std::{sync::Arc, thread::JoinHandle};

use super::{Dialect, EventsError, publisher::Past};

/// A thread that answers requests at a ROUTER socket; it ends when this is dropped.
pub(super) struct Replay {
    stop: Option<zmq::Socket>,
    thread: Option<JoinHandle<()>>,
}

impl Replay {
    pub(super) fn start(
        context: &zmq::Context,
        router: zmq::Socket,
        dialect: Dialect,
        topic: &Arc<[u8]>,
        past: &Arc<Past>,
    ) -> Result<Self, EventsError> {
        let system = |error: zmq::Error| EventsError::System(error.to_string());
        let stop = context.socket(zmq::PAIR).map_err(system)?;
        stop.bind(STOP).map_err(system)?;
        let stopped = context.socket(zmq::PAIR).map_err(system)?;
        stopped.connect(STOP).map_err(system)?;
        let answers = Answers {
            router,
            // The topic is repeated from 0.26 on, which the next known form is a part of.
            topic: (dialect >= Dialect::V0_32).then(|| Arc::clone(topic)),
            past: Arc::clone(past),
        };
        let thread = std::thread::Builder::new()
            .name("sim-replay".to_owned())
            .spawn(move || answers.run(&stopped))
            .map_err(|error| EventsError::System(error.to_string()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // If the thread has gone already there is nobody to tell.
        let told = self.stop.take().map(|stop| {
            let told = stop.send(&b""[..], zmq::DONTWAIT);
            (stop, told)
        });
        if let (Some((_stop, Ok(()))), Some(thread)) = (told, self.thread.take()) {
            // A panic in there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Where the thread hears that it shall end; every publisher has a context of its own.
const STOP: &str = "inproc://stop";
/// Follows the last batch.
const END: [u8; 8] = [0xff; 8];

struct Answers {
    router: zmq::Socket,
    topic: Option<Arc<[u8]>>,
    past: Arc<Past>,
}

impl Answers {
    fn run(&self, stopped: &zmq::Socket) {
        loop {
            let mut items =
                [self.router.as_poll_item(zmq::POLLIN), stopped.as_poll_item(zmq::POLLIN)];
            match zmq::poll(&mut items, -1) {
                Ok(_) | Err(zmq::Error::EINTR) => {}
                Err(_) => return,
            }
            let [asked, ended] = items.map(|item| item.is_readable());
            if ended {
                return;
            }
            if asked && let Ok(request) = self.router.recv_multipart(zmq::DONTWAIT) {
                // Whoever has gone meanwhile is not missed.
                let _ = self.answer(&request);
            }
        }
    }

    /// Answers `[who, "", first wanted sequence number]`; anything else is ignored, as vLLM does.
    fn answer(&self, request: &[Vec<u8>]) -> zmq::Result<()> {
        let [who, _, start] = request else { return Ok(()) };
        let Ok(start) = <[u8; 8]>::try_from(start.as_slice()) else { return Ok(()) };
        for (sequence, payload) in self.past.since(u64::from_be_bytes(start)) {
            let topic = self.topic.as_deref();
            self.send(who, topic, &sequence.to_be_bytes(), &payload)?;
        }
        self.send(who, self.topic.as_ref().map(|_| &b""[..]), &END, b"")
    }

    fn send(
        &self,
        who: &[u8],
        topic: Option<&[u8]>,
        sequence: &[u8],
        payload: &[u8],
    ) -> zmq::Result<()> {
        let head = [who, b""];
        let frames = head.into_iter().chain(topic).chain([sequence, payload]);
        self.router.send_multipart(frames, zmq::DONTWAIT)
    }
}
