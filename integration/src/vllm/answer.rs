//! What an engine's answer says of tokens.

use inlane_cli::lab::Answer;
use serde_json::Value;

/// See the [module](self).
#[derive(Debug)]
pub struct Read {
    /// The JSON; of a stream nothing.
    pub json: Value,
    /// Tokens of the prompt that the engine found in its cache.
    pub cached: u64,
    /// Generated token ids by prompt, where they are told.
    pub generated: Vec<Vec<u32>>,
}

impl Read {
    /// Reads an answer of any of the engine's APIs.
    pub fn of(answer: &Answer) -> Self {
        let text = answer.text();
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        // Of a stream the last event that tells of usage.
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut events = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
        let last = events.rfind(|event| event["usage"].is_object()).unwrap_or_default();
        let usage = if json.is_null() { &last["usage"] } else { &json["usage"] };
        let cached = [
            &usage["prompt_tokens_details"]["cached_tokens"],
            &usage["input_tokens_details"]["cached_tokens"],
            &usage["cache_read_input_tokens"],
        ];
        let cached = cached.into_iter().find_map(Value::as_u64).unwrap_or(0);
        let choices = json["choices"].as_array().into_iter().flatten();
        let ids = |choice: &Value| serde_json::from_value(choice["token_ids"].clone()).ok();
        let generated = choices.map_while(ids).collect();
        Self { json, cached, generated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Read {
        Read::of(&Answer { status: 200, headers: Default::default(), body: body.into() })
    }

    #[test]
    fn cached_tokens_are_found_in_every_form() {
        for (body, cached) in [
            (r#"{"usage": {"prompt_tokens_details": {"cached_tokens": 64}}}"#, 64),
            (r#"{"usage": {"input_tokens_details": {"cached_tokens": 32}}}"#, 32),
            (r#"{"usage": {"cache_read_input_tokens": 96}}"#, 96),
            (r#"{"usage": {"prompt_tokens_details": null}}"#, 0),
            ("", 0),
        ] {
            assert_eq!(read(body).cached, cached, "{body}");
        }
    }

    #[test]
    fn of_a_stream_the_last_usage_counts() {
        let usage = r#"{"usage": {"prompt_tokens_details": {"cached_tokens": 64}}}"#;
        let stream = format!("data: {{\"usage\": null}}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
        assert_eq!(read(&stream).cached, 64);
    }

    #[test]
    fn generated_tokens_are_listed_by_choice() {
        let read = read(r#"{"choices": [{"token_ids": [1, 2]}, {"token_ids": [3]}]}"#);
        assert_eq!(read.generated, [vec![1, 2], vec![3]]);
    }
}
