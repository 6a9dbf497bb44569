//! Messages of several frames, and what their topics say.

use std::collections::HashMap;
use std::sync::Arc;

use inlane_kv::frames;
use inlane_kv::topic::Topic;

use super::super::queue::Message;

/// Frames that any message has: four in a replay.
const MOST: usize = 4;

/// Model names that are remembered, so that a message does not allocate one.
const MOST_MODELS: usize = 4_096;

/// Bytes that the name of a model may have: a longer one is nobody's.
const LONGEST_MODEL: usize = 1_024;

/// The frames of the message at hand.
pub(super) struct Frames {
    frames: [zmq::Message; MOST],
    len: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { frames: std::array::from_fn(|_| zmq::Message::new()), len: 0 }
    }
}

impl Frames {
    /// Takes the next message of the socket. `false`: there is none.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn receive(&mut self, socket: &zmq::Socket) -> zmq::Result<bool> {
        self.len = 0;
        loop {
            // What is past the last place is read and not kept.
            let at = self.len.min(MOST - 1);
            let Some(frame) = self.frames.get_mut(at) else { return Ok(false) };
            match socket.recv(frame, zmq::DONTWAIT) {
                Ok(()) => self.len += 1,
                Err(zmq::Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
            if !frame.get_more() {
                return Ok(true);
            }
        }
    }

    /// The topic of a live message; `None` if it is no text.
    pub(super) fn topic(&self) -> Option<Topic<'_>> {
        Topic::parse(self.frames.first()?)
    }

    /// Address of the peer that the message came from, as text.
    pub(super) fn peer(&mut self) -> Option<&str> {
        self.frames.first_mut()?.gets("Peer-Address")
    }

    /// The message of a live stream; `None` if it is none.
    pub(super) fn live(&self, models: &mut Models) -> Option<Message> {
        let all = self.bytes();
        let message = frames::Message::live(all.get(..self.len)?).ok()?;
        Some(models.owned(&message))
    }

    /// The answer to a request for a replay; `None` if it is none.
    pub(super) fn replayed(&self, models: &mut Models) -> Option<Answer> {
        let all = self.bytes();
        Some(match frames::Replayed::parse(all.get(..self.len)?).ok()? {
            frames::Replayed::Batch(message) => Answer::Message(models.owned(&message)),
            frames::Replayed::End => Answer::End,
        })
    }

    fn bytes(&self) -> [&[u8]; MOST] {
        self.frames.each_ref().map(|frame| &frame[..])
    }
}

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Message(Message),
    /// There is no more.
    End,
}

/// Names of models, each allocated once.
#[derive(Debug, Default)]
pub(super) struct Models(HashMap<Box<str>, Arc<str>>);

impl Models {
    fn owned(&mut self, message: &frames::Message<'_>) -> Message {
        let topic = message.topic.and_then(Topic::parse);
        let model = topic.map(|topic| topic.model);
        let model = model.filter(|name| !name.is_empty() && name.len() <= LONGEST_MODEL);
        let model = model.map(|name| self.of(name));
        Message { seq: message.sequence, model, payload: message.payload.to_vec() }
    }

    fn of(&mut self, model: &str) -> Arc<str> {
        if let Some(known) = self.0.get(model) {
            return Arc::clone(known);
        }
        if self.0.len() >= MOST_MODELS {
            self.0.clear();
        }
        let name: Arc<str> = model.into();
        self.0.insert(model.into(), Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(models: &mut Models, topic: &[u8]) -> Option<Arc<str>> {
        models.owned(&frames::Message { topic: Some(topic), sequence: 0, payload: b"" }).model
    }

    #[test]
    fn names_of_models_take_bounded_memory() {
        let mut models = Models::default();
        assert_eq!(model(&mut models, b"kv@p@m").as_deref(), Some("m"));
        for topic in [&b"kv@p@"[..], b"kv@p", b"", b"kv@p@\xff"] {
            assert_eq!(model(&mut models, topic), None);
        }
        let long = format!("kv@p@{}", "m".repeat(LONGEST_MODEL + 1));
        assert_eq!(model(&mut models, long.as_bytes()), None);
        for n in 0..2 * MOST_MODELS {
            assert!(model(&mut models, format!("kv@p@{n}").as_bytes()).is_some());
            assert!(models.0.len() <= MOST_MODELS);
        }
    }
}
