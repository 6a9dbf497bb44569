//! KV-cache events over real sockets, into the segment as a proxy reads it.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod common;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::engine::{Engine, Event, Form, Setup, engine_hashes, keys, prompt};
use common::redis::Server;
use common::{Control, Reader, Scene, eventually};
use inlane_core::snapshot::IndexDocument;
use inlane_segment::Document;
use inlane_segment::table::MirrorReader;

/// Port of the requests: nobody answers there.
const SERVING: u16 = 1;

/// The n-th pod, at an address of its own.
fn address(pod: u8) -> IpAddr {
    Ipv4Addr::new(127, 77, 0, pod).into()
}

fn entry(pod: u8) -> String {
    format!("- {{name: pod-{pod}, address: \"{}\", port: \"{SERVING}\"}}\n", address(pod))
}

/// Different ports that are free at all loopback addresses, as is the one after each, for as long as
/// nobody else asks.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    [(); N].map(|()| {
        loop {
            let first = TcpListener::bind("0.0.0.0:0").unwrap();
            let port = first.local_addr().unwrap().port();
            let second = port.checked_add(1).map(|next| TcpListener::bind(("0.0.0.0", next)));
            if let Some(Ok(second)) = second {
                held.push((first, second));
                break port;
            }
        }
    })
}

/// Ports of events and replays.
#[derive(Clone, Copy)]
struct Ports(u16, Option<u16>);

impl Ports {
    fn new(replays: bool) -> Self {
        let [events, replay] = free_ports();
        Self(events, replays.then_some(replay))
    }

    fn setup(self, pod: u8) -> Setup {
        Setup {
            address: address(pod),
            port: SERVING,
            events: self.0,
            replays: self.1,
            form: Form::Topic,
            buffer: 10_000,
        }
    }

    fn engine(self, pod: u8) -> Engine {
        Engine::start(self.setup(pod))
    }

    fn config(self) -> String {
        let replays = self.1.map_or(String::new(), |port| format!(", replaySocketPort: {port}"));
        config(&format!("{{podDiscoveryConfig: {{socketPort: {}{replays}}}}}", self.0))
    }
}

fn config(events: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
         - {{type: token-producer}}\n\
         - {{type: precise-prefix-cache-producer, parameters: {{kvEventsConfig: {events}}}}}\n"
    )
}

/// A scene with a configuration and pods.
fn scene(config: &str, pods: &[u8]) -> Scene {
    let scene = Scene::new();
    scene.write("config.yaml", config);
    scene.endpoints(&pods.iter().map(|&pod| entry(pod)).collect::<Vec<_>>());
    scene
}

fn start(scene: &Scene, more: &[&str]) -> Control {
    let config = scene.path("config.yaml");
    let mut args = vec!["--config-file", config.to_str().unwrap(), "--index-bytes", "16MiB"];
    args.extend(more);
    scene.start(&args)
}

/// Blocks from the front of the prompt that the pod holds.
fn held(reader: &mut Reader, pod: u8, tokens: &[u32]) -> Option<u32> {
    let slot = reader.endpoint(&format!("pod-{pod}"))?.slot;
    let snapshot = reader.0.snapshot();
    let table = MirrorReader::open(snapshot.table()).ok()?;
    let mut out = vec![0; table.slots()];
    table.longest_prefix(0, &keys(tokens), &mut out);
    out.get(slot as usize).copied()
}

#[track_caller]
fn wait_for(reader: &mut Reader, pod: u8, tokens: &[u32], blocks: u32) {
    let mut last = None;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        last = held(reader, pod, tokens);
        if last == Some(blocks) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("pod {pod} holds {last:?}, expected {blocks}");
}

fn connected(control: &Control, pods: &[u8]) {
    for pod in pods {
        let series = format!("inlane_control_kv_connected{{endpoint=\"default/pod-{pod}\"}}");
        eventually(&series, || (control.metric(&series)? == 1.0).then_some(()));
    }
}

/// A control plane that hears an engine in each of the pods.
fn hearing<const N: usize>(
    ports: Ports,
    pods: [u8; N],
    more: &[&str],
) -> (Scene, [Engine; N], Control, Reader) {
    let scene = scene(&ports.config(), &pods);
    let engines = pods.map(|pod| ports.engine(pod));
    let control = start(&scene, more);
    let reader = scene.reader();
    connected(&control, &pods);
    engines.iter().for_each(Engine::heard);
    (scene, engines, control, reader)
}

