//! A strict reader of Prometheus text (format 0.0.4).
//!
//! Stricter than Prometheus itself: every family has HELP and TYPE, once and before its samples, the
//! samples of a family stand together, and no series is there twice.

use std::collections::{BTreeMap, BTreeSet};

/// Labels in the order of their names.
pub type Labels = BTreeMap<String, String>;

/// One family.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// What HELP says.
    pub help: String,
    /// Values by sample name and labels.
    pub samples: BTreeMap<(String, Labels), f64>,
}

/// Reads a page.
///
/// # Errors
/// The first line that is not as it should be, and why.
pub fn parse(page: &str) -> Result<BTreeMap<String, Family>, String> {
    if !page.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in page.lines() {
        let at = |why: &str| format!("{why}: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').ok_or_else(|| at("no keyword"))?;
            let (name, text) = rest.split_once(' ').ok_or_else(|| at("no text"))?;
            match keyword {
                "HELP" if families.contains_key(name) => return Err(at("a family twice")),
                "HELP" => {
                    current = name.to_owned();
                    families.entry(current.clone()).or_default().help = text.to_owned();
                }
                "TYPE" if name == current => {
                    let family = families.entry(current.clone()).or_default();
                    if !family.kind.is_empty() || !family.samples.is_empty() {
                        return Err(at("a second TYPE, or one after samples"));
                    }
                    if !["counter", "gauge", "histogram"].contains(&text) {
                        return Err(at("an unknown type"));
                    }
                    family.kind = text.to_owned();
                }
                _ => return Err(at("neither HELP nor the TYPE that belongs to it")),
            }
            continue;
        }
        let (name, labels, value) = sample(line).map_err(at)?;
        let family = families.get_mut(&current).filter(|family| !family.kind.is_empty());
        let family = family.ok_or_else(|| at("a sample before HELP and TYPE"))?;
        let suffixes: &[&str] =
            if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        if !suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(current.as_str())) {
            return Err(at("a sample of another family"));
        }
        if family.samples.insert((name, labels), value).is_some() {
            return Err(at("a series twice"));
        }
    }
    for (name, family) in &families {
        if family.samples.is_empty() || family.help.is_empty() {
            return Err(format!("{name} has no samples or no help"));
        }
        if family.kind == "histogram" {
            histogram(name, family)?;
        }
    }
    Ok(families)
}

/// Name, labels and value of a sample.
fn sample(line: &str) -> Result<(String, Labels, f64), &'static str> {
    let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
    let value: f64 = value.parse().map_err(|_| "not a number")?;
    let (name, labels) = match series.split_once('{') {
        None => (series, Labels::new()),
        Some((name, rest)) => (name, labels(rest.strip_suffix('}').ok_or("no closing brace")?)?),
    };
    if is_name(name, true) { Ok((name.to_owned(), labels, value)) } else { Err("not a name") }
}

fn labels(mut rest: &str) -> Result<Labels, &'static str> {
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"").ok_or("a label without value")?;
        if !is_name(name, false) {
            return Err("not a label's name");
        }
        let mut value = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next().ok_or("a value without end")? {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => value.push('\n'),
                    Some(escaped @ ('"' | '\\')) => value.push(escaped),
                    _ => return Err("an unknown escape"),
                },
                other => value.push(other),
            }
        }
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label twice");
        }
        rest = chars.as_str();
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
        } else if !rest.is_empty() {
            return Err("no comma between labels");
        }
    }
    Ok(labels)
}

fn is_name(name: &str, colons: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    name.chars().all(allowed) && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// Buckets never fall, the last one is `+Inf` and is the count, and there is a sum.
fn histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut series = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
    let of = |suffix: &str| {
        let full = format!("{name}{suffix}");
        family.samples.iter().filter(move |((sample, _), _)| *sample == full)
    };
    for ((_, labels), count) in of("_bucket") {
        let mut labels = labels.clone();
        let bound = labels.remove("le").ok_or_else(|| format!("{name}: a bucket without le"))?;
        let bound = bound.parse().map_err(|_| format!("{name}: le={bound}"))?;
        series.entry(labels).or_default().push((bound, *count));
    }
    let labelled = |suffix: &str| of(suffix).map(|((_, l), _)| l.clone()).collect::<BTreeSet<_>>();
    let with_buckets: BTreeSet<Labels> = series.keys().cloned().collect();
    if labelled("_sum") != with_buckets || labelled("_count") != with_buckets {
        return Err(format!("{name}: series without buckets, sum or count"));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = family.samples.get(&(format!("{name}_count"), labels.clone()));
        let whole = buckets
            .last()
            .is_some_and(|(bound, last)| *bound == f64::INFINITY && Some(last) == count);
        if !whole || buckets.windows(2).any(|pair| pair[0].1 > pair[1].1) {
            return Err(format!("{name} {labels:?}: {buckets:?} are no buckets of {count:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a Some help.\n# TYPE a counter\na{x=\"1\",y=\"\\\"q\\\"\"} 2\n\
        # HELP h More.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\n\
        h_sum 4.5\nh_count 3\n";

    #[test]
    fn what_is_right_is_read() {
        let families = parse(GOOD).unwrap();
        let labels = Labels::from([("x".into(), "1".into()), ("y".into(), "\"q\"".into())]);
        assert_eq!(families["a"].samples[&("a".into(), labels)], 2.0);
        assert_eq!(families["h"].samples.len(), 4);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, why) in [
            ("# TYPE a counter\n", "", "before HELP and TYPE"),
            ("# HELP a Some help.\n", "", "belongs to it"),
            (" counter", " number", "unknown type"),
            ("a{x", "b{x", "another family"),
            ("y=", "x=", "a label twice"),
            ("\\\"q", "\\q", "escape"),
            ("} 2\n", "} two\n", "not a number"),
            ("# HELP h More.", "# HELP a More.", "a family twice"),
            ("h_count 3", "h_count 4", "no buckets"),
            ("le=\"1\"} 2", "le=\"1\"} 9", "no buckets"),
            ("h_sum 4.5\n", "", "sum or count"),
            ("h_sum 4.5\n", "h_sum 4.5\nh_sum 4.5\n", "a series twice"),
        ] {
            let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(why), "{from} → {to}: {error}");
        }
    }
}
