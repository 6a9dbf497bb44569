//! The tokens of a request, and how they are shortened.

use serde::Deserialize;

use super::body::{Body, Features, Keys, Prompts};
use super::encoder::{Around, Work};
use super::error::PromptError;
use crate::MediaRange;
use crate::template::{self, ChatApi};

/// Which API a body belongs to: decides where its prompt stands and how it becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PromptApi {
    /// `…/chat/completions`: `messages` through the chat template, no special tokens around.
    Chat,
    /// `…/completions`: `prompt`, special tokens around.
    Completions,
    /// `…/embeddings`: `input`, special tokens around.
    Embeddings,
    /// vLLM's `/inference/v1/generate`: `token_ids` as they are, with their media ranges.
    Generate,
    /// Anthropic's `…/messages`: through the chat template, no special tokens around.
    Messages,
    /// `…/responses`: through the chat template, special tokens around.
    Responses,
    /// SGLang's `/generate`: `input_ids` as they are.
    SglangGenerate,
}

impl PromptApi {
    /// The API of a request's path, the query left out; `None` for paths without a prompt.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
        let path = path.strip_suffix("/render").unwrap_or(path);
        let ends = |with: &str| path.ends_with(with);
        if ends("/chat/completions") {
            Some(Self::Chat)
        } else if ends("/completions") {
            Some(Self::Completions)
        } else if ends("/embeddings") {
            Some(Self::Embeddings)
        } else if ends("/inference/v1/generate") {
            Some(Self::Generate)
        } else if ends("/messages") {
            Some(Self::Messages)
        } else if ends("/responses") {
            Some(Self::Responses)
        } else if path == "/generate" {
            Some(Self::SglangGenerate)
        } else {
            None
        }
    }

    /// Whether the prompt goes through the chat template.
    pub fn is_chat(self) -> bool {
        self.chat().is_some()
    }

    pub(super) fn chat(self) -> Option<ChatApi> {
        match self {
            Self::Chat => Some(ChatApi::Chat),
            Self::Messages => Some(ChatApi::Messages),
            Self::Responses => Some(ChatApi::Responses),
            Self::Completions | Self::Embeddings | Self::Generate | Self::SglangGenerate => None,
        }
    }

    pub(super) fn keys(self) -> Keys {
        let prompt = match self {
            Self::Embeddings => "input",
            Self::Generate => "token_ids",
            Self::SglangGenerate => "input_ids",
            Self::Chat | Self::Completions | Self::Messages | Self::Responses => "prompt",
        };
        Keys { prompt }
    }
}

/// The body of the chat completion that asks for the same prompt, for a server that renders no other
/// conversations. Other bodies are returned as they are.
///
/// Costs a copy of the body, and for messages and responses a document of it on the way.
///
/// # Errors
/// Messages or responses that are none, or that no chat says.
pub fn chat_body(api: PromptApi, body: &[u8]) -> Result<Vec<u8>, PromptError> {
    match api.chat() {
        Some(chat) => Ok(template::to_chat(chat, body)?),
        None => Ok(body.to_vec()),
    }
}

/// The prompts of one request as the engine will see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// Token ids, one list per prompt, never empty.
    pub prompts: Vec<Vec<u32>>,
    /// Images, videos and sounds, by prompt and place.
    pub media: Vec<MediaRange>,
    /// How much of the text had to be tokenized.
    pub work: Work,
}

impl Tokenized {
    /// Reads the token ids that a body carries itself. `None` if it holds text, which needs a
    /// model.
    ///
    /// # Errors
    /// A body that is no request of this API.
    pub fn from_ids(api: PromptApi, body: &[u8]) -> Result<Option<Self>, PromptError> {
        if api.is_chat() {
            return Ok(None);
        }
        let body = Body::read(body, api.keys())?;
        Ok(match body.prompts {
            Some(Prompts::Texts(_)) => None,
            Some(Prompts::Ids(ids)) if body.truncate.is_none() => {
                Some(Self { prompts: ids, media: body.media, work: Work::default() })
            }
            // Shortened ids need the model's limit.
            Some(Prompts::Ids(_)) => None,
            None => return Err(PromptError::Body(format!("no {}", api.keys().prompt))),
        })
    }

