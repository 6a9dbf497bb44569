//! Messages as the engine rebuilds them for the template.

use std::sync::Arc;

use super::error::TemplateError;
use super::format::ContentFormat;
use super::images::{Collected, ImagePart};
use super::json::{Json, Object};

/// A header of one client that changes with every request; engines drop its line.
const BILLING: &str = "x-anthropic-billing-header";

/// Rebuilds the messages from the members that the engine knows.
///
/// `developer` says that the template knows this role; else its messages become part of one system
/// message at the front. Images go to `images`, if they are to be had there.
pub(super) fn messages(
    messages: Vec<Json>,
    format: ContentFormat,
    developer: bool,
    images: &mut Collected<'_>,
) -> Result<Vec<Object>, TemplateError> {
    let mut objects = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        match message {
            Json::Object(message) => objects.push((index, message)),
            _ => return Err(TemplateError::field(format!("messages[{index}]"), "an object")),
        }
    }
    let has_role = |(_, message): &(usize, Object), wanted: &str| {
        message.get("role").and_then(Json::as_text).is_some_and(|role| &**role == wanted)
    };
    let mut rebuilt = Vec::with_capacity(objects.len() + 1);
    if !developer && objects.iter().any(|message| has_role(message, "developer")) {
        let mut texts = Vec::new();
        for entry in &mut objects {
            if has_role(entry, "system") || has_role(entry, "developer") {
                let (index, message) = entry;
                let none = &mut Collected::default();
                let text = content(message, *index, "system", ContentFormat::Text, none)?;
                texts.extend(text.as_text().filter(|text| !text.is_empty()).cloned());
            }
        }
        objects.retain(|message| !has_role(message, "system") && !has_role(message, "developer"));
        let text = Json::Text(texts.join("\n\n").into());
        let system = Object::from([("role", Json::text("system")), ("content", text)]);
        rebuilt.push(message(system, 0, format, images)?);
    }
    for (index, object) in objects {
        rebuilt.push(message(object, index, format, images)?);
    }
    Ok(rebuilt)
}

fn message(
    mut message: Object,
    index: usize,
    format: ContentFormat,
    images: &mut Collected<'_>,
) -> Result<Object, TemplateError> {
    let Some(Json::Text(role)) = message.take("role") else {
        return Err(TemplateError::field(format!("messages[{index}].role"), "a string"));
    };
    let content = content(&mut message, index, &role, format, images)?;
    let mut rebuilt = Object::from([("role", Json::Text(role.clone())), ("content", content)]);
    match &*role {
        "assistant" => {
            match message.take("tool_calls") {
                None | Some(Json::Null) => {}
                Some(Json::List(calls)) if calls.is_empty() => {}
                Some(Json::List(calls)) => {
                    let calls = calls.into_iter().enumerate();
                    let calls = calls.map(|(at, call)| {
                        let expected = "a call of type function";
                        tool_call(call).ok_or_else(|| {
                            let field = format!("messages[{index}].tool_calls[{at}]");
                            TemplateError::field(field, expected)
                        })
                    });
                    rebuilt.push("tool_calls", Json::List(calls.collect::<Result<_, _>>()?));
                }
                Some(_) => {
                    let field = format!("messages[{index}].tool_calls");
                    return Err(TemplateError::field(field, "a list"));
                }
            }
            if let Some(reasoning) = message.take("reasoning").filter(|text| !text.is_null()) {
                rebuilt.push("reasoning", reasoning.clone());
                rebuilt.push("reasoning_content", reasoning);
            }
        }
        "tool" => {
            if let Some(id) = message.take("tool_call_id") {
                rebuilt.push("tool_call_id", id);
            }
        }
        _ => {}
    }
    for member in ["name", "task"] {
        if let Some(text @ Json::Text(_)) = message.take(member) {
            rebuilt.push(member, text);
        }
    }
    if &*role == "developer" {
        rebuilt.push("tools", message.take("tools").unwrap_or(Json::Null));
    }
    Ok(rebuilt)
}

/// A call with its arguments as an object; members in the order of the engine's type, which is
/// the order that its validation leaves them in.
fn tool_call(call: Json) -> Option<Json> {
    let Json::Object(mut call) = call else { return None };
    let kind = match call.take("type") {
        None => None,
        Some(Json::Text(kind)) if &*kind == "function" => Some(Json::Text(kind)),
        Some(_) => return None,
    };
    let Some(Json::Object(mut function)) = call.take("function") else { return None };
    let arguments = match function.take("arguments") {
        Some(Json::Text(text)) => Json::parse(text.as_bytes()).ok(),
        arguments => arguments,
    };
    let arguments = arguments.filter(|value| value.as_object().is_some());
    let arguments = arguments.unwrap_or_else(|| Json::Object(Object::default()));
    let mut rebuilt = Object::from([("arguments", arguments)]);
    if let Some(name) = function.take("name") {
        rebuilt.push("name", name);
    }
    let mut whole = Object::default();
    if let Some(id) = call.take("id") {
        whole.push("id", id);
    }
    whole.push("function", Json::Object(rebuilt));
    if let Some(kind) = kind {
        whole.push("type", kind);
    }
    Some(Json::Object(whole))
}

