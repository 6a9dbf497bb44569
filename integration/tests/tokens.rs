//! Streams that wait for the tokens of their prompts, in a real Envoy.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use inlane_cli::lab::{Answer, Bootstrap, Lab, Plan};
use inlane_integration::scenario::{Scenario, config};
use serde_json::{Value, json};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm");

/// Chooses pods by the length of prompts, in tokens of the model `random`.
fn by_length() -> String {
    let filter = "context-length-aware {enableFiltering: true}";
    let profile = config::profile(&[(filter, 1), ("max-score-picker", 0)]);
    config::declare(&profile, "token-producer {modelName: random}")
}

/// A lab with two pods, for prompts of up to 9 tokens and for longer ones.
fn lab(tokenizers: &str) -> Scenario {
    let settings = format!("decisionBudget: 10s\ntokenizers: {tokenizers}");
    let bootstrap = Bootstrap { settings, ..Bootstrap::default() };
    let plan = Plan { pods: 2, config: by_length(), bootstrap, ..Plan::default() };
    let mut lab = Scenario::of(Lab::prepare(plan).unwrap());
    for range in ["0-9", "10-1000000"] {
        let pod = lab.add_pod().unwrap();
        lab.pods[pod].labels.insert("llm-d.ai/context-length-range".into(), range.into());
    }
    lab.begin().unwrap();
    lab
}

/// The same with a model under the name `random`, once it is loaded.
fn with_model(model: &Path, more: &str) -> Scenario {
    let lab = lab(&format!("{{map: {{random: {}}}{more}}}", model.display()));
    let loaded = || lab.metric("inlane_tokenize_models", "") == 1.0;
    lab.wait_until("the model", Duration::from_secs(30), loaded).unwrap();
    lab
}

const PATIENT: &str = ", timeout: 30s";

fn post(lab: &Lab, path: &str, id: &str, body: &Value) -> Answer {
    let answer = lab.client().post(path, &[("x-request-id", id)], body.to_string().as_bytes());
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn chat(lab: &Lab, id: &str, text: &str) -> Answer {
    let messages = json!([{"role": "user", "content": text}]);
    let body = json!({"model": "random", "messages": messages, "max_tokens": 1});
    post(lab, "/v1/chat/completions", id, &body)
}

fn complete(lab: &Lab, id: &str, prompt: impl Into<Value>) -> Answer {
    let body = json!({"model": "random", "prompt": prompt.into(), "max_tokens": 1});
    post(lab, "/v1/completions", id, &body)
}

fn step(lab: &Lab, id: &str) -> (u64, String) {
    let decision = lab.decision(id).unwrap();
    let step = decision["step"].as_str().unwrap().to_owned();
    (decision["prompt_tokens"].as_u64().unwrap(), step)
}

fn failures(lab: &Scenario, reason: &str) -> f64 {
    lab.metric("inlane_tokenize_failures_total", &format!("reason=\"{reason}\""))
}

fn logged(lab: &Lab, id: &str) -> bool {
    let log = fs::read_to_string(lab.log("envoy")).unwrap();
    log.lines().any(|line| line.contains("without tokens") && line.contains(id))
}

/// Text that no tokenizer has seen, of about a megabyte.
fn long_text(seed: u64) -> String {
    text(seed, 90_000)
}

/// So many words that no tokenizer has seen, of twelve bytes with the space behind.
fn text(seed: u64, words: usize) -> String {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:x} ", state >> 20)
    };
    std::iter::repeat_with(&mut word).take(words).collect()
}

#[test]
fn chats_and_completions_are_routed_by_the_engines_tokens() {
    let lab = with_model(&Path::new(FIXTURES).join("model"), PATIENT);
    // Fifteen bytes are four estimated tokens, and fifteen as the engine counts.
    assert_eq!(chat(&lab, "chat", "Hello there").pod(), "sim-1");
    assert_eq!(step(&lab, "chat"), (15, "full".to_owned()));
    // With the token that begins every completion.
    assert_eq!(complete(&lab, "text", "a").pod(), "sim-0");
    assert_eq!(step(&lab, "text"), (2, "full".to_owned()));
    assert_eq!(complete(&lab, "ids", vec![7; 12]).pod(), "sim-1");
    assert_eq!(step(&lab, "ids"), (12, "full".to_owned()));

    let cases = fs::read_to_string(Path::new(FIXTURES).join("chat_cases.jsonl")).unwrap();
    let case = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let plain = |case: &Value| {
        let template = case["template"] == "model/chat_template.jinja";
        let fields = case["request"].as_object().is_some_and(|request| request.len() == 1);
        template && fields && case["status"] == 200
    };
    let mut compared = 0;
    for case in cases.lines().map(case).filter(plain).take(20) {
        let id = case["id"].as_str().unwrap();
        let mut body = case["request"].clone();
        (body["model"], body["max_tokens"]) = (json!("random"), json!(1));
        post(&lab, "/v1/chat/completions", id, &body);
        let tokens = case["token_ids"].as_array().unwrap().len() as u64;
        assert_eq!(step(&lab, id), (tokens, "full".to_owned()), "{id}");
        compared += 1;
    }
    assert!(compared > 3, "{compared} cases");
    // What came as ids was not asked for.
    let held = lab.metric("inlane_tokenize_duration_seconds_count", "");
    assert_eq!(held, f64::from(compared + 2));
    assert_eq!(lab.metric("inlane_decision_steps_total", "precise-missed"), 0.0);
    lab.end();
}

