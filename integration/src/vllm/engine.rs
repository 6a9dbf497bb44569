//! A vLLM server on loopback.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inlane_cli::lab::Client;
use inlane_cli::lab::process::{free_ports, tail};
use serde_json::{Value, json};

use super::{ADAPTERS, MODEL, model};

/// Longest time from the start of a process to its first answer: Python imports for a minute or
/// two where others build.
const BOOT: Duration = Duration::from_secs(600);

/// Longest time that a server may take to end.
const GRACE: Duration = Duration::from_secs(20);

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Name of the endpoint.
    pub name: &'static str,
    /// Tokens per block: multiples of 32 on CPU.
    pub block: u32,
    /// Blocks of its cache.
    pub blocks: u32,
    /// `--prefix-caching-hash-algo`.
    pub hash: &'static str,
    /// `PYTHONHASHSEED`.
    pub seed: Option<&'static str>,
    /// Whether hashes are published as numbers, else as bytes.
    pub numbers: bool,
    /// Whether it serves the LoRA adapters in this directory.
    pub adapters: Option<PathBuf>,
    /// The port that it connects to with its events; otherwise it binds one of its own choice.
    pub central: Option<u16>,
}

/// A server, ended when it is dropped.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    /// How it was started.
    pub setup: Setup,
    /// Port of its API on 127.0.0.1.
    pub port: u16,
    replays: u16,
    log: PathBuf,
    child: Option<Child>,
}

impl Engine {
    /// Starts `program`, which is the command `vllm`, and does not wait for it. Its output goes to
    /// `dir`.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start(program: &Path, setup: Setup, dir: &Path) -> io::Result<Self> {
        let [port, replays] = free_ports();
        let log = dir.join(format!("{}.log", setup.name));
        let program = program.to_owned();
        let mut engine = Self { program, setup, port, replays, log, child: None };
        engine.start_again()?;
        Ok(engine)
    }

    /// Starts it anew, at the same ports.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.stop();
        let out = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(self.arguments());
        for (name, value) in [
            ("HF_HUB_OFFLINE", "1"),
            ("VLLM_NO_USAGE_STATS", "1"),
            ("VLLM_HOST_IP", "127.0.0.1"),
            ("VLLM_CPU_KVCACHE_SPACE", "1"),
            ("OMP_NUM_THREADS", "1"),
            // For /reset_prefix_cache.
            ("VLLM_SERVER_DEV_MODE", "1"),
            ("VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", if self.setup.numbers { "1" } else { "0" }),
        ] {
            command.env(name, value);
        }
        match self.setup.seed {
            Some(seed) => command.env("PYTHONHASHSEED", seed),
            None => command.env_remove("PYTHONHASHSEED"),
        };
        // Its processes make a group, so that all of them can be ended.
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|e| io::Error::other(format!("{}: {e}", self.program.display())))?;
        self.child = Some(child);
        Ok(())
    }

    /// The command `vllm` that it was started by.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where it can be asked for events again.
    pub fn replays(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.replays)
    }

    /// The arguments that it was started with.
    pub fn arguments(&self) -> Vec<String> {
        let Setup { block, blocks, hash, adapters, central, .. } = &self.setup;
        // vLLM connects to an endpoint unless it has a `*`. An address that is its own would be
        // taken for one that it binds; a name is not. Port 0 of `*` is a free one of
        // VLLM_HOST_IP.
        let endpoint = match central {
            Some(port) => format!("tcp://localhost:{port}"),
            None => "tcp://*:0".to_owned(),
        };
        let publish = json!({
            "enable_kv_cache_events": true, "publisher": "zmq", "endpoint": endpoint,
            "replay_endpoint": self.replays(),
            "topic": format!("kv@127.0.0.1:{}@{MODEL}", self.port),
        });
        let mut arguments: Vec<String> = [
            "serve",
            &model().to_string_lossy(),
            "--served-model-name",
            MODEL,
            "--load-format",
            "dummy",
            "--host",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--seed",
            "0",
            "--enforce-eager",
            "--max-model-len",
            "1024",
            "--block-size",
            &block.to_string(),
            "--num-gpu-blocks-override",
            &blocks.to_string(),
            "--max-num-seqs",
            "2",
            "--enable-prefix-caching",
            "--prefix-caching-hash-algo",
            hash,
            "--kv-events-config",
            &publish.to_string(),
            "--enable-scale-out",
            "--trust-request-chat-template",
            "--enable-prompt-tokens-details",
            "--enable-auto-tool-choice",
            "--tool-call-parser",
            "hermes",
        ]
        .map(str::to_owned)
        .into();
        if let Some(dir) = adapters {
            let options = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"];
            arguments.extend(options.map(str::to_owned));
            arguments.push("--lora-modules".into());
            let listed = ADAPTERS.map(|name| format!("{name}={}", dir.join(name).display()));
            arguments.extend(listed);
        }
        arguments
    }

    /// Waits until it answers; says how long that took.
    ///
    /// # Errors
    /// A server that has ended or takes too long, with the end of its log.
    pub fn wait_ready(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        loop {
            if self.client().get("/health").is_ok_and(|answer| answer.status == 200) {
                return Ok(start.elapsed());
            }
            let ended = self.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            if ended || start.elapsed() > BOOT {
                let how = if ended { "ended" } else { "does not answer" };
                let name = self.setup.name;
                return Err(io::Error::other(format!("{name} {how}:\n{}", tail(&self.log, 40))));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A client of its API.
    pub fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// Sends JSON to it and reads the JSON that comes back with status 200.
    ///
    /// # Errors
    /// Another status, no JSON, no connection.
    pub fn post(&self, path: &str, body: &str) -> io::Result<Value> {
        let answer = self.client().post(path, &[], body.as_bytes())?;
        match answer.status {
            200 => answer.json(),
            status => Err(io::Error::other(format!("{path}: {status}: {}", answer.text()))),
        }
    }

    /// The sum of the series of a metric.
    ///
    /// # Errors
    /// No connection.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        Ok(sum(&self.client().get("/metrics")?.text(), name))
    }

    /// Ends all of its processes.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, "TERM");
        let start = Instant::now();
        while start.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        signal(&child, "KILL");
        let _ = child.wait();
    }

    /// Kills all of its processes at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, "KILL");
            let _ = child.wait();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The sum of the series of a metric on a page.
pub fn sum(page: &str, name: &str) -> f64 {
    let of_family =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = page.lines().filter(of_family);
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Sends a signal to the group of a process.
fn signal(child: &Child, signal: &str) {
    let script = format!("kill -{signal} -{} 2>/dev/null", child.id());
    let _ = Command::new("sh").args(["-c", &script]).status();
}
