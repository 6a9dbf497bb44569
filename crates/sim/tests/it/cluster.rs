//! Several pods in one process, and what happens when some die.

use std::{io::ErrorKind, net::SocketAddr, num::NonZeroUsize};

use crate::support::{Client, config, eventually, exactly, get, post, request, slow};
use inlane_sim::{
    Cluster, Config,
    cluster::{Layout, Spread},
};

fn three() -> (Cluster, Vec<SocketAddr>) {
    let layout = Layout {
        pods: NonZeroUsize::new(3).unwrap(),
        spread: Spread::Ports,
        threads: NonZeroUsize::new(2).unwrap(),
    };
    let cluster = Cluster::start_with(config(), layout).unwrap();
    let addresses = cluster.pods.iter().map(|pod| pod.address()).collect();
    (cluster, addresses)
}

#[test]
fn pods_are_independent() {
    let (cluster, addresses) = three();
    let prompt = "word ".repeat(40);
    let ask = |address| post(address, "/v1/completions", &exactly(prompt.trim(), 1));
    let cached =
        |address| ask(address).json()["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!(cached(addresses[0]), 0);
    assert_eq!(cached(addresses[0]), 32);
    assert_eq!(cached(addresses[1]), 0);
    assert_eq!(ask(addresses[2]).header("x-inference-pod"), Some("sim-2"));
    let total = "vllm:prompt_tokens_total{engine=\"0\",model_name=\"random\"}";
    let totals: Vec<_> = cluster.pods.iter().map(|pod| pod.metric(total).unwrap()).collect();
    assert_eq!(totals, [80.0, 40.0, 40.0]);
}

#[cfg(target_os = "linux")]
#[test]
fn pods_can_have_addresses_of_their_own() {
    let cluster = Cluster::start(config(), 3).unwrap();
    let addresses: Vec<_> = cluster.pods.iter().map(|pod| pod.address()).collect();
    let texts: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(texts, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    for address in addresses {
        assert_eq!(get(address, "/health").status, 200);
    }
}

#[test]
fn a_killed_pod_resets_and_refuses() {
    let (cluster, addresses) = three();
    let pod = &cluster.pods[1];
    pod.configure(|tunables| tunables.time_to_first_token = "10s".parse().unwrap()).unwrap();
    let mut idle = Client::connect(addresses[1]).unwrap();
    idle.send("GET", "/health", &[], "").unwrap();
    idle.receive().unwrap();
    let mut busy = Client::connect(addresses[1]).unwrap();
    busy.send("POST", "/v1/completions", &[], &exactly("a", 5)).unwrap();
    let running = "vllm:num_requests_running{engine=\"0\",model_name=\"random\"}";
    eventually("it runs", || pod.metric(running) == Some(1.0));

    pod.kill().unwrap();
    let refused = Client::connect(addresses[1]).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(busy.receive().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(idle.receive().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(get(addresses[0], "/health").status, 200, "its neighbours live");
}

#[test]
fn a_revived_pod_has_forgotten() {
    let (cluster, addresses) = three();
    let prompt = "word ".repeat(40);
    let ask = || post(addresses[0], "/v1/completions", &exactly(prompt.trim(), 1)).json();
    ask();
    cluster.pods[0].kill().unwrap();
    cluster.pods[0].kill().unwrap();
    cluster.pods[0].revive().unwrap();
    cluster.pods[0].revive().unwrap();
    assert_eq!(ask()["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let total = "vllm:prompt_tokens_total{engine=\"0\",model_name=\"random\"}";
    assert_eq!(cluster.pods[0].metric(total), Some(40.0));
}

#[test]
fn pods_kill_and_revive_each_other_over_http() {
    let (_cluster, addresses) = three();
    let killed = post(addresses[0], "/admin/kill?pod=sim-1", "");
    assert_eq!(killed.status, 200);
    assert!(Client::connect(addresses[1]).is_err());
    assert_eq!(post(addresses[0], "/admin/revive?pod=sim-1", "").status, 200);
    assert_eq!(get(addresses[1], "/health").status, 200);
    assert_eq!(post(addresses[0], "/admin/kill?pod=nobody", "").status, 404);
    assert_eq!(get(addresses[0], "/debug/cache?pod=sim-2").json()["cached"], 0);
}

#[test]
fn a_pod_that_kills_itself_answers_first() {
    let (_cluster, addresses) = three();
    let answer = post(addresses[2], "/admin/kill?for=100ms", "");
    assert_eq!(answer.json()["pod"], "sim-2");
    eventually("it lives again", || {
        request(addresses[2], "GET", "/health", &[], "").is_ok_and(|answer| answer.status == 200)
    });
    let bad = post(addresses[2], "/admin/kill?for=ever", "");
    assert_eq!(bad.status, 400);
}

#[test]
fn shutdown_waits_for_running_requests() {
    let cluster = Cluster::start(slow("200ms", "0"), 1).unwrap();
    let pod = cluster.pods[0].clone();
    let address = pod.address();
    let client =
        std::thread::spawn(move || post(address, "/v1/completions", &exactly("a", 1)).status);
    let running = "vllm:num_requests_running{engine=\"0\",model_name=\"random\"}";
    eventually("it runs", || pod.metric(running) == Some(1.0));
    let ending = std::thread::spawn(move || cluster.shutdown(std::time::Duration::from_secs(10)));
    eventually("new requests are refused", || {
        let answer = request(address, "POST", "/v1/completions", &[], &exactly("a", 1));
        answer.is_ok_and(|a| a.status == 503 && a.body.contains("server is shutting down"))
    });
    assert_eq!(client.join().unwrap(), 200);
    assert!(ending.join().unwrap());
    assert!(Client::connect(address).is_err());
    assert!(pod.kill().is_err(), "handles outlive their cluster");
}

#[test]
fn a_dropped_cluster_ends_whatever_runs() {
    let cluster = Cluster::start(slow("10s", "10s"), 2).unwrap();
    let pod = cluster.pods[1].clone();
    let mut client = Client::connect(pod.address()).unwrap();
    let body = exactly("a", 5).replace("\"prompt\"", "\"stream\":true,\"prompt\"");
    client.send("POST", "/v1/completions", &[], &body).unwrap();
    let running = "vllm:num_requests_running{engine=\"0\",model_name=\"random\"}";
    eventually("it runs", || pod.metric(running) == Some(1.0));
    drop(cluster);
    assert!(client.receive().is_err());
    assert_eq!(pod.metric(running), Some(0.0));
}

#[test]
fn a_taken_port_is_an_error() {
    let (_cluster, addresses) = three();
    let config = Config { port: addresses[0].port(), ..config() };
    let error = Cluster::start(config, 1).unwrap_err();
    assert!(error.to_string().contains(&addresses[0].to_string()), "{error}");
}
