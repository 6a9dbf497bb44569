//! Anthropic's messages as a chat request.

use super::error::TemplateError;
use super::json::{Json, Object};
use super::object;
use super::python::{self, Dumps};

const BILLING: &str = "x-anthropic-billing-header";

/// Rewrites the body of `/v1/messages` into that of a chat completion.
pub(super) fn to_chat(mut body: Object) -> Result<Object, TemplateError> {
    let Some(Json::List(messages)) = body.take("messages") else {
        return Err(TemplateError::field("messages", "a list"));
    };
    let mut chat = Vec::with_capacity(messages.len() + 1);
    system(&mut body, &messages, &mut chat)?;
    for (index, message) in messages.into_iter().enumerate() {
        let Json::Object(message) = message else {
            return Err(TemplateError::field(format!("messages[{index}]"), "an object"));
        };
        convert(message, index, &mut chat)?;
    }
    let mut request = Object::default();
    request.push("model", body.take("model").unwrap_or(Json::Null));
    request.push("messages", Json::List(chat));
    for member in ["max_tokens", "chat_template_kwargs"] {
        if let Some(value) = body.take(member).filter(|value| !value.is_null()) {
            request.push(member, value);
        }
    }
    if let Some(Json::Object(mut output)) = body.take("output_config")
        && let Some(effort) = output.take("effort").filter(|effort| !effort.is_null())
    {
        request.push("reasoning_effort", effort);
    }
    if let Some(Json::List(tools)) = body.take("tools") {
        request.push("tools", self::tools(tools)?);
        request.push("tool_choice", tool_choice(body.take("tool_choice")));
    }
    Ok(request)
}

/// One system message of the field and of messages with that role.
fn system(body: &mut Object, messages: &[Json], chat: &mut Vec<Json>) -> Result<(), TemplateError> {
    let mut text = String::new();
    match body.take("system") {
        None | Some(Json::Null) => {}
        Some(Json::Text(system)) => text.push_str(&system),
        Some(Json::List(blocks)) => system_blocks(&blocks, &mut text),
        Some(_) => return Err(TemplateError::field("system", "a string or a list of blocks")),
    }
    for message in messages.iter().filter_map(Json::as_object).filter(|m| is_system(m)) {
        match message.get("content") {
            Some(Json::Text(content)) => text.push_str(content),
            Some(Json::List(blocks)) => system_blocks(blocks, &mut text),
            _ => {}
        }
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
    if is_system(&message) {
        return Ok(());
    }
    let Some(Json::Text(role)) = message.take("role") else {
        return Err(TemplateError::field(format!("messages[{index}].role"), "a string"));
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

fn tools(tools: Vec<Json>) -> Result<Json, TemplateError> {
    let tools = tools.into_iter().enumerate().map(|(index, tool)| {
        let Json::Object(mut tool) = tool else {
            return Err(TemplateError::field(format!("tools[{index}]"), "an object"));
        };
        let mut parameters = match tool.take("input_schema") {
            Some(Json::Object(schema)) => schema,
            None | Some(Json::Null) => Object::default(),
            Some(_) => {
                let field = format!("tools[{index}].input_schema");
                return Err(TemplateError::field(field, "an object"));
            }
        };
        if parameters.get("type").is_none() {
            parameters.push("type", Json::text("object"));
        }
        let mut function = Object::default();
        for member in ["name", "description"] {
            function.push(member, tool.take(member).unwrap_or(Json::Null));
        }
        function.push("parameters", Json::Object(parameters));
        function.push("defer_loading", tool.take("defer_loading").unwrap_or(Json::Null));
        let tool = [("type", Json::text("function")), ("function", Json::Object(function))];
        Ok(Json::Object(tool.into()))
    });
    tools.collect::<Result<_, _>>().map(Json::List)
}

fn tool_choice(choice: Option<Json>) -> Json {
    let Some(Json::Object(mut choice)) = choice else { return Json::text("auto") };
    match kind(&choice) {
        "any" => Json::text("required"),
        "none" => Json::text("none"),
        "tool" => {
            let name = choice.take("name").unwrap_or(Json::Null);
            part("function", Json::Object([("name", name)].into()))
        }
        _ => Json::text("auto"),
    }
}
