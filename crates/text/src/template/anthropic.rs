//! Anthropic's messages as a chat request.

use super::error::TemplateError;
use super::json::{Json, Object};
use super::object;
use super::python::{self, Dumps};

const BILLING: &str = "x-anthropic-billing-header";
/// Efforts from the least on.
pub(super) const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
/// Blocks that change the tools.
const CHANGES: [&str; 2] = ["tool_addition", "tool_removal"];
const KINDS: [&str; 9] = [
    "text",
    "image",
    "tool_use",
    "tool_result",
    "tool_reference",
    "thinking",
    "redacted_thinking",
    "tool_addition",
    "tool_removal",
];
/// Members of blocks that are texts.
const TEXTS: [&str; 8] =
    ["text", "id", "tool_use_id", "name", "tool_name", "thinking", "signature", "data"];

/// How an engine reads messages that depends on its template.
pub(super) trait Reading {
    /// Whether system messages within the conversation become part of the first one.
    fn merges_system(&self) -> bool;
    /// The effort that stands for thinking that is switched off.
    fn disabled_effort(&self) -> &'static str;
}

/// Rewrites the body of `/v1/messages` into that of a chat completion.
pub(super) fn to_chat(mut body: Object, reading: &dyn Reading) -> Result<Object, TemplateError> {
    let Some(Json::List(messages)) = body.take("messages") else {
        return Err(TemplateError::field("messages", "a list"));
    };
    let effort = effort(&body, reading)?;
    let mut chat = Vec::with_capacity(messages.len() + 1);
    let merge = reading.merges_system();
    let mut tools = Tools::new(body.take("tools"))?;
    system(&mut body, messages.iter().filter(|_| merge), &mut chat)?;
    for (index, message) in messages.into_iter().enumerate() {
        let Json::Object(message) = message else {
            return Err(TemplateError::field(format!("messages[{index}]"), "an object"));
        };
        check(&message, index)?;
        if !is_system(&message) {
            convert(message, index, &mut chat)?;
            continue;
        }
        let mut text = String::new();
        system_text(message.get("content"), &mut text);
        if !merge && !text.is_empty() {
            let system = [("role", Json::text("system")), ("content", Json::text(&text))];
            chat.push(Json::Object(system.into()));
        }
        tools.change(message.get("content"))?;
    }
    let mut request = Object::default();
    request.push("model", body.take("model").unwrap_or(Json::Null));
    request.push("messages", Json::List(chat));
    for member in ["max_tokens", "chat_template_kwargs"] {
        if let Some(value) = body.take(member).filter(|value| !value.is_null()) {
            request.push(member, value);
        }
    }
    if let Some(effort) = effort {
        request.push("reasoning_effort", effort);
    }
    let choice = tool_choice(body.take("tool_choice"))?;
    if let Some(tools) = tools.declared() {
        request.push("tools", tools);
        request.push("tool_choice", choice);
    }
    Ok(request)
}

/// The effort that the request asks for. Thinking that is switched off counts before a given effort.
fn effort(body: &Object, reading: &dyn Reading) -> Result<Option<Json>, TemplateError> {
    let Some(Json::Int(most @ 1..)) = body.get("max_tokens") else {
        return Err(TemplateError::field("max_tokens", "an integer from 1 on"));
    };
    let mut effort = None;
    match body.given("output_config") {
        None => {}
        Some(Json::Object(output)) => {
            effort = output.given("effort").cloned();
            let named = |effort: &Json| effort.as_text().is_some_and(|e| EFFORTS.contains(&&**e));
            if effort.as_ref().is_some_and(|effort| !named(effort)) {
                let expected = "low, medium, high, xhigh or max";
                return Err(TemplateError::field("output_config.effort", expected));
            }
        }
        Some(_) => return Err(TemplateError::field("output_config", "an object")),
    }
    let wrong = |expected| Err(TemplateError::field("thinking", expected));
    match body.given("thinking") {
        None => {}
        Some(Json::Object(thinking)) => match kind(thinking) {
            "adaptive" => {}
            "disabled" => effort = Some(Json::text(reading.disabled_effort())),
            "enabled" => match thinking.get("budget_tokens") {
                Some(Json::Int(budget @ 1024..)) if budget < most || is_prefill(body) => {}
                _ => return wrong("budget_tokens from 1024 on and less than max_tokens"),
            },
            _ => return wrong("a type of enabled, disabled or adaptive"),
        },
        Some(_) => return wrong("an object"),
    }
    Ok(effort)
}

