//! The JSON of answers, byte for byte as the reference writes it.

use std::{fmt::Write as _, sync::Arc};

use uuid::Uuid;

use crate::{
    engine::job::{End, Finish},
    pod::Pod,
    text::reply::Reply,
};

/// Which API a request used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
    /// `/inference/v1/generate`
    Generate,
    /// `/v1/messages`
    Messages,
    /// `/v1/responses`
    Responses,
}

/// What all parts of an answer share.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) api: Api,
    /// Request id, without prefix.
    pub(super) id: String,
    pub(super) model: Arc<str>,
    /// Unix time in seconds.
    pub(super) created: u64,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
    /// `None` leaves the details out.
    pub(super) cached: Option<usize>,
}

/// One finished choice.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) reply: &'a Reply,
    pub(super) finish: Finish,
}

impl<'a> Choice<'a> {
    /// What it says.
    pub(super) fn text(&self) -> &'a str {
        match self.finish {
            Finish::CacheThreshold => "",
            _ => self.reply.text(),
        }
    }
}

impl Answer {
    /// The whole answer.
    pub(super) fn full(
        &self,
        usage: Usage,
        transfer: Option<&str>,
        choices: &[Choice<'_>],
    ) -> String {
        match self.api {
            Api::Chat | Api::Text => self.completion(usage, transfer, choices),
            Api::Generate => self.generated(usage, transfer, choices),
            Api::Messages => self.message(usage, choices),
            Api::Responses => self.response(usage, choices),
        }
    }

    /// The answer of both kinds of completions.
    fn completion(&self, usage: Usage, transfer: Option<&str>, choices: &[Choice<'_>]) -> String {
        let text: usize = choices.iter().map(|choice| choice.reply.text().len() + 80).sum();
        let mut out = String::with_capacity(text + 300);
        let object = if self.api == Api::Chat { "chat.completion" } else { "text_completion" };
        self.head(object, transfer, &mut out);
        usage.write(&mut out);
        out.push_str(r#","choices":["#);
        for (index, choice) in choices.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            let finish = choice.finish.as_str();
            // Writing to a string cannot fail, here and below.
            let _ = write!(out, r#"{{"index":{index},"finish_reason":"{finish}","#);
            let text = choice.text();
            if self.api == Api::Chat {
                out.push_str(r#""message":{"role":"assistant","content":"#);
                quote(text, &mut out);
                out.push_str("}}");
            } else {
                out.push_str(r#""text":"#);
                quote(text, &mut out);
                out.push('}');
            }
        }
        out.push_str("]}");
        out
    }

    /// The beginning of every chunk of a completion's stream, up to the usage.
    pub(super) fn chunk_head(&self) -> String {
        let mut out = String::with_capacity(160);
        out.push_str("data: ");
        let object =
            if self.api == Api::Chat { "chat.completion.chunk" } else { "text_completion" };
        self.head(object, None, &mut out);
        out
    }

    fn head(&self, object: &str, transfer: Option<&str>, out: &mut String) {
        let (prefix, suffix) =
            if self.api == Api::Chat { ("chatcmpl-", "") } else { ("cmpl-", "-0") };
        let Self { id, created, .. } = self;
        out.push_str(r#"{"id":"#);
        quote(&format!("{prefix}{id}{suffix}"), out);
        out.push_str(r#","model":"#);
        quote(&self.model, out);
        let _ = write!(out, r#","object":"{object}","#);
        if let Some(transfer) = transfer {
            let _ = write!(out, r#""kv_transfer_params":{transfer},"#);
        }
        let _ = write!(out, r#""created":{created},"usage":"#);
    }
}

impl Usage {
    /// Appends the object.
    pub(super) fn write(self, out: &mut String) {
        let Self { prompt, completion, cached } = self;
        let total = prompt + completion;
        let _ = write!(
            out,
            r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":"#
        );
        match cached {
            Some(cached) => {
                let _ = write!(out, r#"{{"cached_tokens":{cached}}}}}"#);
            }
            None => out.push_str("null}"),
        }
    }
}

/// The parameters with which another pod can fetch the blocks of a finished prefill.
pub(super) fn transfer_params(pod: &Pod, end: &End) -> String {
    let engine = Uuid::new_v5(&Uuid::NAMESPACE_URL, pod.name.as_bytes());
    let blocks: Vec<_> = end.blocks.iter().map(|block| block.index().to_string()).collect();
    let blocks = blocks.join(",");
    let (host, port) = (pod.address.ip(), pod.address.port());
    format!(
        r#"{{"do_remote_decode":false,"do_remote_prefill":true,"remote_engine_id":"{engine}","remote_block_ids":[{blocks}],"remote_host":"{host}","remote_port":{port},"tp_size":1}}"#
    )
}

/// Appends `text` as a JSON string.
pub(super) fn quote(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        // A string is always JSON.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(api: Api) -> Answer {
        Answer { api, id: "abc".to_owned(), model: Arc::from("random"), created: 1_795_211_987 }
    }

    #[test]
    fn text_as_recorded() {
        let reply = Reply::echo("Testing@".to_owned());
        let usage = Usage { prompt: 1, completion: 2, cached: Some(0) };
        let choices = [Choice { reply: &reply, finish: Finish::Stop }];
        assert_eq!(
            answer(Api::Text).full(usage, None, &choices),
            r#"{"id":"cmpl-abc-0","model":"random","object":"text_completion","created":1795211987,"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":"stop","text":"Testing@"}]}"#
        );
    }

    #[test]
    fn chat_as_recorded() {
        let reply = Reply::echo("Testing, ".to_owned());
        let usage = Usage { prompt: 9, completion: 2, cached: None };
        let choices = [Choice { reply: &reply, finish: Finish::Stop }];
        assert_eq!(
            answer(Api::Chat).full(usage, None, &choices),
            r#"{"id":"chatcmpl-abc","model":"random","object":"chat.completion","created":1795211987,"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":null},"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Testing, "}}]}"#
        );
    }

    proptest! {
        #[test]
        fn quoted_text_is_json(text in any::<String>()) {
            let mut out = String::new();
            quote(&text, &mut out);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