/// The state of a pod's stream.
fn stream(control: &Control, pod: u8) -> serde_json::Value {
    let page = control.json("/debug/kv");
    let all = page["publishers"].as_array().unwrap();
    let name = format!("default/pod-{pod}");
    all.iter().find(|one| one["endpoint"] == name).unwrap().clone()
}

fn store(tokens: &[u32]) -> [Event<'_>; 1] {
    [Event::Stored { tokens, parent: None }]
}

#[test]
fn blocks_come_and_go_with_the_events_of_every_pod() {
    let ports = Ports::new(false);
    let pods = [1, 2, 3];
    let (scene, mut engines, control, mut reader) = hearing(ports, pods, &[]);
    let bytes = reader.0.snapshot().document(Document::Index).unwrap().unwrap().bytes;
    let document: IndexDocument = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((document.block_tokens, document.algorithm.as_str()), (16, "cbor-fnv"));
    assert_eq!(document.tiers, ["gpu", "cpu"]);

    // All pods share a subscriber; each holds what it said itself.
    let shared = prompt(0, 8);
    for (engine, blocks) in engines.iter_mut().zip([8, 4, 2]) {
        engine.publish(&store(&shared[..blocks * 16]));
    }
    for (pod, blocks) in pods.into_iter().zip([8, 4, 2]) {
        wait_for(&mut reader, pod, &shared, blocks);
    }
    // A chain goes on from its parent, and is taken back from its end.
    let hashes = engine_hashes(&shared, None);
    let [_, second, _] = &mut engines;
    second.publish(&[Event::Stored { tokens: &shared[64..], parent: Some(hashes[3]) }]);
    wait_for(&mut reader, 2, &shared, 8);
    second.publish(&[Event::Removed(&hashes[7..]), Event::Removed(&hashes[6..7])]);
    wait_for(&mut reader, 2, &shared, 6);
    second.publish(&[Event::Cleared]);
    wait_for(&mut reader, 2, &shared, 0);
    wait_for(&mut reader, 1, &shared, 8);

    // A pod that leaves takes its blocks with it; the others keep theirs.
    scene.endpoints(&[entry(2), entry(3)]);
    reader.wait_for_names(&["pod-2", "pod-3"]);
    let total = "inlane_control_kv_index_held";
    eventually("the end of pod 1's blocks", || (control.metric(total)? == 2.0).then_some(()));
    wait_for(&mut reader, 3, &shared, 2);
}

#[test]
fn what_a_stream_lost_is_replayed() {
    for form in [Form::Topic, Form::Bare] {
        let ports = Ports::new(true);
        let scene = scene(&ports.config(), &[1]);
        let mut engine = Engine::start(Setup { form, ..ports.setup(1) });
        // Before anybody listens.
        let early = prompt(1, 3);
        engine.publish(&store(&early));
        let control = start(&scene, &[]);
        let mut reader = scene.reader();
        connected(&control, &[1]);
        engine.heard();
        if form == Form::Bare {
            // Without a topic the model is known when the stream has named it.
            engine.publish(&store(&prompt(2, 1)));
        }
        wait_for(&mut reader, 1, &early, 3);
        let (lost, later) = (prompt(3, 4), prompt(4, 5));
        engine.lose(&store(&lost));
        engine.publish(&store(&later));
        wait_for(&mut reader, 1, &lost, 4);
        wait_for(&mut reader, 1, &later, 5);
        wait_for(&mut reader, 1, &early, 3);
        assert_eq!(stream(&control, 1)["gaps"], 0, "{form:?}");
    }
}

#[test]
fn a_gap_that_cannot_be_replayed_costs_what_came_before() {
    let ports = Ports::new(false);
    let (_scene, [mut engine], control, mut reader) = hearing(ports, [1], &[]);
    let (before, after) = (prompt(1, 3), prompt(2, 3));
    engine.publish(&store(&before));
    wait_for(&mut reader, 1, &before, 3);
    engine.lose(&[]);
    engine.publish(&store(&after));
    wait_for(&mut reader, 1, &after, 3);
    wait_for(&mut reader, 1, &before, 0);
    assert_eq!(stream(&control, 1)["gaps"], 1);
    let distrusted = "inlane_control_kv_distrusted_total{reason=\"gap\"}";
    assert_eq!(control.metric(distrusted), Some(1.0));
}

