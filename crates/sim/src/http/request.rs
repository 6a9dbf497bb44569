//! Request bodies.
//!
//! Text is borrowed from the body where JSON allows it (no escapes); what the simulator does not use is skipped
//! without being built.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::answer::Api;

/// The body of a request: the fields of all APIs.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Body<'a> {
    pub(super) model: Option<String>,
    #[serde(borrow)]
    pub(super) prompt: Option<Prompts<'a>>,
    #[serde(borrow)]
    pub(super) messages: Option<Vec<Message<'a>>>,
    pub(super) max_tokens: Option<i64>,
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) n: Option<i64>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) cache_hit_threshold: Option<f64>,
    pub(super) kv_transfer_params: Option<TransferParams>,
    #[serde(borrow)]
    pub(super) cache_salt: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) vllm_xargs: Option<ExtraArgs<'a>>,
    /// Of messages.
    #[serde(borrow)]
    system: Option<Content<'a>>,
    /// Of responses, as the three that follow.
    #[serde(borrow)]
    instructions: Option<Content<'a>>,
    #[serde(borrow)]
    input: Option<Input<'a>>,
    pub(super) max_output_tokens: Option<i64>,
    /// Of `/inference/v1/generate`, as what follows.
    token_ids: Option<Vec<u32>>,
    sampling_params: Option<SamplingParams>,
}

/// `sampling_params` of `/inference/v1/generate`.
#[derive(Debug, Default, Deserialize)]
struct SamplingParams {
    max_tokens: Option<i64>,
    n: Option<i64>,
    ignore_eos: Option<bool>,
    extra_args: Option<Extra>,
}

/// `extra_args` of sampling parameters.
#[derive(Debug, Default, Deserialize)]
struct Extra {
    kv_transfer_params: Option<TransferParams>,
}

impl Body<'_> {
    /// Brings what the API calls by other names under those of completions.
    ///
    /// # Errors
    /// What is missing that the API demands.
    pub(super) fn settle(&mut self, api: Api) -> Result<(), &'static str> {
        let before = match api {
            Api::Chat | Api::Text => return Ok(()),
            Api::Generate => return self.settle_generate(),
            Api::Messages if self.max_tokens.is_none() => return Err("max_tokens is missing"),
            Api::Messages => self.system.take(),
            Api::Responses => {
                let input = self.input.take().ok_or("input is missing")?;
                self.messages = Some(input.0);
                self.max_tokens = self.max_output_tokens;
                self.instructions.take()
            }
        };
        if let (Some(content), Some(messages)) = (before, &mut self.messages)
            && !messages.is_empty()
        {
            messages.insert(0, Message { role: "system".to_owned(), content });
        }
        (self.n, self.prompt) = (None, None);
        Ok(())
    }

    fn settle_generate(&mut self) -> Result<(), &'static str> {
        let tokens = self.token_ids.take().filter(|tokens| !tokens.is_empty());
        let tokens = tokens.ok_or("token_ids must not be empty")?;
        let given = self.sampling_params.take().ok_or("sampling_params is missing")?;
        self.prompt = Some(Prompts(vec![Prompt::Tokens(tokens)]));
        self.messages = None;
        self.max_tokens = given.max_tokens;
        (self.n, self.ignore_eos) = (given.n, given.ignore_eos);
        let extra = given.extra_args.and_then(|extra| extra.kv_transfer_params);
        self.kv_transfer_params = self.kv_transfer_params.take().or(extra);
        Ok(())
    }
}

/// The part of `vllm_xargs` that changes what the simulator does.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ExtraArgs<'a> {
    #[serde(borrow)]
    pub(super) kv_cache_report_mode: Option<Cow<'a, str>>,
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

/// The part of `kv_transfer_params` that changes what the simulator does.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TransferParams {
    pub(super) do_remote_decode: Option<bool>,
    pub(super) do_remote_prefill: Option<bool>,
}

/// Prompts per request. Each becomes at least one job, which is much larger than its text may be.
const MAX_PROMPTS: usize = 4096;

/// One prompt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Prompt<'a> {
    Text(Cow<'a, str>),
    Tokens(Vec<u32>),
}

/// `prompt`: a string, a list of strings, a list of token ids, or a list of such lists.
#[derive(Debug)]
pub(super) struct Prompts<'a>(pub(super) Vec<Prompt<'a>>);

/// A chat message.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    pub(super) role: String,
    #[serde(borrow, default)]
    pub(super) content: Content<'a>,
}

/// `input` of a response: a text, or items, of which those with a role are messages.
#[derive(Debug)]
struct Input<'a>(Vec<Message<'a>>);

/// An item of `input`.
#[derive(Debug, Deserialize)]
struct InputItem<'a> {
    role: Option<String>,
    #[serde(borrow, default)]
    content: Content<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Input<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;

        impl<'de> Visitor<'de> for InputVisitor {
            type Value = Input<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or a list of items")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Input(vec![Message {
                    role: "user".to_owned(),
                    content: Content(Cow::Borrowed(text)),
                }]))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let content = Content(Cow::Owned(text.to_owned()));
                Ok(Input(vec![Message { role: "user".to_owned(), content }]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut messages = Vec::new();
                while let Some(item) = list.next_element::<InputItem<'de>>()? {
                    if let Some(role) = item.role {
                        messages.push(Message { role, content: item.content });
                    }
                }
                Ok(Input(messages))
            }
        }

        deserializer.deserialize_any(InputVisitor)
    }
}

