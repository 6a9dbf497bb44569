//! Messages as the engine rebuilds them for the template.

use std::sync::Arc;

use super::ChatApi;
use super::error::TemplateError;
use super::format::ContentFormat;
use super::images::{Collected, ImagePart};
use super::json::{Json, Object};
use super::valid;

/// A header of one client that changes with every request; engines drop its line.
const BILLING: &str = "x-anthropic-billing-header";

/// Rebuilds the messages from the members that the engine knows.
///
/// `developer` says that the template knows this role; else its messages become system messages, all
/// of which then are one at the front. The engine holds messages against its types first, but for
/// those that it makes of a response's input. Images go to `images`, if they are to be had there.
pub(super) fn messages(
    messages: Vec<Json>,
    format: ContentFormat,
    developer: bool,
    api: ChatApi,
    images: &mut Collected<'_>,
) -> Result<Vec<Object>, TemplateError> {
    let validated = api != ChatApi::Responses;
    let mut rebuilt = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let Json::Object(mut object) = message else {
            return Err(TemplateError::field(format!("messages[{index}]"), "an object"));
        };
        if validated {
            rename_reasoning(&mut object);
        }
        let valid = !validated || valid::is_valid(&object);
        let message = message_of(object, index, format, api, images)?;
        if !valid {
            let expected = "members of the types that the engine takes";
            return Err(TemplateError::field(format!("messages[{index}]"), expected));
        }
        rebuilt.push(message);
    }
    let has_role = |message: &Object, wanted: &str| {
        message.get("role").and_then(Json::as_text).is_some_and(|role| &**role == wanted)
    };
    if !developer && rebuilt.iter().any(|message| has_role(message, "developer")) {
        for message in rebuilt.iter_mut().filter(|message| has_role(message, "developer")) {
            message.set("role", Json::text("system"));
            message.entries.retain(|(member, _)| &**member != "tools");
        }
        let systems = rebuilt.iter().filter(|message| has_role(message, "system")).count();
        if systems > 1 || !rebuilt.first().is_some_and(|first| has_role(first, "system")) {
            let (system, others): (Vec<_>, Vec<_>) =
                rebuilt.into_iter().partition(|message| has_role(message, "system"));
            let texts: Vec<_> = system.iter().map(whole_text).filter(|t| !t.is_empty()).collect();
            let text = Json::Text(texts.join("\n\n").into());
            let system = Object::from([("role", Json::text("system")), ("content", text)]);
            return Ok(std::iter::once(system).chain(others).collect());
        }
    }
    Ok(rebuilt)
}

