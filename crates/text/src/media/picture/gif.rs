//! GIF: the screen, and the first image on it, which may reach beyond.

use super::{MAX_PIECES, Payload, Picture};

pub(super) fn read(payload: &Payload<'_>) -> Option<Picture> {
    let [w0, w1, h0, h1, flags, _, _] = payload.bytes(6)?;
    let (width, height) = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([h0, h1]));
    let mut at = 13;
    if flags & 0x80 != 0 {
        at += 3 << ((flags & 7) + 1);
    }
    let mut blocks = 0..MAX_PIECES;
    loop {
        blocks.next()?;
        match payload.bytes(at)? {
            [b'!'] => {
                at += 2;
                loop {
                    blocks.next()?;
                    let [length] = payload.bytes(at)?;
                    at += 1 + usize::from(length);
                    if length == 0 {
                        break;
                    }
                }
            }
            [b','] => {
                let [x0, x1, y0, y1, w0, w1, h0, h1, _] = payload.bytes(at + 1)?;
                let reach = |from: [u8; 2], length: [u8; 2]| {
                    u32::from(u16::from_le_bytes(from)) + u32::from(u16::from_le_bytes(length))
                };
                let width = u32::from(width).max(reach([x0, x1], [w0, w1]));
                let height = u32::from(height).max(reach([y0, y1], [h0, h1]));
                // Pillow gives the first image a palette or shades of grey.
                return Some(Picture { width, height, rgb: false });
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{other, read};

    const SCREEN: &[u8] = b"GIF89a\x40\x01\xf0\x00\x80\0\0abcdef";
    const CONTROL: &[u8] = b"!\xf9\x04\x00\x00\x00\x00\x00";

    #[test]
    fn the_screen_is_the_size_unless_the_first_image_is_larger() {
        let inside = b",\0\0\0\0\x40\x01\xf0\x00\0";
        assert_eq!(read(&[SCREEN, CONTROL, inside].concat()), other(320, 240));
        assert_eq!(read(&[SCREEN, b"!\xfe\x02hi\x03you\0", inside].concat()), other(320, 240));
        let beyond = b",\x10\0\0\0\x40\x01\xf0\x00\0";
        assert_eq!(read(&[SCREEN, CONTROL, beyond].concat()), other(336, 240));
    }

    #[test]
    fn without_an_image_there_is_none() {
        assert_eq!(read(&[SCREEN, CONTROL, b";"].concat()), None);
        assert_eq!(read(&[SCREEN, b"!\xfe\xff"].concat()), None);
        assert_eq!(read(SCREEN), None);
    }
}
