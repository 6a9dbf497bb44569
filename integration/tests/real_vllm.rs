//! Two real vLLM servers behind a real Envoy: events, tokens and predictions, held against what the
//! engines say themselves. `make test-vllm` installs vLLM and runs it.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::env;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use inlane_cli::lab::process::free_ports;
use inlane_cli::lab::{Bootstrap, Lab, Plan};
use inlane_integration::scenario::config;
use inlane_integration::vllm::engine::{Engine, Setup};
use inlane_integration::vllm::holdings::Holdings;
use inlane_integration::vllm::script::{self, Step};
use inlane_integration::vllm::world::{Expect, PIN, World};
use inlane_integration::vllm::{ADAPTERS, MODEL, adapter, model};
use serde_json::{Value, json};

const CONNECTS: &str = "vllm-a";
const BINDS: &str = "vllm-b";

const PATIENCE: Duration = Duration::from_secs(20);

/// The command `vllm`.
fn program() -> PathBuf {
    env::var_os("INLANE_VLLM").expect("INLANE_VLLM: the path of the command vllm").into()
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    /// Where one engine connects to.
    central: u16,
    /// Where no engine publishes: they are asked where they do.
    nobody: u16,
}

/// Precise routing with blocks of so many tokens.
fn precise(block: u32, ports: Ports) -> String {
    let Ports { central, nobody } = ports;
    let pinned = format!(
        "cel-filter {{expression: '!(\"{PIN}\" in request.headers) || endpoint.name == \
         request.headers[\"{PIN}\"]'}}"
    );
    let profile = config::profile(&[
        ("model-filter", 0),
        (&pinned, 0),
        ("prefix-cache-scorer {prefixMatchInfoProducerName: precise-prefix-cache-producer}", 10),
        ("active-request-scorer", 1),
        ("max-score-picker", 0),
    ]);
    let producer = format!(
        "precise-prefix-cache-producer {{tokenProcessorConfig: {{blockSizeTokens: {block}}}, \
         kvEventsConfig: {{zmqEndpoint: \"tcp://127.0.0.1:{central}\", podDiscoveryConfig: \
         {{socketPort: {nobody}}}}}}}"
    );
    let mut text = profile;
    for plugin in [
        producer.as_str(),
        &format!("token-producer {{modelName: {MODEL}}}"),
        "metrics-data-source",
        "core-metrics-extractor",
        "models-data-source",
        "models-data-extractor",
    ] {
        text = config::declare(&text, plugin);
    }
    text + "  sources:
  - {pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}
  - {pluginRef: models-data-source, extractors: [{pluginRef: models-data-extractor}]}
"
}

/// Starts everything: the engines one after the other, since each takes a core and 3 GB.
fn start(ports: Ports) -> io::Result<World> {
    let settings = format!(
        "decisionBudget: 10s\ntokenizers: {{map: {{{MODEL}: {}}}, timeout: 30s}}",
        model().display()
    );
    let bootstrap = Bootstrap { settings, ..Bootstrap::default() };
    let control_args = ["--kv-event-sources", "always"].map(str::to_owned).into();
    let plan = Plan { config: precise(32, ports), bootstrap, control_args, ..Plan::default() };
    let lab = Lab::prepare(plan)?;
    for (name, seed) in ADAPTERS.into_iter().zip(1..) {
        adapter::write(&lab.dir.join(name), seed)?;
    }
    let setups = [
        Setup {
            name: CONNECTS,
            block: 32,
            blocks: 96,
            hash: "sha256",
            seed: None,
            numbers: false,
            adapters: None,
            central: Some(ports.central),
        },
        Setup {
            name: BINDS,
            block: 64,
            blocks: 48,
            hash: "sha256_cbor",
            seed: Some("42"),
            numbers: true,
            adapters: Some(lab.dir.clone()),
            central: None,
        },
    ];
    let mut engines = Vec::new();
    for setup in setups {
        let mut engine = Engine::start(&program(), setup, &lab.dir)?;
        let boot = engine.wait_ready()?;
        println!("{} answers after {} s", engine.setup.name, boot.as_secs());
        engines.push(engine);
    }
    let mut world = World::new(lab, engines);
    world.lab.begin()?;
    Ok(world)
}

