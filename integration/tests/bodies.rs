//! Bodies of every size and framing, and clients that go away.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use inlane_cli::lab::{Bootstrap, Plan};
use inlane_integration::scenario::{Scenario, config};

fn plan() -> Plan {
    Plan {
        pods: 2,
        config: config::profile(&[
            ("active-request-scorer", 1),
            ("prefix-cache-scorer", 2),
            ("max-score-picker", 0),
        ]),
        ..Plan::default()
    }
}

/// A completion request of about `size` bytes.
fn body(size: usize) -> String {
    let frame = r#"{"model":"random","max_tokens":1,"prompt":""}"#.len();
    let prompt = "0123456789abcde ".repeat(size / 16 + 1);
    let prompt = &prompt[..size.saturating_sub(frame)];
    format!(r#"{{"model":"random","max_tokens":1,"prompt":"{prompt}"}}"#)
}

const SIZES: [usize; 5] = [1 << 10, 64 << 10, 1 << 20, 3 << 20, (16 << 20) - 64];

#[test]
fn bodies_up_to_sixteen_megabytes_pass() {
    let lab = Scenario::start(plan());
    for size in SIZES {
        let answer = lab.client().post("/v1/completions", &[], body(size).as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{size} bytes: {}", answer.text());
        let tokens = answer.json().unwrap()["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!(tokens as usize > size / 32, "{size} bytes arrived as {tokens} tokens");
    }
    lab.end();
}

#[test]
fn chunked_and_http2_bodies_pass() {
    let lab = Scenario::start(plan());
    for size in SIZES {
        let file = lab.dir.join("body.json");
        std::fs::write(&file, body(size)).unwrap();
        for framing in
            [&["--http1.1", "-H", "transfer-encoding: chunked"][..], &["--http2-prior-knowledge"]]
        {
            let output = Command::new("curl")
                .args(["-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"])
                .args(framing)
                .args(["-H", "content-type: application/json", "-H", "expect:", "--data-binary"])
                .arg(format!("@{}", file.display()))
                .arg(format!("http://127.0.0.1:{}/v1/completions", lab.port))
                .output()
                .unwrap();
            let status = String::from_utf8_lossy(&output.stdout);
            assert_eq!(status, "200", "{size} bytes {framing:?}: {output:?}");
        }
    }
    lab.end();
}

#[test]
fn too_large_bodies_are_refused_by_the_scheduler() {
    let lab = Scenario::start(Plan {
        bootstrap: Bootstrap { settings: "maxBodyBytes: 100000".into(), ..Bootstrap::default() },
        ..plan()
    });
    assert_eq!(
        lab.client().post("/v1/completions", &[], body(99_000).as_bytes()).unwrap().status,
        200
    );
    let answer = lab.client().post("/v1/completions", &[], body(120_000).as_bytes());
    // The answer may come before the whole body was sent, and the connection then ends.
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.header("x-llm-d-request-dropped-reason"), "rejected-body-too-large");
    }
    let file = lab.dir.join("body.json");
    std::fs::write(&file, body(3_000_000)).unwrap();
    let output = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "transfer-encoding: chunked"])
        .args(["-H", "expect:", "--data-binary"])
        .arg(format!("@{}", file.display()))
        .arg(format!("http://127.0.0.1:{}/v1/completions", lab.port))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "413", "{output:?}");
    lab.end();
}

#[test]
fn held_bytes_are_bounded() {
    let lab = Scenario::start(Plan {
        bootstrap: Bootstrap { settings: "maxHeldBytes: 200000".into(), ..Bootstrap::default() },
        ..plan()
    });
    assert_eq!(
        lab.client().post("/v1/completions", &[], body(100_000).as_bytes()).unwrap().status,
        200
    );
    // A slow client holds most of what there is.
    let mut slow = TcpStream::connect(("127.0.0.1", lab.port)).unwrap();
    let half = body(300_000);
    write!(
        slow,
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{}",
        half.len(),
        &half[..150_000]
    )
    .unwrap();
    lab.wait_until("the bytes to be held", Duration::from_secs(5), || {
        lab.pool().is_ok_and(|pool| pool["held_body_bytes"].as_u64() > Some(140_000))
    })
    .unwrap();
    let answer = lab.client().post("/v1/completions", &[], body(90_000).as_bytes()).unwrap();
    assert_eq!(answer.status, 429, "{}", answer.text());
    drop(slow);
    lab.wait_until("the bytes to be free", Duration::from_secs(5), || {
        lab.pool().is_ok_and(|pool| pool["held_body_bytes"] == 0)
    })
    .unwrap();
    assert_eq!(
        lab.client().post("/v1/completions", &[], body(90_000).as_bytes()).unwrap().status,
        200
    );
    lab.end();
}

#[test]
fn clients_that_go_away_leave_no_booking() {
    let lab = Scenario::start(Plan {
        pod_args: ["--time-to-first-token", "300ms", "--inter-token-latency", "20ms"]
            .map(String::from)
            .into(),
        ..plan()
    });
    for n in 0..30 {
        let mut client = TcpStream::connect(("127.0.0.1", lab.port)).unwrap();
        let stream = n % 3 == 2;
        let body = format!(
            r#"{{"model":"random","prompt":"gone {n}","max_tokens":50,"stream":{stream}}}"#
        );
        let sent = if n % 3 == 0 { &body[..20] } else { &body[..] };
        let length = body.len();
        write!(
            client,
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{sent}"
        )
        .unwrap();
        if stream {
            // Past the first byte.
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    lab.end();
}
