//! Cache events as a subscriber sees them.

use std::net::SocketAddr;

use inlane_sim::{Cluster, Config, cluster::Layout, config::events::EventFlags};
use serde_json::{Value, json};

use crate::support::{config, exactly, get, one, post};

/// A configuration that publishes as `settings` says, with small blocks.
pub(crate) fn publishing(settings: &Value) -> Config {
    let mut settings = settings.clone();
    settings["enable_kv_cache_events"] = true.into();
    let kv_events_config = Some(settings.to_string().parse().unwrap());
    let events = EventFlags { kv_events_config, ..EventFlags::default() };
    Config { block_size: 8, events, ..config() }
}

fn anywhere() -> Config {
    publishing(&json!({"endpoint": "tcp://*:0", "replay_endpoint": "tcp://*:0"}))
}

/// Where a pod publishes and replays.
pub(crate) fn source(address: SocketAddr) -> Value {
    let sources = get(address, "/kv_event_sources").json();
    sources.as_object().unwrap().values().next().unwrap().clone()
}

pub(crate) struct Message {
    topic: String,
    sequence: u64,
    batch: Value,
}

impl Message {
    fn new(frames: &[Vec<u8>]) -> Self {
        let [topic, sequence, payload] = frames else { panic!("{} frames", frames.len()) };
        let batch = raw(payload);
        let sequence = u64::from_be_bytes(sequence.as_slice().try_into().unwrap());
        Self { topic: String::from_utf8(topic.clone()).unwrap(), sequence, batch }
    }

    /// The types of its events.
    fn kinds(&self) -> Vec<&str> {
        let events = self.batch[1].as_array().unwrap();
        events.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }

    fn event(&self, at: usize) -> &Value {
        &self.batch[1][at]
    }
}

/// A payload as it is written, names included.
pub(crate) fn raw(payload: &[u8]) -> Value {
    let mut rest = payload;
    let batch = decode(&mut rest);
    assert!(rest.is_empty());
    batch
}

/// Enough of msgpack to read what the simulator writes.
fn decode(bytes: &mut &[u8]) -> Value {
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (head, rest) = bytes.split_at(length);
        *bytes = rest;
        head
    }
    fn number(bytes: &mut &[u8], width: usize) -> u64 {
        take(bytes, width).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
    fn text(bytes: &mut &[u8], length: usize) -> Value {
        std::str::from_utf8(take(bytes, length)).unwrap().into()
    }
    fn array(bytes: &mut &[u8], length: usize) -> Value {
        (0..length).map(|_| decode(bytes)).collect()
    }
    fn map(bytes: &mut &[u8], length: usize) -> Value {
        let entry = |bytes: &mut &[u8]| (decode(bytes).as_str().unwrap().to_owned(), decode(bytes));
        (0..length).map(|_| entry(bytes)).collect::<serde_json::Map<_, _>>().into()
    }
    match number(bytes, 1) {
        small @ 0..=0x7f => small.into(),
        head @ 0x80..=0x8f => map(bytes, head as usize & 15),
        head @ 0x90..=0x9f => array(bytes, head as usize & 15),
        head @ 0xa0..=0xbf => text(bytes, head as usize & 31),
        0xc0 => Value::Null,
        0xc4 => {
            let length = number(bytes, 1) as usize;
            let hex = take(bytes, length).iter().map(|byte| format!("{byte:02x}"));
            json!({"$bytes": hex.collect::<String>()})
        }
        0xcb => f64::from_bits(number(bytes, 8)).into(),
        head @ 0xcc..=0xcf => number(bytes, 1 << (head - 0xcc)).into(),
        0xd9 => {
            let length = number(bytes, 1) as usize;
            text(bytes, length)
        }
        0xdc => {
            let length = number(bytes, 2) as usize;
            array(bytes, length)
        }
        other => panic!("unexpected {other:#x}"),
    }
}

pub(crate) struct Subscriber {
    socket: zmq::Socket,
    _context: zmq::Context,
}

impl Subscriber {
    /// Subscribes, and waits until the subscription is in force.
    pub(crate) fn connect(endpoint: &str, ping: impl Fn()) -> (Self, Vec<Message>) {
        let subscriber = Self::new(|socket| socket.connect(endpoint).unwrap());
        let seen = subscriber.join(ping);
        (subscriber, seen)
    }

    fn new(attach: impl FnOnce(&zmq::Socket)) -> Self {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::SUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_subscribe(b"").unwrap();
        attach(&socket);
        Self { socket, _context: context }
    }

