//! The metric spec grammar: `name` or `name{label=value,label2="value"}`.

use std::fmt;
use std::str::FromStr;

/// Names one metric family, and the labels that a series of it must carry to be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetricSpec {
    name: String,
    labels: Vec<(String, String)>,
}

impl MetricSpec {
    /// Parses a spec. The empty string means "not read" and gives `None`.
    pub fn parse_optional(text: &str) -> Result<Option<Self>, SpecError> {
        let text = text.trim();
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }

    /// The family's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Labels that a series must carry, with their values; others are allowed beside them.
    pub fn labels(&self) -> &[(String, String)] {
        &self.labels
    }
}

impl FromStr for MetricSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        let (name, labels) = match text.split_once('{') {
            None => (text, Vec::new()),
            Some((name, rest)) => {
                let inner =
                    rest.strip_suffix('}').ok_or_else(|| SpecError::Unclosed(text.into()))?;
                (name.trim(), parse_labels(inner)?)
            }
        };
        if !is_metric_name(name) {
            return Err(SpecError::Name(name.into()));
        }
        Ok(Self { name: name.into(), labels })
    }
}

impl fmt::Display for MetricSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, (name, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { '{' } else { ',' })?;
        }
        if self.labels.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

/// Why a text is not a metric spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A label is not of the form `name=value`.
    #[error("invalid label {0:?} in metric spec: expected name=value")]
    Label(String),
    /// A label's name breaks the name rule `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[error("invalid label name {0:?} in metric spec")]
    LabelName(String),
    /// A metric's name breaks the name rule `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    #[error("invalid metric name {0:?} in metric spec")]
    Name(String),
    /// The label list is not closed by a final `}`, or a quoted value by its quote.
    #[error("unclosed label list or quote in metric spec {0:?}")]
    Unclosed(String),
}

/// Splits `a=b,c="d"`; commas and braces inside quotes belong to the value.
fn parse_labels(inner: &str) -> Result<Vec<(String, String)>, SpecError> {
    let mut labels = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| SpecError::Label(rest.into()))?;
        let name = name.trim();
        if !is_label_name(name) {
            return Err(SpecError::LabelName(name.into()));
        }
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, tail) =
                    unquote(quoted).ok_or_else(|| SpecError::Unclosed(inner.into()))?;
                (value, tail.trim_start())
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                let value = after[..end].trim();
                if value.contains(['"', '{', '}']) {
                    return Err(SpecError::Label(rest.into()));
                }
                (value.into(), &after[end..])
            }
        };
        rest = match tail.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if tail.is_empty() => tail,
            None => return Err(SpecError::Label(rest.into())),
        };
        labels.push((name.into(), value));
    }
    Ok(labels)
}

/// Reads up to the closing quote, resolving `\"`, `\\` and `\n`; returns the value and the rest.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            _ => value.push(c),
        }
    }
    None
}

fn is_metric_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn is_label_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<(String, String)> {
        text.parse::<MetricSpec>().unwrap().labels
    }

    #[test]
    fn quotes_are_optional_and_protect_separators() {
        assert_eq!(labels("a:b"), []);
        assert_eq!(labels("a{}"), []);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(labels("a{x=1, y=\"two\"}"), [pair("x", "1"), pair("y", "two")]);
        assert_eq!(labels(r#"a{x="p,q}\"",}"#), [pair("x", "p,q}\"")]);
    }

    #[test]
    fn empty_disables_and_nonsense_is_refused() {
        assert_eq!(MetricSpec::parse_optional("  "), Ok(None));
        for (text, error) in [
            ("1a", SpecError::Name("1a".into())),
            ("a b", SpecError::Name("a b".into())),
            ("{x=1}", SpecError::Name(String::new())),
            ("a{x=1", SpecError::Unclosed("a{x=1".into())),
            ("a{x=\"1}", SpecError::Unclosed("x=\"1".into())),
            ("a{x}", SpecError::Label("x".into())),
            ("a{x=\"1\"y=2}", SpecError::Label("x=\"1\"y=2".into())),
            ("a{x-y=1}", SpecError::LabelName("x-y".into())),
        ] {
            assert_eq!(text.parse::<MetricSpec>(), Err(error), "{text}");
        }
    }

    #[test]
    fn display_parses_back() {
        let spec: MetricSpec = r#"m{a="x\"y",b=2}"#.parse().unwrap();
        assert_eq!(spec.to_string().parse(), Ok(spec));
    }
}
