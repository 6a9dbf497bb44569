//! How fast events become visible: from a ZeroMQ socket to a reader of the segment, with the control
//! plane as a process of its own. Prints numbers and asserts none: `scripts/bench.sh kv` runs it
//! optimised, `KV_ROUNDS` times.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod common;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use common::engine::{BLOCK, Engine, Event, Form, Setup, batch, engine_hashes, keys, prompt};
use common::{Control, Scene, eventually};
use inlane_segment::mapped::MappedView;
use inlane_segment::table::MirrorReader;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 79, 0, 1));

type World = (Scene, Control, Engine, MirrorReader<MappedView>, u16);

/// A control plane that follows one engine, and a reader of its table.
fn world() -> World {
    let port = TcpListener::bind((ADDRESS, 0)).unwrap().local_addr().unwrap().port();
    let scene = Scene::in_memory();
    let config = scene.write(
        "config.yaml",
        &format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
             - {{type: token-producer}}\n- {{type: precise-prefix-cache-producer, parameters: \
             {{kvEventsConfig: {{podDiscoveryConfig: {{socketPort: {port}}}}}}}}}\n"
        ),
    );
    scene.endpoints(&[format!("- {{name: pod-1, address: \"{ADDRESS}\", port: \"1\"}}\n")]);
    let engine = Engine::start(Setup {
        address: ADDRESS,
        port: 1,
        events: port,
        replays: None,
        form: Form::Topic,
        buffer: 0,
    });
    let config = config.to_str().unwrap();
    let control = scene.start(&["--config-file", config, "--index-bytes", "256MiB"]);
    let connected = "inlane_control_kv_connected{endpoint=\"default/pod-1\"}";
    eventually("a connection", || (control.metric(connected)? == 1.0).then_some(()));
    engine.heard();
    let mut reader = scene.reader();
    let slot = eventually("the pod", || reader.endpoint("pod-1")).slot as u16;
    let table = MirrorReader::open(reader.0.snapshot().table()).unwrap();
    (scene, control, engine, table, slot)
}