#[test]
#[ignore = "needs a vLLM: make test-vllm"]
fn what_is_predicted_is_what_a_real_engine_finds() {
    let [central, nobody] = free_ports();
    let ports = Ports { central, nobody };
    let mut world = start(ports).unwrap();
    wait_for_publishers(&world).unwrap();
    recorded_requests(&mut world).unwrap();
    predictions(&mut world).unwrap();
    evictions(&mut world).unwrap();
    events_are_understood(&mut world).unwrap();
    a_cleared_cache(&mut world).unwrap();
    a_control_plane_that_starts_anew(&mut world).unwrap();
    blocks_of_another_size(&mut world, ports).unwrap();
    counters_agree(&mut world).unwrap();
    recordings(&mut world).unwrap();
    an_engine_that_starts_anew(&mut world).unwrap();
    the_truth_check_agrees(&mut world).unwrap();
    println!(
        "\n{} requests, {} prompts with equal tokens, {} failures",
        world.rows.len(),
        world.compared,
        world.failures.len()
    );
    let failures = std::mem::take(&mut world.failures);
    let World { lab, engines, .. } = world;
    lab.end();
    drop(engines);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Until every engine has said where it can be asked for what was missed.
fn wait_for_publishers(world: &World) -> io::Result<()> {
    let known = || {
        let page: Value = serde_json::from_str(&world.control("/debug/kv").ok()?).ok()?;
        Some(page["publishers"].as_array()?.iter().all(|p| p["replays"].is_string()))
    };
    world.lab.wait_until("where engines publish", PATIENCE, || known() == Some(true))
}

/// Every recorded request once more: tokens, and events of all kinds.
fn recorded_requests(world: &mut World) -> io::Result<()> {
    let run = model().join("../runs/sha256_cbor-seed42-int");
    let steps = script::recorded(&run)?;
    let is_rendered = |step: &&Step| step.path.ends_with("/render") || step.path == "/tokenize";
    for step in steps.iter().filter(is_rendered) {
        world.compare_directly(1, step)?;
    }
    // Not scheduled by the default parser.
    for (path, rendered) in
        [("/v1/messages", "/v1/messages/render"), ("/v1/responses", "/v1/responses/render")]
    {
        for step in steps.iter().filter(|step| step.path == path) {
            world.compare_directly(1, &Step { path: rendered.into(), ..step.clone() })?;
        }
    }
    println!("\n{} prompts were rendered by an engine as by us", world.compared);
    world.begin("Recorded requests, in turns");
    let paths = ["/v1/completions", "/v1/chat/completions"];
    let is_served = |step: &&Step| paths.contains(&step.path.as_str());
    for (n, step) in steps.iter().filter(is_served).enumerate() {
        let is_adapter = ADAPTERS.iter().any(|adapter| step.field("model") == *adapter);
        let pod = if is_adapter || n % 2 == 1 { BINDS } else { CONNECTS };
        world.ask(step, Some(pod), Expect::Equal)?;
    }
    Ok(())
}

/// Prompts of all kinds, first wherever they go, then where they are.
fn predictions(world: &mut World) -> io::Result<()> {
    world.begin("Prompts of all kinds, where they are chosen to go");
    let steps = script::variety();
    for step in &steps {
        world.ask(step, None, Expect::Equal)?;
    }
    world.begin("The same again");
    for step in &steps {
        world.ask(step, None, Expect::Equal)?;
    }
    world.begin("The same, half of them at the other pod");
    for (n, step) in steps.iter().enumerate().filter(|(_, step)| step.field("model") == MODEL) {
        let pod = if n % 2 == 0 { CONNECTS } else { BINDS };
        world.ask(step, Some(pod), Expect::Equal)?;
    }
    Ok(())
}

/// More than the caches hold, and then what is left of the rest.
fn evictions(world: &mut World) -> io::Result<()> {
    world.begin("Prompts that push others out");
    for seed in 0..12 {
        let pod = if seed % 2 == 0 { CONNECTS } else { BINDS };
        let step =
            Step::completion(&format!("long {seed}"), script::words(1_000 + seed, 250), json!({}));
        world.ask(&step, Some(pod), Expect::Equal)?;
    }
    world.begin("What is left");
    for seed in (0..12).rev() {
        let step =
            Step::completion(&format!("long {seed}"), script::words(1_000 + seed, 250), json!({}));
        world.ask(&step, None, Expect::Equal)?;
    }
    for step in script::variety() {
        world.ask(&step, None, Expect::Equal)?;
    }
    Ok(())
}

/// Nothing of what the engines said was passed over.
fn events_are_understood(world: &mut World) -> io::Result<()> {
    let applied = world.counted("inlane_control_kv_applied_total")?;
    println!("\n{applied} messages of events were applied");
    if applied == 0.0 {
        world.complain("no events were applied");
    }
    for name in [
        "inlane_control_kv_undecodable_total",
        "inlane_control_kv_malformed_total",
        "inlane_control_kv_frames_malformed_total",
        "inlane_control_kv_unknown_pod_total",
        "inlane_control_kv_foreign_pod_total",
        "inlane_control_kv_dropped_total",
        "inlane_control_kv_distrusted_total",
        "inlane_control_kv_index_refused_total",
        "llm_d_epp_kv_cache_events_stores_skipped_total",
        "llm_d_epp_kv_cache_events_removals_skipped_total",
    ] {
        let count = world.counted(name)?;
        if count != 0.0 {
            world.complain(format!("{name} is {count}"));
        }
    }
    Ok(())
}

/// `/reset_prefix_cache`, of which an engine tells with its next step.
fn a_cleared_cache(world: &mut World) -> io::Result<()> {
    world.begin("After /reset_prefix_cache");
    let steps = script::variety();
    for engine in [0, 1] {
        let answer = world.engines[engine].post("/reset_prefix_cache", "")?;
        if answer["success"] != true {
            world.complain(format!("/reset_prefix_cache: {answer}"));
        }
        let name = world.engines[engine].setup.name;
        let step = Step::completion("first step", script::words(77, 30), json!({}));
        world.ask(&step, Some(name), Expect::Nothing)?;
        for step in &steps {
            let held = world.held(name, step)?;
            if held != 0 {
                world.complain(format!("{}: {name} is still believed to hold {held}", step.name));
            }
        }
    }
    for step in &steps {
        world.ask(step, None, Expect::Equal)?;
    }
    Ok(())
}

/// Killed; engines go on without it; started again.
fn a_control_plane_that_starts_anew(world: &mut World) -> io::Result<()> {
    world.begin("Without a control plane");
    world.lab.control.take().unwrap().kill();
    let missed =
        |n: u64| Step::completion(&format!("missed {n}"), script::words(500 + n, 60), json!({}));
    for n in 0..4 {
        let pod = if n % 2 == 0 { CONNECTS } else { BINDS };
        world.ask(&missed(n), Some(pod), Expect::More)?;
    }
    for step in script::variety().iter().take(6) {
        world.ask(step, None, Expect::More)?;
    }
    let start = Instant::now();
    world.lab.start_control()?;
    for n in 0..4 {
        let pod = if n % 2 == 0 { CONNECTS } else { BINDS };
        let step = missed(n);
        let all = world.prompts(&step)?[0].tokens.len() as u64 / 64 * 64;
        world.lab.wait_until("what was missed", PATIENCE, || {
            world.held(pod, &step).is_ok_and(|held| held >= all)
        })?;
    }
    println!("what was missed is known {} ms after the start", start.elapsed().as_millis());
    world.begin("With a control plane again");
    for n in 0..4 {
        world.ask(&missed(n), None, Expect::Equal)?;
    }
    for step in script::variety() {
        world.ask(&step, None, Expect::Equal)?;
    }
    Ok(())
}

/// The index is made anew with blocks of 16 tokens, out of replays.
fn blocks_of_another_size(world: &mut World, ports: Ports) -> io::Result<()> {
    world.begin("With blocks of 16 tokens");
    let generation = |world: &World| world.lab.pool().ok()?["config_generation"].as_u64();
    let before = generation(world);
    world.lab.write_config(&precise(16, ports))?;
    world.lab.wait_until("the configuration", PATIENCE, || {
        generation(world).is_some_and(|now| Some(now) != before)
    })?;
    let probe = Step::completion("text", script::words(7, 70), json!({}));
    world.lab.wait_until("an index of blocks of 16", PATIENCE, || {
        let index = Holdings::open(&world.lab.segment_dir);
        index.is_ok_and(|index| index.block() == 16)
            && [CONNECTS, BINDS]
                .iter()
                .any(|pod| world.held(pod, &probe).is_ok_and(|held| held > 0))
    })?;
    for step in script::variety() {
        world.ask(&step, None, Expect::Equal)?;
    }
    Ok(())
}

/// What answers said of cached tokens, and what the engines have counted.
fn counters_agree(world: &mut World) -> io::Result<()> {
    println!();
    let hits = world.hits()?;
    for (name, counted) in [CONNECTS, BINDS].into_iter().zip(hits) {
        let rows = world.rows.iter().filter(|row| row.pod == name);
        let told: u64 = rows.map(|row| row.cached).sum();
        println!("{name} told of {told} cached tokens and counted {counted}");
        if told != counted {
            world.complain(format!("{name} counted {counted} cached tokens and told of {told}"));
        }
    }
    Ok(())
}

/// All of it as recordings, checked by what checks those of `fixtures/vllm`. They are kept in
/// `INLANE_VLLM_RECORD`, where that is set.
fn recordings(world: &mut World) -> io::Result<()> {
    let kept = env::var_os("INLANE_VLLM_RECORD").map(PathBuf::from);
    let dir = kept.unwrap_or_else(|| world.lab.dir.join("recordings"));
    world.check_recordings(&dir)
}

/// A killed engine comes back with nothing, and with another port for its events.
fn an_engine_that_starts_anew(world: &mut World) -> io::Result<()> {
    let mut known = script::variety();
    known.retain(|step| world.held(BINDS, step).is_ok_and(|held| held > 0));
    world.begin("After a restart of an engine");
    world.engines[1].kill();
    world.engines[1].start_again()?;
    let boot = world.engines[1].wait_ready()?;
    let start = Instant::now();
    world.lab.wait_until("what it held to be forgotten", Duration::from_secs(60), || {
        known.iter().all(|step| world.held(BINDS, step).is_ok_and(|held| held == 0))
    })?;
    println!(
        "{BINDS} answers after {} s; {} prompts that it held are forgotten {} ms later",
        boot.as_secs(),
        known.len(),
        start.elapsed().as_millis()
    );
    for step in script::variety() {
        world.ask(&step, Some(BINDS), Expect::Equal)?;
    }
    if known.is_empty() {
        world.complain(format!("{BINDS} held nothing before it was killed"));
    }
    Ok(())
}

/// The proxy's own comparison has come to no verdict.
fn the_truth_check_agrees(world: &mut World) -> io::Result<()> {
    let predicted = |pod: &str| {
        let endpoint = format!("endpoint=\"default/{pod}\"");
        world.lab.metric("inlane_precise_predicted_tokens_total", &endpoint)
    };
    world.lab.wait_until("numbers of the truth check", PATIENCE, || {
        [CONNECTS, BINDS].iter().all(|pod| predicted(pod) > 0.0)
    })?;
    println!();
    for name in ["predicted_tokens_total", "reported_tokens_total", "refuted_total", "missed_total"]
    {
        let name = format!("inlane_precise_{name}");
        let of = |pod: &str| world.lab.metric(&name, &format!("endpoint=\"default/{pod}\""));
        println!("{name:<40} {CONNECTS} {:>8} {BINDS} {:>8}", of(CONNECTS), of(BINDS));
    }
    for name in ["inlane_precise_verdicts_total", "inlane_precise_distrusted"] {
        let count = world.lab.metric(name, "");
        if count != 0.0 {
            world.complain(format!("{name} is {count}"));
        }
    }
    Ok(())
}
