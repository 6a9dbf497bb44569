//! One `libinlane.so` in every Envoy that it supports, and refused by one that is too old.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use inlane_cli::lab::{Bootstrap, Lab, Plan, Pod};
use inlane_integration::scenario::{Scenario, config, load, ordinary, pods};
use load::Kind;

const VERSIONS: [&str; 3] = ["1.38.3", "1.39.3", "1.40.0"];

fn plan(version: &str) -> Plan {
    Plan {
        config: config::by_active_requests(),
        pod_args: ["--inter-token-latency", "3ms", "--max-num-seqs", "64"].map(String::from).into(),
        envoy: version.into(),
        ..Plan::default()
    }
}

#[test]
fn requests_go_where_the_decision_says() {
    for version in VERSIONS {
        let lab = Scenario::start(plan(version));
        let mut served = BTreeSet::new();
        for n in 0..20 {
            let answer = lab.client().complete(&n.to_string(), "hi", 1).unwrap();
            assert_eq!(answer.status, 200, "{version}: {}", answer.text());
            let decision = lab.decision(&n.to_string()).unwrap();
            assert_eq!(answer.pod(), pods::chosen(&decision), "{version}");
            served.insert(answer.pod().to_owned());
        }
        assert!(served.len() > 1, "{version}: every request went to {served:?}");
        lab.end();
    }
}

#[test]
fn streams_pass_complete() {
    for version in VERSIONS {
        let lab = Scenario::start(plan(version));
        let (_, mut stream) = pods::open_stream(&lab, "stream", 40).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("data: [DONE]\n\n"), "{version}: {rest}");
        assert!(rest.matches("\"text\":").count() >= 40, "{version}: {rest}");
        drop(stream);
        lab.end();
    }
}

#[test]
fn refused_and_reset_requests_go_to_the_next_best_pod() {
    for version in VERSIONS {
        let mut lab = Scenario::start(plan(version));
        lab.pods[0].process.take().unwrap().kill();
        pods::configure(&lab.pods[1], pods::RESETS);
        let mut first_choices = BTreeSet::new();
        for n in 0..40 {
            let answer = lab.client().complete(&n.to_string(), "hi", 1).unwrap();
            assert_eq!((answer.status, answer.pod()), (200, "sim-2"), "{version}");
            let decision = lab.decision(&n.to_string()).unwrap();
            first_choices.insert(pods::chosen(&decision).to_owned());
        }
        assert_eq!(first_choices.len(), 3, "{version}: {first_choices:?}");
        assert!(lab.metric("inlane_retries_total", "") >= 2.0, "{version}");
        lab.end();
    }
}

#[test]
fn the_private_header_reaches_pods_only_where_filter_state_does_not_do() {
    for version in VERSIONS {
        let lab = Scenario::start(plan(version));
        let answer = lab.client().complete("private", "hi", 1).unwrap();
        let arrived = pods::arrived(&lab.pods[lab.pod_index(answer.pod())]);
        let header = &arrived.last().unwrap()["x-inlane-stream"];
        let expected = (version == "1.38.3").then_some(16);
        assert_eq!(header.as_str().map(str::len), expected, "{version}: {header}");
        lab.end();
    }
}

/// Adds and removes pods, several at once, as fast as the control plane takes it, under load, for
/// eight seconds and until fifty have come or gone.
fn churn(version: &str) {
    const LENGTH: Duration = Duration::from_secs(8);
    const PODS: usize = 10;
    let mut lab = Scenario::start(Plan { pods: PODS, ..plan(version) });
    let topology = |lab: &Lab| lab.pool().unwrap()["topology_generation"].as_u64().unwrap();
    let (outcome, ()) = load::during(&mut lab, 8, LENGTH, Kind::Mixed, |lab| {
        let end = Instant::now() + LENGTH * 5 / 8;
        let (mut away, mut moves) = (Vec::<Pod>::new(), 0);
        for change in 0.. {
            if Instant::now() > end && moves >= 50 {
                break;
            }
            // From two to eight of the ten in ever other combinations, and in every second change
            // all the others, so that nobody stays.
            let present: BTreeSet<u16> = lab.pods.iter().map(|pod| pod.port).collect();
            if change % 2 == 1 {
                std::mem::swap(&mut lab.pods, &mut away);
            } else {
                let mut all: Vec<Pod> = lab.pods.drain(..).chain(away.drain(..)).collect();
                all.sort_by(|a, b| a.name.cmp(&b.name));
                all.rotate_left(change * 3 % PODS);
                away = all.split_off(2 + change / 2 % (PODS - 3));
                lab.pods = all;
            }
            moves += lab.pods.iter().filter(|pod| !present.contains(&pod.port)).count();
            moves += away.iter().filter(|pod| present.contains(&pod.port)).count();
            let before = topology(lab);
            lab.write_endpoints().unwrap();
            let seen = || topology(lab) != before;
            lab.wait_until("the change", Duration::from_secs(10), seen).unwrap();
        }
        lab.pods.append(&mut away);
        lab.write_endpoints().unwrap();
        lab.wait_ready(Duration::from_secs(10)).unwrap();
    });
    outcome.assert_all_served();
    assert_eq!(outcome.served.len(), PODS, "{version}: {:?}", outcome.served);
    lab.end();
}

