//! Comparing what a case got with what it expects.

use std::collections::BTreeMap;

use serde_json::Value;

/// Differences found so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Where in the case we are, put before every problem.
    context: String,
    problems: Vec<String>,
}

/// Tolerance for scores and totals.
const EXACT: f64 = 1e-9;
/// Tolerance for probabilities.
const LIKELY: f64 = 0.03;

/// The tolerance that `expect` sets for numbers.
pub(super) fn tolerance(expect: &Value) -> f64 {
    expect["tolerance"].as_f64().unwrap_or(EXACT)
}

/// The tolerance that `expect` sets for frequencies.
pub(super) fn likely(expect: &Value) -> f64 {
    expect["tolerance"].as_f64().unwrap_or(LIKELY)
}

impl Checks {
    /// Names the step that the following checks belong to.
    pub(super) fn enter(&mut self, context: String) {
        self.context = context;
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    pub(super) fn problem(&mut self, text: impl Into<String>) {
        let text = text.into();
        let context = &self.context;
        self.problems.push(if context.is_empty() { text } else { format!("{context}: {text}") });
    }

    /// Compares two values, printed as JSON prints them.
    pub(super) fn equal(&mut self, what: &str, expected: &Value, got: &Value) {
        // 64 and 64.0 are the same number.
        let numbers = expected.as_f64().zip(got.as_f64());
        if expected != got && numbers.is_none_or(|(a, b)| a != b) {
            self.problem(format!("{what}: expected {expected}, got {got}"));
        }
    }

    /// Compares two numbers.
    pub(super) fn close(&mut self, what: &str, expected: f64, got: f64, tolerance: f64) {
        // Written so that NaN is a difference.
        if (expected - got).abs() <= tolerance {
            return;
        }
        self.problem(format!("{what}: expected {expected}, got {got}"));
    }

    /// Compares the numbers that an object lists with those found; NaN and absence are the same.
    pub(super) fn numbers(
        &mut self,
        what: &str,
        expected: &Value,
        got: &BTreeMap<String, f64>,
        tolerance: f64,
    ) {
        let Some(listed) = expected.as_object() else { return };
        for (id, expected) in listed {
            let what = format!("{what}.{id}");
            match (expected.as_f64(), got.get(id)) {
                (Some(expected), Some(&got)) => self.close(&what, expected, got, tolerance),
                (Some(expected), None) => {
                    self.problem(format!("{what}: expected {expected}, got nothing"));
                }
                (None, got) if got.is_none_or(|g| g.is_nan()) => {}
                (None, got) => self.problem(format!("{what}: expected nothing, got {got:?}")),
            }
        }
    }

    /// Compares frequencies of `trials` with the probabilities that an object lists. With
    /// `complete`, an outcome that it does not list has probability 0.
    pub(super) fn frequencies(
        &mut self,
        what: &str,
        expect: &Value,
        got: &BTreeMap<String, u64>,
        trials: u64,
        complete: bool,
    ) {
        let Some(listed) = expect[what].as_object() else { return };
        let tolerance = likely(expect);
        let frequency = |id: &str| got.get(id).map_or(0.0, |&n| n as f64 / trials as f64);
        for (id, probability) in listed {
            let probability = probability.as_f64().unwrap_or(f64::NAN);
            self.close(&format!("{what}.{id}"), probability, frequency(id), tolerance);
        }
        for id in got.keys().filter(|id| complete && !listed.contains_key(*id)) {
            self.close(&format!("{what}.{id}"), 0.0, frequency(id), tolerance);
        }
    }

    /// Checks whether something that should (not) be valid is.
    pub(super) fn valid(&mut self, expect: &Value, error: Option<String>) {
        match (expect["valid"].as_bool().unwrap_or(true), error) {
            (true, Some(error)) => self.problem(format!("expected to be valid, got: {error}")),
            (false, None) => self.problem("expected to be refused, got accepted"),
            (true, None) | (false, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_found() {
        let mut checks = Checks::default();
        let got = BTreeMap::from([("a".to_owned(), 0.5), ("b".to_owned(), f64::NAN)]);
        checks.numbers("scores", &json!({"a": 0.5, "b": null, "c": null}), &got, 0.0);
        assert!(checks.problems.is_empty(), "{:?}", checks.problems);
        checks.numbers("scores", &json!({"a": 0.6, "b": 0, "c": 0}), &got, 0.01);
        checks.numbers("scores", &json!({"a": null}), &got, 0.01);
        assert_eq!(checks.problems.len(), 4, "{:?}", checks.problems);

        let mut checks = Checks::default();
        let got = BTreeMap::from([("a".to_owned(), 70), ("b".to_owned(), 30)]);
        checks.frequencies("first", &json!({"first": {"a": 0.71, "b": 0.29}}), &got, 100, true);
        assert!(checks.problems.is_empty());
        checks.frequencies("first", &json!({"first": {"a": 0.5}}), &got, 100, true);
        assert_eq!(checks.problems.len(), 2);

        let mut checks = Checks::default();
        checks.valid(&json!({"valid": false}), None);
        checks.valid(&json!({"valid": true}), Some("no".into()));
        checks.valid(&json!({"valid": false}), Some("no".into()));
        assert_eq!(checks.into_problems().len(), 2);
    }
}
