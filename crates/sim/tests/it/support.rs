//! A blocking HTTP client that shows every byte, and pods to use it on.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use inlane_sim::{
    Cluster, Config,
    config::{duration::GoDuration, tunables::Tunables},
};
use serde_json::Value;

/// A configuration for tests: any free port, fixed seed, no environment.
pub(crate) fn config() -> Config {
    Config { port: 0, seed: Some(7), ..Config::default() }
}

/// One pod with this configuration.
pub(crate) fn one(config: Config) -> (Cluster, SocketAddr) {
    let cluster = Cluster::start(config, 1).unwrap();
    let address = cluster.pods[0].address();
    (cluster, address)
}

/// A configuration with these latencies.
pub(crate) fn slow(first: &str, between: &str) -> Config {
    let duration = |text: &str| text.parse::<GoDuration>().unwrap();
    let tunables = Tunables {
        time_to_first_token: duration(first),
        inter_token_latency: duration(between),
        ..Tunables::default()
    };
    Config { tunables, ..config() }
}

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines of the head after the first, lower case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The payloads of a stream's `data:` lines.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect()
    }
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> io::Result<()> {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        write!(
            self.stream,
            "{method} {path} HTTP/1.1\r\nhost: sim\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    }

    /// Reads until `end` says that what was read is enough, or the connection ends.
    pub(crate) fn read_until(&mut self, end: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        while !end(&self.buffer) {
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.buffer.extend_from_slice(&piece[..n]),
            }
        }
        Ok(())
    }

    /// What has been read so far.
    pub(crate) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads one response.
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        self.read_until(|seen| find(seen, b"\r\n\r\n").is_some())?;
        let head_end = find(&self.buffer, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.buffer[..head_end].to_vec()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let body = if header("transfer-encoding") == Some("chunked") {
            self.read_until(|seen| seen.ends_with(b"\r\n0\r\n\r\n"))?;
            let body = dechunk(&self.buffer[head_end..]);
            self.buffer.clear();
            body
        } else {
            let length: usize = header("content-length").unwrap_or("0").parse().unwrap();
            self.read_until(|seen| seen.len() >= head_end + length)?;
            let body = self.buffer[head_end..head_end + length].to_vec();
            self.buffer.drain(..head_end + length);
            body
        };
        Ok(Answer { status, headers, body: String::from_utf8(body).unwrap() })
    }
}

/// One request on a connection of its own.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> io::Result<Answer> {
    let mut client = Client::connect(address)?;
    client.send(method, path, headers, body)?;
    client.receive()
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], "").unwrap()
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    request(address, "POST", path, &[], body).unwrap()
}

/// A text completion of at most `max_tokens` tokens, always that many.
pub(crate) fn exactly(prompt: &str, max_tokens: usize) -> String {
    format!(
        r#"{{"model":"random","prompt":"{prompt}","max_tokens":{max_tokens},"ignore_eos":true}}"#
    )
}

/// Waits until `condition` holds; fails after ten seconds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = find(rest, b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}
