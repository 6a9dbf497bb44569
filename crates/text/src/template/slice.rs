//! Python's slices.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// `value[start:stop:step]`. What cannot be sliced gives undefined, as in Jinja.
///
/// Cost: a copy of what is taken, and a look at the whole text for negative bounds.
pub(super) fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let bound = |place: usize| bounds.get(place).map_or(Ok(None), index);
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "slice step cannot be zero"));
    }
    if let Some(text) = value.as_str() {
        return Ok(slice_text(text, start, stop, step));
    }
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "an undefined value is sliced"));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(Value::UNDEFINED);
    }
    let items = value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?;
    let places = Places::new(items.len(), start, stop, step);
    let taken: Vec<Value> = places.filter_map(|at| items.get(at).cloned()).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(taken)) } else { Value::from(taken) })
}

fn slice_text(text: &str, start: Option<i64>, stop: Option<i64>, step: i64) -> Value {
    // The usual case needs no look at what is left out.
    if let (0.., None, 1) = (start.unwrap_or(0), stop, step) {
        let skipped = usize::try_from(start.unwrap_or(0)).unwrap_or(usize::MAX);
        let from = text.char_indices().nth(skipped).map_or(text.len(), |(at, _)| at);
        return Value::from(text.get(from..).unwrap_or_default());
    }
    if text.is_ascii() && step == 1 {
        let places = Places::new(text.len(), start, stop, 1);
        return Value::from(text.get(places.at..places.at + places.left).unwrap_or_default());
    }
    let chars: Vec<char> = text.chars().collect();
    let places = Places::new(chars.len(), start, stop, step);
    Value::from(places.filter_map(|at| chars.get(at)).collect::<String>())
}

/// The bound: an integer of any size, or none.
fn index(value: &Value) -> Result<Option<i64>, Error> {
    match value.kind() {
        ValueKind::None => Ok(None),
        ValueKind::Number | ValueKind::Bool if super::python::float(value).is_none() => {
            let wide = i128::try_from(value.clone())?;
            Ok(Some(wide.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
        }
        kind => {
            let message = format!("slice indices must be integers or none, not {kind}");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}

/// The places that a slice takes, in its order.
struct Places {
    at: usize,
    left: usize,
    step: i64,
}

impl Places {
    fn new(length: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Places {
        let length = i128::try_from(length).unwrap_or(i128::MAX);
        let wide = i128::from(step);
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let place = |bound: Option<i64>, absent: i128| {
            let Some(bound) = bound.map(i128::from) else { return absent };
            let bound = if bound < 0 { bound + length } else { bound };
            bound.clamp(low, high)
        };
        let (first, last) = if step > 0 { (low, high) } else { (high, low) };
        let (start, stop) = (place(start, first), place(stop, last));
        let span = if step > 0 { stop - start } else { start - stop };
        let left = if span <= 0 { 0 } else { (span - 1) / wide.abs() + 1 };
        Places {
            at: usize::try_from(start).unwrap_or(0),
            left: usize::try_from(left).unwrap_or(0),
            step,
        }
    }
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        let next = i128::try_from(at).unwrap_or(0) + i128::from(self.step);
        self.at = usize::try_from(next).unwrap_or(0);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sliced(text: &str, bounds: [Option<i64>; 3]) -> String {
        let bounds = bounds.map(|bound| bound.map_or_else(|| Value::from(()), Value::from));
        let sliced = slice(&Value::from(text), &bounds).unwrap().to_string();
        let list: Vec<Value> = text.chars().map(Value::from).collect();
        let items = slice(&Value::from(list), &bounds).unwrap();
        let items: String = items.try_iter().unwrap().map(|item| item.to_string()).collect();
        assert_eq!(items, sliced, "{text} {bounds:?}");
        sliced
    }

    #[test]
    fn bounds_count_characters_from_both_ends() {
        for (text, bounds, expected) in [
            ("abcde", [Some(1), None, None], "bcde"),
            ("aß🙂de", [Some(1), None, None], "ß🙂de"),
            ("aß🙂de", [Some(-2), None, None], "de"),
            ("abcde", [None, Some(-1), None], "abcd"),
            ("abcde", [Some(1), Some(3), None], "bc"),
            ("abcde", [Some(3), Some(1), None], ""),
            ("abcde", [Some(9), None, None], ""),
            ("abcde", [Some(-9), Some(2), None], "ab"),
            ("abcde", [None, None, Some(2)], "ace"),
            ("abcde", [None, None, Some(-1)], "edcba"),
            ("aß🙂de", [None, None, Some(-2)], "e🙂a"),
            ("abcde", [Some(2), Some(0), Some(-1)], "cb"),
            ("abcde", [Some(9), Some(-9), Some(-3)], "eb"),
            ("", [None, None, Some(-1)], ""),
            ("", [Some(0), None, None], ""),
            ("abc", [Some(i64::MIN), Some(i64::MAX), Some(i64::MAX)], "a"),
            ("abc", [None, None, Some(i64::MIN)], "c"),
        ] {
            assert_eq!(sliced(text, bounds), expected, "{text} {bounds:?}");
        }
    }

    #[test]
    fn what_has_no_items_gives_undefined_and_a_step_of_zero_fails() {
        assert!(slice(&Value::from(()), &[]).unwrap().is_undefined());
        assert!(slice(&Value::from(5), &[]).unwrap().is_undefined());
        assert!(slice(&Value::UNDEFINED, &[]).is_err());
        let none = Value::from(());
        assert!(slice(&Value::from("a"), &[none.clone(), none, Value::from(0)]).is_err());
        assert!(slice(&Value::from("a"), &[Value::from(1.5)]).is_err());
        let pair = Value::from(Tuple::from([Value::from(1), Value::from(2)]));
        assert!(slice(&pair, &[Value::from(1)]).unwrap().is_tuple());
    }
}
