//! JSON as Python reads it: members in order, integers of any size, duplicate keys replaced.

use std::collections::HashMap;
use std::sync::Arc;

use memchr::memchr2;

/// Open containers allowed, as in the scanner of request bodies.
const DEPTH: usize = 128;
/// Digits that Python converts to an integer; more are an error there.
const DIGITS: usize = 4300;
const TOO_DEEP: &str = "containers nested less deeply";
const TOO_LONG: &str = "an integer of at most 4300 digits";
const UNPAIRED: &str = "a surrogate pair";
/// Members from which duplicates are found by a map.
const FEW: usize = 12;

/// A JSON value. Texts are shared, so that clones are cheap.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// Digits of an integer beyond `i64`, sign first.
    Big(Arc<str>),
    Float(f64),
    Text(Arc<str>),
    List(Vec<Json>),
    Object(Object),
}

impl Json {
    /// Parses a text that holds one value, `NaN` and infinities included.
    ///
    /// Cost: one look at each byte and one copy of each text. Memory: 32 bytes per value beside
    /// the texts; containers nest 128 deep at most.
    pub(super) fn parse(text: &[u8]) -> Result<Json, JsonError> {
        let text = simdutf8::compat::from_utf8(text)
            .map_err(|error| JsonError { offset: error.valid_up_to(), expected: "UTF-8" })?;
        Parser { text, at: 0 }.document()
    }

    pub(super) fn text(text: &str) -> Json {
        Json::Text(text.into())
    }

    pub(super) fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_object(&self) -> Option<&Object> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// Python's `bool(value)`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Json::Null => false,
            Json::Bool(value) => *value,
            Json::Int(value) => *value != 0,
            Json::Big(_) => true,
            Json::Float(value) => *value != 0.0,
            Json::Text(text) => !text.is_empty(),
            Json::List(items) => !items.is_empty(),
            Json::Object(object) => !object.entries.is_empty(),
        }
    }
}

/// The members of an object in the order of their first appearance.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object {
    pub(super) entries: Vec<(Arc<str>, Json)>,
}

impl Object {
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.entries.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }

    /// The member, if it is there and not null.
    pub(super) fn given(&self, key: &str) -> Option<&Json> {
        self.get(key).filter(|value| !value.is_null())
    }

    /// Takes the member's value out; null stays in its place.
    pub(super) fn take(&mut self, key: &str) -> Option<Json> {
        let (_, value) = self.entries.iter_mut().find(|(name, _)| &**name == key)?;
        Some(std::mem::replace(value, Json::Null))
    }

    /// Adds a member that is not there yet.
    pub(super) fn push(&mut self, key: &str, value: Json) {
        self.entries.push((key.into(), value));
    }

    /// Sets a member, in its place if it is there.
    pub(super) fn set(&mut self, key: &str, value: Json) {
        match self.entries.iter_mut().find(|(name, _)| &**name == key) {
            Some((_, old)) => *old = value,
            None => self.push(key, value),
        }
    }

    /// From members that may repeat: the last value counts, at the first place.
    fn from_members(mut entries: Vec<(Arc<str>, Json)>) -> Object {
        if entries.len() <= FEW {
            let mut unique: Vec<(Arc<str>, Json)> = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                match unique.iter_mut().find(|(name, _)| *name == key) {
                    Some((_, old)) => *old = value,
                    None => unique.push((key, value)),
                }
            }
            return Object { entries: unique };
        }
        let mut places = HashMap::with_capacity(entries.len());
        let mut kept = 0;
        for index in 0..entries.len() {
            let place = *places.entry(entries[index].0.clone()).or_insert(kept);
            entries.swap(place, index);
            kept = kept.max(place + 1);
        }
        entries.truncate(kept);
        Object { entries }
    }
}

impl<const N: usize> From<[(&str, Json); N]> for Object {
    fn from(members: [(&str, Json); N]) -> Self {
        Object { entries: members.map(|(key, value)| (key.into(), value)).into() }
    }
}

