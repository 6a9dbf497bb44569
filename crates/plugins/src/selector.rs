//! Label selectors as text: `a=b,c!=d,e in (x,y),f notin (z),g,!h`, as Kubernetes writes them.

use inlane_core::endpoint::Endpoint;

use crate::labels::{check_key, check_value};

/// A parsed selector; an empty one matches everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Term>);

#[derive(Debug, PartialEq, Eq)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Absent,
    In(Vec<String>),
    /// Also true where the label is absent.
    NotIn(Vec<String>),
    Present,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split(text)? {
            terms.push(term(part)?);
        }
        Ok(Self(terms))
    }

    /// Whether the endpoint's labels match.
    pub(crate) fn matches(&self, endpoint: &Endpoint) -> bool {
        self.0.iter().all(|Term { key, test }| {
            let value = endpoint.label(key);
            let among = |values: &[String]| value.is_some_and(|v| values.iter().any(|w| w == v));
            match test {
                Test::Absent => value.is_none(),
                Test::In(values) => among(values),
                Test::NotIn(values) => !among(values),
                Test::Present => value.is_some(),
            }
        })
    }
}

/// The terms, cut at the commas outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut open) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if open => return Err(format!("{text:?}: '(' within parentheses")),
            '(' => open = true,
            ')' if !open => return Err(format!("{text:?}: ')' without '('")),
            ')' => open = false,
            ',' if !open => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(format!("{text:?}: '(' without ')'"));
    }
    if !text.trim().is_empty() {
        parts.push(&text[start..]);
    }
    Ok(parts)
}

fn term(text: &str) -> Result<Term, String> {
    let text = text.trim();
    let single = |value: &str| vec![value.trim().to_owned()];
    let (key, test) = if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some(body) = text.strip_suffix(')') {
        let (head, values) = body.split_once('(').unwrap_or((body, ""));
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => (key, Test::In(values)),
            Some((key, "notin")) => (key, Test::NotIn(values)),
            _ => return Err(format!("{text:?}: expected `key in (…)` or `key notin (…)`")),
        }
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Test::NotIn(single(value)))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Test::In(single(value)))
    } else {
        (text, Test::Present)
    };
    let key = key.trim().to_owned();
    check_key(&key)?;
    if let Test::In(values) | Test::NotIn(values) = &test {
        values.iter().try_for_each(|value| check_value(value))?;
    }
    Ok(Term { key, test })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn matching(text: &str) -> Vec<usize> {
        let world = World::labelled(&[
            &[("app", "x"), ("tier", "gold")],
            &[("app", "y")],
            &[("example.com/zone", "eu")],
        ]);
        let selector = Selector::parse(text).unwrap();
        let endpoints = world.endpoints.as_slice().iter().enumerate();
        endpoints.filter(|(_, endpoint)| selector.matches(endpoint)).map(|(ix, _)| ix).collect()
    }

    #[test]
    fn all_forms() {
        for (text, expected) in [
            ("", &[0, 1, 2][..]),
            ("app=x", &[0]),
            ("app == x , tier", &[0]),
            ("app!=x", &[1, 2]),
            ("app in (x, y)", &[0, 1]),
            ("app notin (x)", &[1, 2]),
            ("app,!tier", &[1]),
            ("example.com/zone in (eu),!app", &[2]),
            ("app=x,app=y", &[]),
        ] {
            assert_eq!(matching(text), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            ",",
            "a=b,",
            "=x",
            "a=b c",
            "a in x",
            "a in (x",
            "a in x)",
            "in (x)",
            "a near (x)",
            "a b",
            "!",
            "a in ((x))",
            "a=(x)",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}
