//! One line of Prometheus text exposition after the metric's name: labels, value, timestamp.
//!
//! Nothing is copied: labels stay in the line, and a value is unescaped only when it is compared
//! or read and has an escape at all.

use std::borrow::Cow;

/// A series: everything of a sample line but the name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Series<'l> {
    labels: &'l [u8],
    /// The sample's value; may be NaN or infinite.
    pub(crate) value: f64,
    /// Explicit timestamp in ms; 0 where the line has none.
    pub(crate) timestamp: i64,
}

impl<'l> Series<'l> {
    /// Parses what follows the name. `None`: not valid exposition format.
    pub(crate) fn parse(rest: &'l [u8]) -> Option<Self> {
        let rest = skip_blanks(rest);
        let (labels, rest) = match rest.strip_prefix(b"{") {
            Some(inner) => {
                let mut cursor = inner;
                while next_label(&mut cursor)?.is_some() {}
                // `cursor` is the rest of `inner` after the closing brace.
                (&inner[..inner.len() - cursor.len() - 1], cursor)
            }
            None => (&rest[..0], rest),
        };
        let mut tokens =
            rest.split(|b| matches!(b, b' ' | b'\t')).filter(|token| !token.is_empty());
        let value = std::str::from_utf8(tokens.next()?).ok()?.parse().ok()?;
        let timestamp = match tokens.next() {
            Some(token) => std::str::from_utf8(token).ok()?.parse().ok()?,
            None => 0,
        };
        tokens.next().is_none().then_some(Self { labels, value, timestamp })
    }

    /// The labels in the order of the line.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&'l [u8], Raw<'l>)> {
        let mut cursor = self.labels;
        // `parse` has walked these bytes up to the brace: here they end instead.
        std::iter::from_fn(move || next_label(&mut cursor).flatten())
    }

    /// The value of one label.
    pub(crate) fn label(&self, name: &str) -> Option<Raw<'l>> {
        self.labels().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// Whether the series carries all of `wanted`.
    pub(crate) fn carries(&self, wanted: &[(String, String)]) -> bool {
        wanted.iter().all(|(name, value)| {
            self.label(name).and_then(Raw::decode).is_some_and(|found| found == value.as_str())
        })
    }
}

/// A label's value as it stands between the quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Raw<'l>(&'l [u8]);

impl<'l> Raw<'l> {
    /// Resolves `\\`, `\"` and `\n`. `None`: another escape, or not UTF-8.
    pub(crate) fn decode(self) -> Option<Cow<'l, str>> {
        let text = std::str::from_utf8(self.0).ok()?;
        if !text.contains('\\') {
            return Some(Cow::Borrowed(text));
        }
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            out.push(match c {
                '\\' => match chars.next()? {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    _ => return None,
                },
                _ => c,
            });
        }
        Some(Cow::Owned(out))
    }
}

/// Takes `name="value"` and a following comma off the front of `cursor`.
///
/// `Some(None)` at the closing brace, which is taken off too; `None` when it is neither, which
/// includes the end of the input.
fn next_label<'l>(cursor: &mut &'l [u8]) -> Option<Option<(&'l [u8], Raw<'l>)>> {
    let rest = skip_blanks(cursor);
    if let Some(after) = rest.strip_prefix(b"}") {
        *cursor = after;
        return Some(None);
    }
    let equals = memchr::memchr(b'=', rest)?;
    let name = trim_end_blanks(&rest[..equals]);
    if !is_label_name(name) {
        return None;
    }
    let quoted = skip_blanks(&rest[equals + 1..]).strip_prefix(b"\"")?;
    let end = closing_quote(quoted)?;
    let after = skip_blanks(&quoted[end + 1..]);
    *cursor = match after.first() {
        Some(b',') => &after[1..],
        Some(b'}') | None => after,
        Some(_) => return None,
    };
    Some(Some((name, Raw(&quoted[..end]))))
}

/// Position of the first quote that no backslash escapes.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn is_label_name(name: &[u8]) -> bool {
    name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// `text` without leading blanks and tabs.
pub(crate) fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &text[blanks..]
}

fn trim_end_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &text[..text.len() - blanks]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Series<'_>> {
        Series::parse(text.as_bytes())
    }

    #[test]
    fn labels_value_and_timestamp() {
        let series = parse(r#"{ a = "1" , b="x\"y\\\n",} 2.5e3 17"#).unwrap();
        assert_eq!((series.value, series.timestamp), (2500.0, 17));
        assert_eq!(series.label("a").unwrap().decode().unwrap(), "1");
        assert_eq!(series.label("b").unwrap().decode().unwrap(), "x\"y\\\n");
        assert_eq!(series.label("c"), None);
        assert_eq!(series.labels().count(), 2);
        assert!(parse(" +Inf").unwrap().value.is_infinite());
        assert!(parse("{}\tNaN").unwrap().value.is_nan());
    }

    #[test]
    fn braces_and_commas_inside_quotes_are_values() {
        let series = parse(r#"{a="}",b="{,=\"",c="d"} 1"#).unwrap();
        assert_eq!(series.label("a").unwrap().decode().unwrap(), "}");
        assert_eq!(series.label("b").unwrap().decode().unwrap(), "{,=\"");
        assert_eq!(series.label("c").unwrap().decode().unwrap(), "d");
    }

    #[test]
    fn nonsense_is_no_series() {
        for text in [
            "",
            " ",
            "{",
            "{a",
            "{a=",
            "{a=\"",
            "{a=\"x",
            "{a=\"x\\",
            "{a=\"x\"",
            "{a=\"x\" b=\"\"} 1",
            "{a=x} 1",
            "{=\"x\"} 1",
            "{1=\"x\"} 1",
            "{,} 1",
            "{}",
            "{} x",
            " 1 x",
            " 1 2 3",
            " 1_0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(r#"{a="\q"} 1"#).unwrap().label("a").unwrap().decode(), None);
        assert_eq!(Series::parse(b"{a=\"\xff\"} 1").unwrap().label("a").unwrap().decode(), None);
    }
}