#[test]
fn bodies_that_an_api_would_refuse_are_refused() {
    let lab = with_model(&Path::new(FIXTURES).join("model"), PATIENT);
    for path in ["/v1/messages", "/v1/responses", "/inference/v1/generate", "/v1/conversations"] {
        let refused = lab.client().post(path, &[], br#"{"model":"random"}"#).unwrap();
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
    }
    // Decided on unread, and nobody there knows it.
    for path in ["/v1/messages/count_tokens", "/custom/api"] {
        let answer = lab.client().post(path, &[("x-request-id", path)], b"not json").unwrap();
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert_eq!(step(&lab, path), (0, "full".to_owned()));
    }
    let rendered =
        post(&lab, "/v1/completions/render", "render", &json!({"model": "random", "prompt": "a"}));
    assert!(rendered.json().unwrap()[0]["token_ids"].is_array());
    lab.end();
}

#[test]
fn a_broken_template_costs_the_tokens_and_not_the_request() {
    let model = std::env::temp_dir().join(format!("inlane-template-{}", std::process::id()));
    fs::create_dir_all(&model).unwrap();
    let from = Path::new(FIXTURES).join("model");
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        fs::copy(from.join(file), model.join(file)).unwrap();
    }
    fs::write(model.join("chat_template.jinja"), "{{ raise_exception('never') }}").unwrap();
    let lab = with_model(&model, PATIENT);
    chat(&lab, "refused", "Hello there");
    assert_eq!(step(&lab, "refused").1, "precise-missed");
    assert_eq!(failures(&lab, "template"), 1.0);
    lab.wait_until("a line in the log", Duration::from_secs(5), || logged(&lab, "refused"))
        .unwrap();
    complete(&lab, "text", "no template is needed");
    assert_eq!(step(&lab, "text").1, "full");

    // The template is mended: the model is read again.
    fs::copy(from.join("chat_template.jinja"), model.join("chat_template.jinja")).unwrap();
    let mut tries = 0;
    lab.wait_until("the mended template", Duration::from_secs(20), || {
        tries += 1;
        let id = format!("mended-{tries}");
        chat(&lab, &id, "Hello there");
        step(&lab, &id) == (15, "full".to_owned())
    })
    .unwrap();
    lab.end();
    fs::remove_dir_all(model).unwrap();
}

#[test]
fn an_unknown_model_is_routed_by_its_text() {
    let lab = lab("{timeout: 30s}");
    chat(&lab, "unknown", "Hello there");
    assert_eq!(step(&lab, "unknown"), (4, "precise-missed".to_owned()));
    assert_eq!(failures(&lab, "no-model"), 1.0);
    lab.wait_until("a line in the log", Duration::from_secs(5), || logged(&lab, "unknown"))
        .unwrap();
    lab.end();
}

#[test]
fn late_tokens_and_a_full_queue_delay_nobody() {
    let more = ", timeout: 20ms, threads: 1, queue: 1";
    let lab = with_model(&Path::new(FIXTURES).join("model"), more);
    std::thread::scope(|scope| {
        for seed in 1..=6 {
            let lab = &lab;
            scope.spawn(move || complete(lab, &format!("long-{seed}"), long_text(seed)));
        }
    });
    let missed = lab.metric("inlane_decision_steps_total", "precise-missed");
    assert_eq!(missed, 6.0, "no thread makes so many tokens in time");
    assert_eq!(failures(&lab, "late") + failures(&lab, "overloaded"), 6.0);
    assert!(failures(&lab, "overloaded") > 0.0);
    lab.end();
}

#[test]
fn a_client_that_leaves_while_its_tokens_are_made_is_forgotten() {
    let lab = with_model(&Path::new(FIXTURES).join("model"), PATIENT);
    let body = json!({"model": "random", "prompt": long_text(9), "max_tokens": 1}).to_string();
    let mut gone = TcpStream::connect(("127.0.0.1", lab.port)).unwrap();
    write!(
        gone,
        "POST /v1/completions HTTP/1.1\r\nhost: lab\r\ncontent-type: application/json\r\n\
         x-request-id: gone\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let held = || lab.pool().is_ok_and(|pool| pool["held_body_bytes"] != 0);
    lab.wait_until("a stream that is held", Duration::from_secs(10), held).unwrap();
    drop(gone);
    complete(&lab, "next", "hello");
    assert_eq!(step(&lab, "next").1, "full");
    lab.assert_balanced();
    assert!(lab.decisions().unwrap().iter().all(|d| d["request_id"] != "gone"));
    lab.end();
}

/// Latencies in ms: the median and the 99th of a hundred.
fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
    (at(0.5).unwrap_or(f64::NAN), at(0.99).unwrap_or(f64::NAN))
}