#[test]
fn an_engine_that_starts_anew_starts_from_nothing() {
    for replays in [false, true] {
        let ports = Ports::new(replays);
        let (_scene, [mut engine], control, mut reader) = hearing(ports, [1], &[]);
        let (old, new) = (prompt(1, 3), prompt(2, 3));
        engine.publish(&store(&old));
        engine.publish(&[]);
        wait_for(&mut reader, 1, &old, 3);
        let mut engine = engine.restart();
        if replays {
            // Seen when the connection is made again, before it has said anything.
            wait_for(&mut reader, 1, &old, 0);
        } else {
            eventually("a reconnection", || {
                (stream(&control, 1)["reconnections"] == 1).then_some(())
            });
        }
        engine.heard();
        engine.publish(&store(&new));
        wait_for(&mut reader, 1, &new, 3);
        wait_for(&mut reader, 1, &old, 0);
        assert_eq!(stream(&control, 1)["restarts"], 1);
    }
}

#[test]
fn central_mode_takes_names_from_topics() {
    let [port] = free_ports();
    let url = format!("tcp://127.0.0.1:{port}");
    let events = format!("{{zmqEndpoint: 'tcp://*:{port}', discoverPods: false}}");
    let scene = scene(&config(&events), &[1, 2]);
    let control = start(&scene, &[]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["pod-1", "pod-2"]);
    let ports = Ports(port, None);
    let mut engines = [1, 2].map(|pod| Engine::connect(ports.setup(pod), &url));
    let mut stranger = Engine::connect(ports.setup(9), &url);
    let tokens = prompt(0, 4);
    // Who connects is heard a little later: a publisher cannot know when. Numbers that were not
    // heard make a gap before anything is held.
    for (engine, pod) in engines.iter_mut().zip([1, 2]) {
        eventually("a first message", || {
            engine.publish(&[]);
            (stream(&control, pod)["messages"] != 0).then_some(())
        });
    }
    engines[1].publish(&store(&tokens));
    wait_for(&mut reader, 2, &tokens, 4);
    wait_for(&mut reader, 1, &tokens, 0);
    let unknown = "inlane_control_kv_unknown_pod_total";
    eventually("a stranger's message", || {
        stranger.publish(&store(&tokens));
        (control.metric(unknown)? > 0.0).then_some(())
    });
}

#[test]
fn ranks_publish_at_ports_of_their_own() {
    let ports = Ports::new(true);
    let scene = Scene::new();
    scene.write("config.yaml", &ports.config());
    // Two ranks of one pod: one address, two serving ports.
    let entry = |name: &str, port: u16, more: &str| {
        format!("- {{name: {name}, address: \"{}\", port: \"{port}\"{more}}}\n", address(1))
    };
    scene.endpoints(&[entry("pod-1", 1, "")]);
    let control = start(&scene, &[]);
    let mut reader = scene.reader();
    let mut engine = ports.engine(1);
    connected(&control, &[1]);
    engine.heard();
    engine.publish(&store(&prompt(1, 2)));
    wait_for(&mut reader, 1, &prompt(1, 2), 2);
    let second = |port: u16| port + 1;
    let setup = ports.setup(1);
    let (events, replays) = (second(setup.events), setup.replays.map(second));
    let mut other = Engine::start(Setup { port: 2, events, replays, ..setup });
    // What it says before it is known is asked for.
    other.publish(&store(&prompt(2, 3)));
    scene.endpoints(&[entry("pod-1", 1, ""), entry("pod-2", 2, ", rank: 1")]);
    reader.wait_for_names(&["pod-1", "pod-2"]);
    connected(&control, &[1, 2]);
    wait_for(&mut reader, 2, &prompt(2, 3), 3);
    other.heard();
    other.publish(&store(&prompt(3, 4)));
    wait_for(&mut reader, 2, &prompt(3, 4), 4);
    // Each speaks for itself.
    assert_eq!(held(&mut reader, 1, &prompt(2, 3)), Some(0));
    assert_eq!(held(&mut reader, 2, &prompt(1, 2)), Some(0));
    let subscribers = "llm_d_epp_kv_cache_events_active_subscribers";
    assert_eq!(control.metric(subscribers), Some(2.0));
}

