//! A control plane that dies under load: requests go on to the pods that hold their prompts, and its
//! successor soon knows everything again. Facts are asserted; times are printed, `OUTAGE_ROUNDS` times
//! (`scripts/bench.sh outage`).
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use inlane_cli::lab::{Binaries, Client, Lab, Plan, Process, process};
use inlane_core::snapshot::Topology;
use inlane_integration::scenario::{Scenario, config, patient};
use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_segment::mapped::MappedView;
use inlane_segment::table::MirrorReader;
use inlane_segment::{Document, SnapshotReader};
use serde_json::{Value, json};

const PODS: usize = 4;
const BLOCK: usize = 16;
/// Prompts that pods hold from the beginning: 102,400 blocks.
const KNOWN: u32 = 800;
const KNOWN_BLOCKS: usize = 128;
/// Blocks of prompts that nobody has sent before.
const FRESH_BLOCKS: usize = 8;
/// Numbers of prompts that nobody has sent before begin here.
const FRESH: u32 = 1_000_000;
/// Requests that end while there is no control plane, at least.
const IN_THE_OUTAGE: usize = 2_000;
const CLIENTS: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);

/// Tokens of a prompt: whole blocks and one more, without which an engine computes the last block anew.
fn tokens(prompt: u32) -> Vec<u32> {
    let blocks = if prompt < FRESH { KNOWN_BLOCKS } else { FRESH_BLOCKS };
    // Who begins otherwise shares no block.
    std::iter::once(prompt).chain(1..=(blocks * BLOCK) as u32).collect()
}

fn keys(prompt: u32) -> Vec<u64> {
    let hasher = Hasher::new(Algorithm::CborFnv, "", NonZeroU32::new(BLOCK as u32).unwrap());
    let mut keys = Vec::new();
    hasher.extend(hasher.start("random"), &tokens(prompt), &Extras::NONE, &mut keys);
    keys
}

/// The number of the pod that holds a known prompt.
fn holder(prompt: u32) -> usize {
    prompt as usize % PODS
}

/// One answer.
struct Answer {
    prompt: u32,
    pod: String,
    /// Tokens of the prompt that the pod found in its cache, as it says.
    cached: u64,
    /// When it was sent, and when the answer was there.
    phases: [u8; 2],
}

/// There is the first control plane.
const BEFORE: u8 = 0;
/// There is none.
const AWAY: u8 = 1;
/// There is a successor, which does not know everything yet.
const LEARNING: u8 = 2;
/// It knows everything.
const AFTER: u8 = 3;

impl Answer {
    fn is_of_the_outage(&self) -> bool {
        self.phases == [AWAY, AWAY]
    }

    /// Whether the pod that held the prompt was known all the time. A control plane that dies within a
    /// message leaves blocks that its successor does not believe: until it has learned them anew, the
    /// prompts of that one pod are not known.
    fn must_hit(&self) -> bool {
        self.phases[0] == AFTER || self.phases[1] < LEARNING
    }
}

fn ask(client: &Client, prompt: u32) -> Result<Answer, String> {
    let body = json!({"model": "random", "prompt": tokens(prompt), "max_tokens": 1}).to_string();
    let answer = client.post("/v1/completions", &[], body.as_bytes()).map_err(|e| e.to_string())?;
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    let page: Value = answer.json().map_err(|e| e.to_string())?;
    let cached = page["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
    Ok(Answer { prompt, pod: answer.pod().to_owned(), cached, phases: [BEFORE; 2] })
}

/// Requests from several clients, three known prompts for each new one.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    phase: AtomicU8,
    next: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
    failed: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, client: &Client) {
        while !self.stop.load(Ordering::Relaxed) {
            let n = self.next.fetch_add(1, Ordering::Relaxed) as u32;
            let prompt = if n % 4 == 3 { FRESH + n } else { n.wrapping_mul(37) % KNOWN };
            let sent = self.phase.load(Ordering::SeqCst);
            match ask(client, prompt) {
                Ok(answer) => {
                    let phases = [sent, self.phase.load(Ordering::SeqCst)];
                    self.answers().push(Answer { phases, ..answer });
                }
                Err(error) => self.failed.lock().unwrap().push(error),
            }
        }
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::SeqCst);
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().unwrap()
    }

    /// Answers of the outage, and those of them to new prompts.
    fn outage(&self) -> (usize, usize) {
        let answers = self.answers();
        let of_it = answers.iter().filter(|answer| answer.is_of_the_outage());
        (of_it.clone().count(), of_it.filter(|answer| answer.prompt >= FRESH).count())
    }
}

/// Ends the clients, also when the test fails.
struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Pods that publish what they hold, and all that is in front of them.
struct World {
    lab: Scenario,
    _pods: Process,
    /// By number.
    names: Vec<String>,
    clients: Vec<Client>,
}

