//! Recorded decisions are made again bit for bit, after a trip through JSON.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use inlane_core::cycle::Ask;
use inlane_core::explain::Dropped;
use inlane_core::record::{Inputs, Line, Noting, RecordedDecision, Replayer, Setting};
use inlane_core::request::{Prompt, Request};
use inlane_core::rng::Rng;
use inlane_core::snapshot::ConfigDocument;
use support::{Idle, Proxy};

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: active-request-scorer
- type: weighted-random-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 0.7}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: active-request-scorer, weight: 0.1}
  - {pluginRef: weighted-random-picker}
";

const OTHER: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: token-producer}]
";

/// Serves requests with random numbers; answers their record as text.
fn record(requests: u64) -> String {
    let mut proxy = Proxy::new(CONFIG, 7);
    let mut rng = Rng::new(11);
    let mut lines = vec![Line::Setting(Setting::of(&proxy.plan, 4))];
    for n in 1..=requests {
        let start = rng.below(5) * 1_000;
        let tokens: Vec<u32> = (start..start + 300).collect();
        let prompts = [Prompt::Tokens(&tokens)];
        let id = format!("r{n}");
        let headers = [("x-a", "1"), ("authorization", "secret")];
        let noting = Noting::new(&headers);
        let request = Request {
            id: &id,
            model: "m",
            target_model: "m",
            prompts: &prompts,
            headers: &noting,
            ..Request::default()
        };
        let Proxy { plan, scratch, .. } = &mut proxy;
        plan.begin(scratch);
        for ix in 0..7 {
            let metrics = &mut scratch.columns.metrics;
            metrics.waiting[ix] = rng.below(9);
            metrics.kv_usage[ix] = rng.unit();
            metrics.fresh[ix] = rng.below(4) > 0;
        }
        let seed = rng.next_u64();
        plan.produce(&Ask { seed, ..Ask::new(&request, &Idle, n) }, scratch);
        plan.decide(&request, n, seed, scratch).unwrap();
        plan.apply_records(&request, n, seed, scratch);
        let mut inputs = Inputs::default();
        inputs.take_down(plan, scratch, &request, &noting, n, seed);
        let line = inputs.line(plan, &scratch.decision, "", (n, 4, 0));
        lines.push(Line::Decision(Box::new(line)));
        proxy.drain();
    }
    let text = |line: &Line| serde_json::to_string(line).unwrap() + "\n";
    lines.iter().map(text).collect()
}

fn parse(text: &str) -> (Setting, Vec<RecordedDecision>) {
    let mut lines = text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap());
    let Some(Line::Setting(setting)) = lines.next() else { panic!("no setting") };
    let decisions = lines.map(|line| match line {
        Line::Decision(decision) => *decision,
        Line::Setting(_) => panic!("a second setting"),
    });
    (setting, decisions.collect())
}

#[test]
fn a_record_replays_to_the_same_bits() {
    let text = record(200);
    let (setting, decisions) = parse(&text);
    let registry = inlane_plugins::registry();
    let mut replayer = Replayer::new(&registry, None);
    replayer.setting(&setting).unwrap();
    let mut chosen = std::collections::BTreeSet::new();
    for decision in &decisions {
        let replayed = replayer.decide(decision).unwrap();
        assert_eq!(replayed.outcome, decision.outcome);
        assert!(replayed.missing.is_empty(), "{:?}", replayed.missing);
        chosen.insert(replayed.outcome.endpoint.unwrap());
    }
    assert!(chosen.len() > 3, "the record is about too few endpoints: {chosen:?}");
}

#[test]
fn another_configuration_decides_on_the_same_numbers() {
    let (setting, decisions) = parse(&record(50));
    let registry = inlane_plugins::registry();
    let other = ConfigDocument { text: OTHER.into(), ..ConfigDocument::default() };
    let mut replayer = Replayer::new(&registry, Some(other));
    replayer.setting(&setting).unwrap();
    for decision in &decisions {
        let replayed = replayer.decide(decision).unwrap();
        let totals: Vec<f64> =
            replayed.outcome.profiles[0].endpoints.iter().map(|e| e.total).collect();
        let queue = decision.outcome.profiles[0].endpoints.iter();
        let queue: Vec<f64> = queue.map(|e| e.scores["queue-scorer"].unwrap()).collect();
        assert_eq!(totals, queue);
    }
}

#[test]
fn prompts_and_unasked_headers_stay_out() {
    let text = record(3);
    assert!(!text.contains("secret") && !text.contains("authorization"), "{text}");
}

#[test]
fn records_that_do_not_hold_together_are_refused() {
    let (setting, mut decisions) = parse(&record(1));
    let registry = inlane_plugins::registry();
    let mut replayer = Replayer::new(&registry, None);
    let unknown = replayer.decide(&decisions[0]).unwrap_err().to_string();
    assert!(unknown.contains("setting 4"), "{unknown}");
    replayer.setting(&setting).unwrap();
    decisions[0].candidates[0] = 99;
    let beyond = replayer.decide(&decisions[0]).unwrap_err().to_string();
    assert!(beyond.contains("candidate 99"), "{beyond}");
    let (_, mut decisions) = parse(&record(1));
    decisions[0].metrics.waiting.pop();
    let short = replayer.decide(&decisions[0]).unwrap_err().to_string();
    assert!(short.contains("waiting"), "{short}");
}

#[test]
fn what_was_screened_out_before_stays_in_the_explanation() {
    let (setting, mut decisions) = parse(&record(1));
    let dropped = Dropped {
        endpoint: "default/pod-00099".into(),
        filter: "a-screener".into(),
        reason: "old revision".into(),
    };
    decisions[0].outcome.screened.push(dropped);
    let registry = inlane_plugins::registry();
    let mut replayer = Replayer::new(&registry, None);
    replayer.setting(&setting).unwrap();
    assert_eq!(replayer.decide(&decisions[0]).unwrap().outcome, decisions[0].outcome);
}