/// Where a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonError {
    /// Bytes before the offending one.
    pub(super) offset: usize,
    pub(super) expected: &'static str,
}

impl JsonError {
    /// Whether Python reads it, or fails in another way than over a text that is no JSON.
    pub(super) fn is_limit(&self) -> bool {
        [TOO_DEEP, TOO_LONG, UNPAIRED].contains(&self.expected)
    }
}

/// A container that is not closed yet.
enum Open {
    List(Vec<Json>),
    Object(Vec<(Arc<str>, Json)>, Arc<str>),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn document(mut self) -> Result<Json, JsonError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut value = match self.start()? {
                Start::Value(value) => value,
                Start::Container(_) if open.len() == DEPTH => {
                    return Err(self.expected(TOO_DEEP));
                }
                Start::Container(container) => {
                    open.push(container);
                    continue;
                }
            };
            loop {
                self.space();
                match open.pop() {
                    None if self.at == self.text.len() => return Ok(value),
                    None => return Err(self.expected("the end")),
                    Some(Open::List(mut items)) => {
                        items.push(value);
                        match self.next() {
                            Some(b',') => {
                                open.push(Open::List(items));
                                break;
                            }
                            Some(b']') => value = Json::List(items),
                            _ => return Err(self.before("a comma or a bracket")),
                        }
                    }
                    Some(Open::Object(mut entries, key)) => {
                        entries.push((key, value));
                        match self.next() {
                            Some(b',') => {
                                let key = self.key()?;
                                open.push(Open::Object(entries, key));
                                break;
                            }
                            Some(b'}') => value = Json::Object(Object::from_members(entries)),
                            _ => return Err(self.before("a comma or a brace")),
                        }
                    }
                }
            }
        }
    }

    fn start(&mut self) -> Result<Start, JsonError> {
        self.space();
        let value = match self.peek() {
            Some(b'{') => {
                self.at += 1;
                self.space();
                if self.peek() != Some(b'}') {
                    let key = self.key()?;
                    return Ok(Start::Container(Open::Object(Vec::new(), key)));
                }
                self.at += 1;
                Json::Object(Object::default())
            }
            Some(b'[') => {
                self.at += 1;
                self.space();
                if self.peek() != Some(b']') {
                    return Ok(Start::Container(Open::List(Vec::new())));
                }
                self.at += 1;
                Json::List(Vec::new())
            }
            Some(b'"') => Json::Text(self.string()?),
            _ => self.scalar()?,
        };
        Ok(Start::Value(value))
    }

    fn scalar(&mut self) -> Result<Json, JsonError> {
        const WORDS: [(&str, Json); 6] = [
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("null", Json::Null),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ];
        let rest = self.text.get(self.at..).unwrap_or_default();
        if let Some((word, value)) = WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(value.clone());
        }
        self.number()
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
            whole = false;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
            whole = false;
        }
        let digits = self.text.get(start..self.at).unwrap_or_default();
        if !whole {
            return digits.parse().map(Json::Float).map_err(|_| self.expected("a number"));
        }
        if digits.len() > DIGITS {
            self.at = start;
            return Err(self.expected(TOO_LONG));
        }
        Ok(digits.parse().map_or_else(|_| Json::Big(digits.into()), Json::Int))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a value")) } else { Ok(()) }
    }

    fn key(&mut self) -> Result<Arc<str>, JsonError> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        self.space();
        if self.next() != Some(b':') {
            return Err(self.before("a colon"));
        }
        Ok(key)
    }

    /// The string whose opening quote is next.
    fn string(&mut self) -> Result<Arc<str>, JsonError> {
        self.at += 1;
        let mut unescaped = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(length) = memchr2(b'"', b'\\', rest.as_bytes()) else {
                self.at = self.text.len();
                return Err(self.expected("the end of the string"));
            };
            let piece = rest.get(..length).unwrap_or_default();
            // Without an early end, this is done many bytes at a time.
            if piece.bytes().fold(false, |found, byte| found | (byte < 0x20)) {
                self.at += piece.bytes().position(|byte| byte < 0x20).unwrap_or(0);
                return Err(self.expected("an escape in place of a control character"));
            }
            self.at += length + 1;
            if rest.as_bytes().get(length) == Some(&b'"') {
                if unescaped.is_empty() {
                    return Ok(piece.into());
                }
                unescaped.push_str(piece);
                return Ok(unescaped.into());
            }
            unescaped.push_str(piece);
            unescaped.push(self.escape()?);
        }
    }

    /// The character of the escape whose backslash was read.
    fn escape(&mut self) -> Result<char, JsonError> {
        Ok(match self.next() {
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point(),
            _ => return Err(self.before("an escape")),
        })
    }

    fn code_point(&mut self) -> Result<char, JsonError> {
        let high = self.hex()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or_else(|| self.expected(UNPAIRED));
        }
        let paired = self.text.get(self.at..).is_some_and(|rest| rest.starts_with("\\u"));
        if paired {
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                let point = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(point).ok_or_else(|| self.expected(UNPAIRED));
            }
        }
        Err(self.expected(UNPAIRED))
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        let valid = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| valid);
        let value = value.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError { offset: self.at, expected }
    }

    /// The byte read last is the offending one.
    fn before(&self, expected: &'static str) -> JsonError {
        JsonError { offset: self.at - 1, expected }
    }
}

