//! The bytes of a base64 data URL, decoded where they are looked at.

/// Characters decoded at a time; a multiple of four.
const STEP: usize = 32 * 1024;

/// Six bits by character, or [`NONE`].
const VALUES: [u8; 256] = values();
const NONE: u8 = 0xff;

/// A data URL that the engine would decode: strict base64 without white space.
///
/// Nothing is held: any byte is four characters' work away, all of them one pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'a> {
    /// The characters without their padding.
    text: &'a [u8],
}

impl<'a> Payload<'a> {
    /// `data:[type][;parameter…];base64,…` as the engine reads it. `None` for other URLs and for what
    /// its decoder refuses. One pass over the characters.
    pub(crate) fn of_url(url: &'a str) -> Option<Self> {
        let scheme = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:"))?;
        let (head, text) = url[scheme.len()..].split_once(',')?;
        let (_, encoding) = head.rsplit_once(';')?;
        if encoding != "base64" || !text.len().is_multiple_of(4) {
            return None;
        }
        let text = text.as_bytes();
        let padding = text.iter().rev().take_while(|character| **character == b'=').count();
        let text = &text[..text.len() - padding.min(2)];
        let strict = text.iter().fold(0, |seen, character| seen | VALUES[usize::from(*character)]);
        (strict & 0xc0 == 0).then_some(Self { text })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.text.len() / 4 * 3 + [0, 0, 1, 2][self.text.len() % 4]
    }

    /// `N` bytes from `at` on, `None` if there are fewer.
    pub(crate) fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(at, &mut bytes).then_some(bytes)
    }

    /// Copies the bytes from `at` on. Answers whether there were enough.
    pub(crate) fn fill(&self, at: usize, into: &mut [u8]) -> bool {
        let Some(end) = at.checked_add(into.len()).filter(|end| *end <= self.len()) else {
            return false;
        };
        for (byte, at) in into.iter_mut().zip(at..end) {
            let from = at / 3 * 4 + at % 3;
            let (high, low) = (self.value(from), self.value(from + 1));
            *byte = match at % 3 {
                0 => high << 2 | low >> 4,
                1 => high << 4 | low >> 2,
                _ => high << 6 | low,
            };
        }
        true
    }

    /// Hands out all bytes in order, in pieces.
    pub(crate) fn pieces(&self, mut take: impl FnMut(&[u8])) {
        let mut buffer = [0; STEP / 4 * 3];
        for step in self.text.chunks(STEP) {
            let mut used = 0;
            let quads = step.chunks_exact(4);
            let rest = quads.remainder().len();
            for (quad, out) in quads.zip(buffer.chunks_exact_mut(3)) {
                let bits = quad
                    .iter()
                    .fold(0u32, |bits, c| bits << 6 | u32::from(VALUES[usize::from(*c)]));
                out.copy_from_slice(&bits.to_be_bytes()[1..]);
                used += 3;
            }
            take(&buffer[..used]);
            if rest > 1 {
                let mut last = [0; 2];
                let last = &mut last[..rest - 1];
                self.fill(self.len() - (rest - 1), last);
                take(last);
            }
        }
    }

    fn value(&self, at: usize) -> u8 {
        self.text.get(at).map_or(0, |character| VALUES[usize::from(*character)])
    }
}

const fn values() -> [u8; 256] {
    let mut values = [NONE; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut at = 0;
    while at < alphabet.len() {
        values[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    values
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A data URL of these bytes.
    pub(crate) fn url(bytes: &[u8]) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = "data:image/png;base64,".to_owned();
        for three in bytes.chunks(3) {
            let mut bits = [0; 4];
            bits[1..=three.len()].copy_from_slice(three);
            let bits = u32::from_be_bytes(bits);
            for place in 0..4 {
                let value = (bits >> (18 - 6 * place) & 63) as usize;
                text.push(if place <= three.len() { alphabet[value] as char } else { '=' });
            }
        }
        text
    }

    fn decoded(url: &str) -> Option<Vec<u8>> {
        let payload = Payload::of_url(url)?;
        let mut bytes = Vec::new();
        payload.pieces(|piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.len(), payload.len());
        let mut again = vec![0; bytes.len()];
        assert!(payload.fill(0, &mut again));
        assert_eq!(again, bytes);
        assert!(!payload.fill(1, &mut again));
        Some(bytes)
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut bytes = Vec::new();
        for len in [0, 1, 2, 3, 4, 5, 255, 24_575, 24_576, 24_577, 50_000] {
            bytes.resize_with(len, || (len as u8).wrapping_mul(31).wrapping_add(7));
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= (at * at) as u8);
            assert_eq!(decoded(&url(&bytes)).as_ref(), Some(&bytes), "{len}");
        }
        assert_eq!(decoded("DATA:;base64,Zm9v").as_deref(), Some(&b"foo"[..]));
        // Bits behind the last byte are nothing.
        assert_eq!(decoded("data:;base64,Zh==").as_deref(), Some(&b"f"[..]));
        assert_eq!(decoded("data:;base64,Zm9=").as_deref(), Some(&b"fo"[..]));
        assert_eq!(decoded("data:image/png;a=b;base64,Zm8=").as_deref(), Some(&b"fo"[..]));
    }

    #[test]
    fn what_the_engine_refuses_is_none() {
        for url in [
            "",
            "data",
            "http://x/y;base64,Zm9v",
            "data:image/png,Zm9v",
            "data:base64,Zm9v",
            "data:image/png;BASE64,Zm9v",
            "data:image/png;base64",
            "data:;base64,Zm9",
            "data:;base64,Zm9\n",
            "data:;base64,Zm-_",
            "data:;base64,Z===",
            "data:;base64,====",
            "data:;base64,Zm=v",
            "data:;base64,Zmü=",
        ] {
            assert_eq!(decoded(url), None, "{url}");
        }
    }
}
