//! Bodies: reading a request's, and the two kinds of a response's.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::CONTENT_LENGTH,
};

use super::{error::ApiError, stream::EventStream};

/// Why a connection is closed in the middle.
#[derive(Debug, thiserror::Error)]
#[error("connection reset by fault injection")]
pub(crate) struct Reset;

/// The body of a response.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Known in full; `None` once sent.
    Full(Option<Bytes>),
    /// Server-sent events.
    Events(Box<EventStream>),
}

impl Payload {
    pub(super) fn empty() -> Self {
        Self::Full(None)
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Bytes, as far as they are known.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Full(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Events(_) => 0,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(stream) => {
                stream.poll(context).map(|next| next.map(|r| r.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(_) => SizeHint::with_exact(self.len()),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Reads a request body of at most `limit` bytes. A larger one is read to its end all the same, and forgotten, so
/// that its sender gets to see the answer.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let declared = usize::try_from(declared_length(headers)).unwrap_or(usize::MAX);
    let mut pieces = Pieces::None;
    let mut too_large = declared > limit;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("Failed to read and parse request body, {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        too_large |= pieces.len() + data.len() > limit;
        if too_large {
            pieces = Pieces::None;
        } else {
            pieces.push(data, declared);
        }
    }
    if too_large {
        let status = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
        return Err(ApiError::new(
            status,
            format!("The request body is larger than {limit} bytes."),
        ));
    }
    Ok(match pieces {
        Pieces::None => Bytes::new(),
        Pieces::One(bytes) => bytes,
        Pieces::Many(bytes) => bytes.freeze(),
    })
}

/// A body as far as it has come. Nearly every one is one piece, which is not copied.
enum Pieces {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, data: Bytes, expected: usize) {
        match self {
            Self::None => *self = Self::One(data),
            Self::One(first) => {
                let mut bytes = BytesMut::with_capacity(expected.max(first.len() + data.len()));
                bytes.extend_from_slice(first);
                bytes.extend_from_slice(&data);
                *self = Self::Many(bytes);
            }
            Self::Many(bytes) => bytes.extend_from_slice(&data),
        }
    }
}

/// The declared length of a message.
pub(super) fn declared_length(headers: &HeaderMap) -> u64 {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or_default()
}
