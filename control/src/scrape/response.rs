//! An HTTP/1.1 response, decoded as its bytes arrive.
//!
//! Knows just what a scrape needs: the status, where the body ends (by length, by chunks or by the
//! end of the connection), and whether the connection may be used again. The body is handed on in
//! place. Everything is bounded: the head, a chunk's line, the trailer, and the body as a whole.

use thiserror::Error;

/// Longest response head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest chunk-size line, extensions included, and longest trailer.
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// Most header fields of a head.
const MAX_FIELDS: usize = 64;

/// Decodes one response after the other.
#[derive(Debug)]
pub(crate) struct Response {
    /// Head bytes so far; empty unless a head was cut.
    head: Vec<u8>,
    state: State,
    reusable: bool,
    body: u64,
    max_body: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// This many bytes of body are left.
    Length(u64),
    UntilClose,
    Chunk(Chunk),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In a size line of which `seen` bytes came; `digits` hex digits make `size`.
    Size {
        size: u64,
        digits: u8,
        seen: usize,
        ended: bool,
    },
    Data(u64),
    /// The line end after the data.
    DataEnd,
    /// In the trailer: `line` bytes of the line at hand, `seen` in all.
    Trailer {
        line: usize,
        seen: usize,
    },
}

const SIZE: Chunk = Chunk::Size { size: 0, digits: 0, seen: 0, ended: false };

/// Why a scrape's response is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ResponseError {
    #[error("the response body exceeds {0} bytes")]
    BodyTooLarge(u64),
    #[error("bad chunked encoding")]
    Chunk,
    #[error("the response head is not HTTP/1.x, or longer than {MAX_HEAD} bytes")]
    Head,
    #[error("conflicting or unreadable content-length or transfer-encoding")]
    Framing,
    #[error("status {0}")]
    Status(u16),
    #[error("the connection ended inside the response")]
    Truncated,
}

impl Response {
    /// A decoder that refuses bodies of more than `max_body` bytes.
    pub(crate) fn new(max_body: u64) -> Self {
        Self { head: Vec::new(), state: State::Head, reusable: false, body: 0, max_body }
    }

    /// Begins another response.
    pub(crate) fn restart(&mut self) {
        self.head.clear();
        self.state = State::Head;
        self.reusable = false;
        self.body = 0;
    }

    /// Whether anything of the response came yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.state == State::Head && self.head.is_empty()
    }

    /// Whether the connection may carry another request; known when the response is complete.
    pub(crate) fn is_reusable(&self) -> bool {
        self.reusable && self.state == State::Done
    }

    /// Takes bytes and hands the body's part to `sink`. True when the response is complete.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<bool, ResponseError> {
        while !input.is_empty() {
            input = match self.state {
                State::Head => self.feed_head(input)?,
                State::Length(left) => {
                    let (part, rest) = split(input, left);
                    self.emit(part, sink)?;
                    let left = left - part.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    rest
                }
                State::UntilClose => {
                    self.emit(input, sink)?;
                    &[]
                }
                State::Chunk(chunk) => self.feed_chunk(chunk, input, sink)?,
                State::Done => {
                    // Bytes that nobody asked for: the connection is out of step.
                    self.reusable = false;
                    &[]
                }
            };
        }
        Ok(self.state == State::Done)
    }

    /// The connection ended.
    pub(crate) fn end(&mut self) -> Result<(), ResponseError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(ResponseError::Truncated),
        }
    }

    fn emit(&mut self, part: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<(), ResponseError> {
        self.body += part.len() as u64;
        if self.body > self.max_body {
            return Err(ResponseError::BodyTooLarge(self.max_body));
        }
        sink(part);
        Ok(())
    }

    fn feed_head<'i>(&mut self, input: &'i [u8]) -> Result<&'i [u8], ResponseError> {
        if self.head.is_empty()
            && let Some(length) = self.parse_head(input)?
        {
            return Ok(&input[length..]);
        }
        let before = self.head.len();
        let part = &input[..input.len().min(MAX_HEAD - before)];
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(part);
        match self.parse_head(&head)? {
            Some(length) => {
                head.clear();
                self.head = head;
                // The head was not complete before this part, so it ends within it.
                Ok(&input[length - before..])
            }
            None if head.len() >= MAX_HEAD => Err(ResponseError::Head),
            None => {
                self.head = head;
                Ok(&[])
            }
        }
    }

    /// Parses a head at the front of `bytes`: its length, or `None` while it is incomplete.
    fn parse_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ResponseError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(bytes).map_err(|_| ResponseError::Head)? {
            httparse::Status::Complete(length) if length <= MAX_HEAD => length,
            httparse::Status::Complete(_) => return Err(ResponseError::Head),
            httparse::Status::Partial => return Ok(None),
        };
        let status = head.code.ok_or(ResponseError::Head)?;
        if (100..200).contains(&status) && status != 101 {
            // An interim response; the real one follows.
            return Ok(Some(length));
        }
        if status != 200 {
            return Err(ResponseError::Status(status));
        }
        let framing = framing(head.headers)?;
        let persistent = head.version == Some(1);
        self.reusable = match connection_option(head.headers) {
            Some(keep) => keep,
            None => persistent,
        };
        self.state = match framing {
            Framing::Length(length) if length > self.max_body => {
                return Err(ResponseError::BodyTooLarge(self.max_body));
            }
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunk(SIZE),
            Framing::UntilClose => {
                self.reusable = false;
                State::UntilClose
            }
        };
        Ok(Some(length))
    }

    fn feed_chunk<'i>(
        &mut self,
        chunk: Chunk,
        input: &'i [u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<&'i [u8], ResponseError> {
        if let Chunk::Data(left) = chunk {
            let (part, rest) = split(input, left);
            self.emit(part, sink)?;
            let left = left - part.len() as u64;
            let next = if left == 0 { Chunk::DataEnd } else { Chunk::Data(left) };
            self.state = State::Chunk(next);
            return Ok(rest);
        }
        // The caller never passes an empty slice.
        let (&byte, rest) = input.split_first().ok_or(ResponseError::Chunk)?;
        self.state = match chunk {
            Chunk::Size { size, digits, seen, ended } => {
                size_line(byte, size, digits, seen, ended)?
            }
            Chunk::Data(_) | Chunk::DataEnd => match byte {
                b'\r' => State::Chunk(Chunk::DataEnd),
                b'\n' => State::Chunk(SIZE),
                _ => return Err(ResponseError::Chunk),
            },
            Chunk::Trailer { seen, .. } if seen >= MAX_CHUNK_LINE => {
                return Err(ResponseError::Chunk);
            }
            Chunk::Trailer { line, seen } => match byte {
                b'\n' if line == 0 => State::Done,
                b'\n' => State::Chunk(Chunk::Trailer { line: 0, seen: seen + 1 }),
                b'\r' => State::Chunk(Chunk::Trailer { line, seen: seen + 1 }),
                _ => State::Chunk(Chunk::Trailer { line: line + 1, seen: seen + 1 }),
            },
        };
        Ok(rest)
    }
}