/// The request of a prefill, whose own limit says nothing.
fn is_prefill(body: &Object) -> bool {
    let transfer = body.get("kv_transfer_params").and_then(Json::as_object);
    transfer.and_then(|transfer| transfer.get("do_remote_decode")).is_some_and(Json::is_true)
}

/// Refuses blocks that the engine's types do not take.
fn check(message: &Object, index: usize) -> Result<(), TemplateError> {
    let Some(Json::List(blocks)) = message.get("content") else { return Ok(()) };
    for (at, block) in blocks.iter().enumerate() {
        let valid = block.as_object().is_some_and(|block| {
            is_block(block) && (is_system(message) || !CHANGES.contains(&kind(block)))
        });
        if !valid {
            let field = format!("messages[{index}].content[{at}]");
            return Err(TemplateError::field(field, "a block that the engine takes"));
        }
    }
    Ok(())
}

fn is_block(block: &Object) -> bool {
    let fits = |member: &str, fits: &dyn Fn(&Json) -> bool| block.given(member).is_none_or(fits);
    let is_object = |value: &Json| value.as_object().is_some();
    KINDS.contains(&kind(block))
        && TEXTS.iter().all(|member| fits(member, &|value| value.as_text().is_some()))
        && fits("source", &is_object)
        && fits("input", &is_object)
        && fits("content", &|content| match content {
            Json::Text(_) => true,
            Json::List(items) => items.iter().all(is_object),
            _ => false,
        })
}

/// One system message of the field and of those messages with that role.
fn system<'m>(
    body: &mut Object,
    messages: impl Iterator<Item = &'m Json>,
    chat: &mut Vec<Json>,
) -> Result<(), TemplateError> {
    let mut text = String::new();
    match body.take("system") {
        None | Some(Json::Null) => {}
        Some(Json::Text(system)) => text.push_str(&system),
        Some(Json::List(blocks)) => system_blocks(&blocks, &mut text),
        Some(_) => return Err(TemplateError::field("system", "a string or a list of blocks")),
    }
    for message in messages.filter_map(Json::as_object).filter(|m| is_system(m)) {
        system_text(message.get("content"), &mut text);
    }
    if !text.is_empty() {
        let message = [("role", Json::text("system")), ("content", Json::Text(text.into()))];
        chat.push(Json::Object(message.into()));
    }
    Ok(())
}

fn is_system(message: &Object) -> bool {
    message.get("role").and_then(Json::as_text).is_some_and(|role| &**role == "system")
}

fn system_text(content: Option<&Json>, text: &mut String) {
    match content {
        Some(Json::Text(content)) if !content.starts_with(BILLING) => text.push_str(content),
        Some(Json::List(blocks)) => system_blocks(blocks, text),
        _ => {}
    }
}

fn system_blocks(blocks: &[Json], text: &mut String) {
    for block in blocks.iter().filter_map(Json::as_object) {
        let part = block.get("text").and_then(Json::as_text);
        if let Some(part) = part.filter(|part| kind(block) == "text" && !part.starts_with(BILLING))
        {
            text.push_str(part);
        }
    }
}

fn kind(block: &Object) -> &str {
    block.get("type").and_then(Json::as_text).map_or("", |kind| kind)
}

fn convert(mut message: Object, index: usize, chat: &mut Vec<Json>) -> Result<(), TemplateError> {
    let role = match message.take("role") {
        Some(Json::Text(role)) if matches!(&*role, "assistant" | "user") => role,
        _ => {
            let field = format!("messages[{index}].role");
            return Err(TemplateError::field(field, "user, assistant or system"));
        }
    };
    let mut converted = Object::from([("role", Json::Text(role.clone()))]);
    match message.take("content") {
        Some(text @ Json::Text(_)) => converted.push("content", text),
        Some(Json::List(blocks)) => {
            let mut parts = Parts::default();
            for block in blocks {
                let Json::Object(block) = block else {
                    let field = format!("messages[{index}].content");
                    return Err(TemplateError::field(field, "a list of objects"));
                };
                parts.block(block, &role, chat);
            }
            parts.finish(&mut converted);
        }
        _ => {
            let field = format!("messages[{index}].content");
            return Err(TemplateError::field(field, "a string or a list of blocks"));
        }
    }
    if &*role != "user" || converted.get("content").is_some() {
        chat.push(Json::Object(converted));
    }
    Ok(())
}

/// What the blocks of one message become.
#[derive(Default)]
struct Parts {
    content: Vec<Json>,
    calls: Vec<Json>,
    reasoning: Option<String>,
}