#[test]
fn strange_messages_cost_only_themselves() {
    let ports = Ports::new(false);
    let (_scene, [mut engine], control, mut reader) = hearing(ports, [1], &[]);
    engine.publish(&store(&prompt(1, 2)));
    wait_for(&mut reader, 1, &prompt(1, 2), 2);
    let topic = engine.setup.topic();
    engine.publish_frames(&[topic.as_bytes()]);
    engine.publish_frames(&[topic.as_bytes(), b"short", b"x"]);
    engine.publish_frames(&[topic.as_bytes(), &[0; 8], b"x", b"y", b"z"]);
    engine.publish_frames(&[topic.as_bytes(), &1_u64.to_be_bytes(), b"\xc1 no msgpack"]);
    engine.lose(&[]);
    engine.publish(&store(&prompt(2, 2)));
    wait_for(&mut reader, 1, &prompt(2, 2), 2);
    wait_for(&mut reader, 1, &prompt(1, 2), 2);
    assert_eq!(control.metric("inlane_control_kv_frames_malformed_total"), Some(3.0));
    assert_eq!(control.metric("inlane_control_kv_undecodable_total"), Some(1.0));
}

#[test]
fn a_successor_trusts_what_it_can_confirm() {
    for replays in [true, false] {
        let ports = Ports::new(replays);
        let (scene, mut engines, control, mut reader) = hearing(ports, [1, 2], &[]);
        // 100,000 blocks.
        let prompts: Vec<Vec<u32>> = (0..500).map(|n| prompt(n, 100)).collect();
        for (engine, half) in engines.iter_mut().zip(prompts.chunks(250)) {
            for tokens in half {
                engine.publish(&store(&tokens[..800]));
                let parent = engine_hashes(&tokens[..800], None).pop();
                engine.publish(&[Event::Stored { tokens: &tokens[800..], parent }]);
            }
            for tokens in half {
                engine.publish(&store(tokens));
            }
        }
        // All of it is visible before all of it is applied, and who dies within a message learns anew.
        for pod in [1, 2] {
            eventually("every message", || {
                (stream(&control, pod)["applied"] == 3 * 250).then_some(())
            });
        }
        wait_for(&mut reader, 1, &prompts[249], 100);
        wait_for(&mut reader, 2, &prompts[499], 100);
        control.kill();

        // Readers go on with what is there, and nobody hears what the engines say meanwhile.
        let gone = engine_hashes(&prompts[0], None);
        if replays {
            engines[0].publish(&[Event::Removed(&gone[50..])]);
        }
        for (at, pod) in [(1, 1), (200, 1), (250, 2), (499, 2)] {
            assert_eq!(held(&mut reader, pod, &prompts[at]), Some(100));
        }
        let began = Instant::now();
        let control = start(&scene, &[]);
        connected(&control, &[1, 2]);
        engines.iter().for_each(Engine::heard);
        if replays {
            // Stored twice, so one removal leaves what the other store backs.
            engines[0].publish(&[Event::Removed(&gone[50..])]);
            wait_for(&mut reader, 1, &prompts[0], 50);
        } else {
            engines[0].publish(&store(&prompt(9_999, 1)));
            wait_for(&mut reader, 1, &prompt(9_999, 1), 1);
        }
        println!("true again after {:?}", began.elapsed());
        for (at, pod) in [(1, 1), (249, 1), (250, 2), (499, 2)] {
            wait_for(&mut reader, pod, &prompts[at], 100);
        }
        assert_eq!(control.metric("inlane_control_kv_undecodable_total"), Some(0.0));
        assert_eq!(stream(&control, 1)["gaps"], 0);
        assert!(stream(&control, 1)["applied"].as_u64() < Some(10), "the rest was there");

        // A pod that started anew while nobody was there is not believed.
        control.kill();
        let [first, _second] = engines;
        let mut first = first.restart();
        let control = start(&scene, &[]);
        connected(&control, &[1, 2]);
        first.heard();
        first.publish(&store(&prompt(8_888, 1)));
        wait_for(&mut reader, 1, &prompt(8_888, 1), 1);
        wait_for(&mut reader, 1, &prompts[1], 0);
        wait_for(&mut reader, 2, &prompts[499], 100);
    }
}

