//! Base64, byte by byte: enough to read the first bytes of a data URL.

/// A decoder in progress.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base64 {
    bits: u32,
    len: u8,
}

/// What one character of base64 text gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A byte is complete.
    Byte(u8),
    /// Nothing yet.
    More,
    /// Padding, or a character outside the alphabet: the data ends here.
    End,
}

impl Base64 {
    pub(crate) fn push(&mut self, character: u8) -> Step {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'\n' | b'\r' => return Step::More,
            _ => return Step::End,
        };
        self.bits = self.bits << 6 | u32::from(value);
        self.len += 6;
        if self.len < 8 {
            return Step::More;
        }
        self.len -= 8;
        // The eight bits above those that wait for the next character.
        Step::Byte((self.bits >> self.len) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Vec<u8> {
        let mut base64 = Base64::default();
        let mut bytes = Vec::new();
        for character in text.bytes() {
            match base64.push(character) {
                Step::Byte(byte) => bytes.push(byte),
                Step::More => {}
                Step::End => break,
            }
        }
        bytes
    }

    #[test]
    fn rfc_4648_vectors() {
        assert_eq!(decode(""), b"");
        assert_eq!(decode("Zg=="), b"f");
        assert_eq!(decode("Zm8="), b"fo");
        assert_eq!(decode("Zm9v"), b"foo");
        assert_eq!(decode("Zm9vYmFy"), b"foobar");
        assert_eq!(decode("Zm9v\r\nYmFy!Zm9v"), b"foobar");
        assert_eq!(decode("+/-_"), [0xfb, 0xff, 0xbf]);
    }
}
