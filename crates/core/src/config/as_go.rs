//! What Go's JSON decoder takes and serde does not.
//!
//! The parameters of plugins were written for `encoding/json` behind `sigs.k8s.io/yaml`. There
//!
//! * `null` leaves a field at its default, whatever its type;
//! * a whole number is an integer however it is written: `2.0` and `1e2` are 2 and 100;
//! * keys are found whatever their case.
//!
//! Types that give `null` a meaning keep it: only what a type refuses is mended, where it refuses it.

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::error::Fault;
use super::{hint, source};

/// Whole numbers up to here are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Decodes parameters; a misfit is a fault with the path of the field.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    let mut value = value.clone();
    loop {
        // Every round mends one value for good: it ends.
        match source::decode(value.clone(), "") {
            Err(fault) if mend(&mut value, &fault.path, &fault.message) => {}
            decoded => return decoded,
        }
    }
}

/// Makes of the value at `path` what Go would have made of it. Whether there was anything to do.
fn mend(root: &mut Value, path: &str, message: &str) -> bool {
    let Some((parent, key)) = parent(root, path) else { return false };
    if message.starts_with("unknown field `") {
        return rename(parent, message);
    }
    let Some(found) = entry(parent, key) else { return false };
    match found {
        Value::Null => {
            let Some(fields) = parent.as_mapping_mut() else { return false };
            fields.shift_remove(key).is_some()
        }
        Value::Number(number) if message.contains("floating point") => {
            let whole = number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= EXACT);
            let Some(whole) = whole else { return false };
            *found = Value::from(whole as i64);
            true
        }
        _ => false,
    }
}

/// Gives a key the case that is expected, unless there is one that has it.
fn rename(parent: &mut Value, message: &str) -> bool {
    let Some((key, expected)) = hint::unknown_field(message) else { return false };
    let Some(fields) = parent.as_mapping_mut() else { return false };
    let Some(name) = expected.into_iter().find(|name| name.eq_ignore_ascii_case(key)) else {
        return false;
    };
    if fields.contains_key(name) {
        return false;
    }
    let Some(value) = fields.shift_remove(key) else { return false };
    fields.insert(Value::from(name), value);
    true
}

/// The collection that holds the end of a path like `a.b[0].c`, and the key there.
fn parent<'v, 'p>(root: &'v mut Value, path: &'p str) -> Option<(&'v mut Value, &'p str)> {
    let mut keys = path.split(['.', '[']).map(|key| key.trim_end_matches(']')).peekable();
    let mut at = root;
    loop {
        let key = keys.next()?;
        if keys.peek().is_none() {
            return Some((at, key));
        }
        at = entry(at, key)?;
    }
}

fn entry<'v>(collection: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    match collection {
        Value::Mapping(fields) => fields.get_mut(key),
        Value::Sequence(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Outer {
        count: i64,
        share: f64,
        switch: Option<Inner>,
        list: Vec<Inner>,
        labels: BTreeMap<String, String>,
    }

    impl Default for Outer {
        fn default() -> Self {
            let switch = Some(Inner::default());
            Self { count: 7, share: 0.5, switch, list: Vec::new(), labels: BTreeMap::new() }
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Inner {
        size: u32,
    }

    impl Default for Inner {
        fn default() -> Self {
            Self { size: 3 }
        }
    }

    fn read(text: &str) -> Result<Outer, String> {
        let value = serde_yaml::from_str(text).unwrap();
        decode(&value).map_err(|fault| format!("{}: {}", fault.path, fault.message))
    }

    #[test]
    fn null_leaves_the_default_unless_it_means_something() {
        let read = read("{count: null, share: null, labels: null, list: [{size: null}]}").unwrap();
        assert_eq!(read, Outer { list: vec![Inner { size: 3 }], ..Outer::default() });
    }

    #[test]
    fn null_that_means_something_keeps_its_meaning() {
        let read = read("{switch: null, count: null}").unwrap();
        assert_eq!(read, Outer { switch: None, ..Outer::default() });
    }

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        let whole = read("{count: 2.0, share: 3, list: [{size: 1e2}, {size: 4}]}").unwrap();
        let list = vec![Inner { size: 100 }, Inner { size: 4 }];
        assert_eq!(whole, Outer { count: 2, share: 3.0, list, ..Outer::default() });
        let error = read("{list: [{size: 1}, {size: 2.5}]}").unwrap_err();
        assert!(error.starts_with("list[1].size: invalid type: floating point `2.5`"), "{error}");
        assert!(read("{list: [{size: -1.0}]}").is_err());
        assert!(read("{count: 1e300}").is_err());
    }

    #[test]
    fn keys_are_found_whatever_their_case() {
        let found = read("{Count: 1, LIST: [{Size: 5}]}").unwrap();
        assert_eq!(found, Outer { count: 1, list: vec![Inner { size: 5 }], ..Outer::default() });
        for text in ["{Count: 1, count: 2}", "{counts: 1}", "{count: '1'}", "x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
