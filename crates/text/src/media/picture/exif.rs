//! The orientation in EXIF metadata, where it is told plainly.

/// The tag, and its usual type (a 16-bit number).
const ORIENTATION: u16 = 0x0112;
const SHORT: u16 = 3;

/// An orientation, if one is told.
pub(super) type Told = Option<u16>;

/// The orientation that Pillow reads from EXIF data, with or without their header. `None` where
/// anything on the way is unusual, since Pillow then reads less, or nothing.
pub(super) fn orientation(data: &[u8]) -> Option<Told> {
    let data = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
    let big = match data.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let word = |at: usize| {
        let bytes: [u8; 2] = data.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = data.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let long = if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(long).ok()
    };
    let directory = long(4)?;
    let mut found = None;
    for entry in 0..usize::from(word(directory)?) {
        let at = directory.checked_add(2 + 12 * entry)?;
        let (tag, kind, count) = (word(at)?, word(at + 2)?, long(at + 4)?);
        let size = count.checked_mul(size(kind)?)?;
        // What lies elsewhere must be there, or the reader stops here.
        if size > 4 && long(at + 8)?.checked_add(size)? > data.len() {
            return None;
        }
        word(at + 10)?;
        if tag == ORIENTATION {
            let value = word(at + 8).filter(|_| kind == SHORT && count == 1)?;
            if found.replace(value).is_some() {
                return None;
            }
        }
    }
    Some(found)
}

/// Bytes of one value by type.
fn size(kind: u16) -> Option<usize> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of these entries: tag, type, count, value.
    fn exif(entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
        let mut data = b"Exif\0\0II*\0\x08\0\0\0".to_vec();
        data.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            data.extend(tag.to_le_bytes());
            data.extend(kind.to_le_bytes());
            data.extend(count.to_le_bytes());
            data.extend(value.to_le_bytes());
        }
        data.extend([0; 4]);
        data
    }

    #[test]
    fn a_plain_orientation_is_read_in_both_byte_orders() {
        assert_eq!(orientation(&exif(&[(0x112, 3, 1, 6)])), Some(Some(6)));
        assert_eq!(orientation(&exif(&[(0x10f, 2, 3, 0), (0x112, 3, 1, 8)])), Some(Some(8)));
        assert_eq!(orientation(&exif(&[])), Some(None));
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x05\0\0";
        assert_eq!(orientation(big), Some(Some(5)));
    }

    #[test]
    fn what_is_unusual_is_not_read() {
        for entries in [
            &[(0x112, 4, 1, 6)][..],
            &[(0x112, 3, 2, 6)],
            &[(0x112, 3, 1, 6), (0x112, 3, 1, 1)],
            &[(0x10f, 2, 999, 0), (0x112, 3, 1, 6)],
            &[(0x10f, 99, 1, 0)],
        ] {
            assert_eq!(orientation(&exif(entries)), None, "{entries:?}");
        }
        let whole = exif(&[(0x112, 3, 1, 6)]);
        for end in 0..whole.len() - 4 {
            assert_eq!(orientation(&whole[..end]), None, "{end}");
        }
        assert_eq!(orientation(b"II+\0\x08\0\0\0"), None);
    }
}
