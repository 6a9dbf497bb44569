//! Numbers, digit by digit.
//!
//! The value is built as `serde_json` builds it by default (64-bit significand, decimal exponent,
//! one table of powers of ten), in constant memory however many digits come: it is the nearest
//! double or a few units in the last place from it, exact for what counts here (integers up to
//! 2⁵³), and both agree on which numbers are out of range.

use super::powers::POWERS;

/// The value of a JSON number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Written with a fraction or an exponent, or too large for 64 bits, or `-0`.
    Float(f64),
    /// A negative integer.
    Negative,
    /// A non-negative integer.
    Unsigned(u64),
}

impl Number {
    /// The value if it is a whole number ≥ 0, however it is written (`2`, `2.0`, `2e0`); values
    /// past `u64` saturate.
    pub(crate) fn whole(self) -> Option<u64> {
        match self {
            Number::Unsigned(value) => Some(value),
            Number::Float(value) if value >= 0.0 && value.fract() == 0.0 => Some(value as u64),
            Number::Float(_) | Number::Negative => None,
        }
    }

    /// The value if it is written as an integer and fits a token id.
    pub(crate) fn token(self) -> Option<u32> {
        match self {
            Number::Unsigned(value) => u32::try_from(value).ok(),
            Number::Float(_) | Number::Negative => None,
        }
    }
}

/// Why a number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberFault {
    /// A digit must stand here.
    Digit,
    /// The value exceeds a double.
    Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// After `-`.
    Sign,
    /// After a leading `0`.
    Zero,
    Integer,
    /// Integer digits that no longer fit the significand.
    LongInteger,
    /// After the point, before its first digit.
    Point,
    Fraction,
    /// Fraction digits past the significand's precision.
    LongFraction,
    /// After `e`.
    Exponent,
    /// After the exponent's sign.
    ExponentSign,
    ExponentDigits,
    /// The exponent itself overflowed.
    ExponentOverflow,
}

/// A number in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    phase: Phase,
    negative: bool,
    exponent_negative: bool,
    significand: u64,
    /// Decimal exponent that the digits so far imply.
    scale: i32,
    exponent: i32,
}

impl Digits {
    /// Starts with the first byte of a number: `-` or a digit.
    pub(crate) fn start(first: u8) -> Self {
        let phase = match first {
            b'-' => Phase::Sign,
            b'0' => Phase::Zero,
            _ => Phase::Integer,
        };
        Self {
            phase,
            negative: first == b'-',
            exponent_negative: false,
            significand: u64::from(digit(first).unwrap_or(0)),
            scale: 0,
            exponent: 0,
        }
    }

    /// Takes bytes of the number from the start of `bytes`: how many belong to it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<usize, (usize, NumberFault)> {
        for (at, &byte) in bytes.iter().enumerate() {
            if !self.step(byte).map_err(|fault| (at, fault))? {
                return Ok(at);
            }
        }
        Ok(bytes.len())
    }

    /// The value, once the next byte is known not to belong to the number.
    pub(crate) fn finish(&self) -> Result<Number, NumberFault> {
        match self.phase {
            Phase::Sign | Phase::Point | Phase::Exponent | Phase::ExponentSign => {
                Err(NumberFault::Digit)
            }
            Phase::Zero | Phase::Integer => Ok(self.integer()),
            Phase::LongInteger | Phase::Fraction | Phase::LongFraction => self.scaled(self.scale),
            Phase::ExponentDigits => self.scaled(if self.exponent_negative {
                self.scale.saturating_sub(self.exponent)
            } else {
                self.scale.saturating_add(self.exponent)
            }),
            Phase::ExponentOverflow if self.significand != 0 && !self.exponent_negative => {
                Err(NumberFault::Range)
            }
            Phase::ExponentOverflow => Ok(Number::Float(self.signed(0.0))),
        }
    }

    /// Takes one byte; false if it is not part of the number.
    #[inline]
    fn step(&mut self, byte: u8) -> Result<bool, NumberFault> {
        let value = digit(byte);
        self.phase = match (self.phase, value) {
            (Phase::Integer, Some(value)) => match self.appended(value) {
                Some(significand) => {
                    self.significand = significand;
                    Phase::Integer
                }
                None => {
                    self.scale = 1;
                    Phase::LongInteger
                }
            },
            (Phase::Sign, Some(value)) => {
                self.significand = u64::from(value);
                if value == 0 { Phase::Zero } else { Phase::Integer }
            }
            (Phase::Zero, Some(_)) => return Err(NumberFault::Digit),
            (Phase::LongInteger, Some(_)) => {
                self.scale = self.scale.saturating_add(1);
                Phase::LongInteger
            }
            (Phase::Point | Phase::Fraction, Some(value)) => match self.appended(value) {
                Some(significand) => {
                    self.significand = significand;
                    self.scale = self.scale.saturating_sub(1);
                    Phase::Fraction
                }
                None => Phase::LongFraction,
            },
            (Phase::LongFraction, Some(_)) => Phase::LongFraction,
            (Phase::Exponent | Phase::ExponentSign, Some(value)) => {
                self.exponent = i32::from(value);
                Phase::ExponentDigits
            }
            (Phase::ExponentDigits, Some(value)) => {
                match self.exponent.checked_mul(10).and_then(|e| e.checked_add(i32::from(value))) {
                    Some(exponent) => {
                        self.exponent = exponent;
                        Phase::ExponentDigits
                    }
                    None => Phase::ExponentOverflow,
                }
            }
            (Phase::ExponentOverflow, Some(_)) => Phase::ExponentOverflow,
            (phase, None) => match (phase, byte) {
                (Phase::Zero | Phase::Integer | Phase::LongInteger, b'.') => Phase::Point,
                (
                    Phase::Zero
                    | Phase::Integer
                    | Phase::LongInteger
                    | Phase::Fraction
                    | Phase::LongFraction,
                    b'e' | b'E',
                ) => Phase::Exponent,
                (Phase::Exponent, b'+' | b'-') => {
                    self.exponent_negative = byte == b'-';
                    Phase::ExponentSign
                }
                (Phase::Sign | Phase::Point | Phase::Exponent | Phase::ExponentSign, _) => {
                    return Err(NumberFault::Digit);
                }
                _ => return Ok(false),
            },
        };
        Ok(true)
    }

    fn appended(&self, value: u8) -> Option<u64> {
        self.significand.checked_mul(10)?.checked_add(u64::from(value))
    }

    fn integer(&self) -> Number {
        if !self.negative {
            return Number::Unsigned(self.significand);
        }
        if self.significand == 0 || self.significand > i64::MIN.unsigned_abs() {
            return Number::Float(-(self.significand as f64));
        }
        Number::Negative
    }

    /// `significand · 10^exponent` in the steps that `serde_json` takes.
    fn scaled(&self, mut exponent: i32) -> Result<Number, NumberFault> {
        let mut value = self.significand as f64;
        loop {
            let size = exponent.unsigned_abs() as usize;
            match (POWERS.get(size), exponent >= 0) {
                (Some(power), true) => {
                    value *= power;
                    if value.is_infinite() {
                        return Err(NumberFault::Range);
                    }
                    break;
                }
                (Some(power), false) => {
                    value /= power;
                    break;
                }
                (None, _) if value == 0.0 => break,
                (None, true) => return Err(NumberFault::Range),
                (None, false) => {
                    value /= 1e308;
                    exponent += 308;
                }
            }
        }
        Ok(Number::Float(self.signed(value)))
    }

    fn signed(&self, value: f64) -> f64 {
        if self.negative { -value } else { value }
    }
}

