//! A pod's front: passes requests on and answers `/metrics` as the test wants.
//!
//! So a pod can have any numbers, and its metrics can fail while it serves.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What becomes of a scrape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scrape {
    /// It is answered with this KV-cache usage.
    Usage(f64),
    /// It is never answered.
    Hangs,
    /// It is answered with 500.
    Fails,
}

/// A listener on loopback before a pod; ends when it is dropped.
#[derive(Debug)]
pub struct Front {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    scrape: Mutex<Scrape>,
    held: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

impl Front {
    /// A front of the pod on loopback port `pod`.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn of(pod: u16, scrape: Scrape) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
        let port = listener.local_addr().unwrap_or_else(|e| panic!("{e}")).port();
        let shared = Arc::new(Shared {
            scrape: Mutex::new(scrape),
            held: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                // A connection that fails is the business of whoever made it.
                thread::spawn(move || shared.serve(client, pod));
            }
        });
        Self { port, shared }
    }

    /// What becomes of scrapes from now on.
    pub fn set(&self, scrape: Scrape) {
        *lock(&self.shared.scrape) = scrape;
        lock(&self.shared.held).clear();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        lock(&self.shared.held).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn serve(&self, mut client: TcpStream, pod: u16) -> io::Result<()> {
        const SCRAPE: &[u8] = b"GET /metrics";
        let mut head = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let len = client.read(&mut piece)?;
            head.extend_from_slice(&piece[..len]);
            let complete = head.windows(4).any(|end| end == b"\r\n\r\n");
            if len == 0 || complete || head.len() > SCRAPE.len() && !head.starts_with(SCRAPE) {
                break;
            }
        }
        if !head.starts_with(SCRAPE) {
            return forward(client, &head, pod);
        }
        let scrape = *lock(&self.scrape);
        let (status, body) = match scrape {
            Scrape::Hangs => {
                lock(&self.held).push(client);
                return Ok(());
            }
            Scrape::Fails => ("500 Internal Server Error", String::new()),
            Scrape::Usage(usage) => (
                "200 OK",
                format!(
                    "# TYPE vllm:num_requests_waiting gauge\n\
                     vllm:num_requests_waiting{{model_name=\"random\"}} 0\n\
                     # TYPE vllm:num_requests_running gauge\n\
                     vllm:num_requests_running{{model_name=\"random\"}} 0\n\
                     # TYPE vllm:kv_cache_usage_perc gauge\n\
                     vllm:kv_cache_usage_perc{{model_name=\"random\"}} {usage}\n"
                ),
            ),
        };
        write!(
            client,
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Passes everything on, both ways, until either side ends.
fn forward(mut client: TcpStream, head: &[u8], pod: u16) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", pod))?;
    server.write_all(head)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let answers = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = answers.join();
    Ok(())
}