    /// Reads the answer of an engine's `…/render` endpoint: one object, or one per prompt.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_render(answer: &[u8]) -> Result<Self, PromptError> {
        #[derive(Deserialize)]
        struct Rendered {
            token_ids: Vec<u32>,
            #[serde(default)]
            features: Option<Features>,
        }

        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Many(Vec<Rendered>),
            One(Rendered),
        }

        let answer = serde_json::from_slice(answer);
        let rendered = match answer.map_err(|error| PromptError::Body(error.to_string()))? {
            Answer::Many(rendered) => rendered,
            Answer::One(rendered) => vec![rendered],
        };
        let mut tokenized = Self::default();
        for (index, rendered) in rendered.into_iter().enumerate() {
            let ranges = rendered.features.map(Features::ranges).unwrap_or_default();
            let prompt = index as u32;
            tokenized.media.extend(ranges.into_iter().map(|range| MediaRange { prompt, ..range }));
            tokenized.prompts.push(rendered.token_ids);
        }
        if tokenized.prompts.is_empty() {
            return Err(PromptError::Body("expected at least one rendered prompt".into()));
        }
        Ok(tokenized)
    }
}

/// Which end of a prompt is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The last tokens stay.
    Left,
    /// The first tokens stay.
    Right,
}

/// `truncate_prompt_tokens` and `truncation_side` of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Truncation {
    /// Tokens that stay, a negative number for all that the model takes.
    pub(super) keep: Option<i64>,
    pub(super) side: Option<Side>,
    /// Whether the request says how many tokens the answer may take, as completions always do: one is
    /// then left for it.
    pub(super) answered: bool,
}

impl Truncation {
    pub(super) fn of(body: &Body, api: PromptApi) -> Self {
        let answered = body.max_tokens.map_or(api == PromptApi::Completions, |tokens| tokens > 0);
        Self { keep: body.truncate, side: body.side, answered }
    }