/// The next byte of a chunk-size line.
fn size_line(
    byte: u8,
    size: u64,
    digits: u8,
    seen: usize,
    ended: bool,
) -> Result<State, ResponseError> {
    if seen >= MAX_CHUNK_LINE {
        return Err(ResponseError::Chunk);
    }
    let digit = (byte as char).to_digit(16).filter(|_| !ended);
    Ok(State::Chunk(match (byte, digit) {
        (b'\n', _) if digits == 0 => return Err(ResponseError::Chunk),
        (b'\n', _) if size == 0 => Chunk::Trailer { line: 0, seen: 0 },
        (b'\n', _) => Chunk::Data(size),
        (_, Some(_)) if digits >= 15 => return Err(ResponseError::Chunk),
        (_, Some(digit)) => {
            let size = size << 4 | u64::from(digit);
            Chunk::Size { size, digits: digits + 1, seen: seen + 1, ended }
        }
        // Whatever follows the digits is an extension, or blanks.
        (b';' | b' ' | b'\t' | b'\r', None) if digits > 0 => {
            Chunk::Size { size, digits, seen: seen + 1, ended: true }
        }
        (_, None) if ended => Chunk::Size { size, digits, seen: seen + 1, ended },
        (_, None) => return Err(ResponseError::Chunk),
    }))
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

fn framing(fields: &[httparse::Header<'_>]) -> Result<Framing, ResponseError> {
    let named = |name: &'static str| {
        fields.iter().filter(move |f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    };
    let mut codings = named("transfer-encoding");
    if let Some(coding) = codings.next() {
        let chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        let alone = codings.next().is_none() && named("content-length").next().is_none();
        return if chunked && alone { Ok(Framing::Chunked) } else { Err(ResponseError::Framing) };
    }
    let mut lengths = named("content-length");
    let Some(first) = lengths.next() else {
        return Ok(Framing::UntilClose);
    };
    if lengths.any(|other| other != first) {
        return Err(ResponseError::Framing);
    }
    let digits = first.trim_ascii();
    let number = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|n| n.parse().ok()).map(Framing::Length).ok_or(ResponseError::Framing)
}

/// Whether a `connection` field says that the connection stays (true) or ends (false).
fn connection_option(fields: &[httparse::Header<'_>]) -> Option<bool> {
    let options = || {
        fields
            .iter()
            .filter(|f| f.name.eq_ignore_ascii_case("connection"))
            .flat_map(|f| f.value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
    };
    if options().any(|o| o.eq_ignore_ascii_case(b"close")) {
        return Some(false);
    }
    options().any(|o| o.eq_ignore_ascii_case(b"keep-alive")).then_some(true)
}

fn split(input: &[u8], at: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(input.len());
    input.split_at(at)
}

#[cfg(test)]
mod tests;
