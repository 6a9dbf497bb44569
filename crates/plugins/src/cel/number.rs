//! Arithmetic and conversions.

use super::value::{Error, Value};

/// An operator between two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Divide,
    Modulo,
    Multiply,
    Subtract,
}

/// Integers of one type stay of that type; any other two numbers become doubles.
pub(crate) fn apply<'a>(
    operator: Arithmetic,
    left: Value<'a>,
    right: Value<'a>,
) -> Result<Value<'a>, Error> {
    use Arithmetic::{Add, Divide, Modulo, Multiply, Subtract};
    let zero = matches!(right, Value::Int(0) | Value::Uint(0));
    let whole =
        matches!((left, right), (Value::Int(_), Value::Int(_)) | (Value::Uint(_), Value::Uint(_)));
    if zero && whole && matches!(operator, Divide | Modulo) {
        return Err(Error::DivisionByZero);
    }
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => match operator {
            Add => a.checked_add(b),
            Divide => a.checked_div(b),
            Modulo => a.checked_rem(b),
            Multiply => a.checked_mul(b),
            Subtract => a.checked_sub(b),
        }
        .map(Value::Int)
        .ok_or(Error::Overflow),
        (Value::Uint(a), Value::Uint(b)) => match operator {
            Add => a.checked_add(b),
            Divide => a.checked_div(b),
            Modulo => a.checked_rem(b),
            Multiply => a.checked_mul(b),
            Subtract => a.checked_sub(b),
        }
        .map(Value::Uint)
        .ok_or(Error::Overflow),
        _ => {
            let (Some(a), Some(b)) = (left.double(), right.double()) else {
                return Err(Error::NoOverload);
            };
            Ok(Value::Double(match operator {
                Add => a + b,
                Divide => a / b,
                Modulo => return Err(Error::NoOverload),
                Multiply => a * b,
                Subtract => a - b,
            }))
        }
    }
}

/// The opposite number.
pub(crate) fn negate(value: Value<'_>) -> Result<Value<'_>, Error> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(Error::Overflow),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(Error::NoOverload),
    }
}

/// A function of one number or text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conversion {
    Abs,
    Ceil,
    Double,
    Floor,
    Int,
    Round,
    Size,
    Sqrt,
    Uint,
}

impl Conversion {
    pub(crate) fn apply(self, value: Value<'_>) -> Result<Value<'_>, Error> {
        let double = || value.double().ok_or(Error::NoOverload);
        Ok(match self {
            Self::Abs => match value {
                Value::Int(value) => Value::Int(value.checked_abs().ok_or(Error::Overflow)?),
                Value::Uint(_) => value,
                _ => Value::Double(double()?.abs()),
            },
            Self::Ceil => Value::Double(double()?.ceil()),
            Self::Double => Value::Double(parsed(value).map_or_else(double, Ok)?),
            Self::Floor => Value::Double(double()?.floor()),
            Self::Int => match value {
                Value::Int(_) => value,
                Value::Text(text) => Value::Int(text.parse().map_err(|_| Error::NoOverload)?),
                Value::Uint(value) => {
                    Value::Int(i64::try_from(value).map_err(|_| Error::Overflow)?)
                }
                _ => Value::Int(within(double()?, -(2_f64.powi(63)), 2_f64.powi(63))? as i64),
            },
            Self::Round => Value::Double(double()?.round()),
            Self::Size => {
                let size = value.text()?.chars().count();
                Value::Int(i64::try_from(size).map_err(|_| Error::Overflow)?)
            }
            Self::Sqrt => Value::Double(double()?.sqrt()),
            Self::Uint => match value {
                Value::Uint(_) => value,
                Value::Text(text) => Value::Uint(text.parse().map_err(|_| Error::NoOverload)?),
                Value::Int(value) => {
                    Value::Uint(u64::try_from(value).map_err(|_| Error::Overflow)?)
                }
                _ => Value::Uint(within(double()?, 0.0, 2_f64.powi(64))? as u64),
            },
        })
    }
}

fn parsed(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// The number without its fraction, when that is at least `low` and below `high`.
fn within(value: f64, low: f64, high: f64) -> Result<f64, Error> {
    let whole = value.trunc();
    if low <= whole && whole < high { Ok(whole) } else { Err(Error::Overflow) }
}
