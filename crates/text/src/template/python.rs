//! Values as Python prints them: `str`, `repr` and `json.dumps`.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::budget;
use super::object::BigInt;

/// Containers in containers that are printed; Python itself stops at about a thousand.
const DEPTH: usize = 200;

/// Writes `str(value)`: what a template prints.
pub(super) fn str_to(out: &mut dyn Write, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None if value.is_undefined() => Ok(()),
        None => repr_to(out, value, 0),
    }
}

/// `str(value)`.
pub(super) fn str(value: &Value) -> Result<String, Error> {
    let mut text = budget::Text::default();
    str_to(&mut text, value)?;
    Ok(text.0)
}

/// Writes `repr(value)`.
pub(super) fn repr_to(out: &mut dyn Write, value: &Value, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined")?,
        ValueKind::None => out.write_str("None")?,
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" })?,
        ValueKind::Number => match float(value) {
            Some(number) => out.write_str(&float_repr(number, "nan", "inf"))?,
            None => write!(out, "{value}")?,
        },
        ValueKind::String => repr_text(out, value.as_str().unwrap_or_default())?,
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.write_char(if tuple { '(' } else { '[' })?;
            let mut length = 0;
            for item in value.try_iter()?.checked() {
                if length > 0 {
                    out.write_str(", ")?;
                }
                repr_to(out, &item?, depth + 1)?;
                length += 1;
            }
            if tuple && length == 1 {
                out.write_char(',')?;
            }
            out.write_char(if tuple { ')' } else { ']' })?;
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (index, (key, value)) in pairs(value).enumerate() {
                if index > 0 {
                    out.write_str(", ")?;
                }
                repr_to(out, &key, depth + 1)?;
                out.write_str(": ")?;
                repr_to(out, &value, depth + 1)?;
            }
            out.write_char('}')?;
        }
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

/// How `json.dumps` writes.
#[derive(Clone, Debug)]
pub(super) struct Dumps {
    pub(super) ascii: bool,
    /// What a level of nesting is indented by.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) sort_keys: bool,
}

impl Default for Dumps {
    fn default() -> Self {
        Dumps {
            ascii: false,
            indent: None,
            item_separator: ", ".to_owned(),
            key_separator: ": ".to_owned(),
            sort_keys: false,
        }
    }
}

impl Dumps {
    /// Writes a value as JSON; what has no JSON form is an error, as in Python.
    pub(super) fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        check_depth(depth)?;
        budget::allow(out.len())?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&json_number(value)),
            ValueKind::String => self.text(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut empty = true;
                for item in value.try_iter()?.checked() {
                    self.open(out, empty, '[', depth);
                    empty = false;
                    self.write(out, &item?, depth + 1)?;
                }
                self.close(out, empty, ['[', ']'], depth);
            }
            ValueKind::Map => {
                let mut members: Vec<(Value, Value)> = pairs(value).collect();
                if self.sort_keys {
                    members.sort_by(|a, b| a.0.cmp(&b.0));
                }
                for (index, (key, value)) in members.iter().enumerate() {
                    self.open(out, index == 0, '{', depth);
                    self.key(out, key)?;
                    out.push_str(&self.key_separator);
                    self.write(out, value, depth + 1)?;
                }
                self.close(out, members.is_empty(), ['{', '}'], depth);
            }
            _ => match value.downcast_object_ref::<BigInt>() {
                Some(number) => out.push_str(&number.0),
                None => return Err(not_serializable(value)),
            },
        }
        Ok(())
    }

    fn key(&self, out: &mut String, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.text(out, key.as_str().unwrap_or_default()),
            ValueKind::None => out.push_str("\"null\""),
            ValueKind::Bool => {
                out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" });
            }
            ValueKind::Number => {
                out.push('"');
                out.push_str(&json_number(key));
                out.push('"');
            }
            _ => return Err(not_serializable(key)),
        }
        Ok(())
    }

    /// What stands before an item: the bracket or the separator, and the line.
    fn open(&self, out: &mut String, first: bool, bracket: char, depth: usize) {
        if first {
            out.push(bracket);
        } else {
            out.push_str(&self.item_separator);
        }
        self.line(out, depth + 1);
    }

    fn close(&self, out: &mut String, empty: bool, brackets: [char; 2], depth: usize) {
        if empty {
            out.push(brackets[0]);
        } else {
            self.line(out, depth);
        }
        out.push(brackets[1]);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn text(&self, out: &mut String, text: &str) {
        out.push('"');
        json_text(out, text, self.ascii);
        out.push('"');
    }
}

