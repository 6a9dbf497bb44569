//! The acceptance cases of the scheduling layer.
#![allow(clippy::unwrap_used, reason = "tests")]

use inlane_integration::cases::{self, Outcome};
use inlane_plugins::registry;
use serde_json::{Value, json};

const FILE: &str = include_str!("../cases/scheduling_cases.json");
const WORKED: &str = include_str!("../cases/worked_examples.json");
const MORE: &str = include_str!("../cases/more_kinds.json");
/// Cases derived from the specification alone, rule by rule.
const DERIVED: [(&str, &str); 8] = [
    ("chance", include_str!("../cases/chance.json")),
    ("filters", include_str!("../cases/filters.json")),
    ("fringe", include_str!("../cases/fringe.json")),
    ("hashes", include_str!("../cases/hashes.json")),
    ("parameters", include_str!("../cases/parameters.json")),
    ("scorers", include_str!("../cases/scorers.json")),
    ("sequences", include_str!("../cases/sequences.json")),
    ("whole", include_str!("../cases/whole.json")),
];

#[test]
fn the_acceptance_cases_hold() {
    let report = cases::run(FILE, &registry()).unwrap();
    let (passed, failed, _) = report.counts();
    assert_eq!(failed, 0, "{report}");
    assert!(passed > 0, "nothing ran");
}

#[test]
fn the_worked_examples_hold() {
    let report = cases::run(WORKED, &registry()).unwrap();
    let (_, failed, skipped) = report.counts();
    assert_eq!((failed, skipped), (0, 0), "{report}");
}

#[test]
fn more_cases_of_rare_kinds_hold() {
    let report = cases::run(MORE, &registry()).unwrap();
    let (_, failed, skipped) = report.counts();
    assert_eq!((failed, skipped), (0, 0), "{report}");
}

#[test]
fn what_the_specification_says_holds() {
    for (name, file) in DERIVED {
        let report = cases::run(file, &registry()).unwrap();
        let (passed, failed, skipped) = report.counts();
        assert_eq!((failed, skipped), (0, 0), "{name}: {report}");
        assert!(passed >= 40, "{name}: {passed}");
    }
}

#[test]
fn a_wrong_expectation_fails_in_rare_kinds() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 12] = [
        ("admit-probability", |c| c["expect"]["admit_rate"] = json!(0.4)),
        ("burst-worked-example", |c| {
            c["steps"][0]["expect"]["requests"][0]["assigned"] = json!("b");
        }),
        ("burst-two-windows", |c| c["steps"][0]["expect"]["requests"][2]["error"] = json!(true)),
        ("media", |c| c["steps"][2]["expect"]["mm"]["b"]["matched"] = json!(0)),
        ("latency-features", |c| c["expect"]["features"]["a"]["kv_cache_percentage"] = json!(0.5)),
        ("latency-predictor-fails", |c| c["predictor_error"] = json!(false)),
        ("latency-not-streaming", |c| c["steps"][2]["expect"]["training_targets"] = json!([])),
        ("director-denied", |c| c["expect"]["http_status"] = json!(429)),
        ("precise-tiers", |c| c["expect"]["cached_blocks"]["b"] = json!(1)),
        ("precise-tiers", |c| c["expect"]["scores"] = json!({"a": 2.8})),
        ("filter-own-order", |c| c["expect"]["kept"] = json!(["a", "c"])),
        ("filter-outcomes", |c| c["expect"]["outcomes"] = json!({"z": 0.5, "m": 0.5})),
    ];
    for (id, change) in changes {
        let outcome = broken_in(MORE, id, change);
        assert!(matches!(outcome, Outcome::Failed(_)), "{id}: {outcome:?}");
    }
}

/// Runs cases that were changed so that they cannot hold.
fn broken(id: &str, change: impl FnOnce(&mut Value)) -> Outcome {
    broken_in(FILE, id, change)
}

fn broken_in(file: &str, id: &str, change: impl FnOnce(&mut Value)) -> Outcome {
    let file: Value = serde_json::from_str(file).unwrap();
    let mut case =
        file["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap().clone();
    assert_eq!(cases::run_case(&case, &registry()), Outcome::Passed, "{id}");
    change(&mut case);
    cases::run_case(&case, &registry())
}

#[test]
fn a_wrong_expectation_fails_in_every_kind() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 10] = [
        ("scorer-queue-missing", |c| c["expect"]["scores"]["a"] = json!(0.5)),
        ("picker-max-tie", |c| c["expect"]["first"] = json!({"a": 0.9})),
        ("config-prefix-weight", |c| c["expect"]["valid"] = json!(true)),
        ("config-prefix-scale-ok", |c| c["expect"]["valid"] = json!(false)),
        ("eppconfig-no-handler", |c| c["expect"]["valid"] = json!(true)),
        ("sched-clamp", |c| c["expect"]["totals"]["default"]["a"] = json!(0.1)),
        ("sched-filters-empty", |c| c["expect"]["error"]["code"] = json!("Internal")),
        ("seq-approx-basic", |c| c["steps"][2]["expect"]["prefix"]["a"]["match_blocks"] = json!(3)),
        ("hash-4", |c| c["block_size_tokens"] = json!(2)),
        ("director-multi-target", |c| c["expect"]["destination"] = json!("10.0.0.97:8000")),
    ];
    for (id, change) in changes {
        let outcome = broken(id, change);
        assert!(matches!(outcome, Outcome::Failed(_)), "{id}: {outcome:?}");
    }
}

#[test]
fn only_what_does_not_exist_yet_is_skipped() {
    let report = cases::run(FILE, &registry()).unwrap();
    for (id, outcome) in &report.outcomes {
        let Outcome::Skipped(reason) = outcome else { continue };
        if let Some(name) = reason.strip_prefix("plugin type '") {
            assert!(registry().get(name.trim_end_matches('\'')).is_none(), "{id}: {reason}");
        }
    }
    let unknown =
        json!({"kind": "config", "plugin": {"type": "nobody-knows"}, "expect": {"valid": false}});
    assert_eq!(cases::run_case(&unknown, &registry()), Outcome::Passed);
    let other = json!({"kind": "no-such-kind"});
    assert!(matches!(cases::run_case(&other, &registry()), Outcome::Skipped(_)));
}