    /// Shortens `ids` to what stays. `around`: the special tokens in them, which the tokenizer adds
    /// after it has shortened a text, unless the request names a side. `limit`: what the model
    /// takes, prompt and answer together.
    pub(super) fn apply(self, ids: &mut Vec<u32>, around: Option<&Around>, limit: Option<u64>) {
        let keep = match self.keep {
            None => return,
            Some(keep) => match (u64::try_from(keep), limit) {
                (Ok(keep), _) => keep,
                (Err(_), Some(limit)) => limit.saturating_sub(self.answered.into()),
                (Err(_), None) => return,
            },
        };
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        if ids.len() <= keep {
            return;
        }
        if let (None, Some(Around { before, after })) = (self.side, around) {
            let room = keep.saturating_sub(before.len() + after.len());
            let end = ids.len() - after.len();
            ids.drain(before.len()..end.saturating_sub(room).max(before.len()));
        }
        match self.side {
            Some(Side::Right) => ids.truncate(keep),
            Some(Side::Left) | None => drop(ids.drain(..ids.len().saturating_sub(keep))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(truncation: Truncation, around: &Around, limit: Option<u64>) -> Vec<u32> {
        let mut ids = [around.before.as_slice(), &[10, 11, 12, 13, 14], &around.after].concat();
        truncation.apply(&mut ids, Some(around), limit);
        ids
    }

    fn keep(keep: i64) -> Truncation {
        Truncation { keep: Some(keep), ..Truncation::default() }
    }

    #[test]
    fn the_last_tokens_stay() {
        let none = Around::default();
        assert_eq!(shortened(keep(2), &none, None), [13, 14]);
        assert_eq!(shortened(keep(5), &none, None), [10, 11, 12, 13, 14]);
        assert!(shortened(keep(0), &none, None).is_empty());
        let right = Truncation { side: Some(Side::Right), ..keep(2) };
        assert_eq!(shortened(right, &none, None), [10, 11]);
    }

    #[test]
    fn special_tokens_stay_unless_a_side_is_named() {
        let around = Around { before: vec![0], after: vec![1] };
        assert_eq!(shortened(keep(4), &around, None), [0, 13, 14, 1]);
        assert_eq!(shortened(keep(2), &around, None), [0, 1]);
        assert_eq!(shortened(keep(1), &around, None), [1]);
        let left = Truncation { side: Some(Side::Left), ..keep(2) };
        assert_eq!(shortened(left, &around, None), [14, 1]);
        let right = Truncation { side: Some(Side::Right), ..keep(2) };
        assert_eq!(shortened(right, &around, None), [0, 10]);
    }

    #[test]
    fn a_negative_number_keeps_what_the_model_takes() {
        assert_eq!(shortened(keep(-1), &Around::default(), Some(4)), [11, 12, 13, 14]);
        let truncation = Truncation { answered: true, ..keep(-1) };
        assert_eq!(shortened(truncation, &Around::default(), Some(4)), [12, 13, 14]);
        assert_eq!(shortened(truncation, &Around::default(), None).len(), 5);
    }

    #[test]
    fn paths_name_their_api() {
        for (path, api) in [
            ("/v1/chat/completions", Some(PromptApi::Chat)),
            ("/team/v1/chat/completions?x=1", Some(PromptApi::Chat)),
            ("/v1/completions/render", Some(PromptApi::Completions)),
            ("/v1/messages", Some(PromptApi::Messages)),
            ("/v1/messages/count_tokens", None),
            ("/v1/responses", Some(PromptApi::Responses)),
            ("/inference/v1/generate", Some(PromptApi::Generate)),
            ("/generate", Some(PromptApi::SglangGenerate)),
            ("/v1/embeddings", Some(PromptApi::Embeddings)),
            ("/v1/models", None),
        ] {
            assert_eq!(PromptApi::of_path(path), api, "{path}");
        }
    }

    #[test]
    fn token_ids_need_no_model() {
        let ids = Tokenized::from_ids(PromptApi::Completions, br#"{"prompt":[3,4]}"#);
        assert_eq!(ids.map(|ids| ids.map(|ids| ids.prompts)), Ok(Some(vec![vec![3, 4]])));
        let text = Tokenized::from_ids(PromptApi::Completions, br#"{"prompt":"x"}"#);
        assert_eq!(text, Ok(None));
        let sglang = Tokenized::from_ids(PromptApi::SglangGenerate, br#"{"input_ids":[[1],[2]]}"#);
        assert_eq!(sglang.map(|ids| ids.map(|ids| ids.prompts)), Ok(Some(vec![vec![1], vec![2]])));
        assert!(Tokenized::from_ids(PromptApi::Generate, b"{}").is_err());
    }

    #[test]
    fn a_render_answer_is_one_object_or_several() {
        let one =
            Tokenized::from_render(br#"{"request_id":"r","token_ids":[1,2],"features":null}"#);
        assert_eq!(one.map(|one| one.prompts), Ok(vec![vec![1, 2]]));
        let two = Tokenized::from_render(
            br#"[{"token_ids":[1]},{"token_ids":[2],"features":{"mm_hashes":{"image":["h"]},
            "mm_placeholders":{"image":[{"offset":0,"length":1}]}}}]"#,
        );
        let two = two.expect("two prompts");
        assert_eq!(two.prompts, [vec![1], vec![2]]);
        assert_eq!(two.media.iter().map(|range| range.prompt).collect::<Vec<_>>(), [1]);
        assert!(Tokenized::from_render(b"[]").is_err());
        assert!(Tokenized::from_render(b"{}").is_err());
    }
}
