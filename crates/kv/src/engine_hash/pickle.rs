//! Pickle protocol 5, as CPython writes tuples of bytes, integers and text.
//!
//! Every object but integers and the empty tuple is given a number when it is written; an object
//! that occurs again is written as that number. Objects are the same by identity, not by value:
//! literals of the source are, and so are texts of no or one Latin-1 character, of which CPython has
//! one each.

use super::{Atom, Entry};

/// Bytes from which on CPython begins another frame.
const FRAME: usize = 64 * 1024;

/// None if the pickle does not fit one frame.
pub(super) fn block(
    parent: &[u8],
    tokens: &[u32],
    extras: &[Entry<'_>],
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut pickler = Pickler::new(out);
    pickler.bytes(parent);
    pickler.tuple(tokens.len(), |pickler| {
        tokens.iter().for_each(|token| pickler.int((*token).into()));
    });
    if extras.is_empty() {
        pickler.out.push(b'N');
    } else {
        pickler.tuple(extras.len(), |pickler| {
            for extra in extras {
                let (atoms, is_tuple) = extra.atoms();
                if is_tuple {
                    pickler.tuple(atoms.len(), |pickler| pickler.atoms(atoms));
                } else {
                    pickler.atoms(atoms);
                }
            }
        });
    }
    pickler.out.push(0x87);
    pickler.memoize(None);
    pickler.finish()
}

pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    let mut pickler = Pickler::new(out);
    pickler.text(text, false);
    // A seed is shorter than a frame, or nothing is compared with it.
    let _ = pickler.finish();
}

struct Pickler<'a, 'b> {
    out: &'b mut Vec<u8>,
    /// The number of the next object.
    next: u32,
    /// Texts of which there is only one object each, with their numbers.
    known: Vec<(&'a str, u32)>,
}

impl<'a, 'b> Pickler<'a, 'b> {
    fn new(out: &'b mut Vec<u8>) -> Self {
        out.clear();
        out.extend([0x80, 5, 0x95]);
        out.extend([0; 8]);
        Self { out, next: 0, known: Vec::new() }
    }

    fn finish(self) -> Option<()> {
        const HEAD: usize = 11;
        let at = self.out.len().checked_sub(HEAD)?;
        if at >= FRAME {
            return None;
        }
        self.out.push(b'.');
        let len = (at as u64 + 1).to_le_bytes();
        self.out.get_mut(3..HEAD)?.copy_from_slice(&len);
        Some(())
    }

    fn memoize(&mut self, text: Option<&'a str>) {
        self.out.push(0x94);
        self.known.extend(text.map(|text| (text, self.next)));
        self.next += 1;
    }

    fn tuple(&mut self, len: usize, elements: impl FnOnce(&mut Self)) {
        let end = match len {
            0 => {
                self.out.push(b')');
                return;
            }
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => {
                self.out.push(b'(');
                b't'
            }
        };
        elements(self);
        self.out.push(end);
        self.memoize(None);
    }

    fn atoms(&mut self, atoms: &[Atom<'a>]) {
        for atom in atoms {
            match *atom {
                Atom::Bytes(digest) => self.bytes(digest),
                Atom::Int(number) => self.int(number),
                Atom::Tag(text) => self.text(text, true),
                Atom::Text(text) => self.text(text, is_single(text)),
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.out.extend([b'C', len]),
            Err(_) => {
                self.out.push(b'B');
                self.out.extend((bytes.len() as u32).to_le_bytes());
            }
        }
        self.out.extend_from_slice(bytes);
        self.memoize(None);
    }

    fn text(&mut self, text: &'a str, is_one_object: bool) {
        let known = self.known.iter().find(|(known, _)| is_one_object && *known == text);
        if let Some((_, number)) = known {
            match u8::try_from(*number) {
                Ok(number) => self.out.extend([b'h', number]),
                Err(_) => {
                    self.out.push(b'j');
                    self.out.extend(number.to_le_bytes());
                }
            }
            return;
        }
        match u8::try_from(text.len()) {
            Ok(len) => self.out.extend([0x8c, len]),
            Err(_) => {
                self.out.push(b'X');
                self.out.extend((text.len() as u32).to_le_bytes());
            }
        }
        self.out.extend_from_slice(text.as_bytes());
        self.memoize(is_one_object.then_some(text));
    }

    fn int(&mut self, number: i64) {
        if let Ok(number) = u8::try_from(number) {
            self.out.extend([b'K', number]);
        } else if let Ok(number) = u16::try_from(number) {
            self.out.push(b'M');
            self.out.extend(number.to_le_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            self.out.push(b'J');
            self.out.extend(number.to_le_bytes());
        } else {
            // As few bytes as hold the number with its sign.
            let bits = 65 - (number ^ (number >> 63)).leading_zeros();
            let len = bits.div_ceil(8) as usize;
            self.out.extend([0x8a, len as u8]);
            self.out.extend(number.to_le_bytes().into_iter().take(len));
        }
    }
}

fn is_single(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    characters.next().is_none() && first.is_none_or(|character| character <= '\u{ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pickled(extras: &[Entry<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        block(&[9; 16], &[1, 2], extras, &mut out).unwrap();
        out.split_off(11 + 2 + 16 + 1 + 6)
    }

    #[test]
    fn an_object_that_occurs_again_is_its_number() {
        let item = |identifier, offset| {
            Entry::Three([Atom::Tag("mm"), Atom::Text(identifier), Atom::Int(offset)])
        };
        // pickle.dumps((b"\x09" * 16, (1, 2), (("mm", a, 3), ("mm", b, -4))), 5), a != b
        let expected = b"\x8c\x02mm\x94\x8c\x02ab\x94K\x03\x87\x94h\x02\x8c\x02cd\x94J\xfc\xff\xff\xff\x87\x94\x86\x94\x87\x94.";
        assert_eq!(pickled(&[item("ab", 3), item("cd", -4)]), expected);
    }

    #[test]
    fn there_is_one_object_of_a_single_character() {
        let extras = [Entry::One(Atom::Text("x")), Entry::One(Atom::Text("x"))];
        assert_eq!(pickled(&extras), b"\x8c\x01x\x94h\x02\x86\x94\x87\x94.");
        let extras = [Entry::One(Atom::Text("xy")), Entry::One(Atom::Text("xy"))];
        assert_eq!(pickled(&extras), b"\x8c\x02xy\x94\x8c\x02xy\x94\x86\x94\x87\x94.");
    }

    #[test]
    fn integers_take_their_shortest_form() {
        for (number, expected) in [
            (255, &b"K\xff"[..]),
            (256, b"M\x00\x01"),
            (65_536, b"J\x00\x00\x01\x00"),
            (-1, b"J\xff\xff\xff\xff"),
            (1 << 31, b"\x8a\x05\x00\x00\x00\x80\x00"),
            (-(1 << 31) - 1, b"\x8a\x05\xff\xff\xff\x7f\xff"),
            (1 << 32, b"\x8a\x05\x00\x00\x00\x00\x01"),
            (i64::MIN, b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"),
        ] {
            let mut out = Vec::new();
            Pickler { out: &mut out, next: 0, known: Vec::new() }.int(number);
            assert_eq!(out, expected, "{number}");
        }
    }
}