/// How often each measurement is made.
fn rounds() -> usize {
    std::env::var("KV_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Block operations per second, stores alone and stores with as many removals, the drain included.
#[test]
#[ignore = "a measurement"]
fn block_operations_per_second() {
    for removes in [false, true] {
        let (fresh, again): (Vec<f64>, Vec<f64>) = (0..rounds()).map(|_| rates(removes)).unzip();
        let what = if removes { "stores and as many removals" } else { "stores" };
        println!(
            "median, {what}: {:.2} M operations/s, {:.2} in memory that has been touched",
            median(fresh),
            median(again)
        );
    }
}

/// One round: millions of block operations per second, until a reader sees the last one; by a control
/// plane that has just started, and once more after the engine has cleared its cache.
fn rates(removes: bool) -> (f64, f64) {
    let mut world = world();
    let fresh = rate(&mut world, removes, 0);
    (fresh, rate(&mut world, removes, 1_000_000))
}

fn rate(world: &mut World, removes: bool, base: u32) -> f64 {
    // All of it may wait: a publisher has room for 32 MiB.
    const CHAINS: usize = 2_000;
    const BLOCKS: usize = 128;
    let (_scene, control, engine, table, slot) = world;
    let messages: Vec<Vec<u8>> = (base..base + CHAINS as u32)
        .map(|seed| {
            let tokens = prompt(seed, BLOCKS);
            let stored = Event::Stored { tokens: &tokens, parent: None };
            if seed == base {
                return batch(&[Event::Cleared, stored]);
            }
            if !removes || seed < base + 100 {
                return batch(&[stored]);
            }
            // The chain of long ago goes tail first, one event per block.
            let mut gone = engine_hashes(&prompt(seed - 100, BLOCKS), None);
            gone.reverse();
            let mut events: Vec<_> = gone.chunks(1).map(Event::Removed).collect();
            events.push(stored);
            batch(&events)
        })
        .collect();
    let removed = if removes { CHAINS - 100 } else { 0 };
    let operations = (CHAINS + removed) * BLOCKS;
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let last = *keys(&prompt(base + CHAINS as u32 - 1, BLOCKS)).last().unwrap();
    let cpu = index_cpu(control);
    let began = Instant::now();
    for message in &messages {
        engine.publish_encoded(message);
    }
    let sent = began.elapsed();
    while !table.holds(*slot, 0, last) {
        assert!(began.elapsed() < Duration::from_secs(60), "messages were dropped");
        thread::sleep(Duration::from_micros(200));
    }
    let took = began.elapsed();
    let cpu = index_cpu(control).saturating_sub(cpu);
    let rate = operations as f64 / took.as_secs_f64() / 1e6;
    println!(
        "removals {removes}, from {base}: {operations} block operations in {CHAINS} messages, {} MB: \
         sent in {sent:?}, visible after {took:?}: {rate:.2} M operations/s; the index thread was busy \
         for {cpu:?}: {:.2} M/cpu-s; dropped {}, waited at most {} MB",
        bytes / 1_000_000,
        operations as f64 / cpu.as_secs_f64() / 1e6,
        control.metric("inlane_control_kv_dropped_total").unwrap(),
        control.metric("inlane_control_kv_queue_most_bytes").unwrap() / 1e6,
    );
    assert_eq!(table.len(*slot), (CHAINS - removed) * BLOCKS);
    rate
}

/// CPU time that the thread which applies events has spent.
fn index_cpu(control: &Control) -> Duration {
    let tasks = format!("/proc/{}/task", control.pid().as_raw_nonzero());
    let task = std::fs::read_dir(tasks).unwrap().flatten().map(|task| task.path()).find(|task| {
        // The kernel keeps fifteen bytes of a name.
        std::fs::read_to_string(task.join("comm"))
            .is_ok_and(|name| name.trim() == "inlane-kv-index")
    });
    let spent = std::fs::read_to_string(task.unwrap().join("schedstat")).unwrap();
    Duration::from_nanos(spent.split(' ').next().unwrap().parse().unwrap())
}

/// Time from publishing to visible at 10,000 events per second.
#[test]
#[ignore = "a measurement"]
fn time_to_visible() {
    let p99: Vec<f64> = (0..rounds()).map(|_| p99_to_visible().as_secs_f64() * 1e3).collect();
    println!("median of the p99: {:.3} ms", median(p99));
}

fn p99_to_visible() -> Duration {
    const EVENTS: u32 = 30_000;
    const PACE: Duration = Duration::from_micros(100);
    let (_scene, _control, mut engine, table, slot) = world();
    let prepared: Vec<(Vec<u8>, u64)> = (0..EVENTS)
        .map(|seed| {
            let tokens = prompt(seed, 1);
            (batch(&[Event::Stored { tokens: &tokens[..BLOCK], parent: None }]), keys(&tokens)[0])
        })
        .collect();
    let wanted: Vec<u64> = prepared.iter().map(|(_, key)| *key).collect();
    let began = Instant::now() + Duration::from_millis(50);
    let watcher = thread::spawn(move || {
        // When each was first seen. A look takes far less than the pause between two.
        let see = |key: u64| {
            while !table.holds(slot, 0, key) {
                thread::sleep(Duration::from_micros(20));
            }
            Instant::now()
        };
        wanted.into_iter().map(see).collect::<Vec<_>>()
    });
    let mut sent = Vec::with_capacity(prepared.len());
    for (at, (message, _)) in (0..).zip(&prepared) {
        let due = began + PACE * at;
        while let Some(wait) = due.checked_duration_since(Instant::now()) {
            if wait > Duration::from_micros(60) {
                thread::sleep(wait - Duration::from_micros(60));
            }
        }
        sent.push(Instant::now());
        engine.publish_encoded(message);
    }
    let behind = sent.last().unwrap().duration_since(began + PACE * (EVENTS - 1));
    let seen = watcher.join().unwrap();
    let mut times: Vec<Duration> =
        seen.iter().zip(&sent).map(|(seen, sent)| seen.saturating_duration_since(*sent)).collect();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{EVENTS} events at {PACE:?}, the publisher {behind:?} late at the end: p50 {:?}, p90 {:?}, \
         p99 {:?}, p99.9 {:?}, max {:?}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
    );
    at(0.99)
}
