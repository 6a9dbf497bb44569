//! The requests of a recorded real server, to a simulator that hashes as it did and has its tokenizer.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use inlane_sim::config::HashAlgorithm;
use serde_json::{Value, json};

use crate::{
    events::{Subscriber, publishing, raw, source},
    support::{one, post},
};

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm");

fn lines(run: &str, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{RECORDINGS}/runs/{run}/{file}")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The bodies of the requests, as they were sent: their order of keys is part of a prompt with tools.
fn bodies(run: &str) -> HashMap<String, String> {
    let text = fs::read_to_string(format!("{RECORDINGS}/runs/{run}/steps.jsonl")).unwrap();
    let body = |line: &str| {
        let step: Value = serde_json::from_str(line).unwrap();
        let (_, rest) = line.split_once("\"body\": ")?;
        let (body, _) = rest.split_once("}, \"response\": ")?;
        Some((step["id"].as_str()?.to_owned(), body.to_owned()))
    };
    text.lines().filter_map(body).collect()
}

fn algorithm(name: &str) -> HashAlgorithm {
    match name {
        "sha256" => HashAlgorithm::Sha256,
        "sha256_cbor" => HashAlgorithm::Sha256Cbor,
        "xxhash" => HashAlgorithm::Xxhash,
        "xxhash_cbor" => HashAlgorithm::XxhashCbor,
        _ => panic!("{name}"),
    }
}

/// Whether the simulator can be asked the same: it answers to these paths, one request after the other.
fn can_be_repeated(step: &Value) -> bool {
    let known = ["/v1/completions", "/v1/chat/completions", "/reset_prefix_cache"];
    known.contains(&step["request"]["path"].as_str().unwrap())
        && step["response"]["status"] == 200
        && !step["id"].as_str().unwrap().starts_with("l01")
}

/// Compares one run with what the simulator makes of its requests, up to `last`; returns how many events were equal
/// in every field.
fn compare(run: &str, last: &str) -> usize {
    let flags: Value = serde_json::from_str(
        &fs::read_to_string(format!("{RECORDINGS}/runs/{run}/run.json")).unwrap(),
    )
    .unwrap();
    let mut config = publishing(&json!({"endpoint": "tcp://*:0", "topic": "kv@pod-a@tiny-a"}));
    config.model = "tiny-a".to_owned();
    config.tokenizer = Some(PathBuf::from(RECORDINGS).join("model"));
    config.block_size = 32;
    // The real one keeps a block for itself.
    config.kv_cache_size = 95;
    config.max_num_seqs = 2;
    config.max_loras = 2;
    config.prefix_caching_hash_algo =
        algorithm(flags["prefix_caching_hash_algo"].as_str().unwrap()).into();
    config.hash_seed = flags["pythonhashseed"].as_str().unwrap_or_default().to_owned();
    config.events.kv_events_int_block_hashes = flags["int_block_hashes"].as_bool().unwrap();
    // Slow enough that every filled block is a step of its own.
    config.tunables.inter_token_latency = "50us".parse().unwrap();
    let adapter = |name: &str| {
        json!({"name": name, "path": format!("adapters/{name}")}).to_string().parse().unwrap()
    };
    config.lora_modules = vec![adapter("sql-adapter"), adapter("chat-adapter")];
    let (_cluster, address) = one(config);
    let endpoint = source(address)["endpoint"].as_str().unwrap().to_owned();
    let next = std::cell::Cell::new(0_u32);
    // What the subscriber hears first is gone again before the comparison.
    let subscriber = Subscriber::connect(&endpoint, || {
        let ids: Vec<u32> = (0..40).map(|n| next.get() + n).collect();
        next.set(next.get() + 40);
        let body = json!({"model": "tiny-a", "prompt": ids, "max_tokens": 1});
        assert_eq!(post(address, "/v1/completions", &body.to_string()).status, 200);
    });
    let subscriber = subscriber.0;
    assert_eq!(post(address, "/reset_prefix_cache", "").status, 200);

    let mut events: HashMap<String, Vec<Value>> = HashMap::new();
    for message in lines(run, "events.jsonl") {
        let step = message["step"].as_str().unwrap().to_owned();
        let batch = message["decoded"][1].as_array().unwrap().clone();
        events.entry(step).or_default().extend(batch);
    }
    let bodies = bodies(run);
    let (mut equal, mut differing) = (0, BTreeMap::new());
    let mut first = true;
    for step in lines(run, "steps.jsonl").iter().filter(|step| can_be_repeated(step)) {
        let (id, request) = (step["id"].as_str().unwrap(), &step["request"]);
        let answer = post(address, request["path"].as_str().unwrap(), &bodies[id]);
        assert_eq!(answer.status, 200, "{id}: {}", answer.body);
        let expected = events.remove(id).unwrap_or_default();
        let mut seen = Vec::new();
        while seen.len() < expected.len() + usize::from(first && !expected.is_empty()) {
            let frames = subscriber.frames(10_000);
            let frames = frames.unwrap_or_else(|| panic!("{id}: {seen:?} only of {expected:?}"));
            seen.extend(raw(&frames[2])[1].as_array().unwrap().clone());
        }
        if first && !seen.is_empty() {
            assert_eq!(seen.remove(0)["type"], "AllBlocksCleared");
            first = false;
        }
        // Prompts are the same; answers are not.
        let usage = &step["response"]["json"]["usage"];
        let prompt = usage["prompt_tokens"].as_u64();
        if prompt.is_some() {
            let counts = |usage: &Value| {
                ["prompt_tokens", "completion_tokens"]
                    .map(|name| usage[name].as_u64().unwrap())
                    .into_iter()
                    .chain(usage["prompt_tokens_details"]["cached_tokens"].as_u64())
                    .collect::<Vec<_>>()
            };
            assert_eq!(counts(&answer.json()["usage"]), counts(usage), "{id}");
        }
        let mut at = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
        for (seen, expected) in seen.iter().zip(&expected) {
            if request["body"]["vllm_xargs"].is_object() {
                at = 0;
            }
            at += expected["token_ids"].as_array().map_or(0, |tokens| tokens.len() as u64);
            if prompt.is_none_or(|prompt| at <= prompt) {
                assert!(seen == expected, "{id}: {seen} instead of {expected}");
                equal += 1;
            } else {
                for field in [
                    "type",
                    "block_size",
                    "lora_id",
                    "lora_name",
                    "medium",
                    "extra_keys",
                    "group_idx",
                ] {
                    assert_eq!(seen[field], expected[field], "{id} {field}");
                }
                differing.entry(id.to_owned()).and_modify(|n| *n += 1).or_insert(1);
            }
        }
        if id == last {
            break;
        }
    }
    assert!(differing.len() * 4 <= equal, "only answers differ: {differing:?}");
    equal
}

#[test]
fn blocks_have_the_hashes_of_the_real_server() {
    assert!(compare("sha256_cbor-seed42-int", "h-lora") >= 25);
}

#[test]
fn blocks_have_the_hashes_of_every_algorithm() {
    for run in ["sha256-noseed-bytes", "xxhash-seed31337-bytes", "xxhash_cbor-seed0-int"] {
        assert!(compare(run, "none") >= 8, "{run}");
    }
}
