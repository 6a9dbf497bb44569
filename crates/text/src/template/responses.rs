//! The input of `/v1/responses` as a chat request.

use super::error::TemplateError;
use super::json::{Json, Object};
use super::object;
use super::python::Dumps;

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
    if let Some(Json::List(tools)) = body.take("tools").filter(Json::is_true) {
        let mut functions = Vec::with_capacity(tools.len());
        for (index, tool) in tools.into_iter().enumerate() {
            self::tool(tool, index, &mut functions)?;
        }
        request.push("tools", Json::List(functions));
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
    if is(&item, "type", "custom_tool_call") {
        // To the template it is a call with one argument.
        let input = item.take("input").filter(Json::is_true).unwrap_or_else(|| Json::text(""));
        let mut arguments = String::new();
        let input = Json::Object([("input", input)].into());
        // What was parsed can be written.
        let _ = Dumps::default().write(&mut arguments, &object::value(&input), 0);
        item.push("arguments", Json::text(&arguments));
        item.take("namespace");
    }
    if is(&item, "type", "function_call") || is(&item, "type", "custom_tool_call") {
        let mut function = Object::default();
        let name = item.take("name").unwrap_or(Json::Null);
        function.push("name", in_namespace(item.get("namespace"), name));
        function.push("arguments", item.take("arguments").unwrap_or(Json::Null));
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
    } else if is(&item, "type", "function_call_output")
        || is(&item, "type", "custom_tool_call_output")
    {
        let mut result = message("tool", item.take("output").unwrap_or(Json::Null));
        result.push("tool_call_id", item.take("call_id").unwrap_or(Json::Null));
        chat.push(result);
    } else if is(&item, "type", "reasoning") {
        if item.get("encrypted_content").is_some_and(Json::is_true) {
            let expected = "nothing: the engine refuses encrypted content";
            let field = format!("input[{index}].encrypted_content");
            return Err(TemplateError::field(field, expected));
        }
        let text = item.take("content").filter(Json::is_true).or_else(|| item.take("summary"));
        add(chat, from, "reasoning", first_text(text));
    } else if is(&item, "role", "assistant")
        && (is(&item, "type", "message") || has_text(item.get("content")))
    {
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

/// Whether there is a text, or a first part with one: else the message is taken as it is.
fn has_text(content: Option<&Json>) -> bool {
    match content {
        Some(Json::Text(_)) => true,
        Some(Json::List(parts)) => {
            let first = parts.first().and_then(Json::as_object);
            first.and_then(|part| part.get("text")).is_some_and(|text| !text.is_null())
        }
        _ => false,
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

/// The name by which the model knows a function of a namespace.
fn in_namespace(namespace: Option<&Json>, name: Json) -> Json {
    match (namespace.and_then(Json::as_text), name.as_text()) {
        (Some(namespace), Some(name)) if !namespace.is_empty() => {
            Json::text(&format!("{namespace}__{name}"))
        }
        _ => name,
    }
}

/// Adds flat function tools, those of namespaces too, in the form of chat requests; others are not
/// rendered.
fn tool(tool: Json, index: usize, functions: &mut Vec<Json>) -> Result<(), TemplateError> {
    let Json::Object(mut tool) = tool else { return Ok(()) };
    match tool.get("type").and_then(Json::as_text).map_or("", |kind| kind) {
        "function" => functions.push(function(tool, None)),
        "namespace" => {
            let namespace = tool.take("name");
            let Some(Json::List(tools)) = tool.take("tools") else { return Ok(()) };
            for tool in tools {
                let Json::Object(tool) = tool else { continue };
                if tool.get("type") == Some(&Json::text("function")) {
                    functions.push(function(tool, namespace.as_ref()));
                }
            }
        }
        // The engine writes a schema of its own for them.
        "custom" => {
            return Err(TemplateError::field(format!("tools[{index}]"), "no tool of type custom"));
        }
        _ => {}
    }
    Ok(())
}

fn function(mut tool: Object, namespace: Option<&Json>) -> Json {
    let mut function = Object::default();
    if let Some(name) = tool.take("name") {
        function.push("name", in_namespace(namespace, name));
    }
    for member in ["description", "parameters", "strict", "defer_loading"] {
        if let Some(value) = tool.take(member) {
            function.push(member, value);
        }
    }
    Json::Object([("type", Json::text("function")), ("function", function.into())].into())
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Json::Object(object)
    }
}
