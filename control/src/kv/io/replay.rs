//! One request for what a publisher still has.

use inlane_kv::frames::replay_request;
use parking_lot::Mutex;

use super::super::queue::{Event, Operation, PublisherId};
use super::frames::{Answer, Frames, Models};
use super::{HIGH_WATER, MAX_FRAME, Strays, TURN};

/// A DEALER that has asked.
pub(super) struct Replay {
    pub(super) id: PublisherId,
    pub(super) socket: zmq::Socket,
    run: u64,
}

impl Replay {
    /// Asks the ROUTER at `url` for all that it has from `from` on.
    pub(super) fn start(
        context: &zmq::Context,
        id: PublisherId,
        run: u64,
        url: &str,
        from: u64,
    ) -> Result<Self, (Operation, zmq::Error)> {
        let connect = || {
            let socket = context.socket(zmq::DEALER)?;
            socket.set_linger(0)?;
            socket.set_ipv6(true)?;
            socket.set_rcvhwm(HIGH_WATER)?;
            socket.set_maxmsgsize(MAX_FRAME)?;
            socket.connect(url)?;
            Ok(socket)
        };
        let socket = connect().map_err(|error| (Operation::ReplayConnect, error))?;
        // Goes out when the connection stands.
        let sent = socket.send_multipart(replay_request(from), zmq::DONTWAIT);
        sent.map_err(|error| (Operation::ReplaySend, error))?;
        Ok(Self { id, socket, run })
    }

    /// Takes what has come. `false` at the end.
    pub(super) fn drain(
        &mut self,
        frames: &mut Frames,
        models: &mut Models,
        out: &mut Vec<(PublisherId, Event)>,
        strays: &Mutex<Strays>,
    ) -> bool {
        let run = self.run;
        for _ in 0..TURN {
            match frames.receive(&self.socket) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => {
                    let operation = Operation::ReplayIncomplete;
                    out.push((self.id, Event::ReplayFailed { run, operation }));
                    return false;
                }
            }
            match frames.replayed(models) {
                Some(Answer::Message(message)) => {
                    out.push((self.id, Event::Replayed { run, message }));
                }
                Some(Answer::End) => {
                    out.push((self.id, Event::ReplayEnd { run }));
                    return false;
                }
                None => strays.lock().malformed += 1,
            }
        }
        true
    }
}
