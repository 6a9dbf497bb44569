//! Whole decisions: order of steps, isolation, errors, repeatability.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use inlane_core::columns::{InFlight, PrefixMatch};
use inlane_core::cycle::{Ask, Scratch};
use inlane_core::decision::{PluginError, ScheduleError};
use inlane_core::effect::Effect;
use inlane_core::endpoint::EndpointSet;
use inlane_core::plan::{Plan, StaleMetrics};
use inlane_core::plugin::{Refusal, RequestFacts, Responding};
use inlane_core::request::{Prompt, Request};

use support::{Idle, config, endpoint, plan, pool};

const TWO_SCORERS: &str = "
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}]
schedulingProfiles:
- name: p1
  plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: kv-cache-utilization-scorer}]
";

/// Fills waiting and KV use, runs producers, decides with seed 7.
fn decide(plan: &Plan, scratch: &mut Scratch, rows: &[(u32, f64)]) -> Result<u32, ScheduleError> {
    plan.begin(scratch);
    for (i, &(waiting, kv)) in rows.iter().enumerate() {
        scratch.columns.metrics.waiting[i] = waiting;
        scratch.columns.metrics.kv_usage[i] = kv;
    }
    let request = Request { id: "r", ..Request::default() };
    plan.produce(&Ask::new(&request, &Idle, 1), scratch);
    plan.decide(&request, 1, 7, scratch)
}

#[test]
fn totals_are_weighted_sums_of_clamped_scores() {
    let plan = plan(TWO_SCORERS, pool(&["a", "b", "c"]));
    let mut scratch = Scratch::new(&plan);
    let target = decide(&plan, &mut scratch, &[(10, 0.2), (0, 1.5), (5, -1.0)]);
    let run = scratch.decision.profile("p1").unwrap();
    // queue 0, 1, 0.5 times 2; cache 0.8, clamped 0, clamped 1.
    assert_eq!(run.totals, [0.8, 2.0, 2.0]);
    assert_eq!(run.scores, [vec![0.0, 1.0, 0.5], vec![0.8, -0.5, 2.0]]);
    assert_eq!(target, Ok(1));
    assert_eq!(run.targets, [1]);
    assert_eq!(run.ranking, [1, 2, 0]);
    assert_eq!(scratch.decision.target(), Some(1));
}

#[test]
fn stale_endpoints_get_the_mean_of_the_others() {
    let endpoints = pool(&["a", "b", "c", "d"]);
    let rows = [(10, 0.5), (0, 0.1), (0, 0.0), (4, 0.3)];
    let totals = |stale_metrics, fresh: [bool; 4]| {
        let plan = plan(TWO_SCORERS, endpoints.clone()).with_stale_metrics(stale_metrics);
        let mut scratch = Scratch::new(&plan);
        plan.begin(&mut scratch);
        for (i, &(waiting, kv)) in rows.iter().enumerate() {
            scratch.columns.metrics.waiting[i] = waiting;
            scratch.columns.metrics.kv_usage[i] = kv;
            scratch.columns.metrics.fresh[i] = fresh[i];
        }
        plan.decide(&Request::default(), 1, 7, &mut scratch).unwrap();
        scratch.decision.profiles[0].totals.clone()
    };
    // Among a, b, d: queue 0, 1, 0.6 (mean 8/15), cache 0.5, 0.9, 0.7 (mean 0.7).
    let mean = totals(StaleMetrics::Mean, [true, true, false, true]);
    for (total, expected) in mean.iter().zip([0.5, 2.9, 16.0 / 15.0 + 0.7, 1.9]) {
        assert!((total - expected).abs() < 1e-12, "{mean:?}");
    }
    let parity = totals(StaleMetrics::Trust, [true, true, false, true]);
    assert_eq!(parity[2], 3.0);
    assert_eq!(parity, totals(StaleMetrics::Mean, [true; 4]));
    assert_eq!(totals(StaleMetrics::Mean, [false; 4]), [0.0; 4]);
}

