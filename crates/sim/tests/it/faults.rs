//! Breaking pods on purpose.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use crate::support::{Client, config, eventually, exactly, get, one, post, request, slow};
use inlane_sim::{Config, config::tunables::FailureType};

#[test]
fn a_full_queue_is_429() {
    let config = Config { max_num_seqs: 1, max_waiting_queue_length: 1, ..slow("400ms", "0") };
    let (cluster, address) = one(config);
    let pod = cluster.pods[0].clone();
    let gauge = |name: &str| {
        pod.metric(&format!("vllm:num_requests_{name}{{engine=\"0\",model_name=\"random\"}}"))
    };
    let client = move || post(address, "/v1/completions", &exactly("a", 1)).status;
    let first = std::thread::spawn(client);
    eventually("one runs", || gauge("running") == Some(1.0));
    let second = std::thread::spawn(client);
    eventually("one waits", || gauge("waiting") == Some(1.0));
    let refused = post(address, "/v1/completions", &exactly("a", 1));
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (
            429,
            r#"{"error":{"message":"Failed to enqueue request, waiting requests queue is full","type":"RateLimitError","param":null,"code":429}}"#
        )
    );
    assert!(refused.header("x-inference-pod").is_some());
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 200));
}

#[test]
fn a_request_larger_than_the_cache_is_500() {
    let (_cluster, address) = one(Config { kv_cache_size: 2, ..config() });
    let answer = post(address, "/v1/completions", &exactly(&"w ".repeat(40), 1));
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.json()["error"]["message"],
        "the kv cache does not have sufficient capacity to store this request"
    );
}

#[test]
fn preemption_delays_and_is_counted() {
    let config = Config { kv_cache_size: 8, block_size: 8, ..slow("50ms", "5ms") };
    let (cluster, address) = one(config);
    let clients: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|word| {
            let body = exactly(format!("{word} ").repeat(16).trim(), 30);
            std::thread::spawn(move || post(address, "/v1/completions", &body))
        })
        .collect();
    for client in clients {
        let answer = client.join().unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 30);
    }
    let preempted = "vllm:num_preemptions_total{engine=\"0\",model_name=\"random\"}";
    assert!(cluster.pods[0].metric(preempted) > Some(0.0));
}

#[test]
fn injected_failures_are_of_the_chosen_types() {
    let (cluster, address) = one(config());
    cluster.pods[0]
        .configure(|tunables| {
            tunables.failure_injection_rate = 100;
            tunables.failure_types = vec![FailureType::RateLimit];
        })
        .unwrap();
    let answer = post(address, "/v1/completions", &exactly("a", 1));
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            429,
            r#"{"error":{"message":"Rate limit reached for random in organization org-xxx on requests per min (RPM): Limit 3, Used 3, Requested 1.","type":"RateLimitError","param":null,"code":429}}"#
        )
    );
    assert_eq!(get(address, "/v1/models").status, 200);
}

#[test]
fn unavailable_at_a_rate() {
    let (cluster, address) = one(config());
    cluster.pods[0].configure(|tunables| tunables.fault_unavailable_rate = 50).unwrap();
    let mut client = Client::connect(address).unwrap();
    let mut refused = 0;
    for _ in 0..200 {
        client.send("POST", "/v1/completions", &[], &exactly("a", 1)).unwrap();
        match client.receive().unwrap().status {
            200 => {}
            503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!((60..140).contains(&refused), "{refused}");
}

#[test]
fn responses_can_be_delayed() {
    let (cluster, address) = one(config());
    let delay = "150ms".parse().unwrap();
    cluster.pods[0].configure(|tunables| tunables.fault_response_delay = delay).unwrap();
    let start = Instant::now();
    assert_eq!(post(address, "/v1/completions", &exactly("a", 1)).status, 200);
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[test]
fn connections_can_be_refused() {
    let (cluster, address) = one(config());
    let pod = &cluster.pods[0];
    let mut old = Client::connect(address).unwrap();
    old.send("GET", "/health", &[], "").unwrap();
    old.receive().unwrap();
    pod.configure(|tunables| tunables.fault_refuse_connections = true).unwrap();
    let error = Client::connect(address).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // Open connections go on.
    old.send("GET", "/health", &[], "").unwrap();
    assert_eq!(old.receive().unwrap().status, 200);
    pod.configure(|tunables| tunables.fault_refuse_connections = false).unwrap();
    assert_eq!(get(address, "/health").status, 200);
}

#[test]
fn connections_can_be_reset_at_once() {
    let (cluster, address) = one(config());
    cluster.pods[0].configure(|tunables| tunables.fault_reset_connections = true).unwrap();
    let error = request(address, "GET", "/health", &[], "").unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{error:?}"
    );
}

#[test]
fn connections_can_be_reset_before_the_first_byte() {
    let (cluster, address) = one(config());
    cluster.pods[0].configure(|tunables| tunables.fault_reset_rate = 100).unwrap();
    let mut client = Client::connect(address).unwrap();
    client.send("POST", "/v1/completions", &[], &exactly("a", 1)).unwrap();
    assert_eq!(client.receive().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.seen(), "");
    assert_eq!(get(address, "/health").status, 200, "only generation is hit");
}

#[test]
fn streams_can_be_reset_after_some_tokens() {
    let (cluster, address) = one(slow("1ms", "1ms"));
    cluster.pods[0].configure(|tunables| tunables.fault_reset_after_tokens = 3).unwrap();
    let mut client = Client::connect(address).unwrap();
    let body = exactly("a", 10).replace("\"prompt\"", "\"stream\":true,\"prompt\"");
    client.send("POST", "/v1/completions", &[], &body).unwrap();
    assert_eq!(client.receive().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.seen().matches("\"text\":").count(), 3);
    assert!(!client.seen().contains("[DONE]"));
    let running = "vllm:num_requests_running{engine=\"0\",model_name=\"random\"}";
    eventually("aborted", || cluster.pods[0].metric(running) == Some(0.0));
}

#[test]
fn settings_change_over_http() {
    let (_cluster, address) = one(config());
    let changed = post(
        address,
        "/admin/config",
        r#"{"fault-unavailable-rate":100,"inter-token-latency":"2ms"}"#,
    );
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["inter-token-latency"], "2ms");
    assert_eq!(get(address, "/admin/config").json(), changed.json());
    assert_eq!(post(address, "/v1/completions", &exactly("a", 1)).status, 503);
    let refused = post(address, "/admin/config", r#"{"inter-token-latency":"0s","port":1}"#);
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["message"], "field 'port' is not admin-configurable");
    assert_eq!(get(address, "/admin/config").json(), changed.json(), "nothing changed");
}
