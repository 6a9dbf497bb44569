//! The methods of Python's str, dict and list that templates call.

use std::fmt::Write;

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::budget;
use super::object::Method;
use super::python;
use super::slice::slice;

/// Methods of a dict. Those that would change it are refused, as in Jinja's immutable sandbox.
pub(super) const DICT: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// What slices are rewritten to: see [`syntax`](super::syntax).
pub(super) const SLICE: &str = "__slice__";

/// What subscripts with the name of a method are rewritten to.
pub(super) const ITEM: &str = "__getitem__";

/// Calls a method of a value that brings none of its own, and charges what it makes.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == SLICE {
        return slice(value, args).and_then(budget::value);
    }
    if let (ITEM, [name]) = (method, args) {
        let member = value.get_item(name)?;
        let name = name.as_str().unwrap_or_default();
        let method = DICT.iter().find(|method| **method == name && member.is_undefined());
        let method = method.filter(|_| value.kind() == ValueKind::Map);
        return Ok(method.map_or(member, |method| Method::value(value.clone(), method)));
    }
    let found = match value.kind() {
        ValueKind::String => {
            let whole = value.as_str().unwrap_or_default();
            let found = text(whole, method, &Args::new(args))?;
            if found.as_ref().is_some_and(|found| found.kind() == ValueKind::Seq) {
                // The pieces of a text, which are as long as the text.
                budget::charge(whole.len())?;
            }
            found
        }
        ValueKind::Map => dict(value, method, &Args::new(args))?,
        ValueKind::Seq | ValueKind::Iterable => list(value, method, &Args::new(args))?,
        ValueKind::Undefined => {
            let message = format!("method {method} of an undefined value is called");
            return Err(Error::new(ErrorKind::UndefinedError, message));
        }
        _ => None,
    };
    match (found, method) {
        // These give what is there already.
        (Some(found), "copy" | "get") => Ok(found),
        (Some(found), _) => budget::value(found),
        (None, _) => unknown_method_callback(state, value, method, args).and_then(budget::value),
    }
}

/// Python's `str.replace`.
pub(super) fn replace(text: &str, old: &str, new: &str, count: usize) -> Result<String, Error> {
    if let Some(longer @ 1..) = new.len().checked_sub(old.len()) {
        let times = text.matches(old).take(count).count();
        budget::allow(longer.saturating_mul(times).saturating_add(text.len()))?;
    }
    Ok(text.replacen(old, new, count))
}

/// Arguments by place or by name.
struct Args<'a> {
    placed: &'a [Value],
    named: Option<&'a Value>,
}

impl<'a> Args<'a> {
    fn new(args: &'a [Value]) -> Self {
        match args.split_last() {
            Some((named, placed)) if named.is_kwargs() => Args { placed, named: Some(named) },
            _ => Args { placed: args, named: None },
        }
    }

    /// The argument; none counts as absent.
    fn get(&self, place: usize, name: &str) -> Option<Value> {
        let named = || self.named.and_then(|named| named.get_attr(name).ok());
        let value = self.placed.get(place).cloned().or_else(named)?;
        (!value.is_undefined() && !value.is_none()).then_some(value)
    }

    fn required(&self, place: usize, name: &str) -> Result<Value, Error> {
        let given = self.placed.get(place).cloned();
        given.or_else(|| self.get(place, name)).ok_or_else(|| {
            Error::new(ErrorKind::MissingArgument, format!("argument {name} is missing"))
        })
    }

    fn text(&self, place: usize, name: &str) -> Result<String, Error> {
        as_text(&self.required(place, name)?, name)
    }

    fn optional_text(&self, place: usize, name: &str) -> Result<Option<String>, Error> {
        self.get(place, name).map(|value| as_text(&value, name)).transpose()
    }

    /// A count; negative ones mean without bound.
    fn count(&self, place: usize, name: &str) -> Result<usize, Error> {
        let count = self.get(place, name).map_or(Ok(-1), i64::try_from)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

fn as_text(value: &Value, name: &str) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| {
        let message = format!("argument {name} must be a string, not {}", value.kind());
        Error::new(ErrorKind::InvalidOperation, message)
    })
}