#[test]
fn static_filters_are_settled_in_the_plan() {
    let body = "
plugins: [{type: decode-filter}, {type: unqueued-filter}, {type: queue-scorer}]
schedulingProfiles:
- name: p
  plugins: [{pluginRef: decode-filter}, {pluginRef: unqueued-filter}, {pluginRef: queue-scorer}]
";
    let roles = [("a", "decode"), ("b", "prefill"), ("c", "decode"), ("d", "decode")];
    let endpoints = roles.iter().map(|(n, role)| endpoint(n, &[("role", role)])).collect();
    let plan = plan(body, Arc::new(EndpointSet::new(1, endpoints)));
    let settled: Vec<_> =
        plan.static_rejections(0).iter().map(|r| (r.endpoint, r.filter)).collect();
    assert_eq!(settled, [(1, 0)]);

    let mut scratch = Scratch::new(&plan);
    let target = decide(&plan, &mut scratch, &[(1, 0.0), (0, 0.0), (0, 0.0), (3, 0.0)]);
    assert_eq!(target, Ok(2));
    let run = &scratch.decision.profiles[0];
    assert_eq!(run.candidates, [2]);
    let rejected: Vec<_> =
        run.rejections.iter().map(|r| (r.endpoint, r.filter, r.reason)).collect();
    assert_eq!(rejected, [(0, 1, "queue"), (3, 1, "queue")]);
}

#[test]
fn a_filter_that_is_asked_per_request_gives_the_same_answer() {
    let body = |parameters: &str| {
        format!(
            "plugins: [{{type: decode-filter, parameters: {{{parameters}}}}}, {{type: queue-scorer}}]"
        )
    };
    let endpoints = Arc::new(EndpointSet::new(
        1,
        vec![endpoint("a", &[("role", "prefill")]), endpoint("b", &[]), endpoint("c", &[])],
    ));
    for parameters in ["dynamic: true", "dynamic: false"] {
        let plan = plan(&body(parameters), endpoints.clone());
        let mut scratch = Scratch::new(&plan);
        assert_eq!(decide(&plan, &mut scratch, &[(0, 0.0), (2, 0.0), (1, 0.0)]), Ok(2));
        assert_eq!(scratch.decision.profiles[0].candidates, [1, 2]);
    }
}

#[test]
fn a_subset_narrows_the_candidates() {
    let body = "
plugins: [{type: decode-filter}, {type: queue-scorer}]
schedulingProfiles:
- name: p
  plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer}]
";
    let mut endpoints: Vec<_> = ["a", "b", "c", "d"].map(|n| endpoint(n, &[])).into();
    endpoints[1] = endpoint("b", &[("role", "prefill")]);
    let plan = plan(body, Arc::new(EndpointSet::new(1, endpoints)));
    let mut scratch = Scratch::new(&plan);
    let request = Request::default();
    let mut with_subset = |subset: &[u32]| {
        plan.begin(&mut scratch);
        plan.produce(&Ask::new(&request, &Idle, 1).within(Some(subset)), &mut scratch);
        let target = plan.decide(&request, 1, 7, &mut scratch);
        (target, scratch.decision.profiles[0].candidates.clone())
    };
    assert_eq!(with_subset(&[3, 1, 2, 3, 77]), (Ok(2), vec![2, 3]));
    let nobody = with_subset(&[]).0.unwrap_err();
    assert_eq!(nobody, ScheduleError::NoEndpoints);
    let filtered = with_subset(&[1]).0.unwrap_err();
    assert!(matches!(filtered, ScheduleError::Filtered { profile, .. } if profile == "p"));
}

#[test]
fn an_empty_pool_is_503() {
    let plan = plan(TWO_SCORERS, pool(&[]));
    let error = decide(&plan, &mut Scratch::new(&plan), &[]).unwrap_err();
    assert_eq!(error.http().status, 503);
}

