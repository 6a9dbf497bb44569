//! Medians over the rounds, and tables of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What one process measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// `ingest`, `lookup` or `memory`.
    pub kind: &'static str,
    /// The fleet.
    pub mix: String,
    /// The index.
    pub peer: &'static str,
    /// Which round.
    pub round: usize,
    /// What was done.
    pub case: String,
    /// What was measured.
    pub measure: String,
    /// How much it was.
    pub value: f64,
}

/// Reads the rows that a cell printed.
pub fn read<'a>(
    text: &'a str,
    (kind, peer, mix, round): (&'static str, &'static str, &'a str, usize),
) -> impl Iterator<Item = Row> + 'a {
    text.lines().map(move |line| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().expect("case, measure and value").to_owned();
        let (case, measure) = (field(), field());
        let value = field().parse().expect("a number");
        Row { kind, mix: mix.to_owned(), peer, round, case, measure, value }
    })
}

/// All rows, one per line.
pub fn tsv(rows: &[Row]) -> String {
    let mut text = String::from("kind\tmix\tpeer\tround\tcase\tmeasure\tvalue\n");
    for Row { kind, mix, peer, round, case, measure, value } in rows {
        writeln!(text, "{kind}\t{mix}\t{peer}\t{round}\t{case}\t{measure}\t{value}")
            .expect("a string has room");
    }
    text
}

/// Whether more of it is better.
fn is_rate(measure: &str) -> bool {
    measure.starts_with("M/")
}

/// Medians: a line per fleet, case and measure, a column per index, and ours in relation to the
/// better of the others (above 1: ours is better, whatever is measured).
pub fn table(rows: &[Row], peers: &[&'static str]) -> String {
    let mut order: Vec<(&str, &str, &str, &str)> = Vec::new();
    let mut cells: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for row in rows {
        let line = (row.kind, row.mix.as_str(), row.case.as_str(), row.measure.as_str());
        if !order.contains(&line) {
            order.push(line);
        }
        cells.entry((line, row.peer)).or_default().push(row.value);
    }
    let mut text = format!("{:<8}{:<14}{:<11}{:<9}", "", "fleet", "case", "measure");
    for peer in peers {
        write!(text, "{peer:>12}").expect("a string has room");
    }
    text.push_str("      better\n");
    for line in order {
        let (kind, mix, case, measure) = line;
        let medians: Vec<_> =
            peers.iter().map(|&peer| cells.get(&(line, peer)).map(|all| median(all))).collect();
        write!(text, "{kind:<8}{mix:<14}{case:<11}{measure:<9}").expect("a string has room");
        for median in &medians {
            let shown = median.map_or_else(|| "-".to_owned(), shown);
            write!(text, "{shown:>12}").expect("a string has room");
        }
        let others = peers.iter().zip(&medians).filter(|&(&peer, _)| peer != "ours");
        let others = others.filter_map(|(_, &median)| median);
        let better: fn(f64, f64) -> f64 = if is_rate(measure) { f64::max } else { f64::min };
        let ours = peers.iter().position(|&peer| peer == "ours").and_then(|at| medians[at]);
        match (ours, others.reduce(better)) {
            (Some(ours), Some(best)) if is_compared(measure) => {
                let ratio = if is_rate(measure) { ours / best } else { best / ours };
                writeln!(text, "{ratio:>11.2}x").expect("a string has room");
            }
            _ => text.push('\n'),
        }
    }
    text
}

fn is_compared(measure: &str) -> bool {
    is_rate(measure) || measure.ends_with(" ns") || matches!(measure, "B/held" | "RSS B")
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_say_how_much_better_ours_is() {
        let mut rows = Vec::new();
        for (round, (ours, other)) in [(2.0, 4.0), (9.0, 1.0), (3.0, 6.0)].into_iter().enumerate() {
            for (peer, value) in [("ours", ours), ("other", other)] {
                let text = format!("stores\tM/s\t{value}\nhit 8\tp50 ns\t{value}\n");
                rows.extend(read(&text, ("ingest", peer, "1x1x2", round)));
            }
        }
        let table = table(&rows, &["ours", "other"]);
        let ends: Vec<_> =
            table.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(ends, ["better", "0.75x", "1.33x"]);
        assert_eq!(tsv(&rows).lines().count(), 13);
    }
}
