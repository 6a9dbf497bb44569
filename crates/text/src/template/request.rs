//! A chat request as the engine hands it to the template.

use super::error::TemplateError;
use super::json::{Json, Object};

/// What a request says about its prompt.
#[derive(Debug)]
pub(super) struct Request {
    /// As sent.
    pub(super) messages: Vec<Json>,
    /// The template that the request comes with.
    pub(super) template: Option<std::sync::Arc<str>>,
    /// Normalised; null if there are none.
    pub(super) tools: Json,
    /// Further variables; the first of a name counts.
    pub(super) variables: Vec<(String, Json)>,
    pub(super) continue_final: bool,
    pub(super) add_special_tokens: bool,
    pub(super) truncate: Option<i64>,
    pub(super) truncate_right: bool,
    /// It says how media are to be processed.
    pub(super) processor_options: bool,
}

impl Request {
    /// Reads a chat body. What the engine answers with an error is one here.
    pub(super) fn new(mut body: Object) -> Result<Request, TemplateError> {
        let Some(Json::List(messages)) = body.take("messages") else {
            return Err(TemplateError::field("messages", "a list"));
        };
        let template = match body.take("chat_template") {
            None | Some(Json::Null) => None,
            Some(Json::Text(template)) => Some(template),
            Some(_) => return Err(TemplateError::field("chat_template", "a string")),
        };
        let generate = flag(&body, "add_generation_prompt")?.unwrap_or(true);
        let continue_final = flag(&body, "continue_final_message")?.unwrap_or(false);
        if generate && continue_final {
            let expected = "false, because continue_final_message is true";
            return Err(TemplateError::field("add_generation_prompt", expected));
        }
        let truncate = match body.given("truncate_prompt_tokens") {
            None => None,
            Some(Json::Int(tokens @ -1..)) => Some(*tokens),
            Some(_) => {
                return Err(TemplateError::field(
                    "truncate_prompt_tokens",
                    "an integer from -1 on",
                ));
            }
        };
        let truncate_right = match body.given("truncation_side") {
            None => false,
            Some(Json::Text(side)) if &**side == "left" => false,
            Some(Json::Text(side)) if &**side == "right" => true,
            Some(_) => return Err(TemplateError::field("truncation_side", "left or right")),
        };
        Ok(Request {
            messages,
            template,
            tools: tools(body.take("tools"))?,
            continue_final,
            add_special_tokens: flag(&body, "add_special_tokens")?.unwrap_or(false),
            truncate,
            truncate_right,
            processor_options: ["mm_processor_kwargs", "media_io_kwargs"]
                .iter()
                .any(|name| body.get(name).is_some_and(Json::is_true)),
            variables: variables(&mut body, generate)?,
        })
    }
}

fn flag(body: &Object, name: &str) -> Result<Option<bool>, TemplateError> {
    match body.given(name) {
        None => Ok(None),
        Some(Json::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(TemplateError::field(name, "true or false")),
    }
}

/// The variables beside messages and tools: members of the request before keyword arguments.
fn variables(body: &mut Object, generate: bool) -> Result<Vec<(String, Json)>, TemplateError> {
    let mut kwargs = match body.take("chat_template_kwargs") {
        None | Some(Json::Null) => Object::default(),
        Some(Json::Object(kwargs)) => kwargs,
        Some(_) => return Err(TemplateError::field("chat_template_kwargs", "an object")),
    };
    for reserved in ["chat_template", "tokenize"] {
        if kwargs.get(reserved).is_some() {
            let field = format!("chat_template_kwargs.{reserved}");
            return Err(TemplateError::field(field, "nothing: it cannot be set there"));
        }
    }
    let mut variables = vec![("add_generation_prompt".to_owned(), Json::Bool(generate))];
    match body.take("documents") {
        None | Some(Json::Null) => {
            let documents = kwargs.take("documents").unwrap_or(Json::Null);
            variables.push(("documents".to_owned(), documents));
        }
        Some(documents @ Json::List(_)) => variables.push(("documents".to_owned(), documents)),
        Some(_) => return Err(TemplateError::field("documents", "a list")),
    }
    if let Some(effort) = body.take("reasoning_effort").filter(|effort| !effort.is_null()) {
        if kwargs.get("enable_thinking").is_none() {
            let thinking = effort.as_text().is_none_or(|effort| &**effort != "none");
            variables.push(("enable_thinking".to_owned(), Json::Bool(thinking)));
        }
        variables.push(("reasoning_effort".to_owned(), effort));
    }
    let own = ["messages", "tools"];
    let others = kwargs.entries.into_iter().filter(|(name, _)| !own.contains(&&**name));
    variables.extend(others.map(|(name, value)| (name.to_string(), value)));
    Ok(variables)
}

/// The tools in the engine's form: known members in its own order, absent ones as null.
fn tools(tools: Option<Json>) -> Result<Json, TemplateError> {
    let tools = match tools {
        None | Some(Json::Null) => return Ok(Json::Null),
        Some(Json::List(tools)) if !tools.is_empty() => tools,
        Some(_) => return Err(TemplateError::field("tools", "a list with at least one tool")),
    };
    let tools = tools.into_iter().enumerate().map(|(index, tool)| {
        let Json::Object(mut tool) = tool else {
            return Err(TemplateError::field(format!("tools[{index}]"), "an object"));
        };
        let Some(Json::Object(mut function)) = tool.take("function") else {
            return Err(TemplateError::field(format!("tools[{index}].function"), "an object"));
        };
        let Some(name @ Json::Text(_)) = function.take("name") else {
            return Err(TemplateError::field(format!("tools[{index}].function.name"), "a string"));
        };
        let mut rendered = Object::from([("name", name)]);
        for member in ["description", "parameters"] {
            rendered.push(member, function.take(member).unwrap_or(Json::Null));
        }
        for member in ["strict", "defer_loading"] {
            if let Some(value) = function.take(member).filter(|value| !value.is_null()) {
                rendered.push(member, value);
            }
        }
        let kind = tool.take("type").unwrap_or_else(|| Json::text("function"));
        Ok(Json::Object([("type", kind), ("function", Json::Object(rendered))].into()))
    });
    tools.collect::<Result<_, _>>().map(Json::List)
}