impl Parts {
    fn block(&mut self, mut block: Object, role: &str, chat: &mut Vec<Json>) {
        let kind = kind(&block).to_owned();
        match &*kind {
            "text" => {
                if let Some(text) = block.take("text").filter(Json::is_true) {
                    self.content.push(part("text", text));
                }
            }
            "image" => {
                if let Some(Json::Object(source)) = block.take("source") {
                    self.content.push(image(&source));
                }
            }
            "thinking" => {
                if let Some(Json::Text(thinking)) = block.take("thinking") {
                    self.reasoning.get_or_insert_default().push_str(&thinking);
                }
            }
            "tool_use" => self.calls.push(tool_use(block)),
            "tool_result" if role == "user" => tool_result(block, chat),
            "tool_result" => {
                let content = block.take("content").filter(Json::is_true);
                let text = content.map(|content| python::str(&object::value(&content)));
                let text = text.and_then(Result::ok).unwrap_or_default();
                self.content.push(part("text", Json::text(&format!("Tool result: {text}"))));
            }
            // Encrypted thoughts and references have no text.
            _ => {}
        }
    }

    fn finish(mut self, message: &mut Object) {
        if let Some(reasoning) = self.reasoning {
            message.push("reasoning", Json::text(&reasoning));
        }
        if !self.calls.is_empty() {
            message.push("tool_calls", Json::List(self.calls));
        }
        let only = match self.content.as_mut_slice() {
            [Json::Object(only)] if kind(only) == "text" => only.take("text"),
            _ => None,
        };
        match only {
            Some(text) => message.push("content", text),
            None if self.content.is_empty() => {}
            None => message.push("content", Json::List(self.content)),
        }
    }
}

fn part(kind: &str, value: Json) -> Json {
    Json::Object([("type", Json::text(kind)), (kind, value)].into())
}

fn image(source: &Object) -> Json {
    let text = |member: &str, other: &str| {
        source.get(member).and_then(Json::as_text).map_or(other.to_owned(), ToString::to_string)
    };
    let url = if kind(source) == "url" {
        text("url", "")
    } else {
        format!("data:{};base64,{}", text("media_type", "image/jpeg"), text("data", ""))
    };
    part("image_url", Json::Object([("url", Json::text(&url))].into()))
}

fn tool_use(mut block: Object) -> Json {
    let input = block.take("input").filter(Json::is_true);
    let input = input.unwrap_or_else(|| Json::Object(Object::default()));
    let mut arguments = String::new();
    let dumps = Dumps { ascii: true, ..Dumps::default() };
    // What was parsed can be written.
    let _ = dumps.write(&mut arguments, &object::value(&input), 0);
    let text = |value: Option<Json>| value.filter(Json::is_true).unwrap_or_else(|| Json::text(""));
    let function =
        Object::from([("name", text(block.take("name"))), ("arguments", Json::text(&arguments))]);
    let call = [
        ("id", text(block.take("id"))),
        ("type", Json::text("function")),
        ("function", Json::Object(function)),
    ];
    Json::Object(call.into())
}

/// A result becomes a message of its own, before the user's: its texts, then its images, then the
/// tools it refers to.
fn tool_result(mut block: Object, chat: &mut Vec<Json>) {
    let id = block.take("tool_use_id").filter(Json::is_true).unwrap_or_else(|| Json::text(""));
    let (mut texts, mut images, mut references) = (Vec::new(), Vec::new(), Vec::new());
    let text = match block.take("content") {
        Some(Json::Text(text)) => text,
        Some(Json::List(items)) => {
            for item in items {
                let Json::Object(mut item) = item else { continue };
                match kind(&item) {
                    "text" => match item.take("text") {
                        Some(Json::Text(text)) => texts.push(text),
                        _ => texts.push("".into()),
                    },
                    "image" => {
                        if let Some(Json::Object(source)) = item.take("source") {
                            images.push(image(&source));
                        }
                    }
                    "tool_reference" => {
                        let name = item.take("tool_name").filter(Json::is_true);
                        if let Some(name) = name.or_else(|| item.take("name")).filter(Json::is_true)
                        {
                            let reference =
                                [("type", Json::text("tool_reference")), ("name", name)];
                            references.push(Json::Object(reference.into()));
                        }
                    }
                    _ => {}
                }
            }
            texts.join("\n").into()
        }
        _ => "".into(),
    };
    let tool = |content: Json| {
        let message =
            [("role", Json::text("tool")), ("tool_call_id", id.clone()), ("content", content)];
        Json::Object(message.into())
    };
    chat.push(tool(Json::Text(text)));
    if !images.is_empty() {
        let message = [("role", Json::text("user")), ("content", Json::List(images))];
        chat.push(Json::Object(message.into()));
    }
    if !references.is_empty() {
        chat.push(tool(Json::List(references)));
    }
}

