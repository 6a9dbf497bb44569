//! Prompts find the pod that holds them, in a real Envoy. The control plane is the test itself, so that
//! it decides who holds what, and when.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::num::NonZeroU32;
use std::time::Duration;

use inlane_cli::lab::{Lab, Plan};
use inlane_core::request::{Prompt, Request};
use inlane_core::snapshot::{ConfigDocument, IndexDocument, Topology, TopologyEndpoint};
use inlane_integration::scenario::{Scenario, config, patient};
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::HashAlgorithm;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MirrorSpec, MirrorWriter};
use inlane_segment::{Document, Shape, Writer};

const BLOCK: u32 = 16;
const LIMIT: Duration = Duration::from_secs(10);

/// A control plane without discovery, scrapers and subscribers.
struct Control {
    writer: Writer,
    mirror: MirrorWriter<MappedWords>,
    /// By pod.
    slots: Vec<u16>,
}

impl Control {
    fn start(lab: &Lab) -> Self {
        let spec = MirrorSpec::within(64, 4 << 20);
        let table_words = spec.words().unwrap() as u64;
        let shape = Shape { slots: 64, table_words, ..Shape::default() };
        let (mut writer, _) = Writer::open_or_create(&lab.segment_dir, shape).unwrap();
        let mirror = MirrorWriter::create(writer.table(), &spec, 7).unwrap();
        let mut topology = Topology::default();
        let mut slots = Vec::new();
        for pod in &lab.pods {
            let slot = writer.assign_slot().unwrap();
            slots.push(u16::try_from(slot.index).unwrap());
            topology.endpoints.push(TopologyEndpoint {
                namespace: "default".into(),
                pod_name: pod.name.clone(),
                name: pod.name.clone(),
                address: "127.0.0.1".into(),
                port: pod.port,
                rank: 0,
                labels: pod.labels.clone(),
                slot: slot.index,
                slot_generation: slot.generation.number().into(),
            });
        }
        let configuration = ConfigDocument {
            source: "test".into(),
            text: lab.plan.config.clone(),
            allow_experimental_plugins: true,
        };
        for (kind, bytes) in [
            (Document::Topology, serde_json::to_vec(&topology).unwrap()),
            (Document::Config, serde_json::to_vec(&configuration).unwrap()),
            (Document::Index, serde_json::to_vec(&index()).unwrap()),
        ] {
            writer.publish_document(kind, &bytes).unwrap();
        }
        writer.beat();
        Self { writer, mirror, slots }
    }

    fn hold(&mut self, pod: usize, tier: u8, keys: &[u64]) {
        assert_eq!(self.mirror.hold(self.slots[pod], tier, keys, keys), 0);
    }

    fn clear(&mut self, pod: usize) {
        self.mirror.clear(self.slots[pod]);
    }
}

/// How the index is written.
fn index() -> IndexDocument {
    IndexDocument {
        block_tokens: BLOCK,
        algorithm: "cbor-fnv".into(),
        seed: String::new(),
        tiers: vec!["gpu".into(), "cpu".into()],
    }
}

fn plan(parameters: &str) -> Plan {
    let producer = format!(
        "precise-prefix-cache-producer {{tokenProcessorConfig: {{blockSizeTokens: {BLOCK}}}{parameters}}}"
    );
    let scorer = "prefix-cache-scorer {prefixMatchInfoProducerName: precise-prefix-cache-producer}";
    let profile =
        config::profile(&[(scorer, 10), ("active-request-scorer", 1), ("max-score-picker", 0)]);
    Plan { config: config::declare(&profile, &producer), bootstrap: patient(), ..Plan::default() }
}

/// Pods, the control plane and an Envoy that serves.
fn start(parameters: &str) -> (Scenario, Control) {
    let mut lab = Lab::prepare(plan(parameters)).unwrap();
    for _ in 0..4 {
        lab.add_pod().unwrap();
    }
    let mut control = Control::start(&lab);
    lab.start_envoy().unwrap();
    lab.wait_until("the module to serve the pool", LIMIT, || {
        control.writer.beat();
        lab.pool().is_ok_and(|pool| pool["endpoints"].as_array().is_some_and(|e| e.len() == 4))
    })
    .unwrap();
    (Scenario::of(lab), control)
}

fn tokens(prompt: u32) -> Vec<u32> {
    (0..128).map(|n| prompt * 1_000 + n).collect()
}

fn keys(prompt: u32) -> Vec<u64> {
    let block = NonZeroU32::new(BLOCK).unwrap();
    let (tokens, mut keys) = (tokens(prompt), Vec::new());
    let prompts = [Prompt::Tokens(&tokens)];
    let request = Request { target_model: "random", prompts: &prompts, ..Request::default() };
    Keying::new(HashAlgorithm::CborFnv, "", block).keys(&request, 0, &mut keys);
    keys
}