/// The text of a message: a string, or the text of its parts one after the other.
#[derive(Debug, Default)]
pub(super) struct Content<'a>(pub(super) Cow<'a, str>);

/// The text that chat messages become.
pub(super) fn render(messages: &[Message<'_>]) -> String {
    let length = messages.iter().map(|m| m.role.len() + m.content.0.len() + 7).sum();
    let mut text = String::with_capacity(length);
    for message in messages {
        for part in ["### ", &message.role, ": ", &message.content.0, "\n"] {
            text.push_str(part);
        }
    }
    text
}

impl<'de: 'a, 'a> Deserialize<'de> for Prompts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptsVisitor;

        impl<'de> Visitor<'de> for PromptsVisitor {
            type Value = Prompts<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string, or a list of strings, token ids or lists of token ids")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Prompts(vec![Prompt::Text(Cow::Borrowed(text))]))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Prompts(vec![Prompt::Text(Cow::Owned(text.to_owned()))]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut prompts = Vec::new();
                let mut tokens = Vec::new();
                while let Some(item) = list.next_element::<Item<'de>>()? {
                    match item {
                        Item::Prompt(prompt) => prompts.push(prompt),
                        Item::Token(token) => tokens.push(token),
                    }
                    if prompts.len() > MAX_PROMPTS {
                        return Err(A::Error::custom(format!("more than {MAX_PROMPTS} prompts")));
                    }
                    if !prompts.is_empty() && !tokens.is_empty() {
                        return Err(A::Error::custom("prompt mixes token ids with other items"));
                    }
                }
                if !tokens.is_empty() {
                    prompts.push(Prompt::Tokens(tokens));
                }
                if prompts.is_empty() {
                    return Err(A::Error::custom("prompt is an empty list"));
                }
                Ok(Prompts(prompts))
            }
        }

        deserializer.deserialize_any(PromptsVisitor)
    }
}

/// An element of a list in `prompt`.
enum Item<'a> {
    Prompt(Prompt<'a>),
    Token(u32),
}

impl<'de> Deserialize<'de> for Item<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;

        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string, a token id or a list of token ids")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Item::Prompt(Prompt::Text(Cow::Borrowed(text))))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Item::Prompt(Prompt::Text(Cow::Owned(text.to_owned()))))
            }

            fn visit_u64<E: Error>(self, token: u64) -> Result<Self::Value, E> {
                let token = u32::try_from(token);
                token.map(Item::Token).map_err(|_| E::custom("token id above 4294967295"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = list.next_element()? {
                    tokens.push(token);
                }
                Ok(Item::Prompt(Prompt::Tokens(tokens)))
            }
        }

        deserializer.deserialize_any(ItemVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;

        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or a list of content parts")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Content::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut text = String::new();
                while let Some(part) = list.next_element::<Part<'de>>()? {
                    if let Some(part) = part.text {
                        text.push_str(&part);
                    }
                    if let Some(image) = part.image_url {
                        text.push_str("image: ");
                        text.push_str(&image.url);
                    }
                }
                Ok(Content(Cow::Owned(text)))
            }
        }

        deserializer.deserialize_any(ContentVisitor)
    }
}

/// A part of a message's content; parts of other types have neither field.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_url: Option<Media<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompts(json: &str) -> Result<Vec<Prompt<'_>>, String> {
        serde_json::from_str::<Prompts<'_>>(json).map(|p| p.0).map_err(|error| error.to_string())
    }

    fn text(text: &str) -> Prompt<'_> {
        Prompt::Text(Cow::Borrowed(text))
    }

    #[test]
    fn prompts_of_every_form() {
        assert_eq!(prompts(r#""a b""#), Ok(vec![text("a b")]));
        assert_eq!(prompts(r#""a\n""#), Ok(vec![text("a\n")]));
        assert_eq!(prompts(r#"["a","b"]"#), Ok(vec![text("a"), text("b")]));
        assert_eq!(prompts("[1,2]"), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        assert_eq!(
            prompts("[[1],[2,3]]"),
            Ok(vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])])
        );
        for bad in ["[]", "{}", "1", "true", r#"["a",1]"#, "[-1]", "[4294967296]", r#"[["a"]]"#] {
            assert!(prompts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unescaped_text_is_borrowed() {
        let parsed = prompts(r#""plain""#).unwrap();
        assert!(matches!(parsed[0], Prompt::Text(Cow::Borrowed("plain"))));
    }

    #[test]
    fn messages_of_every_form() {
        let json = r#"[
            {"role":"system","content":"be brief"},
            {"role":"assistant","content":null,"tool_calls":[]},
            {"role":"tool"},
            {"role":"user","content":[{"type":"text","text":"see "},
                {"type":"image_url","image_url":{"url":"http://x"}},{"type":"input_audio","input_audio":{}}]}
        ]"#;
        let messages: Vec<Message<'_>> = serde_json::from_str(json).unwrap();
        assert_eq!(
            render(&messages),
            "### system: be brief\n### assistant: \n### tool: \n### user: see image: http://x\n"
        );
    }

    proptest! {
        #[test]
        fn any_text_round_trips(words in ".{0,40}") {
            let json = serde_json::to_string(&words).unwrap();
            prop_assert_eq!(prompts(&json), Ok(vec![text(&words)]));
        }

        #[test]
        fn hostile_bodies_are_errors_or_requests(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Body<'_>>(&bytes);
        }
    }
}
