//! The inner loop: how far does plain string content reach?
//!
//! Most bytes of a request are the inside of one string. The first few dozen are looked at eight at
//! a time in a machine word, which settles short strings; beyond that `memchr` finds the end, and
//! one loop without branches, which the compiler turns into vector instructions, looks for control
//! characters and bytes outside ASCII.

use memchr::memchr2;

/// The length of a plain run and whether it holds bytes that need UTF-8 validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Bytes before the first quote, backslash or control character, or before the end.
    pub(crate) len: usize,
    /// False only if all of these bytes are ASCII.
    pub(crate) wide: bool,
}

/// Bytes looked at word by word before a run counts as long.
const SHORT: usize = 48;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Measures the plain run at the start of `bytes`.
#[inline]
pub(crate) fn plain_run(bytes: &[u8]) -> Run {
    let Some((head, rest)) = bytes.split_at_checked(SHORT) else {
        return short_run(bytes);
    };
    let head = short_run(head);
    if head.len < SHORT {
        return head;
    }
    let rest = long_run(rest);
    Run { len: SHORT + rest.len, wide: head.wide | rest.wide }
}

fn long_run(bytes: &[u8]) -> Run {
    let len = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
    let run = &bytes[..len];
    let (least, any) =
        run.iter().fold((u8::MAX, 0), |(least, any), &byte| (byte.min(least), any | byte));
    let wide = any >= 0x80;
    if least >= b' ' {
        return Run { len, wide };
    }
    // A control character makes the body invalid: this happens once.
    let len = run.iter().position(|byte| *byte < b' ').unwrap_or(len);
    Run { len, wide }
}

/// [`plain_run`] for short input.
#[inline]
pub(crate) fn short_run(bytes: &[u8]) -> Run {
    let mut len = 0;
    let mut wide = false;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let stops = stops(word);
        if stops != 0 {
            // The lowest flag is exact (a borrow only disturbs the lanes above it).
            let at = stops.trailing_zeros() as usize / 8;
            let before = (1u64 << (8 * at)) - 1;
            return Run { len: len + at, wide: wide | (word & HIGH & before != 0) };
        }
        wide |= word & HIGH != 0;
        len += 8;
    }
    for &byte in rest {
        if byte == b'"' || byte == b'\\' || byte < b' ' {
            break;
        }
        wide |= byte >= 0x80;
        len += 1;
    }
    Run { len, wide }
}

/// The high bit of each byte that is a quote, a backslash or a control character.
#[inline]
fn stops(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    (zero(quote) | zero(slash) | control) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(bytes: &[u8]) -> Run {
        let stop = |b: &u8| *b == b'"' || *b == b'\\' || *b < b' ';
        let len = bytes.iter().position(stop).unwrap_or(bytes.len());
        Run { len, wide: bytes[..len].iter().any(|b| *b >= 0x80) }
    }

    #[test]
    fn every_byte_at_every_place() {
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 130] {
            let plain = vec![b'a'; len];
            assert_eq!(plain_run(&plain), naive(&plain));
            for at in 0..len {
                for byte in 0..=255 {
                    let mut bytes = plain.clone();
                    bytes[at] = byte;
                    let run = plain_run(&bytes);
                    let want = naive(&bytes);
                    assert_eq!(run.len, want.len, "{byte} at {at} of {len}");
                    assert!(run.wide || !want.wide, "{byte} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn two_stops_in_one_word_give_the_first() {
        for first in 0..=255u8 {
            for second in [b'"', b'\\', b'\n', 0, 0xff, 0x21, 0x5d] {
                let bytes = [b'x', first, second, b'y', b'z', b'0', b'1', b'2'];
                assert_eq!(plain_run(&bytes), naive(&bytes), "{first} {second}");
            }
        }
    }

    #[test]
    fn ascii_is_never_called_wide() {
        let text = [b'~'; 200];
        assert_eq!(plain_run(&text), Run { len: 200, wide: false });
    }
}