impl World {
    fn start() -> Self {
        let [port, events, replays] = process::free_ports();
        let producer = format!(
            "precise-prefix-cache-producer {{kvEventsConfig: {{podDiscoveryConfig: {{socketPort: \
             {events}, replaySocketPort: {replays}}}}}}}"
        );
        let scorer =
            "prefix-cache-scorer {prefixMatchInfoProducerName: precise-prefix-cache-producer}";
        let profile =
            config::profile(&[(scorer, 10), ("active-request-scorer", 1), ("max-score-picker", 0)]);
        let config = config::declare(&profile, &producer);
        let plan = Plan { pods: 0, config, bootstrap: patient(), ..Plan::default() };
        let binaries = Binaries::find(&plan.envoy).unwrap();
        let mut lab = Lab::prepare_with(plan, binaries.clone()).unwrap();
        let endpoints = lab.endpoints_file();
        let publish = json!({
            "enable_kv_cache_events": true, "endpoint": format!("tcp://*:{events}"),
            "replay_endpoint": format!("tcp://*:{replays}"),
        });
        let (pods_text, port_text) = (PODS.to_string(), port.to_string());
        let arguments = [
            "--pods",
            &pods_text,
            "--port",
            &port_text,
            "--write-endpoints",
            &endpoints.to_string_lossy(),
            "--kv-events-config",
            &publish.to_string(),
            "--kv-cache-size=100000",
            "--max-num-seqs=64",
        ];
        let mut pods = Process::spawn(&binaries.sim, &arguments, &[], &lab.log("pods")).unwrap();
        pods.wait_for("the simulator", LIMIT, || endpoints.is_file()).unwrap();
        lab.start_control().unwrap();
        lab.start_envoy().unwrap();
        lab.wait_until("the module to serve the pool", LIMIT, || {
            lab.pool().is_ok_and(|pool| {
                pool["endpoints"].as_array().is_some_and(|have| {
                    have.len() == PODS && have.iter().all(|e| e["scrapes"].as_u64() > Some(0))
                })
            })
        })
        .unwrap();
        let clients: Vec<Client> =
            (1..=PODS).map(|n| Client::at(&format!("127.0.0.{n}"), port)).collect();
        let names = clients.iter().map(|pod| ask(pod, FRESH - 1).unwrap().pod).collect();
        Self { lab: Scenario::of(lab), _pods: pods, names, clients }
    }

    /// Has the pods hold the known prompts.
    fn fill(&self) {
        thread::scope(|scope| {
            for (pod, client) in self.clients.iter().enumerate() {
                scope.spawn(move || {
                    for prompt in (0..KNOWN).filter(|&prompt| holder(prompt) == pod) {
                        ask(client, prompt).unwrap();
                    }
                });
            }
        });
    }
}

/// The table as proxies see it.
struct Table {
    segment: SnapshotReader,
    slots: HashMap<String, u16>,
}

impl Table {
    fn open(lab: &Lab) -> Self {
        let mut segment = SnapshotReader::open(&lab.segment_dir).unwrap();
        segment.poll().unwrap();
        let document = segment.snapshot().document(Document::Topology).unwrap().unwrap();
        let topology: Topology = serde_json::from_slice(&document.bytes).unwrap();
        let slot = |slot: u32| u16::try_from(slot).unwrap();
        let slots = topology.endpoints.into_iter().map(|e| (e.name, slot(e.slot))).collect();
        Self { segment, slots }
    }

    fn read(&mut self) -> MirrorReader<MappedView> {
        self.segment.poll().unwrap();
        MirrorReader::open(self.segment.snapshot().table()).unwrap()
    }

    /// Blocks held by all pods together.
    fn total(&mut self) -> usize {
        let table = self.read();
        self.slots.values().map(|&slot| table.len(slot)).sum()
    }

