//! PNG: the header, and metadata anywhere among the chunks.

use super::{MAX_PIECES, Payload, Picture, exif, metadata, tells_orientation};

const SIGNATURE: usize = 8;
/// Length, kind and checksum around a chunk's data.
const AROUND: usize = 12;
/// Keywords under which texts become what Pillow takes for EXIF or XMP data.
const KEYWORDS: [&[u8]; 4] = [b"exif", b"xmp", b"Raw profile type exif", b"XML:com.adobe.xmp"];
/// Longest keyword, and the zero after it.
const KEYWORD: usize = 80;

pub(super) fn read(payload: &Payload<'_>) -> Option<Picture> {
    let mut at = SIGNATURE;
    let mut picture = None;
    let mut orientation = None;
    for _ in 0..MAX_PIECES {
        let head: [u8; 8] = payload.bytes(at)?;
        let [length @ .., _, _, _, _] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        let (kind, data) = (&head[4..], at + 8);
        match (kind, picture) {
            (b"IHDR", None) if length == 13 => picture = Some(header(&payload.bytes(data)?)?),
            // The header comes first, and once.
            (_, None) | (b"IHDR", Some(_)) => return None,
            (b"IEND", Some(picture)) => {
                return Some(Picture::turned(picture, orientation.flatten().unwrap_or(1)));
            }
            // An animation.
            (b"acTL", _) => return None,
            (b"eXIf", _) => {
                let told = exif::orientation(&metadata(payload, data, length)?)?;
                if orientation.replace(told).is_some() {
                    return None;
                }
            }
            (b"tEXt" | b"zTXt" | b"iTXt", _) if !is_harmless(payload, kind, data, length)? => {
                return None;
            }
            _ => {}
        }
        at = at.checked_add(AROUND)?.checked_add(length)?;
    }
    None
}

fn header(header: &[u8; 13]) -> Option<Picture> {
    let [w0, w1, w2, w3, h0, h1, h2, h3, bits, colours, _, filter, _] = *header;
    let rgb = match (bits, colours) {
        (8 | 16, 2) => true,
        (1 | 2 | 4 | 8 | 16, 0) | (1 | 2 | 4 | 8, 3) | (8 | 16, 4 | 6) => false,
        _ => return None,
    };
    let (width, height) =
        (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
    (filter == 0).then_some(Picture { width, height, rgb })
}

/// Whether a text does not matter. XMP in its usual chunk does not unless it tells an orientation.
fn is_harmless(payload: &Payload<'_>, kind: &[u8], at: usize, length: usize) -> Option<bool> {
    let start = metadata(payload, at, length.min(KEYWORD))?;
    let end = memchr::memchr(0, &start).unwrap_or(start.len());
    let keyword = &start[..end];
    if !KEYWORDS.contains(&keyword) {
        return Some(true);
    }
    let plain = start.get(end + 1) == Some(&0);
    if kind != b"iTXt" || keyword != b"XML:com.adobe.xmp" || !plain {
        return Some(false);
    }
    Some(!tells_orientation(&metadata(payload, at, length)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{other, read, rgb};

    fn png(bits: u8, colours: u8, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x07\x80\0\0\x04\x38".to_vec();
        bytes.extend([bits, colours, 0, 0, 0, 1, 2, 3, 4]);
        for (kind, data) in chunks {
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend_from_slice(*kind);
            bytes.extend_from_slice(data);
            bytes.extend([1, 2, 3, 4]);
        }
        bytes
    }

    const END: (&[u8; 4], &[u8]) = (b"IEND", b"");
    const TURNED: &[u8] = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";

    #[test]
    fn mode_and_size_are_in_the_header() {
        for bits in [8, 16] {
            assert_eq!(read(&png(bits, 2, &[(b"IDAT", b"x"), END])), rgb(1920, 1080));
            assert_eq!(read(&png(bits, 6, &[END])), other(1920, 1080));
        }
        assert_eq!(read(&png(1, 0, &[END])), other(1920, 1080));
        assert_eq!(read(&png(8, 3, &[END])), other(1920, 1080));
        for (bits, colours) in [(4, 2), (16, 3), (8, 5), (3, 0)] {
            assert_eq!(read(&png(bits, colours, &[END])), None);
        }
    }

    #[test]
    fn an_orientation_counts_before_and_after_the_pixels() {
        assert_eq!(read(&png(8, 2, &[(b"eXIf", TURNED), (b"IDAT", b"x"), END])), rgb(1080, 1920));
        assert_eq!(read(&png(8, 2, &[(b"IDAT", b"x"), (b"eXIf", TURNED), END])), rgb(1080, 1920));
        assert_eq!(read(&png(8, 2, &[(b"eXIf", TURNED), (b"eXIf", TURNED), END])), None);
        assert_eq!(read(&png(8, 2, &[(b"eXIf", b"broken"), END])), None);
    }

    #[test]
    fn texts_that_could_tell_one_are_left_to_the_engine() {
        let text = |kind: &[u8; 4], data: &[u8]| read(&png(8, 2, &[(kind, data), END]));
        assert_eq!(text(b"tEXt", b"Author\0exif"), rgb(1920, 1080));
        assert_eq!(text(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"), rgb(1920, 1080));
        let told = b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation=\"6\"/>";
        assert_eq!(text(b"iTXt", told), None);
        assert_eq!(text(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0zip"), None);
        assert_eq!(text(b"tEXt", b"XML:com.adobe.xmp\0x"), None);
        assert_eq!(text(b"zTXt", b"Raw profile type exif\0\0zip"), None);
    }

    #[test]
    fn cut_animated_and_headless_files_are_none() {
        assert_eq!(read(&png(8, 2, &[])), None);
        assert_eq!(read(&png(8, 2, &[(b"acTL", &[0; 8]), END])), None);
        let mut bytes = png(8, 2, &[END]);
        bytes[13] = b'X';
        assert_eq!(read(&bytes), None);
    }
}