enum Start {
    Value(Json),
    Container(Open),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, (usize, &'static str)> {
        Json::parse(text.as_bytes()).map_err(|error| (error.offset, error.expected))
    }

    #[test]
    fn values_keep_order_size_and_kind() {
        let text = r#" {"z": 1, "a": [1.50, -0, 1e2, 12345678901234567890123], "é\u00df\ud83d\ude80": "\n\/", "b": {}} "#;
        let Ok(Json::Object(object)) = parse(text) else { panic!("{:?}", parse(text)) };
        let keys: Vec<&str> = object.entries.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["z", "a", "éß🚀", "b"]);
        let numbers = vec![
            Json::Float(1.5),
            Json::Int(0),
            Json::Float(100.0),
            Json::Big("12345678901234567890123".into()),
        ];
        assert_eq!(object.get("a"), Some(&Json::List(numbers)));
        assert_eq!(object.get("éß🚀"), Some(&Json::text("\n/")));
    }

    #[test]
    fn of_equal_keys_the_last_value_takes_the_first_place() {
        for extra in [0, 30] {
            let filler: String = (0..extra).map(|n| format!(r#","k{n}":{n}"#)).collect();
            let text = format!(r#"{{"a":1,"b":2,"a":3{filler},"b":4}}"#);
            let Ok(Json::Object(object)) = parse(&text) else { panic!("{text}") };
            assert_eq!(object.entries.len(), 2 + extra);
            assert_eq!(object.entries[0], ("a".into(), Json::Int(3)));
            assert_eq!(object.entries[1], ("b".into(), Json::Int(4)));
            if extra > 0 {
                assert_eq!(object.entries[31], ("k29".into(), Json::Int(29)));
            }
        }
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_stands() {
        for (text, offset) in [
            ("", 0),
            ("{", 1),
            ("{}x", 2),
            ("[1 2]", 3),
            ("[1,]", 3),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":01}"#, 6),
            ("\"a\nb\"", 2),
            (r#""\ud800""#, 7),
            (r#""\ud800\u0041""#, 13),
            (r#""\x""#, 2),
            (r#""\u12"#, 3),
            ("nul", 0),
            ("-", 1),
            ("1.e1", 2),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.0, offset, "{text}: {}", error.1);
        }
        assert_eq!(Json::parse(b"\"a\xff\"").map_err(|error| error.offset), Err(2));
    }

    #[test]
    fn depth_and_digits_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(128)).is_ok());
        assert!(parse(&format!("[{}", "[".repeat(1_000_000))).is_err());
        assert!(parse(&"9".repeat(4300)).is_ok());
        assert!(parse(&"9".repeat(4301)).is_err());
    }
}
