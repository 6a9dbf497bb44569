//! Kubernetes resource quantities and Go durations, as configuration files write them.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A quantity: `4Gi`, `20k`, `"500"`, `1e3`, `1500m`. Fractions round up, away from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity(
    /// The value.
    pub i64,
);

/// A duration, possibly negative: `300ms`, `1m30s`, `-1s`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration {
    /// Whether a minus sign precedes it.
    pub negative: bool,
    /// Its length.
    pub length: Duration,
}

/// Splits the decimal number off the front: (digits without the point, digits after it, rest).
fn decimal(text: &str) -> Option<(i128, u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than this cannot matter for an i64 and would overflow the arithmetic below.
    if fraction.contains('.') || whole.len() + fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some((digits, fraction.len() as u32, rest))
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

impl Quantity {
    /// Reads a quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = sign(text);
        let (digits, places, suffix) = decimal(rest)?;
        let (factor, divisor): (i128, i128) = match suffix {
            "" => (1, 1),
            "n" => (1, 1_000_000_000),
            "u" => (1, 1_000_000),
            "m" => (1, 1_000),
            "k" => (1_000, 1),
            "M" => (1_000_000, 1),
            "G" => (1_000_000_000, 1),
            "T" => (1_000_000_000_000, 1),
            "P" => (1_000_000_000_000_000, 1),
            "E" => (1_000_000_000_000_000_000, 1),
            "Ki" => (1 << 10, 1),
            "Mi" => (1 << 20, 1),
            "Gi" => (1 << 30, 1),
            "Ti" => (1 << 40, 1),
            "Pi" => (1 << 50, 1),
            "Ei" => (1 << 60, 1),
            _ => {
                let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                if exponent.unsigned_abs() > 18 {
                    return None;
                }
                let power = 10_i128.pow(exponent.unsigned_abs());
                if exponent < 0 { (1, power) } else { (power, 1) }
            }
        };
        let divisor = divisor.checked_mul(10_i128.checked_pow(places)?)?;
        let value = digits.checked_mul(factor)?;
        let rounded = value / divisor + i128::from(value % divisor != 0);
        i64::try_from(if negative { -rounded } else { rounded }).ok().map(Self)
    }
}

impl GoDuration {
    /// Reads a duration.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = sign(text);
        if rest == "0" {
            return Some(Self { negative: false, length: Duration::ZERO });
        }
        let mut nanos: i128 = 0;
        loop {
            let (digits, places, after) = decimal(rest)?;
            let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            let unit: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return None,
            };
            nanos = nanos.checked_add(digits * unit / 10_i128.pow(places))?;
            rest = next;
            if rest.is_empty() {
                break;
            }
        }
        // Go keeps durations in an i64 of nanoseconds.
        let nanos = u64::try_from(i64::try_from(nanos).ok()?).ok()?;
        Some(Self { negative: negative && nanos > 0, length: Duration::from_nanos(nanos) })
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Quantity;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a quantity such as 500, 20k or 4Gi")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Quantity, E> {
                i64::try_from(value)
                    .map(Quantity)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(value), &self))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Quantity, E> {
                Quantity::parse(&value.to_string())
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Float(value), &self))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = GoDuration;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration with a unit such as \"300ms\" or \"1m30s\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
                GoDuration::parse(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, value) in [
            ("0", 0),
            ("500", 500),
            ("20k", 20_000),
            ("4Gi", 4 << 30),
            ("1.5Ki", 1536),
            ("1500m", 2),
            ("-1", -1),
            ("-1500m", -2),
            ("1e3", 1_000),
            ("12E2", 1_200),
            ("25e-1", 3),
            ("+7", 7),
            (".5", 1),
        ] {
            assert_eq!(Quantity::parse(text), Some(Quantity(value)), "{text}");
        }
        for text in
            ["", ".", "k", "1.2.3", "1 k", "1KB", "--1", "1e99", "20E", "9999999999999999999"]
        {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("2us", 2_000),
            ("3µs", 3_000),
        ] {
            let length = Duration::from_nanos(nanos);
            assert_eq!(GoDuration::parse(text), Some(GoDuration { negative: false, length }));
        }
        assert!(GoDuration::parse("-1s").unwrap().negative);
        assert!(!GoDuration::parse("-0s").unwrap().negative);
        for text in ["", "30", "s", "1x", "1m30", "1s ", "9999999999h"] {
            assert_eq!(GoDuration::parse(text), None, "{text}");
        }
    }
}