/// The pod that answers a prompt of token ids.
fn pod_of(lab: &Scenario, control: &mut Control, prompt: u32) -> String {
    control.writer.beat();
    let body = format!(r#"{{"model":"random","prompt":{:?},"max_tokens":1}}"#, tokens(prompt));
    let headers = [("content-type", "application/json")];
    let answer = lab.client().post("/v1/completions", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.pod().to_owned()
}

/// Waits until some blocks, or none, are expected that no engine has confirmed.
fn wait_for_expected(lab: &Scenario, control: &mut Control, some: bool) {
    let expected = |page: &str| {
        let line = page.lines().find(|line| line.starts_with("inlane_precise_expected_blocks{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    lab.wait_until("expectations", LIMIT, || {
        control.writer.beat();
        let page = lab.admin().get("/metrics").unwrap().text();
        expected(&page).is_some_and(|blocks| (blocks > 0.0) == some)
    })
    .unwrap();
}

#[test]
fn token_ids_go_to_the_pod_that_holds_their_blocks() {
    let (lab, mut control) = start("");
    let name = |pod: usize| lab.pods[pod].name.clone();
    for prompt in 0..8 {
        control.hold(prompt as usize % 4, 0, &keys(prompt));
    }
    for prompt in (0..8).rev() {
        assert_eq!(pod_of(&lab, &mut control, prompt), name(prompt as usize % 4));
    }
    // Half of it on one pod's GPU, all of it on another one's CPU: 4 of 8, and 6.4.
    control.hold(1, 0, &keys(20)[..4]);
    control.hold(3, 1, &keys(20));
    assert_eq!(pod_of(&lab, &mut control, 20), name(3));
    control.clear(3);
    assert_eq!(pod_of(&lab, &mut control, 20), name(1));
    let page = lab.admin().get("/metrics").unwrap().text();
    let usable = "inlane_precise_index_usable{plugin_name=\"precise-prefix-cache-producer\"} 1";
    assert!(page.contains(usable), "{page}");
    lab.end();
}

#[test]
fn each_list_of_token_ids_is_a_prompt_of_its_own() {
    let (lab, mut control) = start("");
    // Together more of both prompts than of either alone.
    control.hold(0, 0, &keys(1));
    control.hold(2, 0, &keys(2)[..5]);
    control.hold(2, 0, &keys(1)[..5]);
    control.writer.beat();
    let body = format!(
        r#"{{"model":"random","prompt":[{:?},{:?}],"max_tokens":1}}"#,
        tokens(1),
        tokens(2)
    );
    let answer = lab.client().post("/v1/completions", &[], body.as_bytes()).unwrap();
    assert_eq!((answer.status, answer.pod()), (200, &*lab.pods[2].name), "{}", answer.text());
    assert_eq!(pod_of(&lab, &mut control, 1), lab.pods[0].name);
    lab.end();
}

#[test]
fn a_burst_follows_its_first_request_before_any_event() {
    let (lab, mut control) = start(", speculativeIndexing: true, speculativeTTL: 60s");
    let first = pod_of(&lab, &mut control, 1);
    wait_for_expected(&lab, &mut control, true);
    for _ in 0..8 {
        assert_eq!(pod_of(&lab, &mut control, 1), first);
    }
    // An engine that clears its cache is no longer expected to hold anything; the others are idle too.
    let pod = lab.pod_index(&first);
    control.clear(pod);
    control.hold((pod + 1) % 4, 0, &keys(1)[..1]);
    wait_for_expected(&lab, &mut control, false);
    assert_eq!(pod_of(&lab, &mut control, 1), lab.pods[(pod + 1) % 4].name);
    lab.end();
}

#[test]
fn an_index_of_another_block_size_is_left_alone_and_said_so() {
    let (lab, mut control) = start("");
    control.hold(2, 0, &keys(1));
    assert_eq!(pod_of(&lab, &mut control, 1), lab.pods[2].name);
    let other = IndexDocument { block_tokens: 64, ..index() };
    let bytes = serde_json::to_vec(&other).unwrap();
    control.writer.publish_document(Document::Index, &bytes).unwrap();
    let line = "tokenProcessorConfig.blockSizeTokens is 16, the index was written with 64";
    lab.wait_until(line, LIMIT, || {
        control.writer.beat();
        std::fs::read_to_string(lab.log("envoy")).is_ok_and(|log| log.contains(line))
    })
    .unwrap();
    lab.end();
}
