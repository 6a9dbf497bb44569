//! What decides how an engine sees an image: its size as displayed, and whether its pixels are RGB.
//!
//! vLLM opens images with Pillow, turns them by their EXIF orientation (`ImageOps.exif_transpose`)
//! and converts other modes than RGB (`multimodal/media/image.py`). All of that stands in headers and
//! metadata; pixels are never decoded. Whatever Pillow might read differently from what is read here
//! (broken metadata, animations, orientations told in XMP) is not an image: `None`. An image that
//! Pillow would refuse may be taken for one; the engine refuses such a request. One whose pixels are
//! damaged in a way that Pillow bears with is turned here and not there: that shows in no header.

mod exif;
mod gif;
mod jpeg;
mod png;
mod webp;

use super::payload::Payload;

/// Pixels from which vLLM refuses an image (`VLLM_MAX_IMAGE_PIXELS`).
const MAX_PIXELS: u64 = 178_956_970;
/// Chunks, segments or blocks of one file that are looked at.
const MAX_PIECES: usize = 65_536;
/// Bytes of metadata that are read at once.
const MAX_METADATA: usize = 1 << 20;

/// How XMP metadata tell an orientation.
const XMP_ORIENTATION: &[u8] = b"tiff:Orientation";

/// An image as the engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// In pixels, as displayed.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Pillow's mode is RGB: nothing is converted.
    pub(crate) rgb: bool,
}

impl Picture {
    /// Reads an image of a kind that is known: PNG, JPEG, WebP, GIF. Costs some microseconds; a few
    /// bytes are decoded per chunk of the file.
    pub(crate) fn read(payload: &Payload<'_>) -> Option<Self> {
        let picture = match &payload.bytes::<12>(0)? {
            b"\x89PNG\r\n\x1a\n\0\0\0\x0d" => png::read(payload)?,
            [0xff, 0xd8, 0xff, ..] => jpeg::read(payload)?,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => webp::read(payload)?,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => gif::read(payload)?,
            _ => return None,
        };
        let pixels = u64::from(picture.width) * u64::from(picture.height);
        (1..=MAX_PIXELS).contains(&pixels).then_some(picture)
    }

    /// The image turned as this orientation says.
    fn turned(self, orientation: u16) -> Self {
        match orientation {
            5..=8 => Self { width: self.height, height: self.width, ..self },
            _ => self,
        }
    }
}

/// Metadata in `length` bytes from `at` on; `None` if they are too many or not all there.
fn metadata(payload: &Payload<'_>, at: usize, length: usize) -> Option<Vec<u8>> {
    let end = at.checked_add(length)?;
    if length > MAX_METADATA || end > payload.len() {
        return None;
    }
    let mut bytes = vec![0; length];
    payload.fill(at, &mut bytes).then_some(bytes)
}

/// Whether metadata name an orientation: such images are left to the engine.
fn tells_orientation(xmp: &[u8]) -> bool {
    memchr::memmem::find(xmp, XMP_ORIENTATION).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::payload::tests::url;
    use super::*;

    pub(super) fn read(bytes: &[u8]) -> Option<Picture> {
        Picture::read(&Payload::of_url(&url(bytes))?)
    }

    pub(super) fn rgb(width: u32, height: u32) -> Option<Picture> {
        Some(Picture { width, height, rgb: true })
    }

    pub(super) fn other(width: u32, height: u32) -> Option<Picture> {
        Some(Picture { width, height, rgb: false })
    }

    #[test]
    fn other_files_are_no_pictures() {
        for bytes in
            [&b""[..], b"BM", b"II*\0aaaaaaaaaaaaaaaa", b"\x89PNG\r\n\x1a\n", b"GIF89b      "]
        {
            assert_eq!(read(bytes), None);
        }
    }

    #[test]
    fn no_input_is_read_beyond_its_end() {
        let mut state = 1u64;
        let starts: [&[u8]; 7] = [
            b"\xff\xd8\xff\xe1\0\x20Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x05\0\0\0\x09\x08\x02\0\0\0abcd",
            b"RIFF\x80\0\0\0WEBPVP8X\x0a\0\0\0",
            b"RIFF\x80\0\0\0WEBPVP8 ",
            b"GIF89a\x40\x01\xf0\x00\x80",
            b"GIF89a\x40\x01\xf0\x00\0\0\0!",
        ];
        for round in 0..20_000u64 {
            let mut bytes = starts[(round % 7) as usize].to_vec();
            for _ in 0..80 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(round | 1);
                let byte = (state >> 56) as u8;
                bytes.push(match byte & 7 {
                    0 => 0xff,
                    1 | 2 => 0,
                    _ => byte,
                });
            }
            // Reaching the end is the assertion.
            let _ = read(&bytes);
        }
    }
}
