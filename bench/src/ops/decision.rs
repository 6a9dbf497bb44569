//! Decisions: by pool size, with a long profile, and with everything that a request asks for.

use std::hint::black_box;

use inlane_text::Api;

use super::{Operation, Run};
use crate::Fallible;
use crate::bodies::{self, SIZES};
use crate::rig::{self, BodyScanner, Rig, SCORERS};

/// Pool sizes and the most that a decision may take, ns.
const POOLS: [(u32, f64); 4] =
    [(10, 1_000.0), (100, 3_000.0), (1_000, 20_000.0), (10_000, 250_000.0)];
/// Two filters, five scorers and a picker over everything that a worker knows: metrics, prefixes,
/// adapters, bookings.
const EIGHT_PLUGINS: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: decode-filter
- {type: prefix-cache-affinity-filter, parameters: {explorationProbability: 0.5}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: active-request-scorer
- type: lora-affinity-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - pluginRef: prefix-cache-affinity-filter
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: active-request-scorer, weight: 1}
  - {pluginRef: lora-affinity-scorer, weight: 1}
  - pluginRef: max-score-picker
";
/// Requests that fill the prefix index first.
const WARM: usize = 64;

/// Pool size of the profile with eight plugins, and the most that its decision may take, ns.
const EIGHT: (u32, f64) = (100, 6_000.0);

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
    let (pods, limit) = EIGHT;
    operations.push(
        Operation::new(format!("profile/eight-plugins/decide/{pods}"), move || {
            let (mut rig, scanner) = warmed(Rig::configured(EIGHT_PLUGINS, pods)?, 8 << 10);
            Ok(Box::new(move || {
                black_box(rig.decide(&scanner));
            }))
        })
        .limit_ns(limit)
        .without_allocation(),
    );
    operations.push(
        Operation::new(format!("profile/eight-plugins/begin-produce-decide/{pods}"), move || {
            let (mut rig, scanner) = warmed(Rig::configured(EIGHT_PLUGINS, pods)?, 8 << 10);
            Ok(Box::new(move || {
                rig.begin();
                rig.produce(&scanner);
                black_box(rig.decide(&scanner));
            }))
        })
        .without_allocation(),
    );
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
    Ok(warmed(Rig::new(scorers, picker, pods)?, len))
}

fn warmed(mut rig: Rig, len: usize) -> (Rig, BodyScanner) {
    let mut scanner = rig::scanner(Api::Completions, rig.unit());
    for index in 0..WARM {
        rig::scan(&mut scanner, Api::Completions, bodies::completion(index, len).as_bytes());
        rig.serve(&scanner);
    }
    rig.begin();
    rig.produce(&scanner);
    (rig, scanner)
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