/// What small requests are sent beside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Beside {
    Nothing,
    /// Chats of 100 KB that repeat a conversation.
    Known,
    /// Chats of 100 KB that nobody has sent before.
    New,
}

impl Beside {
    const ALL: [(Self, &str); 3] = [
        (Self::Nothing, "alone"),
        (Self::Known, "beside known chats"),
        (Self::New, "beside new chats"),
    ];

    /// Bodies for one cell. Text takes time to make, so that it is made before.
    fn chats(self, seed: u64) -> Vec<String> {
        let chat = |seed: u64| {
            let turn = |n: u64| json!({"role": "user", "content": text(n, 850)});
            let messages: Vec<Value> = (1..=10).map(|n| turn(seed * 16 + n)).collect();
            json!({"model": "random", "messages": messages, "max_tokens": 1}).to_string()
        };
        match self {
            Self::Nothing => Vec::new(),
            Self::Known => vec![chat(0)],
            Self::New => (0..CHATS).map(|n| chat(seed * CHATS + n + 1)).collect(),
        }
    }
}

/// How long a cell takes, how many clients send small requests, and how often each client sends one.
const CELL: Duration = Duration::from_secs(3);
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(6);
/// Chats of a cell at most, and how often one is sent.
const CHATS: u64 = 60;
const CHAT_PAUSE: Duration = Duration::from_millis(50);

/// Small completions beside such chats: latencies of both, in ms.
fn cell(lab: &Lab, chats: &[String]) -> [Vec<f64>; 2] {
    let small = json!({"model": "random", "prompt": "hello there", "max_tokens": 1}).to_string();
    let start = Instant::now();
    // At a pace of its own: who waits for a slow answer does not spare the others the next request.
    let run = |path: &str, bodies: &mut dyn Iterator<Item = &str>, pause: Duration| {
        let (client, mut times) = (lab.client(), Vec::new());
        for (n, body) in (0..).zip(bodies) {
            let due = start + pause * n;
            if due >= start + CELL {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            assert_eq!(client.post(path, &[], body.as_bytes()).unwrap().status, 200);
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        times
    };
    std::thread::scope(|scope| {
        let long = scope.spawn(|| {
            let mut bodies = chats.iter().map(String::as_str);
            let mut same = bodies.clone().cycle();
            let bodies: &mut dyn Iterator<Item = &str> =
                if chats.len() == 1 { &mut same } else { &mut bodies };
            run("/v1/chat/completions", bodies, CHAT_PAUSE)
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut bodies = std::iter::repeat(small.as_str());
                scope.spawn(move || run("/v1/completions", &mut bodies, PAUSE))
            })
            .collect();
        let small = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        [small, long.join().unwrap()]
    })
}

#[test]
#[ignore = "measures, and asserts nothing: `scripts/bench.sh text` on a quiet machine"]
fn measure_small_requests_beside_long_chats() {
    let rounds = std::env::var("TEXT_ROUNDS").ok().and_then(|text| text.parse().ok());
    let model = Path::new(FIXTURES).join("model");
    let tokens = with_model(&model, PATIENT);
    let mut estimated = by_length().replace("modelName: random", "estimate: {}");
    estimated.push('\n');
    let plan = Plan { pods: 2, config: estimated, ..Plan::default() };
    let estimates = Scenario::start(plan);
    let mut all: BTreeMap<(Beside, usize), [Vec<f64>; 2]> = BTreeMap::new();
    for round in 0..rounds.unwrap_or(4) {
        for (beside, _) in Beside::ALL {
            let chats = beside.chats(round);
            for (at, lab) in [&estimates, &tokens].into_iter().enumerate() {
                let known = all.entry((beside, at)).or_default();
                known.iter_mut().zip(cell(lab, &chats)).for_each(|(all, new)| all.extend(new));
            }
        }
    }
    println!(
        "ms: {CLIENTS} clients, a small request every {PAUSE:?} each, a chat every {CHAT_PAUSE:?}"
    );
    println!(
        "{:20} {:10} {:>7} {:>8} {:>8}   chats {:>5} {:>8} {:>8}",
        "", "", "n", "p50", "p99", "n", "p50", "p99"
    );
    for ((beside, at), [small, long]) in all {
        let counts = (small.len(), long.len());
        let what =
            Beside::ALL.into_iter().find(|(is, _)| *is == beside).map_or("", |(_, what)| what);
        let ((p50, p99), (long50, long99)) = (percentiles(small), percentiles(long));
        println!(
            "{what:20} {:10} {:7} {p50:8.3} {p99:8.3}         {:5} {long50:8.3} {long99:8.3}",
            ["estimated", "tokens"][at],
            counts.0,
            counts.1
        );
    }
    let hit = tokens.metric("inlane_tokenize_cache_hit_bytes_total", "")
        / tokens.metric("inlane_tokenize_text_bytes_total", "");
    println!("text that was known: {:.1} %", hit * 100.0);
    let times = tokens.admin().get("/metrics").unwrap().text();
    let times = times.lines().filter(|line| line.starts_with("inlane_tokenize_duration"));
    times.for_each(|line| println!("{line}"));
    estimates.end();
    tokens.end();
}