/// A part of a message's content.
enum Part {
    /// A bare text in a list of parts.
    Bare(Arc<str>),
    Image(ImagePart),
    Text(Arc<str>),
    /// Names a tool whose description comes later.
    ToolReference(Arc<str>),
}

fn content(
    message: &mut Object,
    index: usize,
    role: &str,
    format: ContentFormat,
    images: &mut Collected<'_>,
) -> Result<Json, TemplateError> {
    let mut parts = Vec::new();
    match message.take("content") {
        None | Some(Json::Null) => {}
        Some(Json::Text(text)) => parts.push(Part::Text(text)),
        Some(Json::List(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                let field = || format!("messages[{index}].content[{at}]");
                parts.extend(part(item, images, &field)?);
            }
        }
        Some(_) => {
            let field = format!("messages[{index}].content");
            return Err(TemplateError::field(field, "a string or a list of parts"));
        }
    }
    if role == "system" {
        parts = parts.into_iter().filter_map(without_billing).collect();
    }
    let other = |part: &Part| matches!(part, Part::Image(_) | Part::ToolReference(_));
    let tool_texts = role == "tool" && !parts.iter().any(other);
    match format {
        ContentFormat::Parts if !tool_texts => {
            let parts = parts.into_iter().map(|part| match part {
                Part::Bare(text) | Part::Text(text) => typed("text", "text", text),
                Part::Image(image) => {
                    images.push(image);
                    Json::Object([("type", Json::text("image"))].into())
                }
                Part::ToolReference(name) => typed("tool_reference", "name", name),
            });
            Ok(Json::List(parts.collect()))
        }
        // A list of parts keeps its empty texts, a list of texts does not.
        format => {
            let text = joined(&parts, format == ContentFormat::Text);
            let shown = parts.into_iter().filter_map(|part| match part {
                Part::Image(image) => Some(image),
                _ => None,
            });
            images.before(text, shown, &|| format!("messages[{index}].content"))
        }
    }
}

fn joined(parts: &[Part], skip_empty: bool) -> Json {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Bare(text) | Part::Text(text) | Part::ToolReference(text) => Some(text),
        Part::Image(_) => None,
    });
    let texts: Vec<&Arc<str>> = texts.filter(|text| !skip_empty || !text.is_empty()).collect();
    match texts.as_slice() {
        [text] => Json::Text((*text).clone()),
        texts => {
            let texts: Vec<&str> = texts.iter().map(|text| &***text).collect();
            Json::Text(texts.join("\n").into())
        }
    }
}

fn typed(kind: &str, member: &str, text: Arc<str>) -> Json {
    Json::Object([("type", Json::text(kind)), (member, Json::Text(text))].into())
}

fn part(
    item: Json,
    images: &Collected<'_>,
    field: &dyn Fn() -> String,
) -> Result<Option<Part>, TemplateError> {
    let mut item = match item {
        Json::Text(text) => return Ok(Some(Part::Bare(text))),
        Json::Object(item) => item,
        _ => return Err(TemplateError::field(field(), "a string or an object")),
    };
    let Some(Json::Text(kind)) = item.take("type") else {
        return Err(TemplateError::field(format!("{}.type", field()), "a string"));
    };
    let member = match &*kind {
        "text" | "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        "thinking" => "thinking",
        "tool_reference" => "name",
        _ => {
            let image = ImagePart::of(&kind, item).filter(|_| images.are_taken());
            let media = || TemplateError::Media { field: field(), kind: kind.to_string() };
            return image.map(|image| Some(Part::Image(image))).ok_or_else(media);
        }
    };
    match item.take(member) {
        Some(Json::Text(text)) if &*kind == "tool_reference" => Ok(Some(Part::ToolReference(text))),
        Some(Json::Text(text)) => Ok(Some(Part::Text(text))),
        Some(Json::Null) | None if matches!(&*kind, "text" | "refusal") => Ok(None),
        _ => Err(TemplateError::field(format!("{}.{member}", field()), "a string")),
    }
}

/// The part without a first line that is the billing header; nothing if nothing is left.
fn without_billing(part: Part) -> Option<Part> {
    let strip = |text: Arc<str>| {
        if !text.starts_with(BILLING) {
            return Some(text);
        }
        let (_, rest) = text.split_once('\n')?;
        (!rest.is_empty()).then(|| rest.into())
    };
    match part {
        Part::Bare(text) => strip(text).map(Part::Bare),
        Part::Text(text) => strip(text).map(Part::Text),
        part @ (Part::Image(_) | Part::ToolReference(_)) => Some(part),
    }
}