/// The tools of a request, and what its messages change about them.
struct Tools {
    given: bool,
    /// By name, with the schema of the chat's tools.
    tools: Vec<(Json, Object)>,
    removed: Vec<Json>,
    changed: bool,
}

impl Tools {
    fn new(tools: Option<Json>) -> Result<Tools, TemplateError> {
        let list = match tools {
            None | Some(Json::Null) => None,
            Some(Json::List(tools)) => Some(tools),
            Some(_) => return Err(TemplateError::field("tools", "a list")),
        };
        let given = list.is_some();
        let tools = list.into_iter().flatten().enumerate().map(|(index, tool)| {
            function(tool).ok_or_else(|| {
                TemplateError::field(format!("tools[{index}]"), "a name and a schema")
            })
        });
        let tools = tools.collect::<Result<_, _>>()?;
        Ok(Tools { given, tools, removed: Vec::new(), changed: false })
    }

    /// Reads the blocks that add or remove tools.
    fn change(&mut self, content: Option<&Json>) -> Result<(), TemplateError> {
        let Some(Json::List(blocks)) = content else { return Ok(()) };
        for block in blocks.iter().filter_map(Json::as_object) {
            if !CHANGES.contains(&kind(block)) {
                continue;
            }
            let adds = kind(block) == "tool_addition";
            let wrong = || TemplateError::field(kind(block), "a tool that is declared");
            let change = block.get("tool").and_then(Json::as_object).ok_or_else(wrong)?;
            let name = match kind(change) {
                "tool_definition" if adds => {
                    let tool = change.get("definition").cloned().and_then(function);
                    let (name, tool) = tool.ok_or_else(wrong)?;
                    match self.tools.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = tool,
                        None => self.tools.push((name.clone(), tool)),
                    }
                    name
                }
                "tool_reference" => {
                    let name = change.get("name").cloned().unwrap_or(Json::Null);
                    let known = self.tools.iter_mut().rev().find(|(known, _)| *known == name);
                    let (_, known) = known.ok_or_else(wrong)?;
                    if adds {
                        known.set("defer_loading", Json::Null);
                    }
                    name
                }
                _ => return Err(wrong()),
            };
            self.changed = true;
            self.removed.retain(|removed| *removed != name);
            if !adds {
                self.removed.push(name);
            }
        }
        Ok(())
    }

    /// The tools as those of a chat; none if there never were any.
    fn declared(mut self) -> Option<Json> {
        if self.changed {
            // The engine looks them up by name then: of equal names the last counts, at the first place.
            let mut unique: Vec<(Json, Object)> = Vec::with_capacity(self.tools.len());
            for (name, tool) in self.tools {
                match unique.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = tool,
                    None => unique.push((name, tool)),
                }
            }
            unique.retain(|(name, _)| !self.removed.contains(name));
            self.tools = unique;
        }
        let tools = self.tools.into_iter().map(|(_, function)| {
            let tool = [("type", Json::text("function")), ("function", Json::Object(function))];
            Json::Object(tool.into())
        });
        (self.given || self.changed).then(|| Json::List(tools.collect()))
    }
}

/// The name of a tool, and the function that it becomes.
fn function(tool: Json) -> Option<(Json, Object)> {
    let Json::Object(mut tool) = tool else { return None };
    let Some(Json::Object(mut parameters)) = tool.take("input_schema") else { return None };
    if parameters.get("type").is_none() {
        parameters.push("type", Json::text("object"));
    }
    let name = tool.take("name").filter(|name| name.as_text().is_some())?;
    let mut function = Object::from([("name", name.clone())]);
    function.push("description", tool.take("description").unwrap_or(Json::Null));
    function.push("parameters", Json::Object(parameters));
    for member in ["strict", "defer_loading"] {
        function.push(member, tool.take(member).unwrap_or(Json::Null));
    }
    Some((name, function))
}

fn tool_choice(choice: Option<Json>) -> Result<Json, TemplateError> {
    let mut choice = match choice {
        None | Some(Json::Null) => return Ok(Json::text("auto")),
        Some(Json::Object(choice)) => choice,
        Some(_) => return Err(TemplateError::field("tool_choice", "an object")),
    };
    Ok(match kind(&choice) {
        "auto" => Json::text("auto"),
        "any" => Json::text("required"),
        "none" => Json::text("none"),
        "tool" => {
            let Some(name) = choice.take("name").filter(Json::is_true) else {
                return Err(TemplateError::field("tool_choice.name", "the name of a tool"));
            };
            part("function", Json::Object([("name", name)].into()))
        }
        _ => return Err(TemplateError::field("tool_choice.type", "auto, any, tool or none")),
    })
}