fn text(text: &str, method: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" => Value::from(trim(text, args.optional_text(0, "chars")?.as_deref(), true, true)),
        "lstrip" => {
            Value::from(trim(text, args.optional_text(0, "chars")?.as_deref(), true, false))
        }
        "rstrip" => {
            Value::from(trim(text, args.optional_text(0, "chars")?.as_deref(), false, true))
        }
        "split" => split(text, args)?,
        "rsplit" => rsplit(text, args)?,
        "splitlines" => {
            let keep = args.get(0, "keepends").is_some_and(|keep| keep.is_true());
            lines(text, keep).into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            partition(text, &args.text(0, "sep")?, method == "rpartition")
        }
        "startswith" => Value::from(any_of(args, "prefix", |prefix| text.starts_with(prefix))?),
        "endswith" => Value::from(any_of(args, "suffix", |suffix| text.ends_with(suffix))?),
        "removeprefix" => {
            Value::from(text.strip_prefix(args.text(0, "prefix")?.as_str()).unwrap_or(text))
        }
        "removesuffix" => {
            Value::from(text.strip_suffix(args.text(0, "suffix")?.as_str()).unwrap_or(text))
        }
        "replace" => {
            let (old, new) = (args.text(0, "old")?, args.text(1, "new")?);
            Value::from(replace(text, &old, &new, args.count(2, "count")?)?)
        }
        "find" | "index" => found(text, text.find(&args.text(0, "sub")?), method)?,
        "rfind" | "rindex" => found(text, text.rfind(&args.text(0, "sub")?), method)?,
        "count" => Value::from(text.matches(&args.text(0, "sub")?).count()),
        "join" => {
            let mut joined = budget::Text::default();
            for (index, item) in args.required(0, "iterable")?.try_iter()?.checked().enumerate() {
                if index > 0 {
                    joined.write_str(text)?;
                }
                joined.write_str(&as_text(&item?, "item")?)?;
            }
            Value::from(joined.0)
        }
        "upper" => Value::from(text.to_uppercase()),
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "swapcase" => text.chars().map(swap_case).collect::<String>().into(),
        "title" => Value::from(title(text)),
        "isspace" => Value::from(!text.is_empty() && text.chars().all(is_space)),
        "zfill" => {
            let missing = args.count(0, "width")?.saturating_sub(text.chars().count());
            let digits = text.trim_start_matches(['+', '-']);
            let sign = text.strip_suffix(digits).unwrap_or_default();
            Value::from(format!("{sign}{}{digits}", fill('0', missing)?))
        }
        "center" | "ljust" | "rjust" => {
            let missing = args.count(0, "width")?.saturating_sub(text.chars().count());
            let char = args.optional_text(1, "fillchar")?.and_then(|fill| fill.chars().next());
            let char = char.unwrap_or(' ');
            let left = match method {
                "ljust" => 0,
                "rjust" => missing,
                _ => missing / 2 + (missing & args.count(0, "width")? & 1),
            };
            Value::from(format!("{}{text}{}", fill(char, left)?, fill(char, missing - left)?))
        }
        _ => return Ok(None),
    }))
}

fn dict(value: &Value, method: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "items" => {
            python::pairs(value).map(|pair| Value::from(Tuple::from([pair.0, pair.1]))).collect()
        }
        "keys" => python::pairs(value).map(|(key, _)| key).collect(),
        "values" => python::pairs(value).map(|(_, value)| value).collect(),
        "copy" => value.clone(),
        "get" => {
            let key = args.required(0, "key")?;
            let member = value.as_object().and_then(|object| object.get_value(&key));
            member.or_else(|| args.get(1, "default")).unwrap_or_else(|| Value::from(()))
        }
        "clear" | "pop" | "popitem" | "setdefault" | "update" => return Err(immutable(method)),
        _ => return Ok(None),
    }))
}

fn list(value: &Value, method: &str, args: &Args<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "copy" => value.clone(),
        "index" | "count" => {
            let wanted = args.required(0, "value")?;
            let mut places = Vec::new();
            for (place, item) in value.try_iter()?.checked().enumerate() {
                if item? == wanted {
                    places.push(place);
                }
            }
            match (method, places.first()) {
                ("count", _) => Value::from(places.len()),
                (_, Some(place)) => Value::from(*place),
                _ => return Err(Error::new(ErrorKind::InvalidOperation, "value is not in list")),
            }
        }
        "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" => {
            return Err(immutable(method));
        }
        _ => return Ok(None),
    }))
}

