//! Width and height from the header of an image, byte by byte.
//!
//! Knows PNG, GIF, WebP (lossy, lossless, extended) and JPEG. Only the header is believed: no
//! checksum is verified and the pixels are never looked at.

/// Bytes at the start of an image that hold everything but a JPEG's frame header.
const HEAD: usize = 30;

/// What a byte gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    More,
    /// No image, or none of a known kind.
    Nothing,
    /// Width and height.
    Size(u32, u32),
}

#[derive(Clone, Copy, Debug)]
enum Jpeg {
    /// A marker must start: `0xff`.
    Marker,
    /// After `0xff`.
    Code,
    /// Inside a segment: its code, and the bytes of it read so far, starting with the length.
    Segment(u8, u16),
    /// This many bytes until the next marker.
    Skip(u16),
}

/// A header in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageHeader {
    head: [u8; HEAD],
    len: usize,
    jpeg: Jpeg,
}

impl ImageHeader {
    pub(crate) fn new() -> Self {
        Self { head: [0; HEAD], len: 0, jpeg: Jpeg::Marker }
    }

    /// Takes the next byte of the image.
    pub(crate) fn push(&mut self, byte: u8) -> Found {
        if self.len >= 2 && self.head[..2] == [0xff, 0xd8] {
            return self.jpeg(byte);
        }
        let Some(slot) = self.head.get_mut(self.len) else {
            return Found::Nothing;
        };
        *slot = byte;
        self.len += 1;
        let head = &self.head;
        match self.len {
            // The first three bytes tell every kind from anything else.
            3 if !matches!(&head[..3], b"\x89PN" | b"GIF" | b"RIF") => Found::Nothing,
            10 if head.starts_with(b"GIF") => {
                if !matches!(&head[3..6], b"87a" | b"89a") {
                    return Found::Nothing;
                }
                Found::Size(le16(head, 6), le16(head, 8))
            }
            24 if head.starts_with(b"\x89PN") => {
                if !head.starts_with(b"\x89PNG\r\n\x1a\n") || &head[12..16] != b"IHDR" {
                    return Found::Nothing;
                }
                Found::Size(be32(head, 16), be32(head, 20))
            }
            HEAD => webp(head),
            _ => Found::More,
        }
    }

    fn jpeg(&mut self, byte: u8) -> Found {
        self.jpeg = match self.jpeg {
            Jpeg::Marker if byte == 0xff => Jpeg::Code,
            Jpeg::Marker => return Found::Nothing,
            Jpeg::Code => match byte {
                0xff => Jpeg::Code,
                // Markers without a segment.
                0x01 | 0xd0..=0xd8 => Jpeg::Marker,
                // Scan data or the end of the image without a frame before it.
                0xd9 | 0xda => return Found::Nothing,
                code => {
                    self.len = 2;
                    Jpeg::Segment(code, 0)
                }
            },
            Jpeg::Segment(code, read) => {
                // Kept behind the two bytes that mark the image as JPEG; at most nine of them.
                let at = 2 + usize::from(read);
                self.head[at] = byte;
                let length = be16(&self.head, 2);
                match read + 1 {
                    2 if length < 2 => return Found::Nothing,
                    2 if !is_frame(code) => skip(length - 2),
                    2 if length < 7 => return Found::Nothing,
                    7 => {
                        let (height, width) = (be16(&self.head, 5), be16(&self.head, 7));
                        return Found::Size(width.into(), height.into());
                    }
                    read => Jpeg::Segment(code, read),
                }
            }
            Jpeg::Skip(left) => skip(left - 1),
        };
        Found::More
    }
}

fn skip(left: u16) -> Jpeg {
    if left == 0 { Jpeg::Marker } else { Jpeg::Skip(left) }
}

/// Start-of-frame markers: all of `0xc0..=0xcf` but the Huffman, arithmetic and reserved ones.
pub(super) fn is_frame(code: u8) -> bool {
    matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc)
}