#[test]
fn broken_plugins_are_neutral_and_counted() {
    let healthy = plan("plugins: [{type: queue-scorer}]", pool(&["a", "b", "c"]));
    let rows = [(1, 0.0), (2, 0.0), (3, 0.0)];
    let mut expected = Scratch::new(&healthy);
    assert_eq!(decide(&healthy, &mut expected, &rows), Ok(0));
    for panics in [false, true] {
        for role in ["filter", "scorer", "picker", "producer", "post_choice"] {
            let body = format!(
                "plugins: [{{type: broken, parameters: {{role: {role}, panics: {panics}}}}}, \
                 {{type: queue-scorer}}]"
            );
            let plan = plan(&body, pool(&["a", "b", "c"]));
            let mut scratch = Scratch::new(&plan);
            assert_eq!(decide(&plan, &mut scratch, &rows), Ok(0), "{role}");
            let run = &scratch.decision.profiles[0];
            assert_eq!(run.totals, expected.decision.profiles[0].totals, "{role}");
            assert_eq!(run.candidates, [0, 1, 2], "{role}");
            assert!(run.rejections.is_empty(), "{role}");
            if role == "post_choice" && !panics {
                continue;
            }
            assert!(scratch.effects.is_empty(), "{role}");
            assert_eq!(scratch.failures.counts()[0], 1, "{role}");
            let (plugin, error) = &scratch.failures.recent()[0];
            assert_eq!(plan.plugin_name(*plugin), "broken");
            assert_eq!(matches!(error, PluginError::Panicked(_)), panics, "{error}");
            assert!(error.to_string().contains("broken on purpose"));
            decide(&plan, &mut scratch, &rows).unwrap();
            assert_eq!(scratch.failures.counts()[0], 2);
            assert_eq!(scratch.failures.recent().len(), 1);
        }
    }
}

#[test]
fn records_are_applied_and_a_panic_there_is_counted() {
    let body = "plugins: [{type: broken, parameters: {role: post_choice}}, {type: queue-scorer}]";
    let quiet = plan(body, pool(&["a"]));
    let mut scratch = Scratch::new(&quiet);
    decide(&quiet, &mut scratch, &[(0, 0.0)]).unwrap();
    assert_eq!(scratch.effects, [Effect::record(0, 0)]);
    quiet.apply_records(&Request::default(), 1, 7, &mut scratch);
    assert_eq!(scratch.failures.counts()[0], 0);

    let loud = plan(&body.replace("post_choice", "post_choice, panics: true"), pool(&["a"]));
    let mut scratch = Scratch::new(&loud);
    decide(&loud, &mut scratch, &[(0, 0.0)]).unwrap();
    scratch.effects.push(Effect::record(0, 0));
    loud.apply_records(&Request::default(), 1, 7, &mut scratch);
    assert_eq!(scratch.failures.counts()[0], 2);
}

#[test]
fn a_failing_producer_silences_those_after_it() {
    let body = "
plugins:
- {type: token-producer}
- {type: approx-prefix-cache-producer, name: first}
- {type: broken, parameters: {role: producer}}
- {type: approx-prefix-cache-producer, name: last}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: first}}
- {type: prefix-cache-scorer, name: late, parameters: {prefixMatchInfoProducerName: last}}
";
    let plan = plan(body, pool(&["a", "b"]));
    let mut scratch = Scratch::new(&plan);
    let tokens: Vec<u32> = (0..256).collect();
    let request =
        Request { target_model: "b", prompts: &[Prompt::Tokens(&tokens)], ..Request::default() };
    plan.produce(&Ask::new(&request, &Idle, 1), &mut scratch);
    assert_eq!(plan.decide(&request, 1, 7, &mut scratch), Ok(1));
    assert_eq!(scratch.decision.profiles[0].scores, [vec![0.0, 0.5], vec![0.0, 0.0]]);
}

#[test]
fn unsound_picks_are_replaced_by_the_best_total() {
    for (targets, expected) in [
        ("[]", vec![1]),
        ("[3]", vec![1]),
        ("[4000000000]", vec![1]),
        ("[0, 0]", vec![1]),
        ("[0, 9]", vec![1]),
        ("[2, 0]", vec![2, 0]),
        ("[0]", vec![0]),
    ] {
        let body = format!(
            "plugins: [{{type: stubborn-picker, parameters: {{targets: {targets}}}}}, \
             {{type: queue-scorer}}]"
        );
        let plan = plan(&body, pool(&["a", "b", "c"]));
        let mut scratch = Scratch::new(&plan);
        decide(&plan, &mut scratch, &[(5, 0.0), (0, 0.0), (3, 0.0)]).unwrap();
        let run = &scratch.decision.profiles[0];
        assert_eq!(run.targets, expected, "{targets}");
        assert_eq!(run.ranking[..expected.len()], expected, "{targets}");
        assert_eq!(run.ranking.len(), 3);
    }
}

