//! An explanation as text for people.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;

use inlane_core::explain::{Explanation, ProfileExplanation, Scored, WeightedName};

use crate::paint::Paint;

/// The whole explanation.
pub(super) fn explanation(explained: &Explanation, paint: Paint) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = match (&explained.endpoint, &explained.error) {
        (Some(endpoint), _) => {
            let destination = explained.destination.as_deref().unwrap_or_default();
            writeln!(page, "sent to {} ({destination})", paint.good(endpoint))
        }
        (None, Some(error)) => writeln!(page, "{}", paint.bad(&format!("no endpoint: {error}"))),
        (None, None) => writeln!(page, "no endpoint"),
    };
    for dropped in &explained.screened {
        let by = paint.faint(&format!("screened out by {}: {}", dropped.filter, dropped.reason));
        let _ = writeln!(page, "  {}  {by}", dropped.endpoint);
    }
    for profile in &explained.profiles {
        let primary = explained.primary_profile.as_deref() == Some(&profile.name);
        page.push_str(&one_profile(profile, primary, paint));
    }
    page
}

fn one_profile(profile: &ProfileExplanation, primary: bool, paint: Paint) -> String {
    let mut page = String::new();
    let suffix = if primary { " (the destination's)" } else { "" };
    let title = format!("profile {}{suffix}", profile.name);
    let _ = writeln!(page, "\n{}", paint.heading(&title));
    rejected(profile, paint, &mut page);
    if profile.endpoints.is_empty() {
        let _ = writeln!(page, "  {}", paint.bad("the filters left nobody"));
    } else {
        scores(profile, paint, &mut page);
    }
    for failure in &profile.plugin_errors {
        let text = format!("{} failed and took no part: {}", failure.plugin, failure.error);
        let _ = writeln!(page, "  {}", paint.warning(&text));
    }
    page
}

/// Who was dropped, filter by filter.
fn rejected(profile: &ProfileExplanation, paint: Paint, page: &mut String) {
    let mut by_filter: Vec<(&str, BTreeMap<&str, Vec<&str>>)> = Vec::new();
    for dropped in &profile.rejected {
        let at = by_filter.iter().position(|(filter, _)| *filter == dropped.filter);
        let at = at.unwrap_or_else(|| {
            by_filter.push((&dropped.filter, BTreeMap::new()));
            by_filter.len() - 1
        });
        by_filter[at].1.entry(&dropped.reason).or_default().push(&dropped.endpoint);
    }
    for (filter, reasons) in by_filter {
        let count: usize = reasons.values().map(Vec::len).sum();
        let _ = writeln!(page, "  {filter} dropped {count}");
        for (reason, endpoints) in reasons {
            let _ = writeln!(page, "    {}  {}", endpoints.join(", "), paint.faint(reason));
        }
    }
}

/// The score table, best total first, with what each loser lacks.
fn scores(profile: &ProfileExplanation, paint: Paint, page: &mut String) {
    let picked = |endpoint: &str| profile.picked.iter().any(|p| p == endpoint);
    let mut endpoints: Vec<&Scored> = profile.endpoints.iter().collect();
    endpoints.sort_by(|a, b| {
        picked(&b.endpoint)
            .cmp(&picked(&a.endpoint))
            .then(b.total.partial_cmp(&a.total).unwrap_or(Ordering::Equal))
            .then_with(|| a.endpoint.cmp(&b.endpoint))
    });
    let winner = profile.picked.first();
    let winner = winner.and_then(|name| endpoints.iter().find(|e| e.endpoint == *name)).copied();
    let mut rows = vec![header(profile)];
    for endpoint in &endpoints {
        let mark = if picked(&endpoint.endpoint) { "*" } else { " " };
        let mut row = vec![format!("{mark}{}", endpoint.endpoint)];
        row.extend(profile.scorers.iter().map(|scorer| {
            endpoint.scores.get(&scorer.name).copied().flatten().map_or("-".into(), decimal)
        }));
        row.push(decimal(endpoint.total));
        row.push(match winner {
            Some(winner) if !picked(&endpoint.endpoint) => {
                why_it_lost(endpoint, winner, &profile.scorers, &profile.picker)
            }
            _ => String::new(),
        });
        rows.push(row);
    }
    page.push_str(&align(&rows, paint));
    let _ = writeln!(page, "  {}", paint.faint(&format!("picked by {}", profile.picker)));
}

