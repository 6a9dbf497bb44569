//! Real Envoys, pods that answer with their name, and a client, all on the loopback interface.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The Envoys to test with, by version, oldest first; older than 1.38 are refused, which is tested elsewhere.
pub(crate) fn envoys() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.local/envoy");
    let root = std::env::var_os("INLANE_ENVOY_DIR").map_or(root, PathBuf::from);
    let mut found: Vec<_> = fs::read_dir(&root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().join("envoy")))
        .filter(|(version, binary)| version.as_str() >= "1.38" && binary.is_file())
        .collect();
    found.sort();
    assert!(
        !found.is_empty(),
        "no Envoy under {} (expected <version>/envoy there): run `make deps`, or set INLANE_ENVOY_DIR",
        root.display()
    );
    found
}

/// Where cargo puts the examples, beside the directory of this test.
fn modules() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(2).expect("target/<profile>").join("examples")
}

/// Waits until `probe` has a value.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends one request; `None` when the connection ends without an answer.
pub(crate) fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n");
    for (key, value) in headers {
        request += &format!("{key}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    // Not to the end of the connection, which Envoy delays when it has answered before the request was read.
    while !is_complete(&answer) {
        match stream.read(&mut chunk) {
            Ok(length @ 1..) => answer.extend_from_slice(&chunk[..length]),
            _ => break,
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if chunked { join_chunks(body)? } else { body.to_owned() };
    Some(Answer { status, head: head.to_owned(), body })
}

/// Whether all that `content-length` announces is there.
fn is_complete(answer: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length)
}

/// The body behind the chunked transfer encoding; `None` when it is cut off.
fn join_chunks(mut encoded: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = encoded.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body += rest.get(..size)?;
        encoded = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// A pod: it answers every request with its name and the head of what it received.
pub(crate) struct Pod {
    pub(crate) address: String,
}

impl Pod {
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback interface");
        let address = listener.local_addr().expect("its address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, name));
            }
        });
        Self { address }
    }

    /// An address where nothing listens.
    pub(crate) fn dead() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback interface");
        Self { address: listener.local_addr().expect("its address").to_string() }
    }
}

fn serve(mut stream: TcpStream, name: &str) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(length @ 1..) => request.extend_from_slice(&chunk[..length]),
            _ => return,
        }
    }
    let body = format!("{name}\n{}", String::from_utf8_lossy(&request));
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // The client may be gone: that is its business.
    let _ = stream.write_all((head + &body).as_bytes());
}

/// A running Envoy; killed when dropped.
pub(crate) struct Envoy {
    process: Child,
    pub(crate) admin: SocketAddr,
    log: PathBuf,
}

/// A directory of this run's own.
fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    fs::create_dir_all(&path).expect("a scratch directory");
    path
}

fn command(binary: &Path, scratch: &Path, bootstrap: &str) -> Command {
    let config = scratch.join("envoy.yaml");
    fs::write(&config, bootstrap).expect("the bootstrap file");
    let log = fs::File::create(scratch.join("log")).expect("the log file");
    let mut command = Command::new(binary);
    command
        .arg("-c")
        .arg(config)
        .args(["--disable-hot-restart", "--concurrency", "2"])
        .args(["-l", "warning", "--component-log-level", "dynamic_modules:debug"])
        .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", modules())
        .stdout(log.try_clone().expect("the log file"))
        .stderr(log);
    command
}

/// Runs `--mode validate` and returns its verdict and what it said.
pub(crate) fn validate(binary: &Path, bootstrap: &str) -> (ExitStatus, String) {
    let scratch = scratch();
    let status = command(binary, &scratch, bootstrap)
        .args(["--mode", "validate"])
        .status()
        .expect("Envoy runs");
    (status, fs::read_to_string(scratch.join("log")).unwrap_or_default())
}

impl Envoy {
    /// Starts Envoy and waits until it is ready.
    pub(crate) fn start(binary: &Path, bootstrap: &str) -> Self {
        let scratch = scratch();
        let admin = scratch.join("admin");
        let process = command(binary, &scratch, bootstrap)
            .arg("--admin-address-path")
            .arg(&admin)
            .stdin(Stdio::null())
            .spawn()
            .expect("Envoy starts");
        let log = scratch.join("log");
        // Owned from here on, so that a failure below kills the process.
        let mut envoy = Self { process, admin: ([127, 0, 0, 1], 0).into(), log };
        envoy.admin = eventually("the admin address", || {
            envoy.assert_alive();
            fs::read_to_string(&admin).ok()?.trim().parse().ok()
        });
        eventually("readiness", || {
            envoy.assert_alive();
            envoy.get("/ready").filter(|answer| answer.status == 200)
        });
        envoy
    }

    /// The address of the first listener.
    pub(crate) fn listener(&mut self) -> SocketAddr {
        eventually("a listener", || {
            self.get("/listeners")?.body.lines().next()?.split("::").nth(1)?.parse().ok()
        })
    }

    /// Asks the admin port.
    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        send(self.admin, "GET", path, &[], "")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn assert_alive(&mut self) {
        if let Ok(Some(status)) = self.process.try_wait() {
            panic!("Envoy ended with {status}:\n{}", self.log());
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let sent = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(sent.expect("kill runs").success());
        eventually("the end after SIGTERM", || self.process.try_wait().ok().flatten())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- the end of Envoy's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
