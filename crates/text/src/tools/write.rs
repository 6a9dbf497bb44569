//! The writer: Go's `encoding/json`, byte for byte.
//!
//! * Keys are sorted by bytes; of equal keys the last one stays.
//! * Numbers are doubles in their shortest form: plain from 1e-6 up to 1e21, otherwise with an
//!   exponent (`1e+21`, `1e-7`). Integers above 2^53 lose precision, as they do in the reference.
//! * `<`, `>`, `&`, U+2028, U+2029 and control characters are written as `\u00xx`, the usual five
//!   controls as `\b \f \n \r \t`.

use std::io::Write as _;

use super::tree::{Tree, double};
use crate::json::Kind;

impl Tree {
    /// Appends the value to `out`. Recursion is as deep as the value, hence bounded by the lexer.
    /// `sorted` is scratch space.
    pub(crate) fn write(&self, out: &mut Vec<u8>, sorted: &mut Vec<u32>) {
        sorted.clear();
        self.value(0, out, sorted);
    }

    fn value(&self, index: u32, out: &mut Vec<u8>, sorted: &mut Vec<u32>) {
        let Some(node) = self.node(index) else {
            return;
        };
        match node.kind {
            Kind::Array => self.array(index, out, sorted),
            Kind::False => out.extend_from_slice(b"false"),
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::Number => number(self.slice(&node.scalar), out),
            Kind::Object => self.object(index, out, sorted),
            Kind::String => string(self.slice(&node.scalar), out),
            Kind::True => out.extend_from_slice(b"true"),
        }
    }

    fn array(&self, index: u32, out: &mut Vec<u8>, sorted: &mut Vec<u32>) {
        out.push(b'[');
        for (at, item) in self.children(index).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.value(item, out, sorted);
        }
        out.push(b']');
    }

    /// Sorts the members at the end of `sorted`, which their own members then use in turn.
    fn object(&self, index: u32, out: &mut Vec<u8>, sorted: &mut Vec<u32>) {
        let start = sorted.len();
        sorted.extend(self.children(index));
        let end = sorted.len();
        let key = |member: u32| self.node(member).map_or(&[][..], |node| self.slice(&node.key));
        // Equal keys stay in the order of the body.
        sorted[start..].sort_unstable_by(|a, b| key(*a).cmp(key(*b)).then(a.cmp(b)));
        out.push(b'{');
        let mut is_first = true;
        for at in start..end {
            let member = sorted[at];
            if at + 1 < end && key(member) == key(sorted[at + 1]) {
                continue;
            }
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            string(key(member), out);
            out.push(b':');
            self.value(member, out, sorted);
        }
        out.push(b'}');
        sorted.truncate(start);
    }
}

/// Writes a number as the double it stands for.
fn number(digits: &[u8], out: &mut Vec<u8>) {
    // Small integers, nearly all numbers of a schema, are their own shortest form.
    if digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit) {
        out.extend_from_slice(digits);
        return;
    }
    let value = double(digits);
    let size = value.abs();
    // Writing to a vector cannot fail.
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                write!(out, "{digits}e+{exponent}")
            }
            _ => write!(out, "{text}"),
        }
    } else {
        write!(out, "{value}")
    };
}

