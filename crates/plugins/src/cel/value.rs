//! Values of an evaluation.

use std::cmp::Ordering;

/// A value. Text belongs to the request, the pool or the expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Double(f64),
    Int(i64),
    Null,
    Text(&'a str),
    Uint(u64),
}

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// Division by zero.
    DivisionByZero,
    /// An absent field or entry.
    Missing,
    /// Types that the operation is not defined for, or a text that is no number.
    NoOverload,
    /// An integer result that does not fit.
    Overflow,
}

impl<'a> Value<'a> {
    pub(crate) fn bool(self) -> Result<bool, Error> {
        match self {
            Self::Bool(value) => Ok(value),
            _ => Err(Error::NoOverload),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Error> {
        match self {
            Self::Text(value) => Ok(value),
            _ => Err(Error::NoOverload),
        }
    }

    /// A number as a double.
    pub(crate) fn double(self) -> Option<f64> {
        match self {
            Self::Double(value) => Some(value),
            Self::Int(value) => Some(value as f64),
            Self::Uint(value) => Some(value as f64),
            Self::Bool(_) | Self::Null | Self::Text(_) => None,
        }
    }

    /// Order of two numbers, whatever their types, or of two texts.
    pub(crate) fn compare(self, other: Self) -> Result<Option<Ordering>, Error> {
        Ok(match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(&b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(a).cmp(&i128::from(b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(a).cmp(&i128::from(b))),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(&b)),
            _ => match (self.double(), other.double()) {
                (Some(a), Some(b)) => a.partial_cmp(&b),
                _ => return Err(Error::NoOverload),
            },
        })
    }

    /// Equality: of numbers by value, whatever their types; values of other different types differ.
    pub(crate) fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            _ => self.compare(other) == Ok(Some(Ordering::Equal)),
        }
    }
}
