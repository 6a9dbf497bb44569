//! Outcomes as text.

use std::fmt::Write;

use super::{Outcome, Scenario};

/// A table of the outcomes of one scenario, by policy.
pub fn table(scenario: &Scenario, rows: &[(&str, Outcome)]) -> String {
    let requests = rows.first().map_or(0, |(_, outcome)| outcome.requests);
    let mut text = format!(
        "{}, {} pods, about {requests} requests in {} s after {} s of warm-up\n",
        scenario.workload.name(),
        scenario.pods,
        (scenario.length - scenario.warm_up).as_secs(),
        scenario.warm_up.as_secs(),
    );
    let head = ["policy", "TTFT mean ms", "TTFT p95 ms", "total mean s", "hits", "max/mean load"];
    let _ = writeln!(
        text,
        "  {:28} {:>13} {:>12} {:>13} {:>6} {:>14}",
        head[0], head[1], head[2], head[3], head[4], head[5]
    );
    for (name, outcome) in rows {
        let _ = writeln!(
            text,
            "  {name:28} {:>13.0} {:>12.0} {:>13.2} {:>5.0}% {:>14.2}",
            outcome.ttft_mean * 1e3,
            outcome.ttft_p95 * 1e3,
            outcome.total_mean,
            outcome.hit_ratio * 100.0,
            outcome.imbalance,
        );
    }
    text
}
