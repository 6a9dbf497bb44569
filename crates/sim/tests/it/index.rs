//! An index that listens to a pod holds what the pod's cache holds.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use fastrand::Rng;
use inlane_kv::{
    Applier, Limits,
    event::{EngineType, decode},
    frames::Message,
    keys::{Algorithm, Hasher},
    literal::LiteralMirror,
};
use inlane_sim::{Config, events::Dialect};
use serde_json::json;

use crate::{
    events::{Subscriber, publishing, source},
    support::{get, one, post},
};

/// A body whose prompt shares a beginning of some length with others.
fn body(salted: bool, rng: &mut Rng) -> String {
    let branch = rng.u32(..6);
    let tokens: Vec<u32> =
        (0..rng.u32(4..60)).map(|n| if n < 20 { n } else { 1000 * branch + n }).collect();
    let mut body = json!({
        "model": "random", "prompt": tokens, "max_tokens": rng.u32(1..20), "ignore_eos": true,
    });
    if salted && rng.u8(..4) == 0 {
        body["cache_salt"] = format!("tenant-{}", rng.u8(..2)).into();
    }
    body.to_string()
}

/// What an index makes of all that a pod with a small cache tells, in `dialect`.
fn listen(dialect: Dialect, requests: usize) {
    let mut config = publishing(&json!({"endpoint": "tcp://*:0"}));
    config.events.kv_events_version = dialect;
    config.tunables.inter_token_latency = "100us".parse().unwrap();
    let (_cluster, address) = one(Config { kv_cache_size: 24, ..config });
    let endpoint = source(address)["endpoint"].as_str().unwrap().to_owned();
    let next = std::cell::Cell::new(100_000_u32);
    let (subscriber, _) = Subscriber::connect(&endpoint, || {
        next.set(next.get() + 10);
        let tokens: Vec<u32> = (0..9).map(|n| next.get() + n).collect();
        let body = json!({"model": "random", "prompt": tokens, "max_tokens": 1}).to_string();
        assert_eq!(post(address, "/v1/completions", &body).status, 200);
    });
    // From here on everything is heard.
    post(address, "/reset_prefix_cache", "");

    // Events did not tell of salts before: blocks of other hashes seem the same.
    let salted = dialect >= Dialect::V0_18;
    std::thread::scope(|scope| {
        for client in 0..3 {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(client);
                for _ in 0..requests {
                    assert_eq!(
                        post(address, "/v1/completions", &body(salted, &mut rng)).status,
                        200
                    );
                }
            });
        }
    });

    let hasher = Hasher::new(Algorithm::CborFnv, "", NonZeroU32::new(8).unwrap());
    let mut applier = Applier::new(hasher, [], Limits::default());
    let mut mirror = LiteralMirror::default();
    let (mut expected, mut messages) = (None, 0);
    while let Some(frames) = subscriber.frames(if messages == 0 { 10_000 } else { 300 }) {
        let message = Message::live(&frames).unwrap();
        assert_eq!(
            expected.replace(message.sequence + 1).unwrap_or(message.sequence),
            message.sequence
        );
        let batch = decode(message.payload, EngineType::Vllm).unwrap();
        assert_eq!((batch.malformed(), batch.unknown(), batch.rank()), (0, 0, Some(0)));
        let applied = applier.apply(&mut mirror, 0, "random", &batch);
        assert_eq!((applied.skipped, applied.no_room), (0, 0), "{dialect:?}");
        messages += 1;
    }
    assert!(messages > requests);
    let held: BTreeSet<u64> = mirror.held(0, 0).map(|(engine, _)| engine).collect();
    let cache = get(address, "/debug/cache").json();
    let blocks = cache["blocks"].as_array().unwrap().iter();
    let cached: BTreeSet<u64> = blocks.filter_map(|block| block["hash"].as_u64()).collect();
    assert!(!cached.is_empty());
    assert_eq!(held, cached, "{dialect:?}");
}

#[test]
fn an_index_holds_what_the_cache_holds() {
    listen(Dialect::V0_32, 60);
}

#[test]
fn the_events_of_older_versions_say_the_same() {
    let older = [
        Dialect::V0_10,
        Dialect::V0_14,
        Dialect::V0_18,
        Dialect::V0_20,
        Dialect::V0_22,
        Dialect::V0_24,
    ];
    std::thread::scope(|scope| {
        for dialect in older {
            scope.spawn(move || listen(dialect, 20));
        }
    });
}

#[test]
fn a_slow_subscriber_does_not_hold_the_engine_up() {
    let config = publishing(&json!({"endpoint": "tcp://*:0", "hwm": 1}));
    let (_cluster, address) = one(config);
    let endpoint = source(address)["endpoint"].as_str().unwrap().to_owned();
    let next = std::cell::Cell::new(0_u32);
    let ask = || {
        next.set(next.get() + 3000);
        let tokens: Vec<u32> = (next.get()..next.get() + 2800).collect();
        let body = json!({"model": "random", "prompt": tokens, "max_tokens": 1});
        assert_eq!(post(address, "/v1/completions", &body.to_string()).status, 200);
    };
    let context = zmq::Context::new();
    let socket = context.socket(zmq::SUB).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvhwm(1).unwrap();
    socket.set_subscribe(b"").unwrap();
    socket.connect(&endpoint).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // Nobody reads; some of it is lost, and the numbers tell.
    for _ in 0..300 {
        ask();
    }
    let mut sequences = vec![];
    while socket.poll(zmq::POLLIN, 200).unwrap() > 0 {
        let frames = socket.recv_multipart(0).unwrap();
        sequences.push(Message::live(&frames).unwrap().sequence);
    }
    assert!(!sequences.is_empty() && sequences.is_sorted());
}