/// The content of a message as one text.
fn whole_text(message: &Object) -> String {
    match message.get("content") {
        Some(Json::Text(text)) => text.to_string(),
        Some(Json::List(parts)) => {
            let text = |part: &Json| part.as_object()?.get("text")?.as_text().cloned();
            parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// `reasoning` once had another name.
fn rename_reasoning(message: &mut Object) {
    let Some(place) = message.entries.iter().position(|(name, _)| &**name == "reasoning_content")
    else {
        return;
    };
    let (_, reasoning) = message.entries.remove(place);
    if !reasoning.is_null() && message.given("reasoning").is_none() {
        message.set("reasoning", reasoning);
    }
}

fn message_of(
    mut message: Object,
    index: usize,
    format: ContentFormat,
    api: ChatApi,
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
                        tool_call(call, api).ok_or_else(|| {
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
/// the order that its validation leaves them in, and then those that it does not know.
fn tool_call(call: Json, api: ChatApi) -> Option<Json> {
    let Json::Object(mut call) = call else { return None };
    let kind = match call.get("type") {
        None => None,
        Some(Json::Text(kind)) if &**kind == "function" => call.take("type"),
        Some(_) => return None,
    };
    let Some(Json::Object(mut function)) = call.take("function") else { return None };
    let named_first = function.entries.first().is_some_and(|(member, _)| &**member == "name");
    let arguments = match function.take("arguments") {
        Some(Json::Text(text)) => match Json::parse(text.as_bytes()) {
            Ok(arguments) => Some(arguments),
            Err(error) if error.is_limit() => return None,
            Err(_) => None,
        },
        arguments => arguments,
    };
    let arguments = arguments.filter(|value| value.as_object().is_some());
    let arguments = arguments.unwrap_or_else(|| Json::Object(Object::default()));
    let name = function.take("name").map(|name| ("name".into(), name));
    let mut rebuilt = Object::from([("arguments", arguments)]);
    rebuilt.entries.extend(name);
    if api == ChatApi::Responses && named_first {
        // The engine itself wrote it, and left the order.
        rebuilt.entries.reverse();
    }
    let others = |(member, _): &(Arc<str>, Json), known: &[&str]| !known.contains(&&**member);
    let own = ["arguments", "name"];
    rebuilt.entries.extend(function.entries.into_iter().filter(|entry| others(entry, &own)));
    let mut whole = Object::default();
    let id = call.take("id");
    whole.entries.extend(id.map(|id| ("id".into(), id)));
    whole.push("function", Json::Object(rebuilt));
    whole.entries.extend(kind.map(|kind| ("type".into(), kind)));
    let own = ["id", "function", "type"];
    whole.entries.extend(call.entries.into_iter().filter(|entry| others(entry, &own)));
    Some(Json::Object(whole))
}

/// Members of parts that the engine knows, of whatever kind; others go along to the template.
const KNOWN: [&str; 20] = [
    "audio_embeds",
    "audio_url",
    "closed",
    "data",
    "file",
    "image_embeds",
    "image_pil",
    "image_url",
    "input_audio",
    "name",
    "prompt_cache_breakpoint",
    "prompt_embeds",
    "refusal",
    "text",
    "thinking",
    "tool_reference",
    "type",
    "uuid",
    "video_embeds",
    "video_url",
];

/// A part of a message's content.
enum Part {
    Image(ImagePart),
    /// A text, with members of its part that the engine does not know.
    Text(Arc<str>, Vec<(Arc<str>, Json)>),
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
    let system = role == "system";
    match message.take("content") {
        None | Some(Json::Null) => {}
        Some(Json::Text(text)) => {
            let text = if system { without_billing(text) } else { Some(text) };
            parts.extend(text.map(|text| Part::Text(text, Vec::new())));
        }
        Some(Json::List(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                let field = || format!("messages[{index}].content[{at}]");
                let Some(item) = (if system { shown(item) } else { Some(item) }) else { continue };
                parts.extend(part(item, images, &field)?);
            }
        }
        Some(_) => {
            let field = format!("messages[{index}].content");
            return Err(TemplateError::field(field, "a string or a list of parts"));
        }
    }
    let other = |part: &Part| matches!(part, Part::Image(_) | Part::ToolReference(_));
    let tool_texts = role == "tool" && !parts.iter().any(other);
    match format {
        ContentFormat::Parts if !tool_texts => {
            let parts = parts.into_iter().map(|part| match part {
                Part::Text(text, others) => typed("text", "text", text, others),
                Part::Image(image) => {
                    images.push(image);
                    Json::Object([("type", Json::text("image"))].into())
                }
                Part::ToolReference(name) => typed("tool_reference", "name", name, Vec::new()),
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
        Part::Text(text, _) | Part::ToolReference(text) => Some(text),
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

fn typed(kind: &str, member: &str, text: Arc<str>, others: Vec<(Arc<str>, Json)>) -> Json {
    let mut part = Object::from([("type", Json::text(kind)), (member, Json::Text(text))]);
    part.entries.extend(others);
    Json::Object(part)
}

fn part(
    item: Json,
    images: &Collected<'_>,
    field: &dyn Fn() -> String,
) -> Result<Option<Part>, TemplateError> {
    let mut item = match item {
        Json::Text(text) => return Ok(Some(Part::Text(text, Vec::new()))),
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
    // A part with an id is one of media, whatever its type says.
    if item.given("uuid").is_some() {
        return Err(TemplateError::Media { field: field(), kind: kind.to_string() });
    }
    match item.take(member) {
        Some(Json::Text(text)) if &*kind == "tool_reference" => Ok(Some(Part::ToolReference(text))),
        Some(Json::Text(text)) => {
            let others = item.entries.into_iter().filter(|(name, _)| !KNOWN.contains(&&**name));
            Ok(Some(Part::Text(text, others.collect())))
        }
        Some(Json::Null) | None if matches!(&*kind, "text" | "refusal") => Ok(None),
        _ => Err(TemplateError::field(format!("{}.{member}", field()), "a string")),
    }
}

/// A part of a system message without its billing header; nothing if nothing is left. The header is
/// looked for in parts of type `text` alone.
fn shown(part: Json) -> Option<Json> {
    match part {
        Json::Text(text) => without_billing(text).map(Json::Text),
        Json::Object(mut part) if part.get("type") == Some(&Json::text("text")) => {
            if let Some(text) = part.get("text").and_then(Json::as_text).cloned() {
                part.set("text", Json::Text(without_billing(text)?));
            }
            Some(Json::Object(part))
        }
        part => Some(part),
    }
}

/// The text without a first line that is the billing header; nothing if nothing is left.
fn without_billing(text: Arc<str>) -> Option<Arc<str>> {
    if !text.starts_with(BILLING) {
        return Some(text);
    }
    let (_, rest) = text.split_once('\n')?;
    (!rest.is_empty()).then(|| rest.into())
}