    /// Pings until something is heard: what is published before a subscription arrives is lost.
    fn join(&self, ping: impl Fn()) -> Vec<Message> {
        for _ in 0..200 {
            ping();
            if let Some(message) = self.next(50) {
                let mut seen = vec![message];
                seen.extend(std::iter::from_fn(|| self.next(50)));
                return seen;
            }
        }
        panic!("nothing was published");
    }

    fn next(&self, millis: i64) -> Option<Message> {
        self.frames(millis).map(|frames| Message::new(&frames))
    }

    /// The frames of the next message, if it comes in time.
    pub(crate) fn frames(&self, millis: i64) -> Option<Vec<Vec<u8>>> {
        let heard = self.socket.poll(zmq::POLLIN, millis).unwrap() > 0;
        heard.then(|| self.socket.recv_multipart(0).unwrap())
    }

    fn expect(&self) -> Message {
        self.next(10_000).expect("a message within ten seconds")
    }
}

fn reset(address: SocketAddr) {
    assert_eq!(post(address, "/reset_prefix_cache", "").body, r#"{"success":true}"#);
}

/// Twelve words from this number on: a block and a half.
fn words(from: usize) -> String {
    (from..from + 12).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ")
}

fn ask(address: SocketAddr, prompt: &str) -> Value {
    let answer = post(address, "/v1/completions", &exactly(prompt, 1));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// A body with more fields.
fn with(prompt: &str, fields: &Value) -> String {
    let mut body: Value = serde_json::from_str(&exactly(prompt, 1)).unwrap();
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string()
}

/// A pod with a subscriber that has heard of some prompts.
fn subscribed(config: Config) -> (Cluster, SocketAddr, Subscriber, Vec<Message>) {
    let (cluster, address) = one(config);
    let endpoint = source(address)["endpoint"].as_str().unwrap().to_owned();
    let next = std::cell::Cell::new(10_000);
    let (subscriber, seen) = Subscriber::connect(&endpoint, || {
        ask(address, &words(next.replace(next.get() + 100)));
    });
    (cluster, address, subscriber, seen)
}

#[test]
fn a_prompt_is_stored_once_and_continued() {
    let (_cluster, address, subscriber, seen) = subscribed(anywhere());
    let last = seen.last().unwrap();
    assert_eq!(last.topic, format!("kv@127.0.0.1:{}@random", address.port()));
    ask(address, &words(0));
    let first = subscriber.expect();
    assert_eq!((first.sequence, first.kinds()), (last.sequence + 1, vec!["BlockStored"]));
    assert_eq!(first.batch[2], 0);
    let stored = first.event(0);
    assert_eq!(stored["parent_block_hash"], Value::Null);
    assert_eq!(stored["token_ids"].as_array().unwrap().len(), 8);
    assert_eq!(stored["extra_keys"], json!([null]));
    assert_eq!((&stored["block_size"], &stored["medium"]), (&json!(8), &json!("GPU")));

    // The same again changes nothing; more of it stores the rest behind what is there.
    ask(address, &words(0));
    ask(address, &format!("{} {}", words(0), words(50)));
    let second = subscriber.expect();
    assert_eq!((second.sequence, second.kinds()), (first.sequence + 1, vec!["BlockStored"]));
    assert_eq!(second.event(0)["parent_block_hash"], stored["block_hashes"][0]);
    assert_eq!(second.event(0)["block_hashes"].as_array().unwrap().len(), 2);
    let tokens = post(address, "/tokenize", &json!({"prompt": words(0)}).to_string()).json();
    assert_eq!(
        stored["token_ids"].as_array().unwrap()[..],
        tokens["tokens"].as_array().unwrap()[..8]
    );
}

#[test]
fn answers_fill_blocks_too() {
    let mut config = anywhere();
    config.tunables.inter_token_latency = "1ms".parse().unwrap();
    let (_cluster, address, subscriber, _) = subscribed(config);
    post(address, "/v1/completions", &exactly(&words(0), 14));
    // 12 tokens of prompt and 13 that were computed on: the second block, and the third.
    // An engine that was stopped meanwhile tells of two blocks at once.
    let mut chain: Vec<Value> = Vec::new();
    while chain.len() < 3 {
        for event in subscriber.expect().batch[1].as_array().unwrap() {
            assert_eq!(event["parent_block_hash"], *chain.last().unwrap_or(&Value::Null));
            chain.extend(event["block_hashes"].as_array().unwrap().iter().cloned());
        }
    }
    assert_eq!(chain.len(), 3);
    assert!(subscriber.next(50).is_none());
}

#[test]
fn what_distinguishes_blocks_is_told() {
    let mut config = anywhere();
    config.lora_modules =
        [r#"{"name":"sql"}"#, r#"{"name":"chat"}"#].map(|m| m.parse().unwrap()).into();
    let (_cluster, address, subscriber, _) = subscribed(config);
    let prompt = format!("{} {} end", words(0), words(50));
    let stored = |fields: &Value| {
        assert_eq!(post(address, "/v1/completions", &with(&prompt, fields)).status, 200);
        let message = subscriber.expect();
        assert_eq!(message.kinds(), ["BlockStored"]);
        message.event(0).clone()
    };
    let plain = stored(&json!({"session_id": "s1"}));
    assert_eq!((&plain["session_id"], &plain["lora_id"]), (&json!("s1"), &Value::Null));
    let salted = stored(&json!({"cache_salt": "tenant"}));
    assert_eq!(salted["extra_keys"], json!([["tenant"], null, null]));
    let tuned = stored(&json!({"model": "chat"}));
    assert_eq!((&tuned["lora_id"], &tuned["lora_name"]), (&json!(2), &json!("chat")));
    let both = stored(&json!({"model": "chat", "cache_salt": "tenant"}));
    assert_eq!(both["extra_keys"], json!([["chat", "tenant"], ["chat"], ["chat"]]));
    let hashes: Vec<_> = [&plain, &salted, &tuned, &both].map(|e| &e["block_hashes"][0]).into();
    assert_eq!((0..4).filter(|at| hashes[..*at].contains(&hashes[*at])).count(), 0);
    // What is cached is told again when asked for.
    let again = stored(&json!({"vllm_xargs": {"kv_cache_report_mode": "full"}}));
    assert_eq!(
        (&again["block_hashes"], &again["parent_block_hash"]),
        (&plain["block_hashes"], &Value::Null)
    );
}

#[test]
fn evictions_come_tail_first_before_what_forced_them() {
    let config = Config { kv_cache_size: 4, ..anywhere() };
    let (_cluster, address, subscriber, _) = subscribed(config);
    reset(address);
    ask(address, &format!("{} {}", words(0), words(20)));
    let old = subscriber.expect();
    assert_eq!(
        old.kinds(),
        ["AllBlocksCleared", "BlockStored"],
        "a reset is told with the next step"
    );
    let old = old.event(1)["block_hashes"].as_array().unwrap().clone();
    assert_eq!(old.len(), 3);
    ask(address, &format!("{} {}", words(40), words(60)));
    let new = subscriber.expect();
    assert_eq!(new.kinds(), ["BlockRemoved", "BlockRemoved", "BlockStored"]);
    let removed = [0, 1].map(|at| new.event(at)["block_hashes"].clone());
    assert_eq!(removed, [json!([old[2]]), json!([old[1]])]);
    assert_eq!(new.event(0)["group_idx"], 0);
}

#[test]
fn a_subscriber_can_have_the_past_repeated() {
    let (_cluster, address) = one(anywhere());
    for n in 0..5 {
        ask(address, &words(n * 100));
    }
    let replay = source(address)["replay_endpoint"].as_str().unwrap().to_owned();
    let context = zmq::Context::new();
    let dealer = context.socket(zmq::DEALER).unwrap();
    dealer.set_linger(0).unwrap();
    dealer.set_rcvtimeo(10_000).unwrap();
    dealer.connect(&replay).unwrap();
    let repeated = |start: u64| {
        dealer.send_multipart([&b""[..], &start.to_be_bytes()], 0).unwrap();
        let mut messages = vec![];
        loop {
            let frames = dealer.recv_multipart(0).unwrap();
            assert_eq!((frames.len(), frames[0].len()), (4, 0));
            if frames[2] == [0xff; 8] {
                assert!(frames[1].is_empty() && frames[3].is_empty());
                return messages;
            }
            messages.push(Message::new(&frames[1..]));
        }
    };
    // Nonsense is ignored, and does no harm.
    dealer.send_multipart([&b""[..], &b"x"[..]], 0).unwrap();
    dealer.send_multipart([&b""[..]], 0).unwrap();
    let all = repeated(0);
    assert_eq!(all.iter().map(|m| m.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(all[0].topic.starts_with("kv@"));
    assert_eq!(repeated(3).len(), 2);
    assert_eq!(repeated(99).len(), 0);
}

#[test]
fn old_versions_repeat_without_topic_and_keep_as_much_as_they_are_told() {
    let mut config = publishing(
        &json!({"endpoint": "tcp://*:0", "replay_endpoint": "tcp://*:0", "buffer_steps": 2}),
    );
    config.events.kv_events_version = inlane_sim::events::Dialect::V0_22;
    let (_cluster, address) = one(config);
    for n in 0..4 {
        ask(address, &words(n * 100));
    }
    let context = zmq::Context::new();
    let dealer = context.socket(zmq::DEALER).unwrap();
    dealer.set_linger(0).unwrap();
    dealer.set_rcvtimeo(10_000).unwrap();
    dealer.connect(source(address)["replay_endpoint"].as_str().unwrap()).unwrap();
    dealer.send_multipart([&b""[..], &[0; 8]], 0).unwrap();
    let frames: Vec<_> = (0..3).map(|_| dealer.recv_multipart(0).unwrap()).collect();
    let sequences = frames.iter().map(|f| u64::from_be_bytes(f[1].as_slice().try_into().unwrap()));
    assert_eq!(sequences.collect::<Vec<_>>(), [2, 3, u64::MAX]);
    assert!(frames.iter().all(|frames| frames.len() == 3));
    let batch = decode(&mut frames[0][2].as_slice());
    assert_eq!(batch[1][0][0], "BlockStored");
    assert_eq!(batch[1][0].as_array().unwrap().len(), 12);
}

#[test]
fn a_revived_pod_starts_again_at_the_same_place() {
    let (cluster, address, subscriber, seen) = subscribed(anywhere());
    assert!(!seen.is_empty());
    let before = source(address);
    cluster.pods[0].kill().unwrap();
    let endpoint = before["endpoint"].as_str().unwrap().trim_start_matches("tcp://");
    assert!(std::net::TcpStream::connect(endpoint).is_err(), "nothing listens any more");
    cluster.pods[0].revive().unwrap();
    assert_eq!(source(address), before);
    let next = std::cell::Cell::new(0);
    let seen = subscriber.join(|| {
        ask(address, &words(next.replace(next.get() + 100)));
    });
    // Some may be lost before the subscriber is back; the numbers begin again all the same.
    assert!(seen[0].sequence < next.get() as u64 / 100);
}

#[test]
fn a_pod_connects_to_a_central_subscriber() {
    let central = Subscriber::new(|socket| socket.bind("tcp://127.0.0.1:*").unwrap());
    let endpoint = central.socket.get_last_endpoint().unwrap().unwrap();
    let config = publishing(&json!({"endpoint": endpoint, "topic": "kv@pod-a@m"}));
    let (_cluster, address) = one(config);
    assert_eq!(source(address)["endpoint"], endpoint.as_str());
    let next = std::cell::Cell::new(0);
    let seen = central.join(|| {
        ask(address, &words(next.replace(next.get() + 100)));
    });
    assert_eq!(seen[0].topic, "kv@pod-a@m");
}

#[test]
fn ranks_have_ports_and_numbers() {
    let path = std::env::temp_dir().join(format!("inlane-sim-events-{}", std::process::id()));
    let endpoint = format!("ipc://{}", path.display());
    let mut config = publishing(&json!({"endpoint": endpoint}));
    config.events.data_parallel_size = 2;
    let layout = Layout::new(std::num::NonZeroUsize::MIN);
    let cluster = Cluster::start_with(config, layout).unwrap();
    let addresses: Vec<_> = cluster.pods.iter().map(|pod| pod.address()).collect();
    assert_eq!(cluster.pods[1].name(), format!("sim-{}-rank-1", addresses[1].port()));
    let second = get(addresses[1], "/kv_event_sources").json();
    assert_eq!(second["1"]["endpoint"], format!("{endpoint}_dp1"));
    let next = std::cell::Cell::new(0);
    let (_subscriber, seen) = Subscriber::connect(&format!("{endpoint}_dp1"), || {
        ask(addresses[1], &words(next.replace(next.get() + 100)));
    });
    assert_eq!(seen[0].batch[2], 1);
}

#[test]
fn nothing_is_published_unless_asked_for() {
    let (_cluster, address) = one(config());
    assert_eq!(get(address, "/kv_event_sources").body, "{}");
}

#[test]
fn an_endpoint_that_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = publishing(&json!({"endpoint": format!("tcp://*:{port}")}));
    let error = Cluster::start(config, 1).unwrap_err().to_string();
    assert!(error.contains(&format!("tcp://127.0.0.1:{port}")), "{error}");
}

#[test]
fn a_cache_in_use_is_not_reset() {
    let mut config = anywhere();
    config.tunables.time_to_first_token = "300ms".parse().unwrap();
    let (cluster, address) = one(config);
    let client = std::thread::spawn(move || ask(address, &words(0)));
    let running = "vllm:num_requests_running{engine=\"0\",model_name=\"random\"}";
    crate::support::eventually("it runs", || cluster.pods[0].metric(running) == Some(1.0));
    assert_eq!(post(address, "/reset_prefix_cache", "").body, r#"{"success":false}"#);
    client.join().unwrap();
    crate::support::eventually("it can be reset", || {
        post(address, "/reset_prefix_cache", "").body.contains("true")
    });
}
