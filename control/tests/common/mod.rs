//! The control plane as a process, model servers that answer what a test says, and a reader of the
//! segment.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part, and may fail this way")]

pub(crate) mod engine;
pub(crate) mod redis;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use inlane_core::snapshot::{ConfigDocument, MetricsRow, ROW_WORDS, Topology, TopologyEndpoint};
use inlane_segment::{Document, SnapshotReader};
use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` answers, or fails the test.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A model server with a metrics page. Its threads end with the test process.
pub(crate) struct ModelServer {
    pub(crate) address: SocketAddr,
    page: Arc<Mutex<String>>,
}

impl ModelServer {
    pub(crate) fn start(page: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let page = Arc::new(Mutex::new(page.to_owned()));
        let shared = Arc::clone(&page);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let page = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &page));
            }
        });
        Self { address, page }
    }

    pub(crate) fn set_page(&self, page: &str) {
        page.clone_into(&mut self.page.lock().unwrap());
    }

    /// An entry of an endpoints file.
    pub(crate) fn entry(&self, name: &str) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        format!("- {{name: {name}, address: \"{ip}\", port: \"{port}\"}}\n")
    }
}

fn answer(stream: TcpStream, page: &Mutex<String>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
        if line == "\r\n" {
            let body = page.lock().unwrap().clone();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            if stream.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
        line.clear();
    }
}

/// A vLLM page of the usual numbers.
pub(crate) fn vllm_page(waiting: u32, running: u32, kv_usage: f64) -> String {
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine=\"0\"}} {waiting}\n\
         # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\"}} {running}\n\
         # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{engine=\"0\"}} {kv_usage}\n\
         # TYPE vllm:cache_config_info gauge\n\
         vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"1000\"}} 1\n"
    )
}

/// A directory of one test: segment, endpoints file, configuration.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// One whose segment lies in memory, as it does where the scheduler is at work.
    pub(crate) fn in_memory() -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Self { dir: dir.unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes the endpoints file in one step.
    pub(crate) fn endpoints(&self, entries: &[String]) {
        let new = self.write("endpoints.new", &format!("endpoints:\n{}", entries.concat()));
        std::fs::rename(new, self.path("endpoints.yaml")).unwrap();
    }

    pub(crate) fn segment(&self) -> PathBuf {
        self.path("segment")
    }

    /// Starts the control plane on the scene's files.
    pub(crate) fn start(&self, args: &[&str]) -> Control {
        let endpoints = self.path("endpoints.yaml");
        let mut all = vec!["--endpoints-file", endpoints.to_str().unwrap()];
        all.extend(args);
        Control::start(&self.segment(), &all)
    }

    pub(crate) fn reader(&self) -> Reader {
        let reader = eventually("a segment", || SnapshotReader::open(self.segment()).ok());
        Reader(reader)
    }
}

/// A running control plane; killed when dropped.
pub(crate) struct Control {
    child: Child,
    address: Option<SocketAddr>,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Control {
    /// Starts it and waits until it serves, or has ended.
    pub(crate) fn start(segment: &Path, args: &[&str]) -> Self {
        Self::start_with(segment, args, &[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(segment: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_inlane-control"))
            .args(["--listen", "127.0.0.1:0", "--segment-dir", segment.to_str().unwrap()])
            .args(args)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let sink = Arc::clone(&log);
        let reading = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sink.lock().unwrap().push(value);
            }
        });
        let mut this = Self { child, address: None, log };
        this.address = eventually("start or end", || {
            match this.logged("serving") {
                Some(line) => Some(line["address"].as_str()?.parse().ok()),
                // The log is complete when its reader has seen the end.
                None => reading.is_finished().then_some(None),
            }
        });
        this
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The last log line with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        let log = self.log.lock().unwrap();
        log.iter().rev().find(|line| line["msg"] == message).cloned()
    }

    pub(crate) fn log_text(&self) -> String {
        let log = self.log.lock().unwrap();
        log.iter().map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address.unwrap()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).1).unwrap()
    }

    /// The value of a series of the metrics page, by its name and labels.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let page = self.get("/metrics").1;
        let line = page.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Ends it with SIGTERM.
    pub(crate) fn stop(mut self) -> ExitStatus {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the end", || self.child.try_wait().unwrap())
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of the control plane:\n{}", self.log_text());
        }
    }
}

/// The segment as a proxy reads it.
pub(crate) struct Reader(pub(crate) SnapshotReader);

impl Reader {
    fn document(&mut self, kind: Document) -> Option<(u64, Vec<u8>)> {
        self.0.poll().ok()?;
        let document = self.0.snapshot().document(kind).ok()??;
        Some((document.generation, document.bytes))
    }

    pub(crate) fn topology(&mut self) -> Option<(u64, Topology)> {
        let (generation, bytes) = self.document(Document::Topology)?;
        Some((generation, serde_json::from_slice(&bytes).unwrap()))
    }

    pub(crate) fn config(&mut self) -> Option<(u64, ConfigDocument)> {
        let (generation, bytes) = self.document(Document::Config)?;
        Some((generation, serde_json::from_slice(&bytes).unwrap()))
    }

    /// Names of the members.
    pub(crate) fn names(&mut self) -> Vec<String> {
        let topology = self.topology().map(|t| t.1).unwrap_or_default();
        topology.endpoints.into_iter().map(|e| e.name).collect()
    }

    pub(crate) fn endpoint(&mut self, name: &str) -> Option<TopologyEndpoint> {
        self.topology()?.1.endpoints.into_iter().find(|e| e.name == name)
    }

    pub(crate) fn wait_for_names(&mut self, names: &[&str]) {
        let what = format!("members {names:?}");
        eventually(&what, || (self.names() == names).then_some(()));
    }

    pub(crate) fn row(&self, slot: u32) -> MetricsRow {
        let mut words = [0; ROW_WORDS];
        assert!(self.0.snapshot().row(slot, &mut words));
        MetricsRow::from_words(&words)
    }
}
