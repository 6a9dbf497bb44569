//! Time of one decision: four scorers, picker and ranking, by pool size.

#[path = "../tests/support/mod.rs"]
mod support;

use inlane_core::cycle::{Ask, Scratch};
use inlane_core::request::Request;
use inlane_core::rng::Rng;

use support::{Idle, plan, pool};

const BODY: &str = "
plugins:
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: prefix-cache-scorer}
- {type: active-request-scorer}
- {type: max-score-picker}
";

fn main() {
    divan::main();
}

const POOLS: [usize; 4] = [10, 100, 1_000, 10_000];

#[divan::bench(args = POOLS)]
fn decide(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    run(bencher, endpoints, 100);
}

/// Everybody idle: all totals are equal, which is the most work for the ranking.
#[divan::bench(args = POOLS)]
fn decide_idle(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    run(bencher, endpoints, 0);
}

fn run(bencher: divan::Bencher<'_, '_>, endpoints: usize, busy: u32) {
    let names: Vec<String> = (0..endpoints).map(|i| format!("e{i:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = plan(BODY, pool(&names));
    let mut scratch = Scratch::new(&plan);
    let mut rng = Rng::new(1);
    let metrics = &mut scratch.columns.metrics;
    metrics.waiting.iter_mut().for_each(|w| *w = rng.below(busy));
    metrics.kv_usage.iter_mut().for_each(|kv| *kv = f64::from(rng.below(busy)) / 100.0);
    let request = Request { id: "r", target_model: "e00003", ..Request::default() };
    plan.produce(&Ask::new(&request, &Idle, 1), &mut scratch);
    let mut seed = 0;
    bencher.bench_local(|| {
        seed += 1;
        plan.decide(&request, 1, seed, &mut scratch)
    });
}

#[divan::bench(args = POOLS)]
fn begin(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    let names: Vec<String> = (0..endpoints).map(|i| format!("e{i:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = plan(BODY, pool(&names));
    let mut scratch = Scratch::new(&plan);
    bencher.bench_local(|| plan.begin(&mut scratch));
}