fn string(mut text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    while let Some(at) = text.iter().position(|byte| SPECIAL[usize::from(*byte)]) {
        let (plain, rest) = text.split_at(at);
        out.extend_from_slice(plain);
        text = &rest[escape(rest, out)..];
    }
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Writes the special character at the start of `text`; its length there.
fn escape(text: &[u8], out: &mut Vec<u8>) -> usize {
    let (escape, len): (&[u8], usize) = match text {
        [b'"', ..] => (b"\\\"", 1),
        [b'\\', ..] => (b"\\\\", 1),
        [0x08, ..] => (b"\\b", 1),
        [0x0c, ..] => (b"\\f", 1),
        [b'\n', ..] => (b"\\n", 1),
        [b'\r', ..] => (b"\\r", 1),
        [b'\t', ..] => (b"\\t", 1),
        [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
        [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
        [byte @ (0..b' ' | b'<' | b'>' | b'&'), ..] => {
            let _ = write!(out, "\\u{byte:04x}");
            return 1;
        }
        // Only looked like a separator.
        _ => (&text[..1], 1),
    };
    out.extend_from_slice(escape);
    len
}

/// Bytes that are escaped, or may begin a character that is.
static SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Events, Lexer, Number};

    struct Build<'a>(&'a mut Tree);

    impl Events for Build<'_> {
        fn open(&mut self, kind: Kind, _at: u64) {
            self.0.open(kind);
        }
        fn close(&mut self, kind: Kind, _end: u64) {
            self.0.close(kind);
        }
        fn key(&mut self, piece: &[u8], _last: bool) {
            self.0.key(piece);
        }
        fn text(&mut self, piece: &[u8]) {
            self.0.scalar(piece);
        }
        fn digits(&mut self, piece: &[u8]) {
            self.0.scalar(piece);
        }
        fn number(&mut self, _number: Number) {}
    }

    fn rewrite(json: &str, step: usize) -> String {
        let mut tree = Tree::default();
        tree.reset(1 << 20);
        let mut lexer = Lexer::new(0);
        for chunk in json.as_bytes().chunks(step) {
            lexer.feed(chunk, &mut Build(&mut tree)).expect("valid");
        }
        lexer.finish(&mut Build(&mut tree)).expect("complete");
        let mut out = Vec::new();
        tree.write(&mut out, &mut Vec::new());
        String::from_utf8(out).expect("text")
    }

    /// Pairs produced by Go 1.22+: `json.Unmarshal` into `any`, then `json.Marshal`.
    #[test]
    fn equals_encoding_json() {
        for (json, want) in [
            (r#" { "b" : 1 , "a" : [ ] } "#, r#"{"a":[],"b":1}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            (r#"{"":1,"Z":2,"é":3,"a":4}"#, r#"{"":1,"Z":2,"a":4,"é":3}"#),
            (
                r#"[1.0,1e2,-0,0.1,1e21,1e20,1e-6,1e-7]"#,
                "[1,100,-0,0.1,1e+21,100000000000000000000,0.000001,1e-7]",
            ),
            (
                "[9007199254740993,123456789.123456789,5e-324,1.7976931348623157e308,123e-20]",
                "[9007199254740992,123456789.12345679,5e-324,1.7976931348623157e+308,1.23e-18]",
            ),
            ("[12345678901234567890,1.5e300,-2.5e-10]", "[12345678901234567000,1.5e+300,-2.5e-10]"),
            ("[\"<a&b>\\u2028\\u2029\"]", r#"["\u003ca\u0026b\u003e\u2028\u2029"]"#),
            (r#"["\u0001\b\f\n\r\t\/\"\\\u007f"]"#, "[\"\\u0001\\b\\f\\n\\r\\t/\\\"\\\\\u{7f}\"]"),
            (r#"["\ud834\udd1e €"]"#, "[\"𝄞 €\"]"),
            ("[true,false,null,{}]", "[true,false,null,{}]"),
        ] {
            for step in 1..=json.len() {
                assert_eq!(rewrite(json, step), want, "{json} in steps of {step}");
            }
        }
    }

    #[test]
    fn of_many_equal_keys_the_last_one_stays() {
        let members: Vec<String> = (0..400).map(|at| format!("\"k{}\":{at}", at % 3)).collect();
        let json = format!("{{{}}}", members.join(","));
        assert_eq!(rewrite(&json, 64), r#"{"k0":399,"k1":397,"k2":398}"#);
    }

    #[test]
    fn the_bound_is_kept() {
        let mut tree = Tree::default();
        tree.reset(100);
        tree.open(Kind::Array);
        for _ in 0..1000 {
            tree.open(Kind::String);
            tree.scalar(b"0123456789");
            tree.close(Kind::String);
        }
        assert!(tree.overflowed());
        let mut out = Vec::new();
        tree.write(&mut out, &mut Vec::new());
        assert!(out.len() < 100);
    }
}
