//! The input of `/v1/responses` as a chat request.

use super::error::TemplateError;
use super::json::{Json, Object};

/// Rewrites the body of `/v1/responses` into that of a chat completion. The engine tokenizes such
/// prompts with special tokens.
pub(super) fn to_chat(mut body: Object) -> Result<Object, TemplateError> {
    if body.given("previous_response_id").is_some() {
        let expected = "nothing: earlier responses are known to the engine only";
        return Err(TemplateError::field("previous_response_id", expected));
    }
    let mut chat = Vec::new();
    match body.take("instructions") {
        None | Some(Json::Null) => {}
        Some(Json::Text(text)) if text.is_empty() => {}
        Some(text @ Json::Text(_)) => chat.push(message("system", text)),
        Some(_) => return Err(TemplateError::field("instructions", "a string")),
    }
    let mut unfinished = false;
    match body.take("input") {
        Some(text @ Json::Text(_)) => chat.push(message("user", text)),
        Some(Json::List(items)) => {
            let from = chat.len();
            for (index, item) in items.into_iter().enumerate() {
                let Json::Object(item) = item else {
                    return Err(TemplateError::field(format!("input[{index}]"), "an object"));
                };
                unfinished = is_unfinished(&item);
                convert(item, index, &mut chat, from)?;
            }
        }
        _ => return Err(TemplateError::field("input", "a string or a list")),
    }
    let mut request = Object::default();
    request.push("model", body.take("model").unwrap_or(Json::Null));
    request.push("messages", Json::List(chat.into_iter().map(Json::Object).collect()));
    request.push("add_generation_prompt", Json::Bool(!unfinished));
    request.push("continue_final_message", Json::Bool(unfinished));
    request.push("add_special_tokens", Json::Bool(true));
    if let Some(kwargs) = body.take("chat_template_kwargs") {
        request.push("chat_template_kwargs", kwargs);
    }
    if let Some(Json::Object(mut reasoning)) = body.take("reasoning") {
        request.push("reasoning_effort", reasoning.take("effort").unwrap_or(Json::Null));
    }
    if let Some(Json::List(tools)) = body.take("tools") {
        let tools: Vec<Json> = tools.into_iter().filter_map(tool).collect();
        if !tools.is_empty() {
            request.push("tools", Json::List(tools));
        }
    }
    Ok(request)
}

fn message(role: &str, content: Json) -> Object {
    [("role", Json::text(role)), ("content", content)].into()
}

/// The last message of the input goes on where it ends.
fn is_unfinished(item: &Object) -> bool {
    let text = |member: &str| item.get(member).and_then(Json::as_text).map_or("", |text| text);
    matches!(text("type"), "" | "message" | "reasoning")
        && matches!(text("status"), "in_progress" | "incomplete")
}

/// Turns an item into a message, or adds it to the assistant's message before it.
fn convert(
    mut item: Object,
    index: usize,
    chat: &mut Vec<Object>,
    from: usize,
) -> Result<(), TemplateError> {
    let is = |item: &Object, member: &str, wanted: &str| {
        item.get(member).and_then(Json::as_text).is_some_and(|text| &**text == wanted)
    };
    let last = chat.get_mut(from..).and_then(<[Object]>::last_mut);
    let previous = last.filter(|message| is(message, "role", "assistant"));
    if is(&item, "type", "function_call") {
        let mut function = Object::default();
        for member in ["name", "arguments"] {
            function.push(member, item.take(member).unwrap_or(Json::Null));
        }
        let call = Json::Object(Object::from([
            ("id", item.take("call_id").unwrap_or(Json::Null)),
            ("function", Json::Object(function)),
            ("type", Json::text("function")),
        ]));
        match previous {
            Some(previous) => match previous.take("tool_calls") {
                Some(Json::List(mut calls)) => {
                    calls.push(call);
                    previous.set("tool_calls", Json::List(calls));
                }
                _ => previous.set("tool_calls", Json::List(vec![call])),
            },
            None => {
                let calls = Json::List(vec![call]);
                chat.push([("role", Json::text("assistant")), ("tool_calls", calls)].into());
            }
        }
    } else if is(&item, "type", "function_call_output") {
        let mut result = message("tool", item.take("output").unwrap_or(Json::Null));
        result.push("tool_call_id", item.take("call_id").unwrap_or(Json::Null));
        chat.push(result);
    } else if is(&item, "type", "reasoning") {
        if item.given("encrypted_content").is_some() {
            let expected = "nothing: the engine refuses encrypted content";
            let field = format!("input[{index}].encrypted_content");
            return Err(TemplateError::field(field, expected));
        }
        let text = item.take("content").filter(Json::is_true).or_else(|| item.take("summary"));
        add(chat, from, "reasoning", first_text(text));
    } else if is(&item, "role", "assistant") {
        let text = first_text(item.take("content"));
        add(chat, from, "content", text);
    } else if item.get("role").and_then(Json::as_text).is_some() {
        let mut kept = Object::default();
        for (member, value) in item.entries {
            if !matches!(&*member, "type" | "status" | "id") {
                kept.entries.push((member, value));
            }
        }
        chat.push(kept);
    } else {
        let expected = "a message, a function call, its output, or reasoning";
        return Err(TemplateError::field(format!("input[{index}]"), expected));
    }
    Ok(())
}

/// Sets a member of the assistant's message before, or begins one.
fn add(chat: &mut Vec<Object>, from: usize, member: &str, text: Json) {
    let last = chat.get_mut(from..).and_then(<[Object]>::last_mut);
    let previous = last.filter(|message| {
        message.get("role").and_then(Json::as_text).is_some_and(|role| &**role == "assistant")
            && message.given(member).is_none()
    });
    match previous {
        Some(previous) => previous.set(member, text),
        None => chat.push([("role", Json::text("assistant")), (member, text)].into()),
    }
}

/// The text, or that of the first part.
fn first_text(content: Option<Json>) -> Json {
    let text = match content {
        Some(text @ Json::Text(_)) => Some(text),
        Some(Json::List(parts)) => parts.into_iter().next().and_then(|part| match part {
            Json::Object(mut part) => part.take("text"),
            text => Some(text),
        }),
        _ => None,
    };
    text.filter(|text| text.as_text().is_some()).unwrap_or_else(|| Json::text(""))
}

/// A flat function tool in the form of chat requests; other tools are not rendered.
fn tool(tool: Json) -> Option<Json> {
    let Json::Object(mut tool) = tool else { return None };
    let kind = tool.get("type").and_then(Json::as_text)?;
    if &**kind != "function" {
        return None;
    }
    let mut function = Object::default();
    for member in ["name", "description", "parameters", "strict", "defer_loading"] {
        if let Some(value) = tool.take(member) {
            function.push(member, value);
        }
    }
    Some(Json::Object([("type", Json::text("function")), ("function", function.into())].into()))
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Json::Object(object)
    }
}
