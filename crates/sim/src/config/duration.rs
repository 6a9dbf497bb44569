//! Durations as Go programs write them: `1.5s`, `250ms`, `1m30s`, `200us`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A non-negative duration in Go's notation. A bare number means milliseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// No time at all.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration in seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// Why a text is not a [`GoDuration`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a duration; write for example 250ms, 1.5s, 200us or 1m30s")]
pub struct InvalidDuration(String);

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration(text.to_owned());
        if let Ok(millis) = text.parse::<u64>() {
            return Ok(Self(Duration::from_millis(millis)));
        }
        if text.is_empty() {
            return Err(invalid());
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let (number, tail) = rest.split_at(digits);
            let (unit, tail) = UNITS
                .iter()
                .find_map(|(name, unit)| Some((unit, tail.strip_prefix(name)?)))
                .ok_or_else(invalid)?;
            seconds += number.parse::<f64>().map_err(|_| invalid())? * unit;
            rest = tail;
        }
        // To whole nanoseconds, so that 0.1ms is 100 µs and not a rounding error less.
        Duration::try_from_secs_f64((seconds * 1e9).round() / 1e9).map(Self).map_err(|_| invalid())
    }
}

/// Longer names before their prefixes.
const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

impl fmt::Display for GoDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        match nanos {
            0 => return out.write_str("0s"),
            1..1_000 => return write!(out, "{nanos}ns"),
            1_000..1_000_000 => return write!(out, "{}µs", nanos as f64 / 1e3),
            1_000_000..1_000_000_000 => return write!(out, "{}ms", nanos as f64 / 1e6),
            _ => {}
        }
        let whole = self.0.as_secs();
        let (hours, minutes) = (whole / 3600, whole / 60 % 60);
        if hours > 0 {
            write!(out, "{hours}h")?;
        }
        if whole >= 60 {
            write!(out, "{minutes}m")?;
        }
        let seconds = Duration::new(whole % 60, self.0.subsec_nanos());
        write!(out, "{}s", seconds.as_secs_f64())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_go_notation() {
        let nanos = |text: &str| text.parse::<GoDuration>().map(|d| d.0.as_nanos());
        assert_eq!(nanos("0"), Ok(0));
        assert_eq!(nanos("250"), Ok(250_000_000));
        assert_eq!(nanos("1m30s"), Ok(90_000_000_000));
        assert_eq!(nanos("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(nanos("0.1ms"), Ok(100_000));
        assert_eq!(nanos("200us"), nanos("200µs"));
        for bad in ["", "s", "-1s", "1x", "1.2.3s", "s1", "1s2", "9e99h", "1e3"] {
            assert!(nanos(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_go_notation() {
        let text = |nanos| GoDuration(Duration::from_nanos(nanos)).to_string();
        assert_eq!(text(0), "0s");
        assert_eq!(text(1_500), "1.5µs");
        assert_eq!(text(250_000_000), "250ms");
        assert_eq!(text(90_500_000_000), "1m30.5s");
        assert_eq!(text(3_600_000_000_000), "1h0m0s");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in 0_u64..1_000_000_000_000_000) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
        }
    }
}
