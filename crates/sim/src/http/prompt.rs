//! The token ids of a request's prompts.

use inlane_text::tokens::PromptApi;

use super::{
    answer::Api,
    error::ApiError,
    request::{self, Body, Prompt},
};
use crate::{pod::Pod, text::tokenizer};

/// The ids of every prompt of a request, of which `body` has the fields. A chat is one prompt.
pub(super) fn tokens(
    pod: &Pod,
    api: Api,
    body: &Body<'_>,
    bytes: &[u8],
) -> Result<Vec<Vec<u32>>, ApiError> {
    if let Some(vocabulary) = &pod.vocabulary {
        let api = match api {
            Api::Chat => PromptApi::Chat,
            Api::Text => PromptApi::Completions,
            Api::Generate => PromptApi::Generate,
            Api::Messages => PromptApi::Messages,
            Api::Responses => PromptApi::Responses,
        };
        let prompts = vocabulary.prompts(api, bytes);
        return prompts.map_err(|error| ApiError::bad_request(error.to_string()));
    }
    if let Some(messages) = &body.messages {
        return Ok(vec![tokenizer::encode(&request::render(messages))]);
    }
    let prompts = body.prompt.iter().flat_map(|prompts| &prompts.0);
    let ids = |prompt: &Prompt<'_>| match prompt {
        Prompt::Text(text) => tokenizer::encode(text),
        Prompt::Tokens(tokens) => tokens.clone(),
    };
    Ok(prompts.map(ids).collect())
}