/// Writes the inside of a JSON string with Python's choice of escapes.
pub(super) fn json_text(out: &mut String, text: &str, ascii: bool) {
    let mut plain = 0;
    for (at, char) in text.char_indices() {
        let escaped = matches!(char, '\0'..='\x1f' | '"' | '\\') || ascii && char > '~';
        if !escaped {
            continue;
        }
        out.push_str(text.get(plain..at).unwrap_or_default());
        plain = at + char.len_utf8();
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
}

fn json_number(value: &Value) -> String {
    match float(value) {
        Some(number) => float_repr(number, "NaN", "Infinity"),
        None => value.to_string(),
    }
}

/// The members of a map, in order.
pub(super) fn pairs(value: &Value) -> impl Iterator<Item = (Value, Value)> {
    value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten()
}

/// The number, if it is a float.
pub(super) fn float(value: &Value) -> Option<f64> {
    if value.kind() != ValueKind::Number || value.is_integer() {
        return None;
    }
    f64::try_from(value.clone()).ok()
}

/// Python's `repr` of a float: the shortest digits that read back as the same double, with an
/// exponent from 1e16 on and below 1e-4.
pub(super) fn float_repr(number: f64, nan: &str, infinity: &str) -> String {
    if number.is_nan() {
        return nan.to_owned();
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if number.is_infinite() {
        return format!("{sign}{infinity}");
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    match exponent {
        ..-4 | 16.. => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let direction = if exponent < 0 { '-' } else { '+' };
            format!("{sign}{first}{point}{rest}e{direction}{:02}", exponent.abs())
        }
        ..0 => format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
        _ => {
            let whole = exponent as usize + 1;
            if digits.len() > whole {
                let (whole, fraction) = digits.split_at(whole);
                format!("{sign}{whole}.{fraction}")
            } else {
                format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()))
            }
        }
    }
}

fn repr_text(out: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for char in text.chars() {
        match char {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ if char == quote => write!(out, "\\{char}")?,
            ' '..='~' => out.write_char(char)?,
            _ if is_printable(char) => out.write_char(char)?,
            '\0'..='\u{ff}' => write!(out, "\\x{:02x}", u32::from(char))?,
            '\u{100}'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(char))?,
            _ => write!(out, "\\U{:08x}", u32::from(char))?,
        }
    }
    out.write_char(quote)
}

/// Python's `str.isprintable` for characters beyond ASCII. Rust's escapes follow the same Unicode
/// categories, but for combining marks at the beginning of a text.
fn is_printable(char: char) -> bool {
    let text: String = ['a', char].iter().collect();
    text.escape_debug().nth(1) != Some('\\')
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth < DEPTH {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply to be printed"))
}

fn not_serializable(value: &Value) -> Error {
    let message = format!("a value of type {} is not JSON serializable", value.kind());
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_python_does() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (1e6, "1000000.0"),
            (123_456_789.25, "123456789.25"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (1e100, "1e+100"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (5e-324, "5e-324"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float_repr(number, "nan", "inf"), expected);
        }
    }

    #[test]
    fn texts_are_quoted_as_python_does() {
        for (text, expected) in [
            ("it's", r#""it's""#),
            ("it's \"so\"", r#"'it\'s "so"'"#),
            ("a\\b\n\t\u{7f}\u{a0}", r"'a\\b\n\t\x7f\xa0'"),
            ("é日🙂\u{301}\u{200b}\u{e000}\u{e0001}", "'é日🙂\u{301}\\u200b\\ue000\\U000e0001'"),
        ] {
            let mut out = String::new();
            repr_text(&mut out, text).unwrap();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn json_escapes_are_pythons() {
        let mut out = String::new();
        json_text(&mut out, "é\u{7f}\u{1}\"/<🙂\u{8}", false);
        assert_eq!(out, "é\u{7f}\\u0001\\\"/<🙂\\b");
        out.clear();
        json_text(&mut out, "é\u{7f}🙂~", true);
        assert_eq!(out, "\\u00e9\\u007f\\ud83d\\ude42~");
    }
}
