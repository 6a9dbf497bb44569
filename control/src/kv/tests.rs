use std::net::Ipv4Addr;

use inlane_kv::Mirror;
use inlane_plugins::precise::parameters::HashAlgorithm;
use inlane_segment::table::MirrorReader;

use self::engine::{Engine, Event, Form, Setup, keys, prompt};
use super::settings::Keys;
use super::*;

#[allow(dead_code, clippy::unwrap_used, reason = "what the tests of the process need too")]
#[path = "../../tests/common/engine.rs"]
pub(super) mod engine;

mod shared;

const SPEC: MirrorSpec = MirrorSpec { slots: 16, blocks: 4_000, pages: 16 };

/// An address that no other test has.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 78, 0, 1));

fn words(spec: MirrorSpec) -> MappedWords {
    MappedWords::anonymous(spec.words().unwrap()).unwrap()
}

/// Four ports in a row that are free.
fn free_ports() -> u16 {
    let bind = |port| std::net::TcpListener::bind((ADDRESS, port)).ok();
    for _ in 0..100 {
        let first = bind(0).unwrap();
        let port = first.local_addr().unwrap().port();
        if (1..4).all(|n| port.checked_add(n).is_some_and(|port| bind(port).is_some())) {
            return port;
        }
    }
    panic!("no four ports in a row are free");
}

pub(super) fn settings(ports: Option<(u16, Option<u16>)>) -> KvSettings {
    KvSettings {
        keys: Keys { block_tokens: 16, algorithm: HashAlgorithm::CborFnv, seed: String::new() },
        engine: parameters::EngineType::Vllm,
        central: None,
        filter: "kv@".into(),
        ports,
        redis: None,
    }
}

fn start(settings: KvSettings, words: MappedWords) -> KvEvents {
    let options = Options { ttl: Duration::from_secs(60), ask: Ask::Never };
    KvEvents::start(settings, options, words, SPEC, None).unwrap()
}

/// A rank of the one pod, in the slot of its number.
fn rank(rank: u32) -> Endpoint {
    let port = 8_000 + rank as u16;
    Endpoint { id: format!("d/rank-{rank}"), address: ADDRESS, port, rank, slot: rank }
}

