//! Flat little-endian documents: an envelope that proves them whole, and a reader that trusts none.
//!
//! ```text
//! magic 8 bytes, version u32, length of the body u32, xxh3 of the body u64, the body
//! ```

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, intact};

/// Bytes of the envelope.
pub(crate) const HEADER: usize = 24;

/// Builds a body.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn count(&mut self, value: usize) {
        // Everything counted here is bounded by the configuration far below 2³².
        self.bytes(&(value as u32).to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, value: f32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn f32s(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.f32(*value));
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn f64s(&mut self, values: &[f64]) {
        values.iter().for_each(|value| self.f64(*value));
    }

    /// The document around what was written.
    pub(crate) fn seal(self, magic: [u8; 8], version: u32) -> Vec<u8> {
        let mut document = Vec::with_capacity(HEADER + self.0.len());
        document.extend_from_slice(&magic);
        document.extend_from_slice(&version.to_le_bytes());
        document.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        document.extend_from_slice(&xxh3_64(&self.0).to_le_bytes());
        document.extend_from_slice(&self.0);
        document
    }
}

/// Reads a body. Every read checks the length, every float has to be finite.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens an envelope. Bytes after the body are ignored: memory is handed out in whole words.
    pub(crate) fn open(bytes: &'a [u8], magic: [u8; 8], version: u32) -> Result<Self, Error> {
        let mut header = Reader(bytes);
        let found = header.array::<8>("magic")?;
        intact("magic", f64::from(found[0]), "that of the document", found == magic)?;
        let found = header.u32("version")?;
        intact("version", f64::from(found), "the version of this crate", found == version)?;
        let len = header.u32("length")? as usize;
        let checksum = header.u64("checksum")?;
        let body = header.take("length", len)?;
        intact("checksum", 0.0, "that of the body", xxh3_64(body) == checksum)?;
        Ok(Self(body))
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Error> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return Err(Error::Damaged {
                field,
                expected: "more bytes",
                found: self.0.len() as f64,
            });
        };
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Error> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, Error> {
        let found = self.u8(field)?;
        intact(field, found.into(), "0 or 1", found <= 1)?;
        Ok(found == 1)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A number of items of `size` bytes each: refused where the rest cannot hold them, so that no
    /// forged count reserves memory.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        max: usize,
        size: usize,
    ) -> Result<usize, Error> {
        let count = self.u32(field)? as usize;
        let fits = count <= max && count.saturating_mul(size) <= self.0.len();
        intact(field, count as f64, "a count within its bound", fits)?;
        Ok(count)
    }

    pub(crate) fn f32(&mut self, field: &'static str) -> Result<f32, Error> {
        let value = f32::from_le_bytes(self.array(field)?);
        intact(field, value.into(), "a finite number", value.is_finite())?;
        Ok(value)
    }

    pub(crate) fn f32s<const N: usize>(&mut self, field: &'static str) -> Result<[f32; N], Error> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = self.f32(field)?;
        }
        Ok(values)
    }

    pub(crate) fn f64(&mut self, field: &'static str) -> Result<f64, Error> {
        let value = f64::from_le_bytes(self.array(field)?);
        intact(field, value, "a finite number", value.is_finite())?;
        Ok(value)
    }

    pub(crate) fn f64s<const N: usize>(&mut self, field: &'static str) -> Result<[f64; N], Error> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = self.f64(field)?;
        }
        Ok(values)
    }

    /// The document has to end here.
    pub(crate) fn finish(self) -> Result<(), Error> {
        intact("length", self.0.len() as f64, "no bytes left over", self.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"a-tester";

    fn document() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(1);
        writer.u16(2);
        writer.count(3);
        writer.f32s(&[1.5, -2.5]);
        writer.f64(f64::NAN);
        writer.seal(MAGIC, 7)
    }

    #[test]
    fn values_come_back_in_order_and_nan_is_refused() {
        let document = document();
        let mut reader = Reader::open(&document, MAGIC, 7).unwrap();
        assert_eq!(reader.flag("f"), Ok(true));
        assert_eq!(reader.u16("u"), Ok(2));
        assert_eq!(reader.count("c", 3, 1), Ok(3));
        assert_eq!(reader.f32s::<2>("f"), Ok([1.5, -2.5]));
        assert!(reader.f64("nan").is_err());
        assert!(reader.u8("end").is_err());
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let document = document();
        for bit in 0..document.len() * 8 {
            let mut damaged = document.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::open(&damaged, MAGIC, 7).is_err(), "bit {bit}");
        }
        for len in 0..document.len() {
            assert!(Reader::open(&document[..len], MAGIC, 7).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_count_cannot_promise_more_than_there_is() {
        let mut writer = Writer::default();
        writer.count(1_000);
        let document = writer.seal(MAGIC, 7);
        let mut reader = Reader::open(&document, MAGIC, 7).unwrap();
        assert!(reader.count("c", 10_000, 1).is_err());
    }
}
