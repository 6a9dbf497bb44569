//! Filters, tests and functions where Jinja or the engine differs from the template library.

// The library hands keyword and remaining arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::borrow::Cow;
use std::fmt;

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use minijinja_contrib::globals::{cycler, joiner};

use super::object::BigInt;
use super::python::{self, Dumps};
use super::{methods, time};

/// The variable under which the time of a render is found.
pub(super) const NOW: &str = "__now__";
/// Widest indentation of `tojson` and `indent`.
const INDENT: usize = 1 << 10;

/// Makes an environment behave as that of `apply_chat_template`.
pub(super) fn register(env: &mut Environment<'_>) {
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, _, value| python::str_to(out, value));
    env.set_unknown_method_callback(methods::call);
    add_filters(env);
    add_tests(env);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", |state: &State<'_, '_>, format: &str| {
        let now = state.lookup(NOW).and_then(|now| now.as_i64()).unwrap_or(0);
        time::strftime(now, format)
    });
    env.add_function("cycler", cycler);
    env.add_function("joiner", joiner);
}

/// What the template said when it refused a conversation.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = python::str(message)?;
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template")
        .with_source(Raised(message)))
}

fn add_filters(env: &mut Environment<'_>) {
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| python::str(value));
    env.add_filter("upper", |value: &Value| Ok::<_, Error>(text(value)?.to_uppercase()));
    env.add_filter("lower", |value: &Value| Ok::<_, Error>(text(value)?.to_lowercase()));
    env.add_filter("trim", |value: &Value, chars: Option<&str>| {
        Ok::<_, Error>(methods::trim(&text(value)?, chars, true, true).to_owned())
    });
    env.add_filter("replace", replace);
    env.add_filter("join", join);
    env.add_filter("indent", indent);
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("items", items);
    env.add_filter("wordcount", |value: &Value| {
        Ok::<_, Error>(
            text(value)?.split(methods::is_space).filter(|word| !word.is_empty()).count(),
        )
    });
}

fn add_tests(env: &mut Environment<'_>) {
    env.add_test("iterable", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Bytes => true,
        kind => matches!(kind, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map),
    });
    env.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Bytes => true,
        ValueKind::Iterable => value.len().is_some(),
        kind => matches!(kind, ValueKind::Seq | ValueKind::Map),
    });
    env.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool) || is_big(value)
    });
    env.add_test("integer", |value: &Value| {
        value.kind() == ValueKind::Number && value.is_integer() || is_big(value)
    });
    env.add_test("float", |value: &Value| python::float(value).is_some());
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain && !is_big(value));
}

fn is_big(value: &Value) -> bool {
    value.downcast_object_ref::<BigInt>().is_some()
}

/// Jinja's `soft_str`: the text itself, or what would be printed.
fn text(value: &Value) -> Result<Cow<'_, str>, Error> {
    match value.as_str() {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => python::str(value).map(Cow::Owned),
    }
}

/// `json.dumps` with `ensure_ascii=False`: the engine's filter, not Jinja's.
fn tojson(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let mut given: [Option<Value>; 4] = Default::default();
    if placed.len() > given.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    for (place, (given, name)) in given.iter_mut().zip(NAMES).enumerate() {
        let value = placed.get(place).cloned().or(named.get(name)?);
        *given = value.filter(|value| !value.is_none());
    }
    named.assert_all_used()?;
    let [ascii, indent, separators, sort_keys] = given;
    let mut dumps = Dumps {
        ascii: ascii.is_some_and(|value| value.is_true()),
        sort_keys: sort_keys.is_some_and(|value| value.is_true()),
        ..Dumps::default()
    };
    if let Some(indent) = indent {
        dumps.indent = Some(margin(&indent)?);
        dumps.item_separator = ",".to_owned();
    }
    if let Some(separators) = separators {
        let mut texts = Vec::new();
        for item in separators.try_iter()?.checked() {
            let item = item?;
            texts.push(item.as_str().map(str::to_owned));
        }
        let [Some(item), Some(key)] = texts.as_slice() else {
            let message = "separators of tojson must be two strings";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        };
        dumps.item_separator.clone_from(item);
        dumps.key_separator.clone_from(key);
    }
    let mut out = String::new();
    dumps.write(&mut out, value, 0)?;
    Ok(out)
}

/// Blanks, or the text itself.
fn margin(width: &Value) -> Result<String, Error> {
    if let Some(text) = width.as_str() {
        return Ok(text.to_owned());
    }
    let width = usize::try_from(i64::try_from(width.clone())?).unwrap_or(0);
    if width > INDENT {
        return Err(Error::new(ErrorKind::InvalidOperation, "an indentation is too wide"));
    }
    Ok(" ".repeat(width))
}

fn replace(value: &Value, old: &Value, new: &Value, count: Option<i64>) -> Result<String, Error> {
    let count = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    Ok(text(value)?.replacen(&*text(old)?, &text(new)?, count))
}

fn join(
    value: &Value,
    separator: Option<Value>,
    attribute: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let separator = separator.or(named.get("d")?).map_or(Ok(String::new()), |d| python::str(&d))?;
    let attribute: Option<Value> = attribute.or(named.get("attribute")?);
    named.assert_all_used()?;
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.checked().enumerate() {
        if index > 0 {
            joined.push_str(&separator);
        }
        let mut item = item?;
        if let Some(attribute) = attribute.as_ref().filter(|attribute| !attribute.is_none()) {
            for name in python::str(attribute)?.split('.') {
                item = match name.parse::<usize>() {
                    Ok(place) => item.get_item_by_index(place)?,
                    Err(_) => item.get_item(&Value::from(name))?,
                };
            }
        }
        python::str_to(&mut joined, &item)?;
    }
    Ok(joined)
}

fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = width.or(named.get("width")?).map_or(Ok("    ".to_owned()), |w| margin(&w))?;
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    // Jinja appends a line end, so that one at the end of the text survives the splitting.
    let text = format!("{}\n", text(value)?);
    let mut out = String::with_capacity(text.len() * 2);
    for (index, line) in methods::lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let other: Option<Value> = other.or(named.get("default_value")?);
    let boolean: Option<Value> = boolean.or(named.get("boolean")?);
    named.assert_all_used()?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    if value.is_undefined() || falsy {
        return Ok(other.unwrap_or_else(|| Value::from("")));
    }
    Ok(value.clone())
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        let message = format!("a value of type {} has no length", value.kind());
        Error::new(ErrorKind::InvalidOperation, message)
    })
}

fn items(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Map => Ok(python::pairs(value).map(Value::from).collect()),
        kind => {
            let message = format!("a value of type {kind} has no items");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}
