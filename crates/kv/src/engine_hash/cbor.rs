//! Canonical CBOR, as the Python package `cbor2` writes it.

use super::{Atom, Entry};

pub(super) fn block(parent: &[u8], tokens: &[u32], extras: &[Entry<'_>], out: &mut Vec<u8>) {
    head(4, 3, out);
    bytes(parent, out);
    head(4, tokens.len() as u64, out);
    for token in tokens {
        head(0, (*token).into(), out);
    }
    if extras.is_empty() {
        out.push(0xf6);
        return;
    }
    head(4, extras.len() as u64, out);
    for extra in extras {
        let (atoms, is_tuple) = extra.atoms();
        if is_tuple {
            head(4, atoms.len() as u64, out);
        }
        for atom in atoms {
            match atom {
                Atom::Bytes(digest) => bytes(digest, out),
                Atom::Int(number) => match u64::try_from(*number) {
                    Ok(number) => head(0, number, out),
                    // -1 - n, which is n with all bits turned.
                    Err(_) => head(1, (!*number).cast_unsigned(), out),
                },
                Atom::Tag(atom) | Atom::Text(atom) => text(atom, out),
            }
        }
    }
}

pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    head(3, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    head(2, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A major type and its argument, in the shortest form.
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match argument {
        0..24 => out.push(major | argument as u8),
        24..0x100 => out.extend([major | 24, argument as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}
