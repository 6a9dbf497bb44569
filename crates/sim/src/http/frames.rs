//! The events of a stream, in each API's form.
//!
//! Completions send chunks without a name, generate requests too; messages and responses send named
//! events, which say of each part of the answer when it begins and when it is complete.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    answer::{Answer, Api, Usage, quote},
    forms::stop_reason,
};
use crate::{engine::job::Finish, text::reply::Reply};

/// Writes the events of one stream.
#[derive(Debug)]
pub(super) struct Frames {
    answer: Answer,
    /// The beginning of every chunk of a completion.
    head: String,
    /// Number of the next event of a response.
    sequence: u64,
}

impl Frames {
    pub(super) fn new(answer: Answer) -> Self {
        let head = match answer.api {
            Api::Chat | Api::Text => answer.chunk_head(),
            Api::Generate | Api::Messages | Api::Responses => String::new(),
        };
        Self { answer, head, sequence: 0 }
    }

    /// Bytes around a token, roughly.
    pub(super) fn overhead(&self) -> usize {
        self.head.len() + 90
    }

    /// Whether the reason for the end stands in the event of the last token.
    pub(super) fn ends_with_a_token(&self) -> bool {
        self.answer.api == Api::Generate
    }

    /// What comes before the tokens of a choice.
    pub(super) fn start(&mut self, index: usize, usage: Usage, out: &mut String) {
        match self.answer.api {
            Api::Chat => {
                let _ = write!(
                    out,
                    "{}null,\"choices\":[{{\"index\":{index},\"finish_reason\":null,\"delta\":{{\"role\":\"assistant\"}}}}]}}\n\n",
                    self.head
                );
            }
            Api::Text | Api::Generate => {}
            Api::Messages => {
                // What the cache held is known at the end.
                let usage = Usage { cached: None, ..usage };
                let message = self.answer.message_object(usage, &json!([]), None);
                self.event("message_start", json!({"message": message}), out);
                let block = json!({"index": 0, "content_block": {"type": "text", "text": ""}});
                self.event("content_block_start", block, out);
            }
            Api::Responses => {
                for name in ["response.created", "response.in_progress"] {
                    let response = self.answer.response_object(None, None);
                    self.event(name, json!({"response": response}), out);
                }
                let item = self.answer.response_item(None);
                let added = json!({"output_index": 0, "item": item});
                self.event("response.output_item.added", added, out);
                let part = self
                    .part(json!({"part": {"type": "output_text", "text": "", "annotations": []}}));
                self.event("response.content_part.added", part, out);
            }
        }
    }

    /// One token of a choice; `last` ends it.
    pub(super) fn token(
        &mut self,
        index: usize,
        (reply, at): (&Reply, usize),
        last: Option<Finish>,
        out: &mut String,
    ) {
        let text = reply.token(at);
        match self.answer.api {
            Api::Chat | Api::Text => {
                let chat = self.answer.api == Api::Chat;
                let _ = write!(
                    out,
                    "{}null,\"choices\":[{{\"index\":{index},\"finish_reason\":null,",
                    self.head
                );
                out.push_str(if chat { "\"delta\":{\"content\":" } else { "\"text\":" });
                quote(text, out);
                out.push_str(if chat { "}}]}\n\n" } else { "}]}\n\n" });
            }
            Api::Generate => {
                let ids = reply.ids().get(at..=at).unwrap_or_default();
                self.chunk(index, ids, last, out);
            }
            Api::Messages => {
                let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": text}});
                self.event("content_block_delta", delta, out);
            }
            Api::Responses => {
                let delta = self.part(json!({"delta": text}));
                self.event("response.output_text.delta", delta, out);
            }
        }
    }

    /// The end of a choice of which `sent` tokens were sent.
    pub(super) fn finish(&mut self, index: usize, finish: Finish, sent: usize, out: &mut String) {
        match self.answer.api {
            Api::Chat | Api::Text => {
                let chat = self.answer.api == Api::Chat;
                let rest = if chat { "\"delta\":{}" } else { "\"text\":\"\"" };
                let _ = write!(
                    out,
                    "{}null,\"choices\":[{{\"index\":{index},\"finish_reason\":\"{}\",{rest}}}]}}\n\n",
                    self.head,
                    finish.as_str(),
                );
            }
            Api::Generate if sent == 0 => self.chunk(index, &[], Some(finish), out),
            Api::Generate | Api::Responses => {}
            Api::Messages => self.event("content_block_stop", json!({"index": 0}), out),
        }
    }

    /// The end of the stream, whose first choice said `text`.
    pub(super) fn end(
        &mut self,
        usage: Usage,
        include_usage: bool,
        (text, finish): (&str, Finish),
        out: &mut String,
    ) {
        match self.answer.api {
            Api::Chat | Api::Text => {
                if include_usage {
                    out.push_str(&self.head);
                    usage.write(out);
                    out.push_str(",\"choices\":[]}\n\n");
                }
                out.push_str("data: [DONE]\n\n");
            }
            Api::Generate => {
                if include_usage {
                    let usage = usage.of_completion();
                    let chunk =
                        json!({"request_id": self.answer.id, "usage": usage, "choices": []});
                    let _ = write!(out, "data: {chunk}\n\n");
                }
                out.push_str("data: [DONE]\n\n");
            }
            Api::Messages => {
                let delta = json!({"stop_reason": stop_reason(finish), "stop_sequence": null});
                let delta = json!({"delta": delta, "usage": usage.of_message()});
                self.event("message_delta", delta, out);
                self.event("message_stop", json!({}), out);
            }
            Api::Responses => {
                let done = self.part(json!({"text": text}));
                self.event("response.output_text.done", done, out);
                let part = json!({"type": "output_text", "text": text, "annotations": []});
                let part = self.part(json!({"part": part}));
                self.event("response.content_part.done", part, out);
                let item = self.answer.response_item(Some(text));
                let done = json!({"output_index": 0, "item": item});
                self.event("response.output_item.done", done, out);
                let response = self.answer.response_object(Some(usage), Some((text, finish)));
                // Under this name whatever its status, as vLLM has it.
                self.event("response.completed", json!({"response": response}), out);
            }
        }
    }

    /// A chunk of token ids.
    fn chunk(&self, index: usize, ids: &[u32], finish: Option<Finish>, out: &mut String) {
        let finish = finish.map(Finish::as_str);
        let choice = json!({"index": index, "finish_reason": finish, "token_ids": ids});
        let chunk = json!({"request_id": self.answer.id, "choices": [choice]});
        let _ = write!(out, "data: {chunk}\n\n");
    }

    /// What events on the text of a response have in common.
    fn part(&self, mut event: Value) -> Value {
        event["item_id"] = json!(format!("msg_{}", self.answer.id));
        event["output_index"] = json!(0);
        event["content_index"] = json!(0);
        event
    }

    /// A named event.
    fn event(&mut self, name: &str, mut event: Value, out: &mut String) {
        event["type"] = json!(name);
        if self.answer.api == Api::Responses {
            event["sequence_number"] = json!(self.sequence);
            self.sequence += 1;
        }
        let _ = write!(out, "event: {name}\ndata: {event}\n\n");
    }
}