fn header(profile: &ProfileExplanation) -> Vec<String> {
    let scorers = profile.scorers.iter().map(|s| format!("{} x{}", s.name, s.weight));
    let ends = ["total".to_owned(), "why it lost".to_owned()];
    std::iter::once(" endpoint".to_owned()).chain(scorers).chain(ends).collect()
}

fn decimal(value: f64) -> String {
    format!("{value:.3}")
}

/// The scorers in which an endpoint is behind the winner, the largest difference first.
fn why_it_lost(loser: &Scored, winner: &Scored, scorers: &[WeightedName], picker: &str) -> String {
    if loser.total == winner.total {
        return "equal total, lost the draw".into();
    }
    if loser.total > winner.total {
        return format!("a higher total: {picker} does not go by the highest alone");
    }
    let part = |endpoint: &Scored, scorer: &WeightedName| {
        let score = endpoint.scores.get(&scorer.name).copied().flatten().unwrap_or(0.0);
        score.clamp(0.0, 1.0) * scorer.weight
    };
    let mut behind: Vec<(f64, &str)> = scorers
        .iter()
        .map(|scorer| (part(winner, scorer) - part(loser, scorer), scorer.name.as_str()))
        .filter(|(difference, _)| *difference > 0.0)
        .collect();
    behind.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal));
    let parts: Vec<String> =
        behind.iter().map(|(difference, name)| format!("{name} -{difference:.3}")).collect();
    parts.join(", ")
}

/// Columns side by side: names to the left, numbers to the right, the last column as it comes.
fn align(rows: &[Vec<String>], paint: Paint) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut page = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (text, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - text.chars().count());
            line.push_str(&match column {
                0 => format!(" {text}{pad}"),
                _ if column + 1 == columns => format!("  {text}"),
                _ => format!("  {pad}{text}"),
            });
        }
        let line = line.trim_end();
        let styled = match index {
            0 => paint.faint(line),
            _ if row[0].starts_with('*') => paint.good(line),
            _ => line.to_owned(),
        };
        let _ = writeln!(page, "{styled}");
    }
    page
}

#[cfg(test)]
mod tests {
    use inlane_core::explain::Dropped;

    use super::*;

    fn scored(endpoint: &str, queue: f64, prefix: Option<f64>) -> Scored {
        let total = queue + 2.0 * prefix.unwrap_or(0.0);
        let scores = [("queue".to_owned(), Some(queue)), ("prefix".to_owned(), prefix)];
        Scored { endpoint: endpoint.into(), scores: scores.into(), total }
    }

    #[test]
    fn losers_learn_what_they_lack() {
        let scorer = |name: &str, weight| WeightedName { name: name.into(), weight };
        let explained = Explanation {
            endpoint: Some("default/a".into()),
            destination: Some("10.0.0.1:8000".into()),
            primary_profile: Some("default".into()),
            profiles: vec![ProfileExplanation {
                name: "default".into(),
                scorers: vec![scorer("queue", 1.0), scorer("prefix", 2.0)],
                picker: "max-score-picker".into(),
                endpoints: vec![
                    scored("default/b", 1.0, Some(0.5)),
                    scored("default/a", 0.5, Some(1.0)),
                    scored("default/c", 0.5, None),
                    scored("default/d", 0.5, Some(1.0)),
                ],
                rejected: vec![Dropped {
                    endpoint: "default/e".into(),
                    filter: "decode-filter".into(),
                    reason: "not a decode pod".into(),
                }],
                picked: vec!["default/a".into()],
                ..ProfileExplanation::default()
            }],
            ..Explanation::default()
        };
        let expected = "\
sent to default/a (10.0.0.1:8000)

profile default (the destination's)
  decode-filter dropped 1
    default/e  not a decode pod
  endpoint   queue x1  prefix x2  total  why it lost
 *default/a     0.500      1.000  2.500
  default/d     0.500      1.000  2.500  equal total, lost the draw
  default/b     1.000      0.500  2.000  prefix -1.000
  default/c     0.500          -  0.500  prefix -2.000
  picked by max-score-picker
";
        assert_eq!(explanation(&explained, Paint::plain()), expected);
    }
}
