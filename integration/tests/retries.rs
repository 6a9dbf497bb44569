//! What becomes of an attempt that fails: the next-best pod of the ranking, once, before the first
//! byte; and the booking goes along.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::io::Read;
use std::time::Duration;

use inlane_cli::lab::{Client, Plan};
use inlane_integration::scenario::{Scenario, config, pods};

fn plan(pods: usize) -> Plan {
    Plan {
        pods,
        config: config::by_active_requests(),
        pod_args: ["--max-num-seqs", "64", "--inter-token-latency", "10ms"]
            .map(String::from)
            .into(),
        ..Plan::default()
    }
}

/// Two pods, one of them with a stream under way, so that the other one is the first choice.
/// Returns the stream, and the indices of the first choice and of the busy one.
fn first_choice(lab: &Scenario) -> (impl Read + use<>, usize, usize) {
    let (busy, stream) = pods::open_stream(lab, "held", 10_000).unwrap();
    let busy = lab.pod_index(&busy);
    (stream, 1 - busy, busy)
}

/// Requests that Envoy has sent to the pod at that index.
fn attempts(lab: &Scenario, pod: usize) -> u64 {
    let page = Client::new(lab.envoy_admin_port).get("/clusters").unwrap().text();
    let count = format!("pods::127.0.0.1:{}::rq_total::", lab.pods[pod].port);
    page.lines().find_map(|line| line.strip_prefix(&count)?.parse().ok()).unwrap()
}

#[test]
fn retries_follow_the_ranking_past_every_kind_of_failure() {
    let mut lab = Scenario::start(plan(5));
    // Connections are refused; reset when they are made; reset when the request has been read.
    lab.pods[1].process.take().unwrap().kill();
    pods::configure(&lab.pods[2], r#"{"fault-reset-connections": true}"#);
    pods::configure(&lab.pods[4], pods::RESETS);
    let working = ["sim-0", "sim-3"];
    // Scores differ while a stream is under way.
    let (_, stream) = pods::open_stream(&lab, "held", 10_000).unwrap();
    let retries_before = lab.metric("inlane_retries_total", "");

    let mut retries = 0;
    for n in 0..40 {
        let id = format!("r{n}");
        let answer = lab.client().complete(&id, "hi", 1).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let decision = lab.decision(&id).unwrap();
        let ranking = pods::ranking(&decision);
        assert_eq!(ranking.len(), 5, "{decision}");
        assert_eq!(ranking[0], pods::chosen(&decision));
        let score = |pod: &String| pods::score(&decision, "active-request-scorer", pod).unwrap();
        assert!(ranking.is_sorted_by(|a, b| score(a) >= score(b)), "{decision}");
        let position = ranking.iter().position(|pod| working.contains(&pod.as_str())).unwrap();
        assert_eq!(answer.pod(), ranking[position], "{decision}");
        retries += position;
    }
    assert!(retries > 0, "no request met a broken pod first");
    assert_eq!(lab.metric("inlane_retries_total", "") - retries_before, retries as f64);
    drop(stream);
    lab.end();
}

#[test]
fn when_all_fail_the_client_gets_503_after_the_last_retry() {
    let lab = Scenario::start(plan(5));
    lab.pods.iter().for_each(|pod| pods::configure(pod, pods::RESETS));
    let answer = lab.client().complete("lost", "hi", 1).unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    // The route allows three retries: four pods were tried, each once, the best ones.
    let ranking = pods::ranking(&lab.decision("lost").unwrap());
    for (place, name) in ranking.iter().enumerate() {
        let expected = u64::from(place < 4);
        assert_eq!(attempts(&lab, lab.pod_index(name)), expected, "place {place}, {name}");
    }
    assert_eq!(lab.metric("inlane_retries_total", ""), 3.0);
    lab.assert_balanced();
    lab.pods.iter().for_each(|pod| pods::configure(pod, pods::ANSWERS));
    assert_eq!(lab.client().complete("again", "hi", 1).unwrap().status, 200);
    lab.end();
}

#[test]
fn a_large_body_is_complete_at_the_second_pod() {
    let lab = Scenario::start(plan(2));
    let (stream, first, second) = first_choice(&lab);
    pods::configure(&lab.pods[first], pods::RESETS);
    let prompt = "0123456789abcde ".repeat(3 << 16);
    let answer = lab.client().complete("large", &prompt, 1).unwrap();
    assert_eq!((answer.status, answer.pod()), (200, lab.pods[second].name.as_str()));
    assert_eq!(lab.metric("inlane_retries_total", ""), 1.0);
    // The same, sent to the pod without anybody between.
    let direct = Client::new(lab.pods[second].port).complete("direct", &prompt, 1).unwrap();
    let tokens =
        |answer: &inlane_cli::lab::Answer| answer.json().unwrap()["usage"]["prompt_tokens"].clone();
    assert_eq!(tokens(&answer), tokens(&direct));
    assert!(tokens(&direct).as_u64() > Some(100_000));
    drop(stream);
    lab.end();
}

#[test]
fn nothing_is_retried_after_the_first_byte() {
    let lab = Scenario::start(plan(3));
    for pod in &lab.pods {
        pods::configure(pod, r#"{"fault-reset-after-tokens": 3}"#);
    }
    let (pod, mut stream) = pods::open_stream(&lab, "broken", 50).unwrap();
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_err() && !rest.ends_with(b"data: [DONE]\n\n"), "the stream did not break");
    assert_eq!(lab.metric("inlane_retries_total", ""), 0.0);
    for (index, other) in lab.pods.iter().enumerate() {
        assert_eq!(attempts(&lab, index), u64::from(other.name == pod), "{}", other.name);
    }
    lab.end();
}

#[test]
fn the_booking_moves_with_the_retry() {
    let lab = Scenario::start(plan(2));
    let (stream, first, second) = first_choice(&lab);
    pods::configure(&lab.pods[first], pods::RESETS);
    pods::configure(&lab.pods[second], r#"{"fault-response-delay": "1s"}"#);
    let (first, second) = (&lab.pods[first].name, &lab.pods[second].name);
    let answer = std::thread::scope(|scope| {
        let request = scope.spawn(|| lab.client().complete("moved", "hi", 1).unwrap());
        lab.wait_until("the booking on the second pod", Duration::from_secs(5), || {
            pods::in_flight(&lab, second) == 2 && pods::in_flight(&lab, first) == 0
        })
        .unwrap();
        assert!(!request.is_finished(), "the booking moved after the answer");
        request.join().unwrap()
    });
    assert_eq!((answer.status, answer.pod()), (200, second.as_str()));
    assert_eq!(pods::chosen(&lab.decision("moved").unwrap()), first);
    drop(stream);
    lab.end();
}
