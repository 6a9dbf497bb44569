//! A cursor over msgpack that trusts nothing.
//!
//! Nothing is allocated by a declared length, nothing recurses: a value is skipped with a count of
//! what is still open, and every value costs at least one byte of input, so that the work is
//! bounded by the payload however deep it claims to nest.

use rmp::Marker;

/// A position in a payload. Reads advance it; after an error its position means nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet: an upper bound of the values that can follow.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next value if it is an unsigned integer below 2³², which in a list of tokens it always
    /// is; the cursor stays where it is otherwise.
    #[inline]
    pub(crate) fn small(&mut self) -> Option<u32> {
        // Widths alternate at random in a list of tokens: no branch depends on which of two it is.
        if let Some(&[marker, ref bytes @ ..]) = self.rest.first_chunk::<5>()
            && let exponent @ 0..=2 = marker.wrapping_sub(0xcc)
        {
            let width = 1 << exponent;
            self.rest = self.rest.get(1 + width..).unwrap_or_default();
            return Some(u32::from_be_bytes(*bytes) >> (32 - 8 * width));
        }
        match *self.rest {
            [value @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Some(value.into())
            }
            [0xcc, value, ref rest @ ..] => {
                self.rest = rest;
                Some(value.into())
            }
            [0xcd, a, b, ref rest @ ..] => {
                self.rest = rest;
                Some(u16::from_be_bytes([a, b]).into())
            }
            [0xce, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                Some(u32::from_be_bytes([a, b, c, d]))
            }
            _ => None,
        }
    }

    /// The next value; of a container its head only.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let marker = self.byte()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixPos(value) => Value::Uint(value.into()),
            Marker::FixNeg(value) => Value::Negative(value.into()),
            Marker::Null => Value::Nil,
            Marker::True => Value::Bool(true),
            Marker::False => Value::Bool(false),
            Marker::U8 => Value::Uint(self.byte()?.into()),
            Marker::U16 => Value::Uint(self.u16()?.into()),
            Marker::U32 => Value::Uint(self.u32()?.into()),
            Marker::U64 => Value::Uint(u64::from_be_bytes(self.array()?)),
            Marker::I8 => Value::signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Value::signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Value::signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Value::signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Value::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Value::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(len) => Value::Str(self.take(len.into())?),
            Marker::Str8 => self.string(|cursor| cursor.byte().map(u32::from))?,
            Marker::Str16 => self.string(|cursor| cursor.u16().map(u32::from))?,
            Marker::Str32 => self.string(Self::u32)?,
            Marker::Bin8 => self.binary(|cursor| cursor.byte().map(u32::from))?,
            Marker::Bin16 => self.binary(|cursor| cursor.u16().map(u32::from))?,
            Marker::Bin32 => self.binary(Self::u32)?,
            Marker::FixArray(len) => Value::Array(len.into()),
            Marker::Array16 => Value::Array(self.u16()?.into()),
            Marker::Array32 => Value::Array(self.u32()?),
            Marker::FixMap(len) => Value::Map(len.into()),
            Marker::Map16 => Value::Map(self.u16()?.into()),
            Marker::Map32 => Value::Map(self.u32()?),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => {
                let len = self.byte()?;
                self.extension(len.into())?
            }
            Marker::Ext16 => {
                let len = self.u16()?;
                self.extension(len.into())?
            }
            Marker::Ext32 => {
                let len = self.u32()?;
                self.extension(len)?
            }
            Marker::Reserved => return Err(Malformed),
        })
    }

    /// Passes over one whole value and answers its bytes.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.rest;
        // A map of 2³² - 1 in a map of 2³² - 1 …: each head adds less than 2³⁴ and takes a byte.
        let mut open: u64 = 1;
        while open > 0 {
            open -= 1;
            open = open.saturating_add(match self.value()? {
                Value::Array(len) => len.into(),
                Value::Map(len) => 2 * u64::from(len),
                _ => 0,
            });
            // Each value to come has a byte at least: what claims more is refused at once.
            if open > self.rest.len() as u64 {
                return Err(Malformed);
            }
        }
        let (whole, _) = start.split_at_checked(start.len() - self.rest.len()).ok_or(Malformed)?;
        Ok(whole)
    }

    fn string(
        &mut self,
        len: impl FnOnce(&mut Self) -> Result<u32, Malformed>,
    ) -> Result<Value<'a>, Malformed> {
        let len = len(self)?;
        Ok(Value::Str(self.take(len)?))
    }

    fn binary(
        &mut self,
        len: impl FnOnce(&mut Self) -> Result<u32, Malformed>,
    ) -> Result<Value<'a>, Malformed> {
        let len = len(self)?;
        Ok(Value::Bin(self.take(len)?))
    }

    fn extension(&mut self, len: u32) -> Result<Value<'a>, Malformed> {
        self.byte()?;
        self.take(len)?;
        Ok(Value::Extension)
    }

    fn take(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }
}

/// One value, or the head of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// So many values follow.
    Array(u32),
    Bin(&'a [u8]),
    Bool(bool),
    Extension,
    Float(f64),
    /// So many pairs of values follow.
    Map(u32),
    /// An integer below zero; others are [`Uint`](Self::Uint), whatever their width.
    Negative(i64),
    Nil,
    /// Not checked to be UTF-8.
    Str(&'a [u8]),
    Uint(u64),
}

impl Value<'_> {
    fn signed(value: i64) -> Self {
        u64::try_from(value).map_or(Self::Negative(value), Self::Uint)
    }
}

/// The bytes are not msgpack, or end too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
        Cursor::new(bytes).value()
    }

    #[test]
    fn every_width_of_an_integer_is_the_same_number() {
        for bytes in [
            &[7][..],
            &[0xcc, 7],
            &[0xcd, 0, 7],
            &[0xce, 0, 0, 0, 7],
            &[0xcf, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0xd0, 7],
            &[0xd1, 0, 7],
            &[0xd2, 0, 0, 0, 7],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 7],
        ] {
            assert_eq!(first(bytes), Ok(Value::Uint(7)));
        }
        assert_eq!(first(&[0xff]), Ok(Value::Negative(-1)));
        assert_eq!(first(&[0xd3, 255, 255, 255, 255, 255, 255, 255, 255]), first(&[0xff]));
    }

    #[test]
    fn a_value_that_ends_too_soon_is_malformed() {
        for bytes in [&[][..], &[0xcd, 0], &[0xa2, b'a'], &[0xc6, 255, 255, 255, 255, 0], &[0xc1]] {
            assert_eq!(first(bytes), Err(Malformed));
        }
    }

    #[test]
    fn skipping_passes_over_nested_containers() {
        // {"a": [1, {"b": nil}], ext}, then 5
        let bytes = [0x82, 0xa1, b'a', 0x92, 1, 0x81, 0xa1, b'b', 0xc0, 0xa1, b'c', 0xd4, 1, 2, 5];
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.skip(), Ok(&bytes[..14]));
        assert_eq!(cursor.value(), Ok(Value::Uint(5)));
        assert_eq!(cursor.len(), 0);
    }

    #[test]
    fn depth_costs_neither_stack_nor_memory() {
        let mut bytes = vec![0x91; 1_000_000];
        bytes.push(0xc0);
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.skip().map(<[u8]>::len), Ok(bytes.len()));
    }

    #[test]
    fn a_container_that_claims_more_than_there_is_ends_at_once() {
        assert_eq!(Cursor::new(&[0xdf, 255, 255, 255, 255, 0xc0, 0xc0]).skip(), Err(Malformed));
    }
}
