//! Answers in other forms than a completion's: messages, responses, lists of token ids.

use serde_json::{Value, json};

use super::answer::{Answer, Choice, Usage};
use crate::engine::job::Finish;

/// Why a message ended, in the words of its API.
pub(super) fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "max_tokens",
        Finish::Stop => "end_turn",
        Finish::CacheThreshold | Finish::RemoteDecode => finish.as_str(),
    }
}

impl Usage {
    /// As messages have it: what the cache held is not counted as input.
    pub(super) fn of_message(self) -> Value {
        let cached = self.cached.unwrap_or(0);
        let input = self.prompt.saturating_sub(cached);
        json!({"input_tokens": input, "output_tokens": self.completion, "cache_read_input_tokens": cached})
    }

    /// As responses have it.
    pub(super) fn of_response(self) -> Value {
        json!({
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached.unwrap_or(0)},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt + self.completion,
        })
    }

    /// As everything else has it.
    pub(super) fn of_completion(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": self.cached.map(|cached| json!({"cached_tokens": cached})),
        })
    }
}

impl Answer {
    /// The answer of `/inference/v1/generate`.
    pub(super) fn generated(
        &self,
        usage: Usage,
        transfer: Option<&str>,
        choices: &[Choice<'_>],
    ) -> String {
        let choice = |(index, choice): (usize, &Choice<'_>)| {
            let ids: &[u32] =
                if choice.finish == Finish::CacheThreshold { &[] } else { choice.reply.ids() };
            json!({"index": index, "finish_reason": choice.finish.as_str(), "token_ids": ids})
        };
        let choices: Vec<_> = choices.iter().enumerate().map(choice).collect();
        let transfer = transfer.and_then(|transfer| serde_json::from_str::<Value>(transfer).ok());
        let answer = json!({
            "request_id": self.id,
            "model": &*self.model,
            "created": self.created,
            "usage": usage.of_completion(),
            "kv_transfer_params": transfer,
            "output_mode": "tokens",
            "choices": choices,
        });
        answer.to_string()
    }

    /// The answer of `/v1/messages`.
    pub(super) fn message(&self, usage: Usage, choices: &[Choice<'_>]) -> String {
        let text = choices.first().map(Choice::text).unwrap_or_default();
        let content = json!([{"type": "text", "text": text}]);
        let reason = choices.first().map(|choice| stop_reason(choice.finish));
        self.message_object(usage, &content, reason).to_string()
    }

    /// A message, whole or as its stream begins.
    pub(super) fn message_object(
        &self,
        usage: Usage,
        content: &Value,
        reason: Option<&str>,
    ) -> Value {
        json!({
            "id": format!("msg_{}", self.id),
            "type": "message",
            "role": "assistant",
            "model": &*self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": null,
            "usage": usage.of_message(),
        })
    }

    /// The answer of `/v1/responses`.
    pub(super) fn response(&self, usage: Usage, choices: &[Choice<'_>]) -> String {
        let ended = choices.first().map(|choice| (choice.text(), choice.finish));
        self.response_object(Some(usage), ended).to_string()
    }

    /// A response, with what it said and why it ended once it has.
    pub(super) fn response_object(
        &self,
        usage: Option<Usage>,
        ended: Option<(&str, Finish)>,
    ) -> Value {
        let (status, incomplete) = match ended {
            None => ("in_progress", None),
            Some((_, Finish::Length)) => {
                ("incomplete", Some(json!({"reason": "max_output_tokens"})))
            }
            Some(_) => ("completed", None),
        };
        let output: Vec<_> =
            ended.map(|(text, _)| self.response_item(Some(text))).into_iter().collect();
        json!({
            "id": format!("resp_{}", self.id),
            "object": "response",
            "created_at": self.created,
            "status": status,
            "incomplete_details": incomplete,
            "model": &*self.model,
            "output": output,
            "usage": usage.map(Usage::of_response),
        })
    }

    /// The message of a response, with its text once it is complete.
    pub(super) fn response_item(&self, text: Option<&str>) -> Value {
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        json!({
            "id": format!("msg_{}", self.id),
            "type": "message",
            "status": if text.is_some() { "completed" } else { "in_progress" },
            "role": "assistant",
            "content": text.map(part).into_iter().collect::<Vec<_>>(),
        })
    }
}
