//! Load below saturation: connections that think between an answer and their next request.
//!
//! Thinking time is random around its mean, so that connections do not fall into step. Latency is
//! from the first byte written to the last byte read, on a blocking socket with a thread of its own;
//! waking that thread up is part of it, with and without a scheduler alike.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::pods::content_length;
use super::wrk::Seen;
use crate::bodies::{self, BODIES};

/// Connections, as in the comparison.
pub const CONNECTIONS: usize = 16;
/// Requests of each connection that are not counted: they find cold connections.
const UNCOUNTED: usize = 2;

/// Requests of one size, complete with their heads.
#[derive(Debug)]
pub struct Requests {
    bytes: Vec<Vec<u8>>,
}

impl Requests {
    /// A set with `len` bytes of prompt.
    pub fn new(len: usize) -> Self {
        let request = |index| {
            let body = bodies::completion(index, len);
            format!(
                "POST /v1/completions HTTP/1.1\r\nhost: pods\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        Self { bytes: (0..BODIES).map(request).collect() }
    }

    /// Sends about `rate` requests per second to `port` for `length`.
    ///
    /// # Errors
    /// A connection that cannot be made, or on which nothing was answered.
    pub fn run(&self, port: u16, rate: f64, length: Duration) -> io::Result<Seen> {
        let think = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
        let start = Instant::now();
        let outcomes = thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|n| scope.spawn(move || self.connection(n, port, think, start + length)))
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        let seconds = start.elapsed().as_secs_f64();
        let (mut latencies, mut errors) = (Vec::new(), 0);
        for outcome in outcomes {
            let outcome = outcome.map_err(|_| io::Error::other("a client panicked"))??;
            latencies.extend(outcome.0);
            errors += outcome.1;
        }
        latencies.sort_unstable();
        let at = |share: f64| {
            let ix = ((latencies.len() as f64 * share) as usize).min(latencies.len().max(1) - 1);
            latencies.get(ix).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        let counted = latencies.len() as u64;
        let requests = counted + (CONNECTIONS * UNCOUNTED) as u64;
        Ok(Seen { requests, seconds, errors, p50_ms: at(0.5), p99_ms: at(0.99) })
    }

    fn connection(
        &self,
        n: usize,
        port: u16,
        think: Duration,
        end: Instant,
    ) -> io::Result<(Vec<Duration>, u64)> {
        let mut rng = fastrand::Rng::with_seed(n as u64);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (mut latencies, mut errors) = (Vec::new(), 0);
        let mut buffer = vec![0; 16 << 10];
        for turn in 0.. {
            thread::sleep(think.mul_f64(0.5 + rng.f64()));
            if Instant::now() >= end {
                break;
            }
            let request = &self.bytes[(turn * CONNECTIONS + n) % BODIES];
            let start = Instant::now();
            stream.write_all(request)?;
            let good = answer(&mut stream, &mut buffer)?;
            if turn >= UNCOUNTED {
                latencies.push(start.elapsed());
            }
            errors += u64::from(!good);
        }
        Ok((latencies, errors))
    }
}

/// Reads one answer; says whether its status was 200.
fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    let mut held = 0;
    loop {
        let read = stream.read(&mut buffer[held..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        held += read;
        let Some(at) = buffer[..held].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = at + 4;
        if held >= head + content_length(&buffer[..head])? {
            return Ok(buffer.starts_with(b"HTTP/1.1 200"));
        }
    }
}
