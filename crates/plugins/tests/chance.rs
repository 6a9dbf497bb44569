//! What is left to chance: ties, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use inlane_core::cycle::Ask;
use inlane_core::request::{Prompt, Request};
use proptest::prelude::*;

use support::alone::{self, Alone, Role};
use support::{Idle, Proxy};

/// Endpoints of the ties.
const TIED: usize = 8;
const PICKS: u64 = 10_000;
/// The 0.1 % quantile of chi-square with `TIED - 1` degrees of freedom. The seeds are fixed, so a
/// picker passes always or never.
const BOUND: f64 = 24.32;

/// Pickers that draw nothing: equal totals are not what they go by.
const DRAW_NOTHING: &[&str] = &["bounded-load-hash-picker"];

#[test]
fn every_picker_that_draws_breaks_ties_uniformly() {
    let registry = inlane_plugins::registry();
    let mut pickers = 0;
    for (name, role) in alone::roles(&registry).unwrap() {
        if role != Role::Picker || DRAW_NOTHING.contains(&name) {
            continue;
        }
        let mut picker = Alone::new(&registry, name, TIED as u32).unwrap();
        picker.tie();
        let mut counts = [0_u64; TIED];
        for seed in 0..PICKS {
            picker.run(role, seed).unwrap();
            counts[picker.targets[0] as usize] += 1;
        }
        let expected = PICKS as f64 / TIED as f64;
        let deviations = counts.map(|count| (count as f64 - expected).powi(2) / expected);
        let chi_square: f64 = deviations.iter().sum();
        assert!(chi_square < BOUND, "{name}: {chi_square} {counts:?}");
        pickers += 1;
    }
    assert!(pickers >= 3);
}

/// Scorers with weights whose products and sums are inexact.
const SCORERS: [(&str, f64); 6] = [
    ("queue-scorer", 0.1),
    ("kv-cache-utilization-scorer", 2.7),
    ("running-requests-size-scorer", 0.3),
    ("load-aware-scorer", 1.9),
    ("active-request-scorer", 1e-3),
    ("prefix-cache-scorer", 3.3),
];

/// The totals of eight endpoints with the scorers in this order.
fn totals(order: &[usize], loads: &[(u32, u32, f64)]) -> Vec<f64> {
    let scorers = order.iter().map(|&at| SCORERS[at]);
    let plugins: String = scorers.clone().map(|(name, _)| format!("- type: {name}\n")).collect();
    let references: String = scorers
        .map(|(name, weight)| format!("  - {{pluginRef: {name}, weight: {weight}}}\n"))
        .collect();
    let config = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}\
         - type: max-score-picker\nschedulingProfiles:\n- name: default\n  plugins:\n{references}  \
         - pluginRef: max-score-picker\n"
    );
    let mut proxy = Proxy::new(&config, loads.len() as u32);
    let ids: Vec<u32> = (0..512).collect();
    let prompts = [Prompt::Tokens(&ids)];
    let request = Request { id: "r", target_model: "m", prompts: &prompts, ..Default::default() };
    let Proxy { plan, scratch, .. } = &mut proxy;
    plan.begin(scratch);
    let metrics = &mut scratch.columns.metrics;
    for (ix, &(waiting, running, kv_usage)) in loads.iter().enumerate() {
        (metrics.waiting[ix], metrics.running[ix]) = (waiting, running);
        metrics.kv_usage[ix] = kv_usage;
    }
    plan.produce(&Ask::new(&request, &Idle, 1), scratch);
    plan.decide(&request, 1, 1, scratch).expect("a destination");
    let run = scratch.decision.primary_run().expect("a run");
    assert_eq!(run.candidates.len(), loads.len());
    run.totals.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Sums of the same terms in another order differ by rounding alone: at most one unit in the
    /// last place of the running sum per addition.
    #[test]
    fn totals_do_not_depend_on_the_order_of_scorers(
        order in Just((0..SCORERS.len()).collect::<Vec<_>>()).prop_shuffle(),
        loads in prop::collection::vec((0_u32..20, 0_u32..60, 0.0..1.0_f64), TIED),
    ) {
        let listed: Vec<usize> = (0..SCORERS.len()).collect();
        let bound: f64 = SCORERS.iter().map(|(_, weight)| weight).sum();
        let tolerance = SCORERS.len() as f64 * bound * f64::EPSILON;
        for (a, b) in totals(&listed, &loads).into_iter().zip(totals(&order, &loads)) {
            prop_assert!((a - b).abs() <= tolerance, "{a} and {b}");
        }
    }
}
