//! Conversations in a real Envoy, in the form of each API: their pods' events foretell what their
//! caches hold.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::path::Path;
use std::time::Duration;

use inlane_cli::lab::{Answer, Binaries, Bootstrap, Client, Lab, Plan, Process, process};
use inlane_integration::scenario::Scenario;
use serde_json::{Value, json};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm");

fn post(lab: &Lab, path: &str, id: &str, body: &Value) -> Answer {
    let answer = lab.client().post(path, &[("x-request-id", id)], body.to_string().as_bytes());
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn step(lab: &Lab, id: &str) -> (u64, String) {
    let decision = lab.decision(id).unwrap();
    let step = decision["step"].as_str().unwrap().to_owned();
    (decision["prompt_tokens"].as_u64().unwrap(), step)
}

/// So many letters that no tokenizer has seen.
fn words(seed: u64, length: usize) -> String {
    let mut state = seed;
    let mut text = String::new();
    while text.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{:x} ", state >> 20));
    }
    text.truncate(length);
    text
}

const TELLING: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {name: endpoints, type: file-discovery, parameters: {path: \"{endpoints}\", watchFile: true}}
- {type: token-producer, parameters: {modelName: random}}
- type: precise-prefix-cache-producer
  parameters: {kvEventsConfig: {podDiscoveryConfig: {socketPort: {events}, replaySocketPort: {replays}}}}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: max-score-picker
schedulingProfiles:
- {name: default, plugins: [{pluginRef: prefix-cache-scorer, weight: 1}, {pluginRef: max-score-picker}]}
dataLayer: {discovery: {pluginRef: endpoints}}
";

/// Two pods that tokenize as the proxy does and tell what they cache, and a control plane that
/// listens.
fn telling() -> (Scenario, Process) {
    let model = Path::new(FIXTURES).join("model");
    let [port, events, replays] = process::free_ports();
    let text = |port: u16| port.to_string();
    let config = TELLING.replace("{events}", &text(events)).replace("{replays}", &text(replays));
    let settings = format!(
        "decisionBudget: 10s\ntokenizers: {{map: {{random: {}}}, timeout: 30s}}",
        model.display()
    );
    let bootstrap = Bootstrap { settings, ..Bootstrap::default() };
    let plan = Plan { pods: 0, config, bootstrap, ..Plan::default() };
    let binaries = Binaries::find(&plan.envoy).unwrap();
    let mut lab = Lab::prepare_with(plan, binaries.clone()).unwrap();
    let publish = json!({
        "enable_kv_cache_events": true, "endpoint": format!("tcp://*:{events}"),
        "replay_endpoint": format!("tcp://*:{replays}"),
    });
    let endpoints = lab.endpoints_file();
    let (listed, publish, model) =
        (endpoints.to_str().unwrap(), publish.to_string(), model.to_str());
    let port = text(port);
    let arguments = [
        ["--pods", "2"],
        ["--port", &port],
        ["--write-endpoints", listed],
        ["--tokenizer", model.unwrap()],
        ["--kv-events-config", &publish],
        ["--block-size", "16"],
    ];
    let log = lab.log("pods");
    let mut pods = Process::spawn(&binaries.sim, arguments.as_flattened(), &[], &log).unwrap();
    pods.wait_for("the simulator", Duration::from_secs(20), || endpoints.is_file()).unwrap();
    lab.start_control().unwrap();
    lab.start_envoy().unwrap();
    let lab = Scenario::of(lab);
    lab.wait_until("pods, events and model", Duration::from_secs(30), || {
        let served =
            lab.pool().is_ok_and(|pool| pool["endpoints"].as_array().map(Vec::len) == Some(2));
        let connected = of_control(&lab, "inlane_control_kv_connected") == 2.0;
        served && connected && lab.metric("inlane_tokenize_models", "") == 1.0
    })
    .unwrap();
    (lab, pods)
}

/// A metric of the control plane, summed over its series.
fn of_control(lab: &Lab, name: &str) -> f64 {
    let page = Client::new(lab.control_port).get("/metrics").unwrap().text();
    let of_family =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    page.lines()
        .filter(of_family)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// One turn of a conversation: the request's path and body, and what its answer says: tokens of the
/// prompt, those that were cached, and the text.
trait Form {
    const PATH: &str;
    fn body(system: &str, turns: &[Value]) -> Value;
    fn told(answer: &Value) -> (u64, u64, String);
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

struct Chat;

impl Form for Chat {
    const PATH: &str = "/v1/chat/completions";

    fn body(system: &str, turns: &[Value]) -> Value {
        let system = json!({"role": "system", "content": system});
        let messages: Vec<&Value> = std::iter::once(&system).chain(turns).collect();
        json!({"model": "random", "messages": messages, "max_tokens": 1})
    }

    fn told(answer: &Value) -> (u64, u64, String) {
        let usage = &answer["usage"];
        let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        (number(&usage["prompt_tokens"]), cached, text.to_owned())
    }
}

struct Messages;

impl Form for Messages {
    const PATH: &str = "/v1/messages";

    fn body(system: &str, turns: &[Value]) -> Value {
        json!({"model": "random", "system": system, "messages": turns, "max_tokens": 1})
    }

    fn told(answer: &Value) -> (u64, u64, String) {
        let usage = &answer["usage"];
        let cached = number(&usage["cache_read_input_tokens"]);
        let text = answer["content"][0]["text"].as_str().unwrap();
        (number(&usage["input_tokens"]) + cached, cached, text.to_owned())
    }
}

struct Responses;

impl Form for Responses {
    const PATH: &str = "/v1/responses";

    fn body(system: &str, turns: &[Value]) -> Value {
        json!({"model": "random", "instructions": system, "input": turns, "max_output_tokens": 1})
    }

    fn told(answer: &Value) -> (u64, u64, String) {
        let usage = &answer["usage"];
        let cached = number(&usage["input_tokens_details"]["cached_tokens"]);
        let text = answer["output"][0]["content"][0]["text"].as_str().unwrap();
        (number(&usage["input_tokens"]), cached, text.to_owned())
    }
}

/// A request after which its pod holds the whole blocks of its prompt: answers with the pod.
fn wait_for_blocks(lab: &Lab, tokens: u64) {
    lab.wait_until("the pod's account of the prompt", Duration::from_secs(10), || {
        of_control(lab, "inlane_control_kv_held_blocks") >= (tokens / 16) as f64
    })
    .unwrap();
}

/// What was found in caches has been predicted, and nothing else.
fn assert_foreseen(lab: &Scenario, found: u64) {
    let predicted = || lab.metric("inlane_precise_predicted_tokens_total", "");
    lab.wait_until("the same number, predicted", Duration::from_secs(20), || {
        predicted() == found as f64
    })
    .unwrap_or_else(|e| panic!("{e}: {} for {found}", predicted()));
    assert_eq!(lab.metric("inlane_precise_reported_tokens_total", ""), found as f64);
    assert_eq!(lab.metric("inlane_precise_refuted_total", ""), 0.0);
}

/// A conversation of four turns goes to the pod that holds its beginning, which finds in its cache
/// what was predicted.
fn converse<F: Form>() {
    let (lab, _pods) = telling();
    let system = &words(3, 3_000);
    let mut turns = Vec::new();
    let (mut pod, mut found, mut before) = (String::new(), 0, 0);
    for turn in 0..4_u64 {
        let question = words(turn + 10, 400);
        turns.push(json!({"role": "user", "content": question}));
        let id = format!("turn-{turn}");
        // One token fills no block: the pod holds the whole blocks of the prompt, and no others.
        let answer = post(&lab, F::PATH, &id, &F::body(system, &turns));
        let (prompt, cached, text) = F::told(&answer.json().unwrap());
        assert_eq!(step(&lab, &id), (prompt, "full".to_owned()), "the engine's own number");
        if turn == 0 {
            pod = answer.pod().to_owned();
        } else {
            assert_eq!(answer.pod(), pod);
        }
        assert_eq!(cached, before / 16 * 16, "all that it held");
        (before, found) = (prompt, found + cached);
        turns.push(json!({"role": "assistant", "content": text}));
        wait_for_blocks(&lab, prompt);
    }
    assert!(found > 1_000, "{found} tokens");
    assert_foreseen(&lab, found);
    lab.end();
}

#[test]
fn what_is_predicted_of_a_chat_is_what_its_engine_finds() {
    converse::<Chat>();
}

#[test]
fn what_is_predicted_of_messages_is_what_their_engine_finds() {
    converse::<Messages>();
}

#[test]
fn what_is_predicted_of_responses_is_what_their_engine_finds() {
    converse::<Responses>();
}

#[test]
fn what_is_predicted_of_token_ids_is_what_their_engine_finds() {
    let (lab, _pods) = telling();
    let (mut ids, mut pod, mut found) = (Vec::<u32>::new(), String::new(), 0);
    for turn in 0..4_u32 {
        ids.extend((0..200).map(|n| (turn * 200 + n) * 7 % 250));
        let body =
            json!({"model": "random", "token_ids": ids, "sampling_params": {"max_tokens": 1}});
        let id = format!("turn-{turn}");
        let answer = post(&lab, "/inference/v1/generate", &id, &body);
        let usage = answer.json().unwrap()["usage"].clone();
        let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
        assert_eq!(step(&lab, &id), (ids.len() as u64, "full".to_owned()));
        assert_eq!(cached, u64::from(turn * 200 / 16 * 16), "all that it held");
        if turn == 0 {
            pod = answer.pod().to_owned();
        }
        assert_eq!(answer.pod(), pod);
        found += cached;
        wait_for_blocks(&lab, ids.len() as u64);
    }
    // The same ids as a completion: the same blocks. One more, since an engine computes the last token
    // anew and with it the block that it ends.
    ids.push(1);
    let body = json!({"model": "random", "prompt": ids, "max_tokens": 1});
    let answer = post(&lab, "/v1/completions", "completion", &body);
    assert_eq!(answer.pod(), pod);
    let usage = answer.json().unwrap()["usage"].clone();
    found += number(&usage["prompt_tokens_details"]["cached_tokens"]);
    assert_foreseen(&lab, found);
    lab.end();
}