#[test]
fn pods_come_and_go_under_load_in_1_38() {
    churn("1.38.3");
}

#[test]
fn pods_come_and_go_under_load_in_1_39() {
    churn("1.39.3");
}

#[test]
fn pods_come_and_go_under_load_in_1_40() {
    churn("1.40.0");
}

/// Names of a process's threads; empty once it has ended.
fn threads(pid: u32) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
}

fn files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Runs `envoy --mode validate`; returns whether it succeeded and the module's threads in it.
fn validate(lab: &Lab) -> (bool, BTreeSet<String>) {
    let mut envoy = lab.spawn_validation().unwrap();
    let mut seen = BTreeSet::new();
    let start = Instant::now();
    while !envoy.has_ended() && start.elapsed() < Duration::from_secs(20) {
        seen.extend(threads(envoy.pid()).into_iter().filter(|name| name.starts_with("inlane")));
        std::thread::sleep(Duration::from_millis(1));
    }
    (envoy.wait_for_end(Duration::ZERO).unwrap(), seen)
}

#[test]
fn validation_leaves_no_thread_and_no_file() {
    for version in VERSIONS {
        let mut lab = Scenario::of(Lab::prepare(plan(version)).unwrap());
        lab.add_pod().unwrap();
        lab.write_endpoints().unwrap();
        // Before there is a segment …
        assert_eq!(validate(&lab), (true, BTreeSet::new()), "{version}");
        assert!(!lab.segment_dir.exists(), "{version}");
        // … and beside a control plane at work.
        lab.start_control().unwrap();
        let before = files(&lab.segment_dir);
        assert_eq!(validate(&lab), (true, BTreeSet::new()), "{version}");
        assert_eq!(files(&lab.segment_dir), before, "{version}");
        // An Envoy that serves has both.
        lab.start_envoy().unwrap();
        lab.wait_ready(Duration::from_secs(20)).unwrap();
        assert!(files(&lab.segment_dir).len() > before.len(), "{version}");
        let pid = lab.envoy.as_ref().unwrap().pid();
        assert!(threads(pid).iter().any(|name| name.starts_with("inlane")), "{version}");
        lab.end();
    }
}

/// An Envoy that has to refuse its configuration; returns what it logged.
fn refusal(plan: Plan) -> String {
    let mut lab = Lab::prepare(plan).unwrap();
    match lab.start_envoy() {
        Ok(()) => panic!("Envoy {} took the configuration", lab.plan.envoy),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_setting_that_does_not_exist_is_refused_by_name() {
    for version in VERSIONS {
        let bootstrap = Bootstrap { settings: "segmentdir: /tmp".into(), ..Bootstrap::default() };
        let message = refusal(Plan { bootstrap, ..plan(version) });
        assert!(message.contains("unknown field `segmentdir`"), "{version}: {message}");
        assert!(message.contains("segmentDir"), "{version}: {message}");
    }
}

#[test]
fn an_envoy_that_is_too_old_is_refused_with_the_reason() {
    // 1.37 has no clusters of modules; with any other cluster it is the module that refuses.
    let settings = "destination: overrideHost".into();
    let bootstrap = Bootstrap { settings, edit: Some(ordinary::round_robin) };
    let message = refusal(Plan { pods: 0, bootstrap, ..plan("1.37.0") });
    let reason = "dynamic module refused: this Envoy lacks \
                  envoy_dynamic_module_callback_http_set_upstream_override_host; 1.38 or newer is needed";
    assert!(message.contains(reason), "{message}");
}
