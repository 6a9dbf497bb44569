//! Writing another model name into a body without touching the rest of it.

use std::ops::Range;

use super::Summary;

/// A replacement of some bytes of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes to remove; empty for an insertion.
    pub span: Range<u64>,
    /// What to write in their place.
    pub text: String,
}

impl Summary<'_> {
    /// The edit that makes `name` the model of the request, whether or not it has one. Everything
    /// else in the body stays as it is, byte for byte.
    pub fn rename_model(&self, name: &str) -> Edit {
        let name = quoted(name);
        match &self.model_span {
            Some(span) => Edit { span: span.clone(), text: name },
            None => {
                let comma = if self.is_empty { "" } else { "," };
                let span = self.members_at..self.members_at;
                Edit { span, text: format!("\"model\":{name}{comma}") }
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..' ' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Api, Limits, Scanner};

    fn renamed(body: &str, name: &str) -> Value {
        let mut scanner = Scanner::new(Api::Completions, Limits::default(), ());
        scanner.feed(body.as_bytes()).expect("valid");
        // No request without a prompt, but the edit is known all the same.
        let _ = scanner.finish();
        let edit = scanner.summary().rename_model(name);
        let (start, end) = (edit.span.start as usize, edit.span.end as usize);
        let body = [&body[..start], &edit.text, &body[end..]].concat();
        serde_json::from_str(&body).expect("still valid")
    }

    #[test]
    fn only_the_model_changes() {
        let hostile = "a\"b\\c\n\u{1}é";
        for body in [
            "{}",
            " { } ",
            r#"{"prompt":"x"}"#,
            r#"{"model":"y","n":12345678901234567890}"#,
            r#"{"n":1, "model" : {"a":[1]} , "x":2}"#,
            r#"{"model":"a","mod\u0065l":5 }"#,
        ] {
            for name in ["llama", "", hostile] {
                let mut want: Value = serde_json::from_str(body).expect("valid");
                want["model"] = json!(name);
                assert_eq!(renamed(body, name), want, "{body}");
            }
        }
    }
}