    /// Waits until every pod holds these last blocks, and answers how long that took from `began` on.
    fn wait_for(&mut self, mut wanted: Vec<(String, u64)>, began: Instant) -> Duration {
        loop {
            let table = self.read();
            wanted.retain(|(pod, key)| !table.holds(self.slots[pod], 0, *key));
            if wanted.is_empty() {
                return began.elapsed();
            }
            assert!(began.elapsed() < LIMIT, "not held: {:?}", &wanted[..wanted.len().min(3)]);
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// Waits until so many blocks are held.
    fn wait_for_total(&mut self, blocks: usize, began: Instant) -> Duration {
        loop {
            let total = self.total();
            if total == blocks {
                return began.elapsed();
            }
            assert!(began.elapsed() < LIMIT, "{total} blocks are held, expected {blocks}");
            thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Last keys of the prompts that pods were given, by pod.
fn last_keys(answers: &[Answer]) -> Vec<(String, u64)> {
    let new = answers.iter().filter(|answer| answer.prompt >= FRESH);
    new.map(|answer| (answer.pod.clone(), *keys(answer.prompt).last().unwrap())).collect()
}

/// Last keys of the known prompts, by pod.
fn known_keys(world: &World) -> Vec<(String, u64)> {
    let key = |prompt| (world.names[holder(prompt)].clone(), *keys(prompt).last().unwrap());
    (0..KNOWN).map(key).collect()
}

/// Every block of every prompt is held by the pod that computed it, and nothing else is.
fn assert_true(world: &World, table: &mut Table, answers: &[Answer]) -> usize {
    let mut held: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for prompt in 0..KNOWN {
        held.entry(&world.names[holder(prompt)]).or_default().push(prompt);
    }
    for answer in answers.iter().filter(|answer| answer.prompt >= FRESH) {
        held.entry(&answer.pod).or_default().push(answer.prompt);
    }
    // What told the pods' names.
    let blocks: usize = held.values().flatten().map(|&prompt| keys(prompt).len()).sum();
    let blocks = blocks + PODS * keys(FRESH - 1).len();
    table.wait_for_total(blocks, Instant::now());
    let read = table.read();
    for (pod, prompts) in held {
        for prompt in prompts {
            let mut keys = keys(prompt).into_iter();
            assert!(keys.all(|key| read.holds(table.slots[pod], 0, key)), "{pod}, {prompt}");
        }
    }
    blocks
}

#[test]
fn what_is_cached_is_known_while_the_control_plane_is_away_and_soon_after() {
    let rounds = std::env::var("OUTAGE_ROUNDS").ok().and_then(|text| text.parse().ok());
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds.unwrap_or(1) {
        for (times, time) in times.iter_mut().zip(round()) {
            times.push(time.as_secs_f64() * 1e3);
        }
    }
    let whats = ["serving", "full truth", "full truth from an empty table"];
    for (what, mut times) in whats.into_iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!("{what}: median {:.0} ms of {times:.0?}", times[times.len() / 2]);
    }
}

/// Times from the start of the successor to its readiness and to its full knowledge, and from emptying
/// the table to having all of it again.
fn round() -> [Duration; 3] {
    let mut world = World::start();
    world.fill();
    let mut table = Table::open(&world.lab);
    assert_true(&world, &mut table, &[]);
    let (load, client) = (Load::default(), world.lab.client());
    let follower = &mut table;
    let (ready, full) = thread::scope(|scope| {
        let _stop = Stop(&load);
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(&client));
        }
        let under_way = || load.answers().len() >= 100;
        world.lab.wait_until("load", LIMIT, under_way).unwrap();
        world.lab.control.take().unwrap().kill();
        let died = Instant::now();
        load.enter(AWAY);
        let enough = || load.outage().0 >= IN_THE_OUTAGE;
        world.lab.wait_until("requests in the outage", LIMIT, enough).unwrap();
        load.enter(LEARNING);
        let away = died.elapsed();
        // What is new first: who has learned of it no longer has anything to forget.
        let missed = last_keys(&load.answers());
        let known = known_keys(&world);
        let (began, load) = (Instant::now(), &load);
        let full = scope.spawn(move || {
            follower.wait_for(missed, began);
            let full = follower.wait_for(known, began);
            load.enter(AFTER);
            full
        });
        world.lab.start_control().unwrap();
        let ready = began.elapsed();
        let full = full.join().unwrap();
        let (all, new) = load.outage();
        println!(
            "without a control plane for {away:?}: {all} requests, {} blocks new; its successor serves \
             after {ready:?} and knows all of them after {full:?}",
            new * FRESH_BLOCKS,
        );
        // The load goes on for a while beside the successor.
        let before = load.answers().len();
        let goes_on = || load.answers().len() >= before + 100;
        world.lab.wait_until("load after the outage", LIMIT, goes_on).unwrap();
        (ready, full)
    });
    let failed = load.failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), &failed[..failed.len().min(3)]);
    let answers = load.answers.into_inner().unwrap();
    let mut unknown: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| answer.prompt < FRESH) {
        let found = (answer.pod.as_str(), answer.cached as usize);
        let holder = world.names[holder(answer.prompt)].as_str();
        if found != (holder, KNOWN_BLOCKS * BLOCK) {
            let Answer { prompt, phases, .. } = answer;
            assert!(!answer.must_hit(), "{prompt}, held by {holder}: {found:?} in {phases:?}");
            *unknown.entry(holder).or_default() += 1;
        }
    }
    println!("prompts that were not found while the successor learned, by their pods: {unknown:?}");
    assert!(unknown.len() <= 1, "it died within one message: {unknown:?}");
    let blocks = assert_true(&world, &mut table, &answers);
    let control = Client::new(world.lab.control_port);
    let began = Instant::now();
    assert_eq!(control.post("/debug/kv/reset", &[], b"").unwrap().status, 200);
    let reset = table.wait_for_total(blocks, began);
    println!("emptied: all {blocks} blocks are known again after {reset:?}");
    assert_true(&world, &mut table, &answers);
    world.lab.end();
    [ready, full, reset]
}
