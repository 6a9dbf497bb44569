//! One metrics page over one kept-alive connection.
//!
//! Bytes go from the socket through a buffer that all scrapes share (nothing is kept of it across
//! an await point) into the decoder and on into what reads it: no page is ever held.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::response::{Response, ResponseError};

/// Most bytes of a metrics page.
pub(crate) const MAX_PAGE: u64 = 8 * 1024 * 1024;

/// Size of the shared buffer: a usual page fits, so that one read takes what the kernel has.
const BUFFER: usize = 128 * 1024;

/// The read buffer that all scrapes of the thread share.
#[derive(Debug, Clone)]
pub(crate) struct SharedBuffer(Rc<RefCell<Box<[u8]>>>);

impl SharedBuffer {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; BUFFER].into_boxed_slice())))
    }
}

/// What reads a page.
pub(crate) trait Body {
    /// Forgets the page at hand: another one begins.
    fn begin(&mut self);
    /// Takes the next piece.
    fn piece(&mut self, bytes: &[u8]);
}

/// Why a page could not be had.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    #[error("connection: {0}")]
    Io(#[source] io::Error),
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error("no complete page within {0} ms")]
    Timeout(u128),
}

/// Fetches pages from one server.
#[derive(Debug)]
pub(crate) struct Fetcher {
    address: SocketAddr,
    request: Vec<u8>,
    /// Only there between two pages: a fetch that is given up takes its connection with it.
    idle: Option<TcpStream>,
    response: Response,
}

impl Fetcher {
    /// A fetcher of `path` from `address`.
    pub(crate) fn new(address: SocketAddr, path: &str) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: inlane-control\r\n\
             Accept: text/plain;version=0.0.4,*/*;q=0.1\r\n\r\n"
        );
        Self {
            address,
            request: request.into_bytes(),
            idle: None,
            response: Response::new(MAX_PAGE),
        }
    }

    /// Fetches a page into `body` and returns its size on the wire. A kept-alive connection
    /// that turns out to be closed is replaced once.
    pub(crate) async fn fetch(
        &mut self,
        buffer: &SharedBuffer,
        body: &mut impl Body,
    ) -> Result<u64, FetchError> {
        if let Some(stream) = self.idle.take() {
            match self.exchange(stream, buffer, body).await {
                Err(FetchError::Io(_) | FetchError::Response(ResponseError::Truncated))
                    if self.response.is_untouched() => {}
                result => return result,
            }
        }
        let stream = TcpStream::connect(self.address).await.map_err(FetchError::Connect)?;
        // Best effort: the request is a single segment anyway.
        let _ = stream.set_nodelay(true);
        self.exchange(stream, buffer, body).await
    }

    async fn exchange(
        &mut self,
        mut stream: TcpStream,
        buffer: &SharedBuffer,
        body: &mut impl Body,
    ) -> Result<u64, FetchError> {
        self.response.restart();
        body.begin();
        stream.write_all(&self.request).await.map_err(FetchError::Io)?;
        let response = &mut self.response;
        let mut received = 0;
        poll_fn(|cx| {
            let mut buffer = buffer.0.borrow_mut();
            loop {
                let mut part = ReadBuf::new(&mut buffer);
                ready!(Pin::new(&mut stream).poll_read(cx, &mut part)).map_err(FetchError::Io)?;
                let part = part.filled();
                if part.is_empty() {
                    return Poll::Ready(response.end().map_err(FetchError::from));
                }
                received += part.len() as u64;
                if response.feed(part, &mut |piece| body.piece(piece))? {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await?;
        if self.response.is_reusable() {
            self.idle = Some(stream);
        }
        Ok(received)
    }
}
