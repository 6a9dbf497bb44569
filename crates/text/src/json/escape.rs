//! Escapes, many at a time.
//!
//! Source code and other text dense with escapes would reach the sink in tiny pieces. Here short
//! runs and escaped characters are gathered in a small buffer first. Whatever is not plain sailing
//! (the end of the chunk, a long run, bytes outside ASCII, a broken escape) is left to the lexer.

use super::run::short_run;

/// Bytes gathered at a time.
pub(crate) const GATHER: usize = 256;

/// Longest run that is copied rather than left to the lexer.
const WINDOW: usize = 32;

/// Unescapes from the start of `bytes`, a backslash, into `out`: bytes read and bytes written.
/// Both are 0 if the first escape needs the lexer.
pub(crate) fn gather(bytes: &[u8], out: &mut [u8; GATHER]) -> (usize, usize) {
    let (mut read, mut written) = (0, 0);
    while written + 4 + WINDOW <= GATHER {
        match bytes.get(read..read + 2) {
            Some(b"\\u") => {
                let Some((character, len)) = unicode(&bytes[read..]) else { break };
                written += character.encode_utf8(&mut out[written..]).len();
                read += len;
            }
            Some(&[b'\\', byte]) => {
                let Some(plain) = unescape(byte) else { break };
                out[written] = plain;
                written += 1;
                read += 2;
            }
            _ => break,
        }
        let Some(window) = bytes[read..].first_chunk::<WINDOW>() else { break };
        let run = short_run(window);
        if run.len == WINDOW || run.wide {
            break;
        }
        // All of the window, because a copy of known size is a few instructions; what lies past
        // the run is overwritten or never sent.
        out[written..written + WINDOW].copy_from_slice(window);
        written += run.len;
        read += run.len;
    }
    (read, written)
}

/// The character that the letter after a backslash stands for.
#[inline]
pub(crate) fn unescape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// The character of a code unit, or of a pair of them.
pub(crate) fn combine(high: Option<u16>, unit: u16) -> Option<char> {
    char::from_u32(match high {
        None => u32::from(unit),
        Some(high) => {
            let low = u32::from(unit).checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            0x1_0000 + ((u32::from(high) & 0x3ff) << 10) + low
        }
    })
}

/// True for the first half of a surrogate pair.
pub(crate) fn is_high(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

/// The character that `\uXXXX`, or two of them, at the start of `bytes` stand for, and their
/// length.
fn unicode(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = hex(bytes.get(2..6)?)?;
    if !is_high(unit) {
        return Some((combine(None, unit)?, 6));
    }
    let second = bytes.get(6..12).filter(|second| second.starts_with(b"\\u"))?;
    Some((combine(Some(unit), hex(&second[2..])?)?, 12))
}

fn hex(digits: &[u8]) -> Option<u16> {
    digits
        .iter()
        .try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(text: &str) -> (usize, String) {
        let mut out = [0; GATHER];
        let (read, written) = gather(text.as_bytes(), &mut out);
        (read, String::from_utf8(out[..written].to_vec()).expect("whole characters"))
    }

    #[test]
    fn stops_before_what_it_cannot_do() {
        let tail = "\" and what follows the string, long enough for a window";
        for (text, want) in [
            (r"\n  \tx\\", "\n  \tx\\"),
            (r"\u0041b\u20ac\ud834\udd1e\/", "Ab€𝄞/"),
            (r"\n\x", "\n"),
            (r"\n\u12g4", "\n"),
            (r"\n\ud834\n", "\n"),
            (r"\n\udd1e", "\n"),
            (r"\n\ud834\u0041", "\n"),
            (r"\q", ""),
        ] {
            let (read, got) = gathered(&format!("{text}{tail}"));
            assert_eq!(got, want, "{text}");
            let again = format!("\"{}\"", &text[..read.min(text.len())]);
            assert_eq!(serde_json::from_str::<String>(&again).expect("complete"), want);
        }
        assert_eq!(gathered("\\né and more text than a window holds"), (2, "\n".into()));
        assert_eq!(gathered("\\"), (0, String::new()));
        assert_eq!(gathered("\\u00"), (0, String::new()));
    }

    #[test]
    fn stays_within_its_buffer() {
        for text in ["\\n", "\\ud834\\udd1e", "\\nabcdefghijklmnopqrstuvwxyzabcde"] {
            let (read, got) = gathered(&text.repeat(1000));
            assert!(got.len() > GATHER - 2 * WINDOW - 8 && got.len() <= GATHER, "{}", got.len());
            assert!(read > 0);
        }
    }
}
