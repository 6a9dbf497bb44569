//! The syntax of Kubernetes label keys and values.

/// Checks a label key: an optional DNS subdomain and `/`, then a name.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|p| p.len() > 253 || !p.split('.').all(is_dns_label)) {
        return Err(format!("label key {key:?}: the part before '/' must be a DNS subdomain"));
    }
    if name.is_empty() || !is_name(name) {
        return Err(format!(
            "label key {key:?}: expected 1 to 63 letters, digits, '-', '_' or '.', with a letter \
             or digit at either end"
        ));
    }
    Ok(())
}

/// Checks a label value: empty, or like a name.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "label value {value:?}: expected at most 63 letters, digits, '-', '_' or '.', with a \
         letter or digit at either end"
    ))
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn is_dns_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let long = "a".repeat(64);
        for key in ["a", "llm-d.ai/role", "a.b_c-D", "x/1", &long[..63]] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "-a", "a-", "a b", "ä", "A.io/x", "a..b/x", &long] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }

    #[test]
    fn values() {
        let long = "a".repeat(64);
        for value in ["", "a", "1.2_3", &long[..63]] {
            assert_eq!(check_value(value), Ok(()), "{value}");
        }
        for value in [".", "a/b", "a ", &long] {
            assert!(check_value(value).is_err(), "{value}");
        }
    }
}