fn webp(head: &[u8; HEAD]) -> Found {
    if &head[..4] != b"RIFF" || &head[8..12] != b"WEBP" {
        return Found::Nothing;
    }
    match &head[12..16] {
        b"VP8 " if head[23..26] == [0x9d, 0x01, 0x2a] => {
            // The two upper bits are a scale that decoders ignore.
            Found::Size(le16(head, 26) & 0x3fff, le16(head, 28) & 0x3fff)
        }
        b"VP8L" if head[20] == 0x2f => {
            let bits = le16(head, 21) | le16(head, 23) << 16;
            Found::Size((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
        }
        b"VP8X" => Found::Size(le24(head, 24) + 1, le24(head, 27) + 1),
        _ => Found::Nothing,
    }
}

fn le16(head: &[u8; HEAD], at: usize) -> u32 {
    u32::from(head[at]) | u32::from(head[at + 1]) << 8
}

fn le24(head: &[u8; HEAD], at: usize) -> u32 {
    le16(head, at) | u32::from(head[at + 2]) << 16
}

fn be32(head: &[u8; HEAD], at: usize) -> u32 {
    u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

/// A big-endian 16-bit word.
fn be16(head: &[u8; HEAD], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: &[u8]) -> Option<(u32, u32)> {
        let mut header = ImageHeader::new();
        for byte in bytes {
            match header.push(*byte) {
                Found::More => {}
                Found::Nothing => return None,
                Found::Size(width, height) => return Some((width, height)),
            }
        }
        None
    }

    #[test]
    fn png() {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend(1920u32.to_be_bytes());
        bytes.extend(1080u32.to_be_bytes());
        assert_eq!(size(&bytes), Some((1920, 1080)));
        bytes[13] = b'X';
        assert_eq!(size(&bytes), None);
    }

    #[test]
    fn gif() {
        assert_eq!(size(b"GIF89a\x40\x01\xf0\x00\0"), Some((320, 240)));
        assert_eq!(size(b"GIF90a\x40\x01\xf0\x00\0"), None);
    }

    #[test]
    fn webp() {
        let mut lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a".to_vec();
        lossy.extend([0x40, 0x41, 0xf0, 0x80]);
        assert_eq!(size(&lossy), Some((320, 240)));
        let mut lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".to_vec();
        lossless.extend((319u32 | 239 << 14).to_le_bytes());
        lossless.extend([0; 5]);
        assert_eq!(size(&lossless), Some((320, 240)));
        let mut extended = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0".to_vec();
        extended.extend([0x3f, 1, 0, 0xef, 0, 0]);
        assert_eq!(size(&extended), Some((320, 240)));
    }

    #[test]
    fn jpeg() {
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0, 0, 16];
        bytes.extend([7; 14]);
        bytes.extend([0xff, 0xff, 0xdb, 0, 2]);
        bytes.extend([0xff, 0xc2, 0, 17, 8, 0, 240, 1, 64, 3]);
        assert_eq!(size(&bytes), Some((320, 240)));
        // A segment without a length, garbage between segments, a scan before any frame.
        assert_eq!(size(&[0xff, 0xd8, 0xff, 0xe0, 0, 1]), None);
        assert_eq!(size(&[0xff, 0xd8, 0x00]), None);
        assert_eq!(size(&[0xff, 0xd8, 0xff, 0xda, 0, 9]), None);
        assert_eq!(size(&[0xff, 0xd8, 0xff, 0xc0, 0, 6, 1, 1, 1, 1]), None);
    }

    #[test]
    fn no_input_makes_it_read_out_of_bounds() {
        let mut state = 1u64;
        for round in 0..20_000u64 {
            let mut bytes: Vec<u8> =
                [&b"\xff\xd8"[..], b"\x89PNG", b"RIFF", b"GIF89a"][(round % 4) as usize].to_vec();
            for _ in 0..80 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(round | 1);
                let byte = (state >> 56) as u8;
                bytes.push(if byte & 3 == 0 { 0xff } else { byte });
            }
            // Reaching the end is the assertion: an index out of bounds would panic.
            let _ = size(&bytes);
        }
    }
}
