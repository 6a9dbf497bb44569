//! JPEG: segments up to the first scan.

use super::{MAX_PIECES, Payload, Picture, exif, metadata, tells_orientation};
use crate::media::image::is_frame;

const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

pub(super) fn read(payload: &Payload<'_>) -> Option<Picture> {
    let mut at = 2;
    let mut picture = None;
    let mut orientation = None;
    let mut told_by_xmp = false;
    for _ in 0..MAX_PIECES {
        let [mark, code] = payload.bytes(at)?;
        match (mark, code) {
            // Padding.
            (0xff, 0xff) => {
                at += 1;
                continue;
            }
            // Pillow takes these for marks without a segment, or for a frame.
            (0xff, 0xc8 | 0xd0..=0xd9 | 0xde | 0xf0..=0xfd) => return None,
            (0xff, 0xc0..=0xfe) => {}
            _ => return None,
        }
        let length = usize::from(u16::from_be_bytes(payload.bytes(at + 2)?));
        let (data, length) = (at + 4, length.checked_sub(2)?);
        match code {
            0xda => {
                // What EXIF tells goes before what XMP tells.
                let told = orientation.flatten().or((!told_by_xmp).then_some(1));
                return Some(Picture::turned(picture?, told?));
            }
            code if is_frame(code) => match picture {
                None => picture = Some(frame(payload, data, length)?),
                Some(_) => return None,
            },
            0xe1 => {
                let segment = metadata(payload, data, length)?;
                if segment.starts_with(b"Exif\0\0") {
                    if orientation.replace(exif::orientation(&segment)?).is_some() {
                        return None;
                    }
                } else if segment.starts_with(XMP) {
                    told_by_xmp |= tells_orientation(&segment);
                }
            }
            _ => {}
        }
        at = data.checked_add(length)?;
    }
    None
}

fn frame(payload: &Payload<'_>, at: usize, length: usize) -> Option<Picture> {
    let [bits, h0, h1, w0, w1, layers] = payload.bytes(at).filter(|_| length >= 6)?;
    if bits != 8 || !matches!(layers, 1 | 3 | 4) {
        return None;
    }
    let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
    Some(Picture { width: width.into(), height: height.into(), rgb: layers == 3 })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{other, read, rgb};

    const TURNED: &[u8] = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
    const STRAIGHT: &[u8] = b"Exif\0\0MM\0*\0\0\0\x08\0\0";
    const SCAN: (u8, &[u8]) = (0xda, b"scan");

    fn frame(layers: u8) -> Vec<u8> {
        vec![8, 0, 240, 1, 64, layers, 1, 2, 3]
    }

    fn jpeg(segments: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        for (code, data) in segments {
            bytes.extend([0xff, *code]);
            bytes.extend((data.len() as u16 + 2).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes.extend([0; 12]);
        bytes
    }

    #[test]
    fn the_frame_has_size_and_mode() {
        let app = (0xe0, &b"JFIF"[..]);
        assert_eq!(read(&jpeg(&[app, (0xc0, &frame(3)), SCAN])), rgb(320, 240));
        assert_eq!(read(&jpeg(&[app, (0xc2, &frame(1)), SCAN])), other(320, 240));
        assert_eq!(read(&jpeg(&[(0xc4, b"x"), (0xc0, &frame(4)), SCAN])), other(320, 240));
        assert_eq!(read(&jpeg(&[app, (0xc0, &frame(2)), SCAN])), None);
        assert_eq!(read(&jpeg(&[app, (0xc0, &frame(3)), (0xc0, &frame(3)), SCAN])), None);
        assert_eq!(read(&jpeg(&[app, SCAN])), None);
        assert_eq!(read(&jpeg(&[app, (0xc0, &frame(3))])), None);
    }

    #[test]
    fn exif_turns_it() {
        let frame = (0xc0, &frame(3)[..]);
        assert_eq!(read(&jpeg(&[(0xe1, TURNED), frame, SCAN])), rgb(240, 320));
        assert_eq!(read(&jpeg(&[frame, (0xe1, TURNED), SCAN])), rgb(240, 320));
        assert_eq!(read(&jpeg(&[(0xe1, STRAIGHT), frame, SCAN])), rgb(320, 240));
        assert_eq!(read(&jpeg(&[(0xe1, TURNED), (0xe1, TURNED), frame, SCAN])), None);
        assert_eq!(read(&jpeg(&[(0xe1, b"Exif\0\0junk"), frame, SCAN])), None);
    }

    #[test]
    fn an_orientation_that_xmp_alone_tells_is_left_to_the_engine() {
        let frame = (0xc0, &frame(3)[..]);
        let xmp = [super::XMP, b"<x tiff:Orientation=\"6\"/>"].concat();
        let silent = [super::XMP, b"<x/>"].concat();
        assert_eq!(read(&jpeg(&[(0xe1, &silent), frame, SCAN])), rgb(320, 240));
        assert_eq!(read(&jpeg(&[(0xe1, &xmp), frame, SCAN])), None);
        assert_eq!(read(&jpeg(&[(0xe1, &xmp), (0xe1, STRAIGHT), frame, SCAN])), None);
        assert_eq!(read(&jpeg(&[(0xe1, STRAIGHT), (0xe1, &xmp), frame, SCAN])), None);
        assert_eq!(read(&jpeg(&[(0xe1, &xmp), (0xe1, TURNED), frame, SCAN])), rgb(240, 320));
    }
}
