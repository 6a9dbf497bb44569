//! Traces of a real Envoy: the stages of a decision arrive at a collector as spans.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use inlane_cli::lab::bootstrap::walk;
use inlane_cli::lab::{Bootstrap, Lab, Plan};
use inlane_integration::scenario::{Scenario, config};
use serde_json::json;
use serde_yaml::{Mapping, Value};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm/model");

/// Port of the collector: an edit of a bootstrap captures nothing.
static PORT: OnceLock<u16> = OnceLock::new();

/// A span as OTLP has it.
#[derive(Debug, Clone)]
struct Span {
    id: Vec<u8>,
    parent: Vec<u8>,
    trace: Vec<u8>,
    name: String,
    start: u64,
    end: u64,
    tags: BTreeMap<String, String>,
}

/// The fields of a protobuf message: numbers, and bytes or fixed numbers as they are.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                varint(&mut message);
                0
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            kind => panic!("wire type {kind}"),
        };
        let (value, rest) = message.split_at(length);
        found.push((key >> 3, value));
        message = rest;
    }
    found
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The messages in the field `number` of a message.
fn inner(message: &[u8], number: u64) -> Vec<&[u8]> {
    fields(message).into_iter().filter(|(field, _)| *field == number).map(|(_, m)| m).collect()
}

fn span(message: &[u8]) -> Span {
    let bytes = |number| inner(message, number).first().map(|b| b.to_vec()).unwrap_or_default();
    let time = |number| u64::from_le_bytes(bytes(number).try_into().unwrap());
    let tag = |pair: &[u8]| {
        let value = inner(pair, 2).first().map(|value| inner(value, 1).concat());
        (text(&inner(pair, 1).concat()), text(&value.unwrap_or_default()))
    };
    Span {
        trace: bytes(1),
        id: bytes(2),
        parent: bytes(4),
        name: text(&bytes(5)),
        start: time(7),
        end: time(8),
        tags: inner(message, 9).into_iter().map(tag).collect(),
    }
}

/// The spans of an export.
fn spans(export: &[u8]) -> Vec<Span> {
    let resources = inner(export, 1);
    let scopes = resources.iter().flat_map(|resource| inner(resource, 2));
    scopes.flat_map(|scope| inner(scope, 2)).map(span).collect()
}

/// Takes exports over one connection, until it ends.
fn receive(stream: TcpStream, into: &Mutex<Vec<Span>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            chunked |= line == "transfer-encoding: chunked";
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        while chunked {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            chunked = size > 0;
        }
        into.lock().unwrap().extend(spans(&body));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// A collector; it ends with the process.
fn collector() -> Arc<Mutex<Vec<Span>>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    PORT.set(listener.local_addr().unwrap().port()).unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let into = Arc::clone(&into);
            std::thread::spawn(move || receive(stream, &into));
        }
    });
    taken
}

