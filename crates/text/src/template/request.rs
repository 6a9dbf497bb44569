//! A chat request as the engine hands it to the template.

use super::ChatApi;
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
    /// Tokens that the answer may take.
    pub(super) max_tokens: Option<i64>,
    /// It says how media are to be processed.
    pub(super) processor_options: bool,
}

/// Arguments of the engine's own calls: a request that names one of them fails.
const TAKEN: [&str; 5] = ["conversation", "messages", "model_config", "self", "tokenizer"];
/// Arguments of `apply_chat_template` that do not reach the template, or are the request's own.
const UNSEEN: [&str; 9] = [
    "add_generation_prompt",
    "continue_final_message",
    "max_length",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenizer_kwargs",
    "truncation",
];
/// Jinja's own functions, which variables of a request do not hide.
const FUNCTIONS: [&str; 6] = ["cycler", "dict", "joiner", "lipsum", "namespace", "range"];
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

impl Request {
    /// Reads a chat body. What the engine answers with an error is one here.
    ///
    /// The engine does not look twice at conversations that it makes of a response's input, nor at
    /// tools of other interfaces.
    pub(super) fn new(mut body: Object, api: ChatApi) -> Result<Request, TemplateError> {
        let validated = api == ChatApi::Chat;
        let Some(Json::List(messages)) = body.take("messages") else {
            return Err(TemplateError::field("messages", "a list"));
        };
        if messages.is_empty() {
            return Err(TemplateError::field("messages", "at least one message"));
        }
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
        let truncate = integer(&body, "truncate_prompt_tokens")?;
        if truncate.is_some_and(|tokens| tokens < -1) {
            let expected = "an integer from -1 on";
            return Err(TemplateError::field("truncate_prompt_tokens", expected));
        }
        let truncate_right = match body.given("truncation_side") {
            None => false,
            Some(Json::Text(side)) if &**side == "left" => false,
            Some(Json::Text(side)) if &**side == "right" => true,
            Some(_) => return Err(TemplateError::field("truncation_side", "left or right")),
        };
        let most = body.given("max_completion_tokens").or_else(|| body.given("max_tokens"));
        let max_tokens = most.and_then(|most| match most {
            Json::Int(tokens) => Some(*tokens),
            _ => None,
        });
        let add_special_tokens = flag(&body, "add_special_tokens")?.unwrap_or(false);
        if validated {
            tool_choice(&body)?;
        }
        let mut kwargs = kwargs(&mut body)?;
        let tools = match kwargs.take("tools").filter(|tools| !is_unset(tools)) {
            Some(tools) => own_tools(tools)?,
            None => tools(body.take("tools"), validated)?,
        };
        // Tokens that the engine asks of the template's renderer are never given special ones.
        let tokenize = kwargs.take("tokenize").filter(|value| !is_unset(value));
        let tokenize = tokenize.is_some_and(|value| value.is_true());
        Ok(Request {
            messages,
            template,
            tools,
            continue_final,
            add_special_tokens: add_special_tokens && !tokenize,
            truncate,
            truncate_right,
            max_tokens,
            processor_options: ["mm_processor_kwargs", "media_io_kwargs"]
                .iter()
                .any(|name| body.get(name).is_some_and(Json::is_true)),
            variables: variables(&mut body, kwargs, generate)?,
        })
    }
}

/// What counts as not given among the arguments of a template.
fn is_unset(value: &Json) -> bool {
    value.is_null() || value.as_text().is_some_and(|text| &**text == "auto")
}

