//! "Did you mean": the nearest of some names.

/// The candidate nearest to `name`, when it is near enough to be what was meant: at most a third
/// of its letters off, and one edit for short names. Equal distance: the first.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// The name that an "unknown field" message of serde suggests: it reads
/// ``unknown field `x`, expected one of `a`, `b` ``.
pub(crate) fn for_unknown_field(message: &str) -> Option<String> {
    let (name, expected) = unknown_field(message)?;
    nearest(name, expected)
}

/// The name that such a message refuses, and those that it expects.
pub(crate) fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

/// Edit distance (Levenshtein, adjacent swaps count one), case ignored.
fn distance(a: &str, b: &str) -> usize {
    let fold = |s: &str| s.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
    let (a, b) = (fold(a), fold(b));
    let mut two_back: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for j in 0..b.len() {
            let mut best = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1);
            best = best.min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(two_back[j - 1] + 1);
            }
            row.push(best);
        }
        two_back = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("A", "a", 0)]
        {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let types = ["queue-scorer", "decode-filter", "random-picker"];
        assert_eq!(nearest("que-scorer", types).as_deref(), Some("queue-scorer"));
        assert_eq!(nearest("decode-fitler", types).as_deref(), Some("decode-filter"));
        assert_eq!(nearest("no-such-plugin", types), None);
        let text = "unknown field `plugin`, expected one of `apiVersion`, `plugins`";
        assert_eq!(for_unknown_field(text).as_deref(), Some("plugins"));
        assert_eq!(for_unknown_field("invalid type"), None);
    }
}