/// Has Envoy trace every request to the collector.
fn trace(document: &mut Value, _lab: &Lab) {
    let tracing: Value = serde_yaml::from_str(
        "provider:
  name: envoy.tracers.opentelemetry
  typed_config:
    \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
    service_name: gateway
    http_service:
      http_uri: {uri: \"http://127.0.0.1/v1/traces\", cluster: collector, timeout: 2s}
",
    )
    .unwrap();
    let port = PORT.get().unwrap();
    let cluster: Value = serde_yaml::from_str(&format!(
        "name: collector
type: STATIC
connect_timeout: 1s
load_assignment:
  cluster_name: collector
  endpoints:
  - lb_endpoints:
    - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"
    ))
    .unwrap();
    walk(document, &|map: &mut Mapping| {
        if map.contains_key("http_filters") {
            map.insert("tracing".into(), tracing.clone());
        }
        if let Some(Value::Sequence(clusters)) = map.get_mut("clusters") {
            clusters.push(cluster.clone());
        }
    });
}

#[test]
fn the_stages_of_a_decision_arrive_as_spans() {
    let taken = collector();
    let profile = config::profile(&[("prefix-cache-scorer", 1), ("max-score-picker", 0)]);
    let settings =
        format!("decisionBudget: 10s\ntokenizers: {{map: {{random: {MODEL}}}, timeout: 30s}}");
    assert!(Path::new(MODEL).is_dir());
    let plan = Plan {
        pods: 2,
        config: config::declare(&profile, "token-producer {modelName: random}"),
        bootstrap: Bootstrap { settings, edit: Some(trace) },
        ..Plan::default()
    };
    let lab = Scenario::start(plan);
    let loaded = || lab.metric("inlane_tokenize_models", "") == 1.0;
    lab.wait_until("the model", Duration::from_secs(30), loaded).unwrap();
    let text = "a question that is longer than a block of tokens. ".repeat(20);
    let body = json!({"model": "random", "messages": [{"role": "user", "content": text}],
        "max_tokens": 1})
    .to_string();
    // Envoy samples by the request's id, which therefore is a UUID, and writes its verdict into it.
    let ask = |id: u32| {
        let id = format!("5f0e7a52-6c1d-4b3a-9f65-{id:012}");
        let headers = [("x-request-id", &*id)];
        let answer = lab.client().post("/v1/chat/completions", &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.pod().to_owned()
    };
    let pod = ask(1);
    let of = |id: &str| {
        let spans = taken.lock().unwrap().clone();
        let is_root =
            |span: &&Span| span.tags.get("gen_ai.request.id").is_some_and(|own| own.ends_with(id));
        let trace = spans.iter().find(is_root).map(|root| root.trace.clone())?;
        let of_trace: Vec<Span> = spans.into_iter().filter(|span| span.trace == trace).collect();
        (of_trace.len() == 5).then_some(of_trace)
    };
    // Envoy exports some spans together, or after some seconds.
    lab.wait_until("the first trace", Duration::from_secs(30), || of("0001").is_some())
        .unwrap_or_else(|error| panic!("{error}: {:#?}", taken.lock().unwrap()));
    assert_eq!(ask(2), pod);
    lab.wait_until("the second trace", Duration::from_secs(30), || of("0002").is_some()).unwrap();

    let trace = of("0002").unwrap();
    let named = |name: &str| {
        let found = trace.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no {name}: {trace:#?}")).clone()
    };
    let root = trace.iter().find(|span| span.tags.contains_key("gen_ai.request.id")).unwrap();
    let (tokenize, whole) = (named("tokenize"), named("gateway.request_orchestration"));
    let (lookup, profile) = (named("index_lookup"), named("run_scheduler_profile"));
    for (child, parent) in
        [(&tokenize, root), (&whole, root), (&lookup, &whole), (&profile, &whole)]
    {
        assert_eq!(child.parent, parent.id, "{} below {}", child.name, parent.name);
        assert!(child.start >= parent.start && child.end <= parent.end.max(child.end));
    }
    let stages = [&tokenize, &lookup, &profile];
    assert!(stages.windows(2).all(|pair| pair[0].end <= pair[1].start), "{trace:#?}");
    let tag = |span: &Span, key: &str| span.tags.get(key).cloned().unwrap_or_default();
    let number = |span: &Span, key: &str| tag(span, key).parse::<u64>().unwrap();
    assert_eq!(tag(root, "gen_ai.request.model"), "random");
    assert!(number(&tokenize, "inlane.prompt_tokens") > 100);
    assert_eq!(tag(&whole, "inlane.step"), "full");
    assert_eq!(tag(&whole, "inlane.endpoint_name"), pod);
    assert!(number(&whole, "inlane.matched_blocks.approx-prefix-cache-producer") > 0);
    assert_eq!(tag(&profile, "llm_d.epp.picker.top_endpoints"), pod);
    assert_eq!(tag(&profile, "llm_d.epp.scheduling.profile.name"), "default");
    lab.end();
}