fn immutable(method: &str) -> Error {
    let message = format!("method {method} is not allowed: values cannot be changed");
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Python's white space: that of Unicode and the separators of ASCII.
pub(super) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// Python's `strip` and its one-sided forms.
pub(super) fn trim<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let strip = |char: char| chars.map_or_else(|| is_space(char), |chars| chars.contains(char));
    let text = if start { text.trim_start_matches(strip) } else { text };
    if end { text.trim_end_matches(strip) } else { text }
}

/// Python's `splitlines`.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_end = |char| {
        matches!(
            char,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(is_end) {
        let (line, tail) = rest.split_at(at);
        let end = if tail.starts_with("\r\n") {
            2
        } else {
            tail.chars().next().map_or(0, char::len_utf8)
        };
        lines.push(if keep { rest.get(..at + end).unwrap_or(line) } else { line });
        rest = tail.get(end..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn split(text: &str, args: &Args<'_>) -> Result<Value, Error> {
    let most = args.count(1, "maxsplit")?.saturating_add(1);
    let Some(separator) = args.optional_text(0, "sep")? else {
        let (mut words, mut rest) = (Vec::new(), text.trim_start_matches(is_space));
        while !rest.is_empty() {
            let end = rest.find(is_space).filter(|_| words.len() + 1 < most);
            let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
            words.push(Value::from(word));
            rest = tail.trim_start_matches(is_space);
        }
        return Ok(Value::from(words));
    };
    not_empty(&separator)?;
    Ok(text.splitn(most, &separator).map(Value::from).collect())
}

fn rsplit(text: &str, args: &Args<'_>) -> Result<Value, Error> {
    let most = args.count(1, "maxsplit")?.saturating_add(1);
    let mut words = Vec::new();
    if let Some(separator) = args.optional_text(0, "sep")? {
        not_empty(&separator)?;
        words.extend(text.rsplitn(most, &separator).map(Value::from));
    } else {
        let mut rest = text.trim_end_matches(is_space);
        while !rest.is_empty() {
            let word = rest.rfind(is_space).filter(|_| words.len() + 1 < most);
            let start = word.and_then(|at| Some(at + rest.get(at..)?.chars().next()?.len_utf8()));
            let (tail, word) = rest.split_at(start.unwrap_or(0));
            words.push(Value::from(word));
            rest = tail.trim_end_matches(is_space);
        }
    }
    words.reverse();
    Ok(Value::from(words))
}

fn partition(text: &str, separator: &str, last: bool) -> Value {
    let split = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match split {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Value::from(Tuple::from(parts.map(Value::from)))
}

fn not_empty(separator: &str) -> Result<(), Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    Ok(())
}

/// Whether the first argument, a string or several, holds one for which the test is true.
fn any_of(args: &Args<'_>, name: &str, test: impl Fn(&str) -> bool) -> Result<bool, Error> {
    let wanted = args.required(0, name)?;
    if let Some(text) = wanted.as_str() {
        return Ok(test(text));
    }
    if !wanted.is_tuple() {
        return as_text(&wanted, name).map(|_| false);
    }
    for item in wanted.try_iter()?.checked() {
        if test(&as_text(&item?, name)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The place in characters; -1 or an error if there is none.
fn found(text: &str, at: Option<usize>, method: &str) -> Result<Value, Error> {
    match at.and_then(|at| text.get(..at)) {
        Some(before) => Ok(Value::from(before.chars().count())),
        None if method.ends_with("find") => Ok(Value::from(-1)),
        None => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
    }
}

/// Python's `str.title`: a letter after what is no letter is upper case.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut titled = String::with_capacity(text.len());
    for char in text.chars() {
        if inside {
            titled.extend(char.to_lowercase());
        } else {
            titled.extend(char.to_uppercase());
        }
        inside = char.is_lowercase() || char.is_uppercase();
    }
    titled
}

fn swap_case(char: char) -> String {
    if char.is_uppercase() { char.to_lowercase().collect() } else { char.to_uppercase().collect() }
}

/// What a text is padded with, within reason.
fn fill(char: char, count: usize) -> Result<String, Error> {
    if count > 1 << 20 {
        return Err(Error::new(ErrorKind::InvalidOperation, "a text is padded too widely"));
    }
    Ok(std::iter::repeat_n(char, count).collect())
}
