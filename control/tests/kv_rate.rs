//! How fast events become visible: from a ZeroMQ socket to a reader of the segment, with the control
//! plane as a process of its own. Prints numbers and asserts none; run it alone and optimised:
//!
//! ```sh
//! cargo test --release -p inlane-control --test kv_rate -- --ignored --nocapture --test-threads=1
//! ```
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

/// A control plane that follows one engine, and a reader of its table.
fn world() -> (Scene, Control, Engine, MirrorReader<MappedView>, u16) {
    let port = TcpListener::bind((ADDRESS, 0)).unwrap().local_addr().unwrap().port();
    let scene = Scene::new();
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
    thread::sleep(Duration::from_millis(300));
    let mut reader = scene.reader();
    let slot = eventually("the pod", || reader.endpoint("pod-1")).slot as u16;
    let table = MirrorReader::open(reader.0.snapshot().table()).unwrap();
    (scene, control, engine, table, slot)
}

/// Block operations per second, stores alone and stores with as many removals, the drain included.
#[test]
#[ignore = "a measurement"]
fn block_operations_per_second() {
    // All of it may wait: a publisher has room for 32 MiB.
    const CHAINS: usize = 2_000;
    const BLOCKS: usize = 128;
    for removes in [false, true] {
        let (_scene, control, mut engine, table, slot) = world();
        let messages: Vec<Vec<u8>> = (0..CHAINS as u32)
            .map(|seed| {
                let tokens = prompt(seed, BLOCKS);
                let stored = Event::Stored { tokens: &tokens, parent: None };
                if !removes || seed < 100 {
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
        let last = *keys(&prompt(CHAINS as u32 - 1, BLOCKS)).last().unwrap();
        let began = Instant::now();
        for message in &messages {
            engine.publish_encoded(message);
        }
        let sent = began.elapsed();
        while !table.holds(slot, 0, last) {
            assert!(began.elapsed() < Duration::from_secs(60), "messages were dropped");
            thread::sleep(Duration::from_micros(200));
        }
        let took = began.elapsed();
        println!(
            "removals {removes}: {operations} block operations in {CHAINS} messages, {} MB: sent in \
             {sent:?}, visible after {took:?}: {:.2} M operations/s; dropped {}, waited at most {} \
             MB; held {}",
            bytes / 1_000_000,
            operations as f64 / took.as_secs_f64() / 1e6,
            control.metric("inlane_control_kv_dropped_total").unwrap(),
            control.metric("inlane_control_kv_queue_most_bytes").unwrap() / 1e6,
            table.len(slot),
        );
        assert_eq!(table.len(slot), (CHAINS - removed) * BLOCKS);
    }
}

/// Time from publishing to visible at 10,000 events per second.
#[test]
#[ignore = "a measurement"]
fn time_to_visible() {
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
}