const TWO_PROFILES: &str = "
- name: z
  plugins: [{pluginRef: decode-filter}]
- name: y
  plugins: [{pluginRef: prefill-filter}]
";

fn two_profiles(mode: &str, roles: &[&str]) -> (Result<u32, ScheduleError>, Scratch) {
    let body = format!(
        "plugins: [{{type: every-profile-handler, parameters: {{mode: {mode}}}}}, \
         {{type: decode-filter}}, {{type: prefill-filter}}]\nschedulingProfiles: {TWO_PROFILES}"
    );
    let endpoints = roles.iter().zip('a'..);
    let endpoints = endpoints.map(|(role, n)| endpoint(&n.to_string(), &[("role", role)]));
    let plan = plan(&body, Arc::new(EndpointSet::new(1, endpoints.collect())));
    let mut scratch = Scratch::new(&plan);
    (decide(&plan, &mut scratch, &[]), scratch)
}

#[test]
fn the_handler_drives_the_profiles() {
    let (target, scratch) = two_profiles("all", &["decode", "prefill"]);
    assert_eq!(target, Ok(1));
    assert_eq!(scratch.decision.primary, 1);
    assert_eq!(scratch.decision.profiles[0].targets, [0]);

    // The primary found somebody: that another profile did not is no error.
    let (target, scratch) = two_profiles("all", &["prefill"]);
    assert_eq!(target, Ok(0));
    assert!(scratch.decision.profiles[0].failed);

    let (error, _) = two_profiles("all", &["decode"]);
    assert!(matches!(error, Err(ScheduleError::Filtered { profile, .. }) if profile == "y"));
    // Of several the first by name.
    let (error, _) = two_profiles("all", &["encode"]);
    assert!(matches!(error, Err(ScheduleError::Filtered { profile, .. }) if profile == "y"));
}

#[test]
fn a_handler_that_misbehaves_ends_in_an_error() {
    for (mode, status, text) in [
        ("nothing", 429, "failed to run any scheduler profile for request r"),
        ("unknown", 429, "does not come to an end"),
        ("endless", 429, "does not come to an end"),
        ("panic", 429, "handler bug"),
        ("lost", 500, "results must be greater than zero"),
    ] {
        let (error, _) = two_profiles(mode, &["decode", "prefill"]);
        let error = error.unwrap_err();
        assert_eq!(error.http().status, status, "{mode}");
        assert!(error.to_string().contains(text), "{mode}: {error}");
    }
}

#[test]
fn a_decision_may_be_repeated_with_other_bookings() {
    let plan = plan("plugins: [{type: active-request-scorer}]", pool(&["a", "b"]));
    let col = plan.config().schema.find::<InFlight>("inflight-load-producer").unwrap();
    let mut scratch = Scratch::new(&plan);
    let tokens: Vec<u32> = (0..100).collect();
    let request = Request { prompts: &[Prompt::Tokens(&tokens)], ..Request::default() };
    plan.produce(&Ask::new(&request, &Idle, 1), &mut scratch);
    assert_eq!(plan.decide(&request, 1, 7, &mut scratch), Ok(0));
    scratch.columns.get_mut(col)[0] = Some(InFlight { requests: 3, ..InFlight::default() });
    assert_eq!(plan.decide(&request, 1, 7, &mut scratch), Ok(1));
    let claims: Vec<_> = scratch.effects.iter().collect();
    assert!(matches!(claims[..], [Effect::Claim { endpoint: 1, tokens: 100, .. }]));
}

