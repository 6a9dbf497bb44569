//! UTF-8 validation across chunk borders.
//!
//! A run is validated at once. If the chunk ends inside a character, its first one to three bytes
//! wait in a [`Partial`] until the next chunk completes them.

/// How a run of bytes divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// All of it is valid.
    Whole,
    /// Valid up to here; the rest begins a character that more bytes could complete.
    Open(usize),
    /// The byte at this place makes it invalid.
    Invalid(usize),
}

/// Validates `bytes`.
pub(crate) fn check(bytes: &[u8]) -> Checked {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(_) => Checked::Whole,
        Err(error) if error.error_len().is_none() => Checked::Open(error.valid_up_to()),
        Err(error) => Checked::Invalid(error.valid_up_to()),
    }
}

/// The beginning of a character, waiting for its other bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Partial {
    bytes: [u8; 4],
    len: u8,
}

impl Partial {
    /// True if no character is open.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Starts with the one to three bytes that [`check`] found open.
    pub(crate) fn start(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(3);
        self.bytes[..len].copy_from_slice(&bytes[..len]);
        self.len = len as u8;
    }

    /// Adds one byte. `Ok(Some)` is the completed character; `Err` means no character has these
    /// bytes.
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<([u8; 4], usize)>, ()> {
        let len = usize::from(self.len);
        self.bytes[len] = byte;
        match check(&self.bytes[..=len]) {
            Checked::Whole => {
                self.len = 0;
                Ok(Some((self.bytes, len + 1)))
            }
            // A character has at most four bytes, so that an open one has at most three.
            Checked::Open(0) if len < 3 => {
                self.len += 1;
                Ok(None)
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_border_completes() {
        for text in ["é", "€", "𝄞", "\u{10ffff}"] {
            for cut in 1..text.len() {
                let bytes = text.as_bytes();
                assert_eq!(check(&bytes[..cut]), Checked::Open(0));
                let mut partial = Partial::default();
                partial.start(&bytes[..cut]);
                let mut done = None;
                for byte in &bytes[cut..] {
                    assert!(done.is_none());
                    done = partial.push(*byte).expect("valid");
                }
                let (buffer, len) = done.expect("complete");
                assert_eq!(&buffer[..len], bytes);
                assert!(partial.is_empty());
            }
        }
    }

    #[test]
    fn a_broken_character_is_refused() {
        for (start, next) in [(&[0xc3][..], b'"'), (&[0xe2, 0x82], 0xc3), (&[0xf0, 0x9d], b'a')] {
            let mut partial = Partial::default();
            partial.start(start);
            assert!(partial.push(next).is_err());
        }
        // Surrogates and values past the last character fail at their second byte.
        assert_eq!(check(&[0xed, 0xa0]), Checked::Invalid(0));
        assert_eq!(check(&[0xf4, 0x90]), Checked::Invalid(0));
        assert_eq!(check(b"ab\xff"), Checked::Invalid(2));
    }
}
