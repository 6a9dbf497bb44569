//! Decisions: by pool size, plugin by plugin, and with everything that a request asks for.

use std::hint::black_box;

use inlane_text::Api;

use super::{Operation, Run};
use crate::Fallible;
use crate::bodies::{self, SIZES};
use crate::rig::{self, BodyScanner, Rig, SCORERS};

/// Pool sizes and the most that a decision may take, ns.
const POOLS: [(u32, f64); 4] =
    [(10, 1_000.0), (100, 3_000.0), (1_000, 20_000.0), (10_000, 250_000.0)];
/// Requests that fill the prefix index first.
const WARM: usize = 64;

const ALONE: [&str; 6] = [
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "running-requests-size-scorer",
    "prefix-cache-scorer",
    "load-aware-scorer",
    "active-request-scorer",
];
const PICKERS: [&str; 3] = ["max-score-picker", "random-picker", "weighted-random-picker"];

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (pods, limit) in POOLS {
        operations.push(
            Operation::new(format!("decide/{pods}"), move || {
                decide(&SCORERS, "max-score-picker", pods)
            })
            .limit_ns(limit)
            .without_allocation(),
        );
    }
    for pods in [10, 1_000] {
        operations.push(
            Operation::new(format!("produce/8KB/{pods}"), move || {
                let (mut rig, scanner) = warm(&SCORERS, "max-score-picker", pods, 8 << 10)?;
                Ok(Box::new(move || rig.produce(&scanner)))
            })
            .without_allocation(),
        );
    }
    for (pods, _) in POOLS {
        operations.push(
            Operation::new(format!("rows/{pods}"), move || {
                let mut rig = Rig::new(&SCORERS, "max-score-picker", pods)?;
                Ok(Box::new(move || rig.begin()))
            })
            .without_allocation(),
        );
    }
    for scorer in ALONE {
        operations.push(
            Operation::new(format!("scorer/{scorer}/1000"), move || {
                decide(&[(scorer, 1)], "max-score-picker", 1_000)
            })
            .without_allocation(),
        );
    }
    for picker in PICKERS {
        operations.push(
            Operation::new(format!("picker/{picker}/1000"), move || {
                decide(&[("queue-scorer", 1)], picker, 1_000)
            })
            .without_allocation(),
        );
    }
    operations.push(
        Operation::new("ledger/claim-release", || {
            let rig = Rig::new(&SCORERS, "max-score-picker", 8)?;
            let slot = rig.endpoints()[0].slot;
            Ok(Box::new(move || rig.segment().book(black_box(slot), 100)))
        })
        .without_allocation(),
    );
    for (name, len) in SIZES {
        operations.push(
            Operation::new(format!("request/{name}/8"), move || request(len))
                .bytes(bodies::completion(0, len).len()),
        );
    }
    operations
}

/// A rig that has served requests, with the columns of a next one filled.
fn warm(
    scorers: &[(&str, u32)],
    picker: &str,
    pods: u32,
    len: usize,
) -> Fallible<(Rig, BodyScanner)> {
    let mut rig = Rig::new(scorers, picker, pods)?;
    let mut scanner = rig::scanner(Api::Completions, rig.unit());
    for index in 0..WARM {
        rig::scan(&mut scanner, Api::Completions, bodies::completion(index, len).as_bytes());
        rig.serve(&scanner);
    }
    rig.begin();
    rig.produce(&scanner);
    Ok((rig, scanner))
}

fn decide(scorers: &[(&str, u32)], picker: &str, pods: u32) -> Fallible<Run> {
    let (mut rig, scanner) = warm(scorers, picker, pods, 8 << 10)?;
    Ok(Box::new(move || {
        black_box(rig.decide(&scanner));
    }))
}

/// From the first byte of the body to the release of the booking.
fn request(len: usize) -> Fallible<Run> {
    let (mut rig, mut scanner) = warm(&SCORERS, "max-score-picker", 8, len)?;
    let bodies: Vec<String> = (0..WARM).map(|index| bodies::completion(index, len)).collect();
    let mut next = 0;
    Ok(Box::new(move || {
        next = (next + 1) % bodies.len();
        rig::scan(&mut scanner, Api::Completions, black_box(bodies[next].as_bytes()));
        rig.serve(&scanner);
    }))
}
