//! Pods that cost next to nothing: a thread per connection, a canned completion of 130 bytes, a
//! metrics page with vLLM's names.
//!
//! They run in a process of their own (the macro benchmark started again as `pods`), so that their
//! CPU time is in nobody's account. That process ends when its standard input does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;

use crate::VLLM_PAGE;

/// Stack of a connection's thread, which keeps its buffer on the heap.
const STACK: usize = 64 << 10;
const BUFFER: usize = 64 << 10;
/// Longest request head.
const HEAD: usize = 16 << 10;

const ANSWER: &str = r#"{"id":"cmpl-0","object":"text_completion","created":0,"model":"random","choices":[{"index":0,"text":" yes","finish_reason":"stop"}]}"#;

const SMALL_PAGE: &str = "\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"random\"} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine=\"0\",model_name=\"random\"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"random\"} 0.0
";

/// Which metrics page pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The names that matter, 600 bytes.
    Small,
    /// A real page of 74 KB.
    Real,
}

/// Pods in a process of their own; dropping it ends them.
#[derive(Debug)]
pub struct Pods {
    /// Their ports on 127.0.0.1.
    pub ports: Vec<u16>,
    child: Child,
    // The process lives as long as this.
    stdin: Option<ChildStdin>,
}

impl Pods {
    /// Starts `count` pods.
    ///
    /// # Errors
    /// A process that does not start.
    pub fn start(count: usize, page: Page) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pods", &count.to_string()]);
        if page == Page::Real {
            command.arg("--real-page");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let ports: Vec<u16> = line.split_whitespace().flat_map(str::parse).collect();
        let pods = Self { ports, child, stdin };
        if pods.ports.len() != count {
            return Err(io::Error::other(format!("{count} pods did not start: {line}")));
        }
        Ok(pods)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Is the process: serves until standard input ends.
///
/// # Errors
/// Ports that cannot be had.
pub fn serve(count: usize, page: Page) -> io::Result<()> {
    let answer = Arc::new(Answers {
        completion: response("application/json", ANSWER.as_bytes()),
        page: match page {
            Page::Small => response("text/plain; version=0.0.4", SMALL_PAGE.as_bytes()),
            Page::Real => response("text/plain; version=0.0.4", VLLM_PAGE),
        },
    });
    let mut ports = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        ports.push(listener.local_addr()?.port().to_string());
        let answer = Arc::clone(&answer);
        thread::Builder::new().stack_size(STACK).spawn(move || accept(&listener, &answer))?;
    }
    println!("{}", ports.join(" "));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

struct Answers {
    completion: Vec<u8>,
    page: Vec<u8>,
}

fn response(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn accept(listener: &TcpListener, answers: &Arc<Answers>) {
    for stream in listener.incoming().flatten() {
        let answers = Arc::clone(answers);
        // A client that hangs up or talks nonsense loses its connection, nothing else.
        let serve = move || drop(connection(stream, &answers));
        let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
    }
}

fn connection(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    let mut held = 0;
    loop {
        let head = loop {
            if let Some(end) = head_end(&buffer[..held]) {
                break end;
            }
            let read = stream.read(&mut buffer[held..])?;
            if read == 0 || held > HEAD {
                return Ok(());
            }
            held += read;
        };
        let answer =
            if buffer.starts_with(b"GET /metrics") { &answers.page } else { &answers.completion };
        let mut left = content_length(&buffer[..head])?;
        let here = left.min(held - head);
        left -= here;
        buffer.copy_within(head + here..held, 0);
        held -= head + here;
        while left > 0 {
            let most = left.min(buffer.len());
            let read = stream.read(&mut buffer[..most])?;
            if read == 0 {
                return Ok(());
            }
            left -= read;
        }
        stream.write_all(answer)?;
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let head = &bytes[..bytes.len().min(HEAD)];
    head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The length of the body; 0 without the header.
pub(super) fn content_length(head: &[u8]) -> io::Result<usize> {
    let head = std::str::from_utf8(head).map_err(io::Error::other)?;
    for line in head.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return value.trim().parse().map_err(io::Error::other);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::other("chunked bodies are not expected here"));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_chunks_refused() {
        assert_eq!(content_length(b"POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n").unwrap(), 12);
        assert_eq!(content_length(b"GET / HTTP/1.1\r\n\r\n").unwrap(), 0);
        assert!(content_length(b"P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn requests_in_a_row_are_answered_whatever_their_size() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Answers { completion: response("a", b"done"), page: response("b", b"page") };
        thread::spawn(move || connection(listener.accept().unwrap().0, &answers));
        let mut client = TcpStream::connect(address).unwrap();
        let body = vec![b'x'; 200_000];
        for (request, expected) in [
            (format!("POST /v1 HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()), "done"),
            ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "page"),
        ] {
            client.write_all(request.as_bytes()).unwrap();
            if request.starts_with("POST") {
                client.write_all(&body).unwrap();
            }
            let mut answer = vec![0; 256];
            let read = client.read(&mut answer).unwrap();
            assert!(answer[..read].ends_with(expected.as_bytes()));
        }
    }
}