#[test]
fn other_keys_are_another_index() {
    let ports = Ports::new(true);
    let scene = scene(&ports.config(), &[1]);
    let mut engine = ports.engine(1);
    let control = start(&scene, &[]);
    let mut reader = scene.reader();
    let tokens = prompt(1, 4);
    engine.publish(&store(&tokens));
    wait_for(&mut reader, 1, &tokens, 4);
    let seeded = ports
        .config()
        .replace("{kvEventsConfig", "{tokenProcessorConfig: {hashSeed: other}, kvEventsConfig");
    scene.write("config.yaml", &seeded);
    wait_for(&mut reader, 1, &tokens, 0);
    let held_blocks = "inlane_control_kv_index_held";
    eventually("the replay", || (control.metric(held_blocks)? == 4.0).then_some(()));
    // And without a producer there is none.
    scene.write("config.yaml", "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n");
    eventually("no index", || {
        let document = reader.0.snapshot().document(Document::Index).unwrap()?;
        let document: IndexDocument = serde_json::from_slice(&document.bytes).unwrap();
        (document == IndexDocument::default()).then_some(())
    });
    assert_eq!(control.metric("inlane_control_kv_index"), Some(0.0));
}

#[test]
fn silence_is_believed_after_a_while() {
    let ports = Ports::new(true);
    let (_scene, mut engines, control, mut reader) =
        hearing(ports, [1, 2], &["--kv-silence-ttl", "1s"]);
    let tokens = prompt(1, 4);
    for (engine, pod) in engines.iter_mut().zip([1, 2]) {
        engine.publish(&store(&tokens));
        wait_for(&mut reader, pod, &tokens, 4);
    }
    // The second has gone deaf and dumb; the first has nothing to say, and says so when asked.
    engines[1].answers.store(false, Ordering::Release);
    wait_for(&mut reader, 2, &tokens, 0);
    assert_eq!(held(&mut reader, 1, &tokens), Some(4));
    assert_eq!(stream(&control, 1)["silences"], 0);
}

#[test]
fn an_index_is_emptied_on_demand_and_filled_by_replays() {
    let ports = Ports::new(true);
    let (_scene, [mut engine], control, mut reader) = hearing(ports, [1], &[]);
    let tokens = prompt(1, 4);
    engine.publish(&store(&tokens));
    wait_for(&mut reader, 1, &tokens, 4);
    assert_eq!(control.get("/debug/kv/reset").0, 405);
    assert_eq!(control.request("POST", "/debug/kv/reset").0, 200);
    wait_for(&mut reader, 1, &tokens, 4);
    assert_eq!(control.metric("inlane_control_kv_index_resets_total"), Some(1.0));
}

#[test]
fn a_control_plane_that_hears_nobody_knows_what_another_hears() {
    let mut server = Server::start();
    let address = format!(
        "{{indexerConfig: {{kvBlockIndexConfig: {{redisConfig: {{address: '{}'}}}}}}, kvEventsConfig",
        server.url()
    );
    let ports = Ports::new(true);
    let shared = |config: &str| config.replace("{kvEventsConfig", &address);
    let hearing = scene(&shared(&ports.config()), &[1]);
    let deaf = scene(&shared(&config("{discoverPods: false}")), &[1]);
    let mut engine = ports.engine(1);
    let (first, second) = (start(&hearing, &[]), start(&deaf, &[]));
    let mut reader = deaf.reader();
    connected(&first, &[1]);
    engine.heard();
    let (one, two) = (prompt(1, 4), prompt(2, 3));
    engine.publish(&store(&one));
    wait_for(&mut reader, 1, &one, 4);
    assert_eq!(stream(&second, 1)["lent"], true);
    assert_eq!(stream(&first, 1)["lent"], false);

    // Without the server what is known stays; with it comes what was missed.
    server.kill();
    let series = "inlane_control_kv_shared_connected";
    for control in [&first, &second] {
        eventually("the loss", || (control.metric(series)? == 0.0).then_some(()));
    }
    assert_eq!(held(&mut reader, 1, &one), Some(4));
    engine.publish(&store(&two));
    server.restart("");
    wait_for(&mut reader, 1, &two, 3);
    wait_for(&mut reader, 1, &one, 4);
    for control in [&first, &second] {
        assert_eq!(control.metric(series), Some(1.0));
    }

    // What is wrong there is refused, and the last good configuration goes on.
    let config = shared(&ports.config()).replace("unix://", "rediss://");
    hearing.write("config.yaml", &config);
    eventually("the refusal", || {
        first.log_text().contains("rediss:// is not supported").then_some(())
    });
    assert_eq!(first.metric(series), Some(1.0));
}
