//! Filters, tests and functions where Jinja or the engine differs from the template library.

// The library hands keyword and remaining arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::borrow::Cow;
use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use minijinja_contrib::globals::{cycler, joiner};

use super::charges::{BODY, CHARGED, EACH};
use super::object::BigInt;
use super::python::{self, Dumps};
use super::{budget, methods, time};

/// The variable under which the time of a render is found.
pub(super) const NOW: &str = "__now__";
/// Widest indentation of `tojson` and `indent`.
const INDENT: usize = 1 << 10;

/// Makes an environment behave as that of `apply_chat_template`.
pub(super) fn register(env: &mut Environment<'_>) {
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, _, value| python::str_to(&mut budget::Charged(out), value));
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
    env.add_filter(CHARGED, budget::value);
    env.add_filter(BODY, budget::body);
    env.add_filter(EACH, each);
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
    env.add_filter("dictsort", dictsort);
    env.add_filter("attr", attr);
    env.add_filter("int", int);
    env.add_filter("float", float);
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

/// What a loop goes over: anything but what Python has no items of.
fn each(value: Value) -> Result<Value, Error> {
    match value.kind() {
        kind @ (ValueKind::None | ValueKind::Bool | ValueKind::Number) => {
            let message = format!("a value of type {kind} is not iterable");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
        _ => Ok(value),
    }
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
    let given = arguments(&placed, &named, NAMES)?;
    let [ascii, indent, separators, sort_keys] =
        given.map(|given| given.filter(|value| !value.is_none()));
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
    methods::replace(&text(value)?, &text(old)?, &text(new)?, count)
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
    let mut joined = budget::Text::default();
    for (index, item) in value.try_iter()?.checked().enumerate() {
        if index > 0 {
            joined.write_str(&separator)?;
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
    Ok(joined.0)
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
    let mut out = budget::Text(String::with_capacity(text.len() * 2));
    for (index, line) in methods::lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            out.write_char('\n')?;
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.write_str(&width)?;
        }
        out.write_str(line)?;
    }
    Ok(out.0)
}

fn default(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [other, boolean] = arguments(&placed, &named, ["default_value", "boolean"])?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    if value.is_undefined() || falsy {
        return Ok(other.unwrap_or_else(|| Value::from("")));
    }
    Ok(value.clone())
}

/// Arguments by place or by name. A given none is a value, unlike with `Option` parameters.
fn arguments<const N: usize>(
    placed: &[Value],
    named: &Kwargs,
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    if placed.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut given = [const { None }; N];
    for (place, (given, name)) in given.iter_mut().zip(names).enumerate() {
        *given = match placed.get(place) {
            Some(value) => Some(value.clone()),
            None if named.has(name) => Some(named.get(name)?),
            None => None,
        };
    }
    named.assert_all_used()?;
    Ok(given)
}

/// The number, or the default where there is none: what Python's `int` takes, and else the whole
/// part of what its `float` takes.
fn int(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [default, base] = arguments(&placed, &named, ["default", "base"])?;
    defined(value)?;
    let default = || default.unwrap_or_else(|| Value::from(0));
    let base = base.and_then(|base| base.as_usize()).unwrap_or(10);
    let Some(text) = value.as_str() else {
        return Ok(match (value.kind(), python::float(value)) {
            (ValueKind::Number, None) => value.clone(),
            (ValueKind::Number, Some(number)) if number.is_finite() => {
                Value::from(number.trunc() as i128)
            }
            (ValueKind::Bool, _) => Value::from(i32::from(value.is_true())),
            _ if is_big(value) => value.clone(),
            _ => default(),
        });
    };
    let digits = text.trim_matches(methods::is_space).replace('_', "");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let prefix = match base {
        2 => ["0b", "0B"],
        8 => ["0o", "0O"],
        _ => ["0x", "0X"],
    };
    let bare = prefix.iter().find_map(|prefix| digits.strip_prefix(prefix));
    let bare = bare.filter(|_| matches!(base, 2 | 8 | 16)).unwrap_or(digits);
    let radix = u32::try_from(base).ok().filter(|radix| (2..=36).contains(radix));
    let whole = radix.filter(|_| !bare.starts_with(['+', '-']));
    if let Some(number) = whole.and_then(|radix| i128::from_str_radix(bare, radix).ok()) {
        return Ok(Value::from(sign * number));
    }
    let number = text.trim_matches(methods::is_space).parse().ok().filter(|n: &f64| n.is_finite());
    Ok(number.map_or_else(default, |number| Value::from(number.trunc() as i128)))
}

fn defined(value: &Value) -> Result<(), Error> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(()) }
}

fn float(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [default] = arguments(&placed, &named, ["default"])?;
    defined(value)?;
    let number = match value.as_str() {
        Some(text) => text.trim_matches(methods::is_space).replace('_', "").parse::<f64>().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
}

fn dictsort(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [case, by, reverse] = arguments(&placed, &named, ["case_sensitive", "by", "reverse"])?;
    if value.kind() != ValueKind::Map {
        let message = format!("a value of type {} is not a dict", value.kind());
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let is_true = |given: Option<Value>| given.is_some_and(|value| value.is_true());
    let (case, reverse) = (is_true(case), is_true(reverse));
    let by_value = match by.as_ref().and_then(|by| by.as_str()) {
        Some("value") => true,
        Some("key") | None => false,
        Some(_) => {
            let message = "by must be key or value";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    };
    let sort_key = |pair: &(Value, Value)| {
        let part = if by_value { &pair.1 } else { &pair.0 };
        match part.as_str() {
            Some(text) if !case => Value::from(text.to_lowercase()),
            _ => part.clone(),
        }
    };
    let mut pairs: Vec<(Value, Value)> = python::pairs(value).collect();
    pairs.sort_by_cached_key(sort_key);
    if reverse {
        // Python keeps equal ones in order when it reverses; keys differ but for their case.
        pairs.reverse();
    }
    Ok(pairs.into_iter().map(Value::from).collect())
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

/// The attribute, not the member: a dict has its methods.
fn attr(value: &Value, name: &str) -> Value {
    if value.kind() == ValueKind::Map && !methods::DICT.contains(&name) {
        return Value::UNDEFINED;
    }
    value.get_attr(name).unwrap_or_default()
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
