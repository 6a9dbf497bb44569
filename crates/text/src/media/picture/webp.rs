//! WebP: lossy, lossless, and extended files of one image.

use super::{MAX_PIECES, Payload, Picture, exif, metadata, tells_orientation};

/// Of the extended header's flags.
const ANIMATION: u8 = 0x02;
const XMP: u8 = 0x04;
const EXIF: u8 = 0x08;
const ALPHA: u8 = 0x10;

const HEADER: usize = 12;

pub(super) fn read(payload: &Payload<'_>) -> Option<Picture> {
    let [kind @ .., _, _, _, _] = payload.bytes::<8>(HEADER)?;
    match &kind {
        b"VP8X" => extended(payload),
        _ => frame(payload, HEADER),
    }
}

/// A chunk of pixels: its size, and whether its pixels are all opaque.
fn frame(payload: &Payload<'_>, at: usize) -> Option<Picture> {
    let [kind @ .., _, _, _, _] = payload.bytes::<8>(at)?;
    match &kind {
        b"VP8 " => {
            let [_, _, _, mark @ .., w0, w1, h0, h1] = payload.bytes::<10>(at + 8)?;
            // The two upper bits are a scale that decoders ignore.
            let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            let picture = Picture { width: side(w0, w1), height: side(h0, h1), rgb: true };
            (mark == [0x9d, 0x01, 0x2a]).then_some(picture)
        }
        b"VP8L" => {
            let [mark, bits @ ..] = payload.bytes::<5>(at + 8)?;
            let bits = u32::from_le_bytes(bits);
            let (width, height) = ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
            // Behind size and transparency stands version 0.
            let known = mark == 0x2f && bits >> 29 == 0;
            known.then_some(Picture { width, height, rgb: bits >> 28 & 1 == 0 })
        }
        _ => None,
    }
}

fn extended(payload: &Payload<'_>) -> Option<Picture> {
    let [_, _, _, _, size @ ..] = payload.bytes::<8>(0)?;
    let end = usize::try_from(u32::from_le_bytes(size)).ok()?.checked_add(8)?;
    let [l0, l1, l2, l3, flags, _, _, _, w0, w1, w2, h0, h1, h2] =
        payload.bytes::<14>(HEADER + 4)?;
    let (width, height) =
        (u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if flags & ANIMATION != 0 || length != 10 || end > payload.len() {
        return None;
    }
    let mut at = HEADER + 8 + 10;
    let (mut shown, mut orientation, mut xmp, mut alpha) = (None, None, false, false);
    for _ in 0..MAX_PIECES {
        if at >= end {
            let shown: Picture = shown?;
            // Files that contradict themselves are left to the decoder.
            let agrees = (shown.width, shown.height) == (width, height);
            let opaque = shown.rgb && !alpha;
            let told = flags & ALPHA == 0;
            let orientation = match orientation {
                Some(told) => told,
                None if flags & EXIF != 0 => return None,
                None => None,
            };
            let orientation = orientation.or((!xmp).then_some(1))?;
            let picture = Picture { width, height, rgb: opaque };
            return (agrees && opaque == told).then(|| picture.turned(orientation));
        }
        let [kind @ .., l0, l1, l2, l3] = payload.bytes::<8>(at)?;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        let data = at + 8;
        match &kind {
            b"VP8 " | b"VP8L" if shown.is_none() => shown = Some(frame(payload, at)?),
            b"ALPH" => alpha = true,
            b"EXIF" if flags & EXIF != 0 => {
                let told = exif::orientation(&metadata(payload, data, length)?)?;
                if orientation.replace(told).is_some() {
                    return None;
                }
            }
            b"XMP " if flags & XMP != 0 => {
                xmp |= tells_orientation(&metadata(payload, data, length)?);
            }
            b"VP8 " | b"VP8L" | b"VP8X" | b"ANIM" | b"ANMF" => return None,
            _ => {}
        }
        at = data.checked_add(length)?.checked_next_multiple_of(2)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{other, read, rgb};

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_vec();
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.extend(vec![0; data.len() % 2]);
        bytes
    }

    fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
        let chunks = chunks.concat();
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((chunks.len() as u32 + 4).to_le_bytes());
        bytes.extend(b"WEBP");
        bytes.extend(chunks);
        bytes
    }

    fn lossy() -> Vec<u8> {
        chunk(b"VP8 ", &[0, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x41, 0xf0, 0x80, 0, 0])
    }

    fn lossless(alpha: bool) -> Vec<u8> {
        let bits = 319u32 | 239 << 14 | u32::from(alpha) << 28;
        chunk(b"VP8L", &[&[0x2f][..], &bits.to_le_bytes(), &[0; 4]].concat())
    }

    fn header(flags: u8) -> Vec<u8> {
        chunk(b"VP8X", &[flags, 0, 0, 0, 0x3f, 1, 0, 0xef, 0, 0])
    }

    const TURNED: &[u8] = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";

    #[test]
    fn plain_files_have_one_chunk() {
        assert_eq!(read(&webp(&[lossy()])), rgb(320, 240));
        assert_eq!(read(&webp(&[lossless(false)])), rgb(320, 240));
        assert_eq!(read(&webp(&[lossless(true)])), other(320, 240));
    }

    #[test]
    fn extended_files_have_alpha_and_metadata() {
        assert_eq!(read(&webp(&[header(0), lossy()])), rgb(320, 240));
        let alpha = chunk(b"ALPH", b"a");
        assert_eq!(read(&webp(&[header(0x10), alpha, lossy()])), other(320, 240));
        assert_eq!(read(&webp(&[header(0x10), lossless(true)])), other(320, 240));
        let exif = chunk(b"EXIF", TURNED);
        assert_eq!(read(&webp(&[header(8), lossy(), exif.clone()])), rgb(240, 320));
        // Without its flag no chunk is looked for.
        assert_eq!(read(&webp(&[header(0), lossy(), exif])), rgb(320, 240));
        let xmp = chunk(b"XMP ", b"<x tiff:Orientation=\"6\"/>");
        assert_eq!(read(&webp(&[header(4), lossy(), xmp])), None);
    }

    #[test]
    fn what_contradicts_itself_or_moves_is_none() {
        assert_eq!(read(&webp(&[header(0x10), lossy()])), None);
        assert_eq!(read(&webp(&[header(0), chunk(b"ALPH", b"a"), lossy()])), None);
        assert_eq!(read(&webp(&[header(2), lossy()])), None);
        assert_eq!(read(&webp(&[header(8), lossy()])), None);
        assert_eq!(read(&webp(&[header(0)])), None);
        let mut cut = webp(&[header(0), lossy()]);
        cut.truncate(cut.len() - 1);
        assert_eq!(read(&cut), None);
    }
}
