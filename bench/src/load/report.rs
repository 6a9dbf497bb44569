//! From rows to the comparison: medians, what the scheduler adds, and what cannot be resolved.
//!
//! Added is the median over the rounds of ours minus the mean of the two plain cells of the same
//! round. Noise is the median of the plain cells' distance. What is reported is the larger of the
//! two: a difference inside the noise is no result.

use std::fmt::Write;

use super::cells::{Load, Row};
use super::proxies::Proxy;
use crate::bodies::SIZES;

/// Figures of the external picker at the same loads, from `docs/comparison.md`: CPU added per
/// 1,000 requests at 16 connections (s), share of plain capacity at 64 (%), p50 added below
/// saturation (ms).
const EXTERNAL: [[f64; 4]; 3] =
    [[0.49, 0.75, 2.3, 5.8], [16.0, 12.0, 6.0, 5.0], [1.32, 1.73, 3.2, 7.3]];
/// The limits that we set ourselves, in the same order.
const LIMITS: [[f64; 4]; 3] =
    [[0.02, 0.025, 0.06, 0.18], [75.0, 70.0, 65.0, 55.0], [0.06, 0.08, 0.2, 0.4]];

/// What is read from a row.
type Column = fn(&Row) -> f64;

/// A figure with its noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub value: f64,
    /// What plain against plain differs by.
    pub noise: f64,
}

impl Figure {
    /// The larger of figure and noise.
    pub fn reported(self) -> f64 {
        self.value.max(self.noise)
    }
}

/// The median; NaN of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn cell(rows: &[Row], size: usize, load: Load, proxy: Proxy) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.size == size && row.load == load && row.proxy == proxy)
}

/// Per round: plain, ours, plain again.
fn rounds(rows: &[Row], size: usize, load: Load, of: Column) -> Vec<[f64; 3]> {
    let [plain, inlane, again] =
        Proxy::ALL.map(|proxy| cell(rows, size, load, proxy).map(of).collect::<Vec<_>>());
    let pairs = plain.into_iter().zip(inlane).zip(again);
    pairs.map(|((plain, inlane), again)| [plain, inlane, again]).collect()
}

/// What ours has more than plain.
fn added(rounds: &[[f64; 3]]) -> Figure {
    let over = |[plain, inlane, again]: &[f64; 3]| inlane - f64::midpoint(*plain, *again);
    let apart = |[plain, _, again]: &[f64; 3]| (plain - again).abs();
    Figure {
        value: median(rounds.iter().map(over).collect()),
        noise: median(rounds.iter().map(apart).collect()),
    }
}

/// What ours has of plain, %.
fn share(rounds: &[[f64; 3]]) -> Figure {
    let part = |[plain, inlane, again]: &[f64; 3]| inlane / f64::midpoint(*plain, *again);
    let apart =
        |[plain, _, again]: &[f64; 3]| (plain - again).abs() / f64::midpoint(*plain, *again);
    Figure {
        value: median(rounds.iter().map(part).collect()) * 100.0,
        noise: median(rounds.iter().map(apart).collect()) * 100.0,
    }
}

/// Medians of every cell.
pub fn cells(rows: &[Row]) -> String {
    let mut text = format!(
        "{:6} {:10} {:>9} {:>9} {:>9}   {:>8} {:>8} {:>8}   {:>7} {:>7} {:>7}   {:>7} {:>7} {:>7}  {:>7} {:>6} {:>6}\n",
        "prompt",
        "load",
        "RPS",
        "inlane",
        "plain 2",
        "CPU/1k",
        "inlane",
        "plain 2",
        "p50",
        "inlane",
        "plain 2",
        "p99",
        "inlane",
        "plain 2",
        "control",
        "idle",
        "errors",
    );
    let mut seen = Vec::new();
    for row in rows {
        if seen.contains(&(row.size, row.load)) {
            continue;
        }
        seen.push((row.size, row.load));
        let load = match row.load {
            Load::Closed(connections) => format!("closed {connections}"),
            Load::Paced => "paced".to_owned(),
        };
        let _ = write!(text, "{:6} {load:10}", SIZES[row.size].0);
        let columns: [(Column, usize, usize); 4] = [
            (Row::rate, 9, 0),
            (|row| row.envoy_cpu, 8, 4),
            (|row| row.seen.p50_ms, 7, 3),
            (|row| row.seen.p99_ms, 7, 2),
        ];
        for (of, width, decimals) in columns {
            for proxy in Proxy::ALL {
                let value = median(cell(rows, row.size, row.load, proxy).map(of).collect());
                let _ = write!(text, " {value:>width$.decimals$}");
            }
            text.push_str("  ");
        }
        let all = rows.iter().filter(|r| r.size == row.size && r.load == row.load);
        let control = median(all.clone().map(|row| row.control_cores).collect());
        let idle = median(all.clone().map(|row| row.idle).collect());
        let errors: u64 = all.map(|row| row.seen.errors).sum();
        let _ = writeln!(text, " {control:>7.4} {idle:>6.2} {errors:>6}");
    }
    text
}

/// What the scheduler costs, beside the external picker's figures and the limits.
pub fn comparison(rows: &[Row]) -> String {
    let head = ["reported", "value", "noise", "limit", "external", "verdict"];
    let [a, b, c, d, e, f] = head;
    let mut text = format!("{:44} {:6} {a:>9} {b:>9} {c:>9} {d:>8} {e:>9}  {f}\n", "", "prompt");
    let groups: [(&str, Load, Column); 3] = [
        ("Envoy CPU-s added per 1,000, 16 connections", Load::Closed(16), |row| row.envoy_cpu),
        ("share of plain capacity, 64 connections (%)", Load::Closed(64), Row::rate),
        ("p50 added below saturation (ms)", Load::Paced, |row| row.seen.p50_ms),
    ];
    for (group, (name, load, of)) in groups.into_iter().enumerate() {
        for (size, (prompt, _)) in SIZES.iter().enumerate() {
            let rounds = rounds(rows, size, load, of);
            let (limit, external) = (LIMITS[group][size], EXTERNAL[group][size]);
            let is_share = group == 1;
            let figure = if is_share { share(&rounds) } else { added(&rounds) };
            let reported = if is_share { figure.value } else { figure.reported() };
            let good = if is_share { reported >= limit } else { reported <= limit };
            let Figure { value, noise } = figure;
            let verdict = if good { "within" } else { "OVER" };
            let _ = writeln!(
                text,
                "{name:44} {prompt:6} {reported:>9.3} {value:>9.3} {noise:>9.3} {limit:>8} {external:>9}  {verdict}",
            );
        }
    }
    text.push_str(
        "external: the external picker measured at the same loads, see docs/comparison.md\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!(median(vec![]).is_nan());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_difference_inside_the_noise_is_reported_as_the_noise() {
        let figure = added(&[[1.0, 1.2, 1.4], [1.0, 1.3, 1.2], [1.1, 1.15, 1.1]]);
        assert!((figure.value - 0.05).abs() < 1e-9, "{figure:?}");
        assert!((figure.reported() - 0.2).abs() < 1e-9, "{figure:?}");
    }

    #[test]
    fn shares_are_of_the_mean_of_the_plain_cells() {
        let figure = share(&[[90.0, 75.0, 110.0]]);
        assert!((figure.value - 75.0).abs() < 1e-9 && (figure.noise - 20.0).abs() < 1e-9);
    }
}