/// A truth value in one of the forms that the engine's validation takes.
fn flag(body: &Object, name: &str) -> Result<Option<bool>, TemplateError> {
    let Some(value) = body.get(name) else { return Ok(None) };
    let known = match value {
        Json::Bool(value) => Some(*value),
        Json::Int(number @ 0..=1) => Some(*number == 1),
        Json::Float(number) if *number == 0.0 || *number == 1.0 => Some(*number == 1.0),
        Json::Text(text) => match &*text.to_ascii_lowercase() {
            "1" | "on" | "t" | "true" | "y" | "yes" => Some(true),
            "0" | "off" | "f" | "false" | "n" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    };
    known.map(Some).ok_or_else(|| TemplateError::field(name, "true or false"))
}

/// An integer in one of the forms that the engine's validation takes.
fn integer(body: &Object, name: &str) -> Result<Option<i64>, TemplateError> {
    let Some(value) = body.given(name) else { return Ok(None) };
    let known = match value {
        Json::Int(number) => Some(*number),
        Json::Bool(value) => Some(i64::from(*value)),
        // Beyond this not every integer is a double.
        Json::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
        Json::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    known.map(Some).ok_or_else(|| TemplateError::field(name, "an integer"))
}

/// `chat_template_kwargs`.
fn kwargs(body: &mut Object) -> Result<Object, TemplateError> {
    let mut kwargs = match body.take("chat_template_kwargs") {
        None | Some(Json::Null) => Object::default(),
        Some(Json::Object(kwargs)) => kwargs,
        Some(_) => return Err(TemplateError::field("chat_template_kwargs", "an object")),
    };
    let refused = |name: &str| {
        let field = format!("chat_template_kwargs.{name}");
        TemplateError::field(field, "nothing: it cannot be set there")
    };
    for name in TAKEN.into_iter().chain(["chat_template"]) {
        if kwargs.take(name).is_some_and(|value| !is_unset(&value)) {
            return Err(refused(name));
        }
    }
    let mask = "return_assistant_tokens_mask";
    if kwargs.get(mask).is_some_and(|value| !is_unset(value) && value.is_true()) {
        return Err(refused(mask));
    }
    Ok(kwargs)
}

/// The variables beside messages and tools: members of the request before keyword arguments.
fn variables(
    body: &mut Object,
    mut kwargs: Object,
    generate: bool,
) -> Result<Vec<(String, Json)>, TemplateError> {
    let mut variables = vec![("add_generation_prompt".to_owned(), Json::Bool(generate))];
    let given = match body.take("documents") {
        None | Some(Json::Null) => None,
        Some(Json::List(documents)) if documents.iter().all(is_document) => {
            Some(Json::List(documents))
        }
        Some(_) => return Err(TemplateError::field("documents", "a list of objects of strings")),
    };
    let other = kwargs.take("documents").filter(|documents| !is_unset(documents));
    let documents = given.or(other).unwrap_or(Json::Null);
    let documents_are_objects = match &documents {
        Json::Null => true,
        Json::List(documents) => documents.iter().all(|document| document.as_object().is_some()),
        // To Python these are lists of no documents.
        Json::Object(_) | Json::Text(_) => !documents.is_true(),
        _ => false,
    };
    if !documents_are_objects {
        return Err(TemplateError::field("documents", "a list of objects"));
    }
    variables.push(("documents".to_owned(), documents));
    if let Some(effort) = body.take("reasoning_effort").filter(|effort| !effort.is_null()) {
        let name = effort.as_text().filter(|effort| EFFORTS.contains(&&***effort));
        let Some(name) = name else {
            let expected = "none, minimal, low, medium, high, xhigh or max";
            return Err(TemplateError::field("reasoning_effort", expected));
        };
        if kwargs.get("enable_thinking").is_none() {
            let thinking = &**name != "none";
            variables.push(("enable_thinking".to_owned(), Json::Bool(thinking)));
        }
        variables.push(("reasoning_effort".to_owned(), effort));
    }
    let others = kwargs.entries.into_iter().filter(|(name, value)| {
        !is_unset(value)
            && !UNSEEN.contains(&&**name)
            && !FUNCTIONS.contains(&&**name)
            && !matches!(&**name, "documents" | "tokenize" | "tools")
    });
    variables.extend(others.map(|(name, value)| (name.to_string(), value)));
    Ok(variables)
}

fn is_document(document: &Json) -> bool {
    let is_text = |(_, value): &(_, Json)| value.as_text().is_some();
    document.as_object().is_some_and(|document| document.entries.iter().all(is_text))
}

/// Tools among the arguments of the template: as they are.
fn own_tools(tools: Json) -> Result<Json, TemplateError> {
    match tools {
        Json::List(tools) if tools.iter().all(|tool| tool.as_object().is_some()) => {
            Ok(Json::List(tools))
        }
        Json::Object(_) | Json::Text(_) if !tools.is_true() => Ok(Json::List(Vec::new())),
        _ => Err(TemplateError::field("chat_template_kwargs.tools", "a list of objects")),
    }
}

/// Refuses a choice that names no tool of the request.
fn tool_choice(body: &Object) -> Result<(), TemplateError> {
    let choice = body.given("tool_choice");
    let wrong = |expected| Err(TemplateError::field("tool_choice", expected));
    match choice {
        None => return Ok(()),
        Some(Json::Text(text)) if &**text == "none" => return Ok(()),
        Some(_) => {}
    }
    let Some(Json::List(tools)) = body.given("tools") else {
        return wrong("none, because there are no tools");
    };
    match choice {
        Some(Json::Text(text)) if matches!(&**text, "auto" | "required") => Ok(()),
        Some(Json::Object(choice)) => {
            fn name(of: &Object) -> Option<&std::sync::Arc<str>> {
                of.get("function")?.as_object()?.get("name")?.as_text()
            }
            let kind = choice.get("type").is_none_or(|kind| *kind == Json::text("function"));
            let name_of = |tool: &Json| tool.as_object().and_then(name).cloned();
            let known = name(choice)
                .filter(|name| tools.iter().any(|tool| name_of(tool).as_ref() == Some(name)));
            match known {
                Some(name) if kind && !name.is_empty() => Ok(()),
                _ => wrong("the name of one of the tools"),
            }
        }
        _ => wrong("none, auto, required, or the name of one of the tools"),
    }
}

/// The tools in the engine's form: known members in its own order, absent ones as null.
fn tools(tools: Option<Json>, validated: bool) -> Result<Json, TemplateError> {
    let tools = match tools {
        None | Some(Json::Null) => return Ok(Json::Null),
        Some(Json::List(tools)) if !tools.is_empty() || !validated => tools,
        Some(_) => return Err(TemplateError::field("tools", "a list with at least one tool")),
    };
    let tools = tools.into_iter().enumerate().map(|(index, tool)| {
        let wrong = |member: &str, expected: &'static str| {
            TemplateError::field(format!("tools[{index}]{member}"), expected)
        };
        let Json::Object(mut tool) = tool else { return Err(wrong("", "an object")) };
        let Some(Json::Object(mut function)) = tool.take("function") else {
            return Err(wrong(".function", "an object"));
        };
        let Some(name @ Json::Text(_)) = function.take("name") else {
            return Err(wrong(".function.name", "a string"));
        };
        let kind = tool.take("type").unwrap_or_else(|| Json::text("function"));
        if kind != Json::text("function") {
            return Err(wrong(".type", "function"));
        }
        let mut rendered = Object::from([("name", name)]);
        let description = function.take("description").unwrap_or(Json::Null);
        if !matches!(description, Json::Null | Json::Text(_)) {
            return Err(wrong(".function.description", "a string"));
        }
        rendered.push("description", description);
        let parameters = function.take("parameters").unwrap_or(Json::Null);
        if !matches!(parameters, Json::Null | Json::Object(_)) {
            return Err(wrong(".function.parameters", "an object"));
        }
        rendered.push("parameters", parameters);
        let known = |of: &Object, member: &str, path: &str| match of.given(member) {
            None => Ok(None),
            Some(_) => flag(of, member).map_err(|_| wrong(path, "true or false")),
        };
        if let Some(strict) = known(&function, "strict", ".function.strict")? {
            rendered.push("strict", Json::Bool(strict));
        }
        let outer = known(&tool, "defer_loading", ".defer_loading")?;
        let inner = known(&function, "defer_loading", ".function.defer_loading")?;
        if let Some(deferred) = inner.or(outer) {
            rendered.push("defer_loading", Json::Bool(deferred));
        }
        let mut whole = Object::from([("type", kind), ("function", Json::Object(rendered))]);
        if let Some(deferred) = outer {
            whole.push("defer_loading", Json::Bool(deferred));
        }
        Ok(Json::Object(whole))
    });
    tools.collect::<Result<_, _>>().map(Json::List)
}