/// The integer at the start of `bytes` and its length, if it has at most 18 digits, no sign, and
/// the byte after it is there to show that it ends: the usual token id.
#[inline]
pub(crate) fn short_integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(19).enumerate() {
        match digit(byte) {
            Some(digit) => value = value * 10 + u64::from(digit),
            None => {
                let is_whole = !matches!(byte, b'.' | b'e' | b'E');
                let is_canonical = at == 1 || (at > 1 && bytes[0] != b'0');
                return (is_whole && is_canonical).then_some((value, at));
            }
        }
    }
    None
}

#[inline]
fn digit(byte: u8) -> Option<u8> {
    let value = byte.wrapping_sub(b'0');
    (value < 10).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Number, NumberFault> {
        let bytes = text.as_bytes();
        let mut digits = Digits::start(bytes[0]);
        let taken = digits.feed(&bytes[1..]).map_err(|(_, fault)| fault)?;
        assert_eq!(taken + 1, bytes.len(), "{text}");
        digits.finish()
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let nines = "9".repeat(400);
        let zeros = format!("0.{}1e350", "0".repeat(340));
        for text in [
            "0",
            "-0",
            "7",
            "-7",
            "18446744073709551615",
            "18446744073709551616",
            "184467440737095516159.5",
            "-9223372036854775808",
            "-9223372036854775809",
            "1.5",
            "0.1e1",
            "1e2",
            "1E+2",
            "123e-5",
            "1e308",
            "1e309",
            "1.7976931348623157e308",
            "1.7976931348623159e308",
            "-1e309",
            "0e999999999999",
            "1e-999999999999",
            "1e99999999999",
            "4.9e-324",
            "1e-400",
            "12345678901234567890123456789e-310",
            "0.30000000000000004",
            "3.14159265358979323846264338327950288",
            nines.as_str(),
            zeros.as_str(),
        ] {
            let want: Option<serde_json::Number> = serde_json::from_str(text).ok();
            match (parse(text), want) {
                (Ok(Number::Unsigned(value)), Some(want)) => {
                    assert_eq!(want.as_u64(), Some(value), "{text}");
                }
                (Ok(Number::Negative), Some(want)) => {
                    assert!(want.as_i64().is_some_and(|want| want < 0), "{text}");
                }
                (Ok(Number::Float(value)), Some(want)) => {
                    assert!(want.is_f64(), "{text}");
                    let want = want.as_f64().expect("a double");
                    let apart = want.to_bits().abs_diff(value.to_bits());
                    assert!(apart <= 4, "{text}: {want} and {value} are {apart} units apart");
                    if want.fract() == 0.0 && want.abs() < 9e15 {
                        assert_eq!(want, value, "{text}");
                    }
                }
                (Err(NumberFault::Range), None) => {}
                (ours, theirs) => panic!("{text}: {ours:?} against {theirs:?}"),
            }
        }
    }

    #[test]
    fn a_digit_must_stand_where_the_grammar_wants_one() {
        for text in ["-", "-a", "01", "-01", "1.", "1.e5", "1e", "1e+", "1e+-2", "1.5e"] {
            assert_eq!(parse(text), Err(NumberFault::Digit), "{text}");
        }
    }

    #[test]
    fn whole_numbers_and_tokens() {
        assert_eq!(parse("2e1").expect("valid").whole(), Some(20));
        assert_eq!(parse("2.5").expect("valid").whole(), None);
        assert_eq!(parse("-0.0").expect("valid").whole(), Some(0));
        assert_eq!(parse("1e300").expect("valid").whole(), Some(u64::MAX));
        assert_eq!(parse("-3").expect("valid").whole(), None);
        assert_eq!(parse("4294967295").expect("valid").token(), Some(u32::MAX));
        assert_eq!(parse("4294967296").expect("valid").token(), None);
        assert_eq!(parse("1.0").expect("valid").token(), None);
    }
}
