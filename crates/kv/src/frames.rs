//! The frames of messages, live and replayed.

use thiserror::Error;

/// One batch as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The topic; none in the replays of vLLM to 0.24.
    pub topic: Option<&'a [u8]>,
    /// Counts the publisher's messages from zero.
    pub sequence: u64,
    /// For [`event::decode()`](crate::event::decode()).
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads the frames of a live message: topic, sequence, payload.
    ///
    /// # Errors
    /// Another number of frames, a sequence number of less than eight bytes.
    pub fn live<F: AsRef<[u8]>>(frames: &'a [F]) -> Result<Self, FrameError> {
        let [topic, sequence, payload] = frames else {
            return Err(FrameError::Count { expected: "3", found: frames.len() });
        };
        Ok(Self {
            topic: Some(topic.as_ref()),
            sequence: parse_sequence(sequence.as_ref())?,
            payload: payload.as_ref(),
        })
    }
}

/// One answer to a replay request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed<'a> {
    /// A batch.
    Batch(Message<'a>),
    /// There are no more.
    End,
}

impl<'a> Replayed<'a> {
    /// Reads the frames of an answer, with or without the empty delimiter that a DEALER sees in
    /// front; with a topic (vLLM from 0.26) or without.
    ///
    /// # Errors
    /// Another number of frames, a sequence number of less than eight bytes.
    pub fn parse<F: AsRef<[u8]>>(frames: &'a [F]) -> Result<Self, FrameError> {
        let [before @ .., sequence, payload] = frames else {
            return Err(FrameError::Count { expected: "2 to 4", found: frames.len() });
        };
        if before.len() > 2 {
            return Err(FrameError::Count { expected: "2 to 4", found: frames.len() });
        }
        let sequence = parse_sequence(sequence.as_ref())?;
        if sequence == END {
            return Ok(Self::End);
        }
        // An empty frame is the delimiter, or the topic of a publisher without one.
        let topic = before.last().map(AsRef::as_ref).filter(|topic| !topic.is_empty());
        Ok(Self::Batch(Message { topic, sequence, payload: payload.as_ref() }))
    }
}

/// The frames by which a DEALER asks for the batches from sequence number `start` on.
///
/// A REQ socket would read only the first of the answers.
pub fn replay_request(start: u64) -> [Vec<u8>; 2] {
    [Vec::new(), start.to_be_bytes().to_vec()]
}

/// Why a message cannot be read. It is then ignored: it has no sequence number.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A publisher of something else.
    #[error("expected {expected} frames, found {found}")]
    Count {
        /// How many there may be.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },

    /// The frame of the sequence number is too short.
    #[error("sequence: expected 8 bytes, found {found}")]
    Sequence {
        /// Its length.
        found: usize,
    },
}

/// The sequence number of the end marker: -1.
const END: u64 = u64::MAX;

/// Of a longer frame the first eight bytes count.
fn parse_sequence(frame: &[u8]) -> Result<u64, FrameError> {
    let bytes = frame.first_chunk().ok_or(FrameError::Sequence { found: frame.len() })?;
    Ok(u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 7];

    #[test]
    fn a_live_message_has_three_frames() {
        let frames = [&b"kv@p@m"[..], SEVEN, b"x"];
        let message = Message { topic: Some(b"kv@p@m"), sequence: 7, payload: b"x" };
        assert_eq!(Message::live(&frames), Ok(message));
        let found = FrameError::Count { expected: "3", found: 2 };
        assert_eq!(Message::live(&frames[1..]), Err(found));
    }

    #[test]
    fn a_sequence_frame_has_eight_bytes_or_more() {
        let short = [&b""[..], &SEVEN[1..], b"x"];
        assert_eq!(Message::live(&short), Err(FrameError::Sequence { found: 7 }));
        let long = [SEVEN, b"more"].concat();
        assert_eq!(Message::live(&[&b""[..], &long, b"x"]).map(|m| m.sequence), Ok(7));
    }

    #[test]
    fn both_forms_of_a_replay_are_understood() {
        let plain = Message { topic: None, sequence: 7, payload: b"x" };
        let with_topic = Message { topic: Some(b"t"), ..plain };
        for (frames, expected) in [
            (&[&b""[..], b"t", SEVEN, b"x"][..], with_topic),
            (&[b"t", SEVEN, b"x"], with_topic),
            (&[b"", SEVEN, b"x"], plain),
            (&[b"", b"", SEVEN, b"x"], plain),
            (&[SEVEN, b"x"], plain),
        ] {
            assert_eq!(Replayed::parse(frames), Ok(Replayed::Batch(expected)));
        }
        let end = [0xff; 8];
        assert_eq!(Replayed::parse(&[&b""[..], b"", &end, b""]), Ok(Replayed::End));
        assert_eq!(Replayed::parse(&[&b""[..], &end, b""]), Ok(Replayed::End));
        assert!(Replayed::parse(&[SEVEN]).is_err());
        assert!(Replayed::parse(&[&b""[..], b"", b"", SEVEN, b"x"]).is_err());
    }
}