fn engine(base: u16, replays: bool, rank: u16) -> Engine {
    Engine::start(Setup {
        address: ADDRESS,
        port: 8_000 + rank,
        events: base + rank,
        replays: replays.then_some(base + 2 + rank),
        form: Form::Topic,
        buffer: 1_000,
    })
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Blocks from the front that each slot holds.
fn held(words: &MappedWords, tokens: &[u32]) -> Vec<u32> {
    let mut out = vec![0; 4];
    if let Ok(reader) = MirrorReader::open(words.clone()) {
        reader.longest_prefix(0, &keys(tokens), &mut out);
    }
    out
}

fn connected(events: &KvEvents) -> usize {
    events.lock().core.publishers().filter(|(_, p)| p.connected).count()
}

fn store(tokens: &[u32]) -> [Event<'_>; 1] {
    [Event::Stored { tokens, parent: None }]
}

#[test]
fn every_rank_has_ports_of_its_own() {
    let base = free_ports();
    let words = words(SPEC);
    let mut events = start(settings(Some((base, Some(base + 2)))), words.clone());
    let mut engines = [0, 1].map(|rank| engine(base, true, rank));
    let (early, tokens) = (prompt(1, 3), prompt(2, 4));
    engines[1].publish(&store(&early));
    events.set_members([rank(0), rank(1)].into_iter());
    wait_until("the replay of rank 1", || held(&words, &early) == [0, 3, 0, 0]);
    wait_until("connections", || connected(&events) == 2);
    engines[0].heard();
    engines[0].publish(&store(&tokens));
    wait_until("rank 0", || held(&words, &tokens) == [4, 0, 0, 0]);
    // One endpoint leaves, the other keeps what it has.
    events.set_members([rank(1)].into_iter());
    assert_eq!(held(&words, &tokens), [0; 4]);
    assert_eq!(held(&words, &early), [0, 3, 0, 0]);
}

#[test]
fn a_publisher_that_connects_is_asked_for_what_was_missed() {
    let base = free_ports();
    let words = words(SPEC);
    let central = Some(format!("tcp://{ADDRESS}:{base}"));
    let mut events = start(KvSettings { central, ..settings(None) }, words.clone());
    let setup = Setup {
        address: ADDRESS,
        port: 8_000,
        events: base,
        replays: Some(base + 2),
        form: Form::Topic,
        buffer: 1_000,
    };
    // What it says arrives nowhere.
    let mut engine = Engine::connect(setup, &format!("tcp://{ADDRESS}:{}", base + 1));
    let tokens = prompt(1, 4);
    engine.publish(&store(&tokens));
    events.set_members([rank(0)].into_iter());
    let replays = Some(format!("tcp://{ADDRESS}:{}", base + 2));
    let topic = engine.setup.topic();
    let found = Found { replays, topic, connects: true, ..Found::default() };
    events.learn(&rank(0), Answer { found: Some(found), model: None });
    wait_until("the replay", || held(&words, &tokens) == [4, 0, 0, 0]);
}

#[test]
fn blocks_of_a_model_that_is_told_late_are_learned_anew() {
    let base = free_ports();
    let words = words(SPEC);
    let settings = KvSettings { filter: String::new(), ..settings(Some((base, Some(base + 2)))) };
    let mut events = start(settings, words.clone());
    // Neither its topic nor its replays name a model.
    let mut engine = Engine::start(Setup {
        address: ADDRESS,
        port: 8_000,
        events: base,
        replays: Some(base + 2),
        form: Form::Bare,
        buffer: 1_000,
    });
    events.set_members([rank(0)].into_iter());
    wait_until("a connection", || connected(&events) == 1);
    engine.heard();
    let mut say = |seq: u64, tokens: &[u32]| {
        engine.lose(&store(tokens));
        let payload = engine::batch(&store(tokens));
        engine.publish_frames(&[b"", &seq.to_be_bytes(), &payload]);
    };
    let (early, late) = (prompt(1, 3), prompt(2, 2));
    say(0, &early);
    wait_until("a message", || events.lock().core.totals().applied == 1);
    assert_eq!(held(&words, &early), [0; 4], "nobody asks for the keys of no model");
    events.learn(&rank(0), Answer { found: None, model: Some(engine::MODEL.into()) });
    wait_until("the replay", || held(&words, &early) == [3, 0, 0, 0]);
    say(1, &late);
    wait_until("what is said by name", || held(&words, &late) == [2, 0, 0, 0]);
    assert_eq!(MirrorReader::open(words).unwrap().len(0), 5);
}

#[test]
fn a_replay_endpoint_may_come_and_go() {
    let base = free_ports();
    let words = words(SPEC);
    let mut events = start(settings(Some((base, None))), words.clone());
    let mut engine = engine(base, true, 0);
    let (one, two, three) = (prompt(1, 2), prompt(2, 3), prompt(3, 4));
    engine.publish(&store(&one));
    events.set_members([rank(0)].into_iter());
    wait_until("a connection", || connected(&events) == 1);
    engine.heard();
    engine.publish(&store(&two));
    wait_until("what is heard", || held(&words, &two)[0] == 3);
    let url = |port| Some(format!("tcp://{ADDRESS}:{port}"));
    let found = |replays| Found {
        events: url(base),
        replays,
        topic: engine.setup.topic(),
        ..Found::default()
    };
    let mut learn = |replays| {
        let found = Some(found(replays));
        events.learn(&rank(0), Answer { found, model: None });
    };
    // Of it what was missed is asked for at once.
    learn(url(base + 2));
    wait_until("the replay", || held(&words, &one)[0] == 2);
    // At another, where nobody answers, it is waited for; and not any more when it goes.
    learn(url(base + 3));
    learn(None);
    engine.publish(&store(&three));
    wait_until("the live stream", || held(&words, &three)[0] == 4);
}

#[test]
fn the_table_moves_with_the_segment() {
    let base = free_ports();
    let first = words(SPEC);
    let mut events = start(settings(Some((base, Some(base + 2)))), first.clone());
    let mut engine = engine(base, true, 0);
    events.set_members([rank(0)].into_iter());
    wait_until("a connection", || connected(&events) == 1);
    engine.heard();
    let tokens = prompt(1, 3);
    engine.publish(&store(&tokens));
    wait_until("the blocks", || held(&first, &tokens)[0] == 3);

    // To a copy, which is gone on with.
    let mut mover = events.mover();
    mover.park();
    let copy = words(SPEC);
    for at in 0..SPEC.words().unwrap() {
        use inlane_segment::words::{Words, WordsMut};
        copy.store(at, first.load(at, Ordering::Relaxed), Ordering::Relaxed);
    }
    let more = prompt(2, 2);
    engine.publish(&store(&more));
    mover.resume(copy.clone(), SPEC).unwrap();
    wait_until("what came meanwhile", || held(&copy, &more)[0] == 2);
    assert_eq!(held(&copy, &tokens)[0], 3);
    assert_eq!(events.lock().core.totals().applied, 2, "nothing had to be asked for again");

    // To an empty one, for more slots: that is filled by a replay.
    let wide = MirrorSpec { slots: 64, ..SPEC };
    let empty = words(wide);
    mover.park();
    mover.resume(empty.clone(), wide).unwrap();
    wait_until("the replay", || held(&empty, &tokens)[0] == 3 && held(&empty, &more)[0] == 2);
}

#[test]
fn a_tap_hears_of_every_change() {
    struct Log(Arc<Mutex<Vec<String>>>);
    impl Tap for Log {
        fn held(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]) {
            self.0.lock().push(format!("held {slot} {tier} {} {}", engine.len(), keys.len()));
        }
        fn released(&mut self, slot: u16, tier: u8, engine: u64, keys: &[u64]) {
            self.0.lock().push(format!("released {slot} {tier} {engine} {keys:?}"));
        }
        fn cleared(&mut self, slot: u16, held: &[(u8, u64)]) {
            self.0.lock().push(format!("cleared {slot} {held:?}"));
        }
        fn lost(&mut self) {}
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let (mut table, known) = SegmentTable::open(words(SPEC), SPEC, true).unwrap();
    assert!(!known, "there was none");
    table.set_tap(Some(Box::new(Log(Arc::clone(&log)))));
    table.hold(3, 1, &[7, 8], &[70, 80]);
    table.release(3, 1, 8);
    table.release(3, 1, 9);
    table.clear(3);
    table.clear(3);
    assert_eq!(*log.lock(), ["held 3 1 2 2", "released 3 1 8 [80]", "cleared 3 [(1, 70)]"]);
}

/// What a real engine said, through a real socket: the same as what the literal model holds.
#[test]
fn recorded_streams_end_as_the_literal_model_has_them() {
    use inlane_kv::literal::LiteralMirror;
    let runs = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm/runs");
    for run in std::fs::read_dir(runs).unwrap() {
        let path = run.unwrap().path().join("events.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let messages: Vec<[Vec<u8>; 3]> = text.lines().map(frames).collect();

        let settings = settings(None);
        let mut applier = applier(&settings, &[]);
        let mut literal = LiteralMirror::default();
        for [topic, _, payload] in &messages {
            let topic = inlane_kv::topic::Topic::parse(topic).unwrap();
            let batch = inlane_kv::event::decode(payload, EngineType::Vllm).unwrap();
            applier.apply(&mut literal, 0, topic.model, &batch);
        }

        let base = free_ports();
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PUB).unwrap();
        socket.set_sndhwm(0).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind(&format!("tcp://{ADDRESS}:{base}")).unwrap();
        let words = words(SPEC);
        let mut events = start(KvSettings { ports: Some((base, None)), ..settings }, words.clone());
        events.set_members([rank(0)].into_iter());
        wait_until("a connection", || connected(&events) == 1);
        // The subscription is on its way when the connection stands; a repetition does no harm.
        wait_until("a first message", || {
            socket.send_multipart(&messages[0], 0).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            events.lock().core.totals().applied > 0
        });
        for frames in &messages[1..] {
            socket.send_multipart(frames, 0).unwrap();
        }
        let count = messages.len() as u64;
        wait_until("all messages", || events.lock().core.totals().applied == count);
        let reader = MirrorReader::open(words).unwrap();
        let literal: std::collections::BTreeSet<u64> =
            literal.held(0, 0).map(|(_, key)| key).collect();
        assert!(literal.iter().all(|&key| reader.holds(0, 0, key)), "{}", path.display());
        assert_eq!(reader.len(0), literal.len(), "{}", path.display());
        assert!(count > 5, "{}", path.display());
    }
}

/// The frames of a recorded message.
fn frames(line: &str) -> [Vec<u8>; 3] {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let bytes = |hex: &serde_json::Value| {
        let hex = hex.as_str().unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let list = value["frames_hex"].as_array().unwrap();
    [bytes(&list[0]), bytes(&list[1]), bytes(&list[2])]
}
