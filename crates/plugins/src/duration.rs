//! Durations as Go writes them: `300ms`, `1.5s`, `1h2m`.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A duration in a configuration. Not negative; nanosecond steps; at most about 292 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(Duration);

impl GoDuration {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration.
    pub fn get(self) -> Duration {
        self.0
    }

    /// Reads what Go's `time.ParseDuration` reads, except negative durations.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = || format!("expected a duration such as 300ms or 1m30s, found {text:?}");
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(fail());
        }
        let mut nanos = 0i64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len =
                tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let unit = unit_nanos(unit).ok_or_else(fail)?;
            let part = scale(number, unit).ok_or_else(fail)?;
            nanos = nanos.checked_add(part).ok_or_else(fail)?;
            rest = tail;
        }
        Ok(Self(Duration::from_nanos(nanos.unsigned_abs())))
    }
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number * unit`, exact in nanoseconds; the remainder below one is cut off.
fn scale(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    // Digits beyond the 18th are worth less than a nanosecond in any unit.
    let (mut scaled, mut power) = (0i128, 1i128);
    for digit in fraction.bytes().take(18) {
        scaled = scaled * 10 + i128::from(digit - b'0');
        power *= 10;
    }
    let fraction = i64::try_from(scaled * i128::from(unit) / power).ok()?;
    nanos = nanos.checked_add(fraction)?;
    Some(nanos)
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("+1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("1µs", 1_000),
            ("1.m", 60_000_000_000),
            ("0.0000000001s", 0),
        ] {
            assert_eq!(GoDuration::parse(text).unwrap().get().as_nanos(), nanos, "{text}");
        }
        for text in ["", "5", "s", "-1s", "1 s", ".s", "1.2.3s", "1d", "9999999999h", "+", "1s2"] {
            assert!(GoDuration::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "[0-9.+smhnuµ]{0,24}") {
            let _ = GoDuration::parse(&text);
        }

        #[test]
        fn milliseconds(n in 0..u32::MAX) {
            let parsed = GoDuration::parse(&format!("{n}ms")).unwrap().get();
            prop_assert_eq!(parsed, Duration::from_millis(n.into()));
        }
    }
}
