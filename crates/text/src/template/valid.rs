//! Which messages the engine's types accept.
//!
//! A message is held against the type of its role, as OpenAI's client has it, and against one that
//! takes any role. Of those that fit, the one counts that knows more of the message's members. The
//! lists of the former are checked when they are read, and know few kinds of parts: a part that only
//! the latter takes is refused where the former counts.

use super::json::{Json, Object};

/// Members of a call and of its function.
const CALL: usize = 5;

/// Whether the engine takes the message.
pub(super) fn is_valid(message: &Object) -> bool {
    let Some(role) = message.get("role").and_then(Json::as_text) else { return false };
    if &**role == "assistant" && message.get("tool_calls").is_some_and(|calls| !are_calls(calls)) {
        return false;
    }
    let typed = typed(role, message);
    let any = any_role(message);
    let parts = match message.get("content") {
        Some(Json::List(parts)) => parts.as_slice(),
        Some(Json::Object(_)) => return false,
        _ => return typed.is_some() || any.is_some(),
    };
    match (typed, any) {
        (None, None) => false,
        (None, Some(_)) => true,
        (Some(typed), Some(any)) if any > typed => true,
        (Some(_), _) => parts.iter().all(|part| is_usual(role, part)),
    }
}

/// The members that the role's own type knows; none if the message does not fit.
fn typed(role: &str, message: &Object) -> Option<usize> {
    // Messages of tools have no name that would be looked at.
    let is_named = role == "tool" || message.get("name").is_none_or(is_text);
    let content = message.get("content");
    let is_content = match content {
        Some(Json::Text(_) | Json::List(_)) => role != "function" || content.is_some_and(is_text),
        Some(Json::Null) => matches!(role, "assistant" | "function"),
        Some(_) => false,
        None => role == "assistant",
    };
    if !is_content || !is_named {
        return None;
    }
    let known: &[&str] = match role {
        "developer" | "system" | "user" => &["role", "content", "name"],
        "tool" if message.get("tool_call_id").is_some_and(is_text) => {
            &["role", "content", "tool_call_id"]
        }
        "function" if message.get("name").is_some_and(is_text) => &["role", "content", "name"],
        "assistant" => {
            let texts = |member: &str, names: &[&str]| {
                message.get(member).is_none_or(|value| match value {
                    Json::Null => true,
                    Json::Object(value) => {
                        names.iter().all(|name| value.get(name).is_some_and(is_text))
                    }
                    _ => false,
                })
            };
            let fits = texts("audio", &["id"])
                && texts("function_call", &["name", "arguments"])
                && message
                    .get("refusal")
                    .is_none_or(|refusal| refusal.is_null() || is_text(refusal))
                && message.get("tool_calls").is_none_or(|calls| !calls.is_null());
            if !fits {
                return None;
            }
            &["role", "content", "name", "audio", "function_call", "refusal", "tool_calls"]
        }
        _ => return None,
    };
    Some(count(message, known))
}

/// The members, those of parts and calls included, that the type of any role knows; none if the message does
/// not fit.
fn any_role(message: &Object) -> Option<usize> {
    if !message.get("name").is_none_or(is_text) {
        return None;
    }
    let mut parts = match message.get("tool_calls") {
        Some(Json::List(calls)) => calls.len() * CALL,
        _ => 0,
    };
    match message.get("content") {
        None | Some(Json::Text(_)) => {}
        Some(Json::List(items)) => {
            for item in items {
                parts += match item {
                    Json::Text(_) => 0,
                    Json::Object(part) => known_members(part),
                    _ => return None,
                };
            }
        }
        Some(_) => return None,
    }
    let or_null = |member: &str, fits: &dyn Fn(&Json) -> bool| {
        message.get(member).is_none_or(|value| value.is_null() || fits(value))
    };
    let is_tool = |tool: &Json| {
        let tool = tool.as_object();
        let name = tool.and_then(|tool| tool.get("function")?.as_object()?.get("name"));
        let kind = tool.and_then(|tool| tool.get("type")?.as_text());
        name.is_some_and(is_text) && kind.is_some_and(|kind| &**kind == "function")
    };
    let are_tools = |tools: &Json| matches!(tools, Json::List(tools) if tools.iter().all(is_tool));
    let fits = ["reasoning", "task", "tool_call_id"].iter().all(|member| or_null(member, &is_text))
        && or_null("tool_calls", &are_calls)
        && or_null("tools", &are_tools);
    let known =
        ["role", "content", "name", "reasoning", "task", "tool_call_id", "tool_calls", "tools"];
    fits.then(|| count(message, &known) + parts)
}

fn count(message: &Object, known: &[&str]) -> usize {
    known.iter().filter(|member| message.get(member).is_some()).count()
}

/// The members of a part that the type knows which fits it best.
fn known_members(part: &Object) -> usize {
    let kind = part.get("type").and_then(Json::as_text).map_or("", |kind| kind);
    let text = |member: &str| part.get(member).is_some_and(is_text);
    match kind {
        "text" if text("text") => 2,
        "refusal" if text("refusal") => 2,
        "thinking" if text("thinking") => 2 + usize::from(part.get("closed").is_some()),
        "tool_reference" => 1 + usize::from(text("name")),
        "image_url" | "input_audio" | "audio_url" | "video_url" | "file" => {
            2 * usize::from(part.get(kind).and_then(Json::as_object).is_some())
        }
        _ => usize::from(["image_url", "audio_url", "video_url"].into_iter().any(text)),
    }
}

/// Whether the part is of a kind that the role's own type knows.
fn is_usual(role: &str, part: &Json) -> bool {
    let Json::Object(part) = part else { return false };
    match part.get("type").and_then(Json::as_text).map_or("", |kind| kind) {
        "text" => part.get("text").is_some_and(is_text),
        "refusal" => role == "assistant" && part.get("refusal").is_some_and(is_text),
        "image_url" | "input_audio" | "file" => role == "user",
        _ => false,
    }
}

fn is_text(value: &Json) -> bool {
    value.as_text().is_some()
}

/// Calls of functions, with their arguments as text.
fn are_calls(calls: &Json) -> bool {
    let is_call = |call: &Json| {
        let Json::Object(call) = call else { return false };
        let kind = call.get("type").and_then(Json::as_text);
        let function = call.get("function").and_then(Json::as_object);
        let text = |member: &str| function.and_then(|f| f.get(member)).is_some_and(is_text);
        call.get("id").is_some_and(is_text)
            && kind.is_some_and(|kind| &**kind == "function")
            && text("name")
            && text("arguments")
    };
    match calls {
        Json::List(calls) => calls.iter().all(is_call),
        calls => calls.is_null(),
    }
}