#[test]
fn the_same_inputs_give_the_same_decision() {
    let names: Vec<String> = (0..50).map(|i| format!("e{i:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = plan("plugins: [{type: random-picker}, {type: queue-scorer}]", pool(&names));
    let mut scratch = Scratch::new(&plan);
    let mut outcome = |seed| {
        plan.begin(&mut scratch);
        let target = plan.decide(&Request::default(), 1, seed, &mut scratch).unwrap();
        (target, scratch.decision.profiles[0].ranking.clone())
    };
    let first: Vec<_> = (0..100).map(&mut outcome).collect();
    let second: Vec<_> = (0..100).map(&mut outcome).collect();
    assert_eq!(first, second);
    assert!(first.iter().any(|o| o != &first[0]));
}

#[test]
fn a_warm_cache_may_be_demanded() {
    let plan = plan("plugins: [{type: prefix-cache-scorer}]", pool(&["a", "b"]));
    let col = plan.config().schema.find::<PrefixMatch>("approx-prefix-cache-producer").unwrap();
    let headers = [("prefer", "respond-async, If-Available; wait=5")];
    let request = Request { headers: &headers, ..Request::default() };
    let mut scratch = Scratch::new(&plan);
    plan.produce(&Ask::new(&request, &Idle, 1), &mut scratch);
    let error = plan.decide(&request, 1, 7, &mut scratch).unwrap_err();
    assert_eq!(error, ScheduleError::NotCached);
    assert!(scratch.effects.is_empty());
    let found = PrefixMatch { match_blocks: 1, total_blocks: 4, ..PrefixMatch::default() };
    scratch.columns.get_mut(col)[1] = Some(found);
    assert_eq!(plan.decide(&request, 1, 7, &mut scratch), Ok(1));
}

#[test]
fn a_scratch_follows_its_plans() {
    let small = plan(TWO_SCORERS, pool(&["a"]));
    let mut scratch = Scratch::new(&small);
    assert_eq!(decide(&small, &mut scratch, &[(0, 0.0)]), Ok(0));

    let grown = Plan::new(Arc::clone(small.config()), pool(&["a", "b", "c"]));
    assert_eq!(decide(&grown, &mut scratch, &[(3, 0.0), (2, 0.0), (1, 0.0)]), Ok(2));

    let other = plan("plugins: [{type: random-picker}]", pool(&["x", "y"]));
    // Without `begin`: nothing is known of anybody, and nothing of the old plan is left.
    let target = other.decide(&Request::default(), 1, 7, &mut scratch).unwrap();
    assert!(target < 2);
    assert!(scratch.decision.profiles[0].scores.is_empty());
    assert_eq!(
        scratch.failures.counts().len(),
        config("plugins: [{type: random-picker}]").plugins.len()
    );
}

#[test]
fn hooks_around_the_call_run_in_order_and_are_isolated() {
    let body = "
plugins:
- {type: broken, parameters: {role: hooks, panics: true}}
- {type: tenant}
";
    let plan = plan(body, pool(&["a"]));
    let mut scratch = Scratch::new(&plan);
    let mut facts = RequestFacts::default();
    let request = Request { model: "m", ..Request::default() };
    assert_eq!(plan.pre_call(&request, &mut facts, &mut scratch), Ok(()));
    assert_eq!(facts.fairness_id.as_deref(), Some("tenant of m"));
    let refused = plan.pre_call(&Request::default(), &mut facts, &mut scratch);
    assert_eq!(refused, Err(Refusal { status: 400, message: "no model".into() }));

    let response = Responding {
        endpoints: plan.endpoints(),
        profiles: &plan.config().profiles,
        targets: &[Some(0)],
        kept: &[],
        request_id: "r7",
        endpoint: None,
        streaming: false,
        status: 200,
        first_byte_ms: None,
        total_ms: 1.0,
        complete: true,
        prompt_tokens: None,
        completion_tokens: None,
        cached_tokens: None,
        tells_cached: true,
    };
    let mut headers = Vec::new();
    plan.response_headers(&response, &mut headers, &mut scratch.failures);
    assert_eq!(headers, [("x-served".to_owned(), "r7".to_owned())]);
    plan.complete(&response, &mut scratch.failures);
    assert_eq!(scratch.failures.counts()[..2], [4, 0]);
}

#[test]
fn one_request_cannot_fill_memory_with_errors() {
    let body = "plugins: [{type: broken, parameters: {role: hooks, panics: true}}]";
    let plan = plan(body, pool(&["a"]));
    let mut scratch = Scratch::new(&plan);
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..1_000 {
        let mut facts = RequestFacts::default();
        plan.pre_call(&Request::default(), &mut facts, &mut scratch).unwrap();
    }
    let _ = std::panic::take_hook();
    assert_eq!(scratch.failures.counts()[0], 1_000);
    assert_eq!(scratch.failures.recent().len(), 64);
}
