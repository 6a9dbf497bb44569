//! JSON values in the template engine: Python's dict and int where its own types differ.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, State};

use super::json::{self, Json};
use super::{methods, python};

/// Members from which they are found by a map.
const FEW: usize = 12;

/// The value for the template engine. Texts are shared with it, not copied.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Int(value) => Value::from(*value),
        Json::Big(digits) => match digits.parse::<i128>() {
            Ok(value) => Value::from(value),
            Err(_) => Value::from_object(BigInt(digits.clone())),
        },
        Json::Float(value) => Value::from(*value),
        Json::Text(text) => Value::from(text),
        Json::List(items) => Value::from_object(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(object) => Value::from_object(Dict::from(object)),
    }
}

/// An integer beyond the engine's 128 bits: printed and compared, not computed with.
#[derive(Debug)]
pub(super) struct BigInt(pub(super) Arc<str>);

impl Object for BigInt {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<std::cmp::Ordering> {
        let other = other.downcast_ref::<BigInt>()?;
        (self.0 == other.0).then_some(std::cmp::Ordering::Equal)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A dict: members in order, and `dict.items` is the method even if there is a member `items`.
pub(super) struct Dict {
    members: Vec<(Arc<str>, Value)>,
    index: OnceLock<HashMap<Arc<str>, usize>>,
}

impl From<&json::Object> for Dict {
    fn from(object: &json::Object) -> Self {
        let members = object.entries.iter().map(|(key, json)| (key.clone(), value(json)));
        Dict { members: members.collect(), index: OnceLock::new() }
    }
}

impl Dict {
    fn get(&self, key: &str) -> Option<&Value> {
        if self.members.len() <= FEW {
            return self.members.iter().find(|(name, _)| &**name == key).map(|(_, value)| value);
        }
        let names = || self.members.iter().map(|(name, _)| name.clone());
        let index = self.index.get_or_init(|| names().zip(0..).collect());
        index.get(key).and_then(|&place| self.members.get(place)).map(|(_, value)| value)
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.members.iter().map(|(key, value)| (key, value))).finish()
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).cloned()
    }

    /// The attribute: methods hide members.
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if let Some(name) = methods::DICT.iter().find(|name| **name == key) {
            return Some(Method::value(Value::from_dyn_object(self.clone()), name));
        }
        self.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let dict = self.clone();
        let member = move |at: usize| {
            let (key, value) = dict.members.get(at)?;
            Some((Value::from(key), value.clone()))
        };
        // Every index is a member: the size is known.
        let pairs = (0..self.members.len()).map(move |at| member(at).unwrap_or_default());
        Enumerator::KeyValueIter(Box::new(pairs))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.members.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = Value::from_dyn_object(self.clone());
        python::repr_to(f, &value, 0).map_err(|_| fmt::Error)
    }
}

/// A method that was taken from a dict and not called.
#[derive(Debug)]
pub(super) struct Method {
    receiver: Value,
    name: &'static str,
}

impl Method {
    pub(super) fn value(receiver: Value, name: &'static str) -> Value {
        Value::from_object(Method { receiver, name })
    }
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        methods::call(state, &self.receiver, self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        value(&Json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn values_print_as_python_objects() {
        let text = r#"{"z": [1, null, true, 2.0, 1e30], "a'b": {"é": ""}, "n": 170141183460469231731687303715884105728}"#;
        let expected = r#"{'z': [1, None, True, 2.0, 1e+30], "a'b": {'é': ''}, 'n': 170141183460469231731687303715884105728}"#;
        assert_eq!(python::str(&parsed(text)).unwrap(), expected);
        assert_eq!(parsed(text).to_string(), expected);
        let mut dumped = String::new();
        python::Dumps::default().write(&mut dumped, &parsed(text), 0).unwrap();
        assert_eq!(dumped, text.replace("1e30", "1e+30"));
    }

    #[test]
    fn members_are_found_in_small_and_large_dicts() {
        for size in [3, 40] {
            let members: Vec<String> = (0..size).map(|n| format!(r#""k{n}":{n}"#)).collect();
            let dict = parsed(&format!("{{{}}}", members.join(",")));
            assert_eq!(dict.len(), Some(size));
            assert_eq!(dict.get_item(&Value::from("k2")).unwrap(), Value::from(2));
            assert!(dict.get_item(&Value::from("k99")).unwrap().is_undefined());
            assert!(dict.get_item(&Value::from(2)).unwrap().is_undefined());
        }
    }

    #[test]
    fn equal_dicts_are_equal_whatever_their_order() {
        assert_eq!(parsed(r#"{"a":1,"b":[2]}"#), parsed(r#"{"b":[2],"a":1.0}"#));
        assert_ne!(parsed(r#"{"a":1}"#), parsed(r#"{"a":2}"#));
        let big = "999999999999999999999999999999999999999999";
        assert_eq!(parsed(big), parsed(big));
    }
}
