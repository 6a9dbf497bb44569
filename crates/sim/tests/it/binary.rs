//! The program: flags, discovery file, signals.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use crate::support::{eventually, exactly, get, post};

struct Program {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Program {
    fn start(pods: usize, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_inlane-sim"))
            .args(["--port", "0", "--pods-on", "ports", "--pods", &pods.to_string()])
            .args(flags)
            .env_remove("POD_NAME")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(pods);
        let addresses = lines
            .map(|line| line.unwrap().rsplit_once("http://").unwrap().1.parse().unwrap())
            .collect();
        Self { child, addresses }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn writes_the_discovery_file() {
    let path = std::env::temp_dir().join(format!("inlane-sim-{}.yaml", std::process::id()));
    let file = path.to_str().unwrap();
    let flags = ["--write-endpoints", file, "--endpoint-label", "llm-d.ai/role=decode"];
    let program = Program::start(2, &flags);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let yaml: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    for (index, address) in program.addresses.iter().enumerate() {
        let endpoint = &yaml["endpoints"][index];
        assert_eq!(endpoint["name"], format!("sim-{index}"));
        assert_eq!(endpoint["namespace"], "default");
        assert_eq!(endpoint["address"], "127.0.0.1");
        assert_eq!(endpoint["port"], address.port().to_string());
        assert_eq!(endpoint["labels"]["llm-d.ai/role"], "decode");
        assert_eq!(get(*address, "/health").status, 200);
    }
}

#[test]
fn ends_gracefully_on_sigterm() {
    let mut program = Program::start(1, &["--time-to-first-token", "300ms"]);
    let address = program.addresses[0];
    let client =
        std::thread::spawn(move || post(address, "/v1/completions", &exactly("a", 1)).status);
    eventually("it runs", || {
        get(address, "/metrics")
            .body
            .contains("num_requests_running{engine=\"0\",model_name=\"random\"} 1.0")
    });
    program.signal("-TERM");
    assert_eq!(client.join().unwrap(), 200);
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn ends_on_interrupt() {
    let mut program = Program::start(1, &[]);
    program.signal("-INT");
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn explains_mistakes() {
    let run = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_inlane-sim")).args(flags).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["--block-size", "7"]).contains("8, 16, 32, 64 or 128"));
    assert!(
        run(&["--inter-token-latency", "1ms", "--inter-token-latency-std-dev", "1ms"])
            .contains("30 %")
    );
    assert!(run(&["--address", "192.0.2.1"]).contains("cannot listen on 192.0.2.1:8000"));
}
