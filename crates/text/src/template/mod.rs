//! Chat templates, rendered as vLLM renders them.
//!
//! A chat becomes a prompt by the model's own Jinja template. Engines hash the tokens of that
//! prompt, so that one differing byte loses the whole prefix from there on: everything here aims
//! at the same text. That means, beside the template itself, how messages, tools and arguments are
//! rebuilt before ([`ChatTemplate::render`] lists it), how values are printed (as Python's `str`
//! and `json.dumps` do), and which filters, tests and methods there are.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use inlane_text::template::{ChatApi, ChatTemplate};
//!
//! let template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
//! let template = ChatTemplate::from_parts(template, br#"{"bos_token": "<s>"}"#)?;
//! let body = br#"{"messages": [{"role": "user", "content": "hi"}]}"#;
//! let rendered = template.render(ChatApi::Chat, body, 0)?;
//! assert_eq!(rendered.text, "<s>user: hi\n");
//! # Ok(())
//! # }
//! ```
//!
//! # What differs
//!
//! `tests/jinja` compares with Jinja2 itself. Known to differ, and not met in templates of models:
//! the operator `%` on texts, `+` before a number, `\U` escapes, macros' defaults that name other
//! parameters, and `varargs`.
//!
//! Which messages and tools the engine takes is followed too: what it answers with an error is one
//! here. `scripts/vllm/differ.py` compares random requests with vLLM's own functions.
//!
//! # Bounds
//!
//! Bodies nest 128 deep. A render takes at most [`Limits::fuel`] steps, writes at most
//! [`Limits::output`] bytes, and makes values of at most [`Limits::values`] bytes in all, which bounds
//! its memory, and the copying of templates that append each message to one text. Templates are
//! configuration, chosen by who runs the engine: one may still compare long texts again and again, within
//! its steps. So the template that a request comes with counts only if the model's own files have the
//! same.

mod anthropic;
mod budget;
mod charges;
mod chat;
mod error;
mod filters;
mod format;
mod images;
mod json;
mod methods;
mod object;
mod probe;
mod python;
#[cfg(test)]
mod render_tests;
mod request;
mod responses;
mod resume;
mod slice;
mod source;
mod syntax;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod valid;

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use minijinja::{Environment, ErrorKind, Value};

use self::filters::{NOW, Raised};
use self::images::Collected;
use self::json::{Json, Object};
use self::python::Dumps;
use self::request::Request;
use self::source::Source;

pub use self::error::TemplateError;
pub use self::format::ContentFormat;
pub use self::images::{ImagePart, ImageStyle};

/// The interface a chat request was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatApi {
    /// `/v1/chat/completions`.
    Chat,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// `/v1/responses`.
    Responses,
}

/// The end of a prompt that is dropped where it is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TruncationSide {
    /// The first tokens are dropped.
    #[default]
    Left,
    /// The last tokens are dropped.
    Right,
}

/// What one render may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the template: about one per operation. A message takes 20 to 100.
    pub fuel: u64,
    /// Bytes of the rendered text.
    pub output: usize,
    /// Bytes of all values that the template makes and prints, the text included. A few times the
    /// request's are usual.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { fuel: 10_000_000, output: 64 << 20, values: 256 << 20 }
    }
}

/// The prompt of a chat request, to be tokenized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt.
    pub text: String,
    /// The tokenizer adds its special tokens. Templates write them themselves, so that only
    /// requests that say so, and `/v1/responses`, have it set.
    pub add_special_tokens: bool,
    /// Most tokens kept; -1 is the model's maximum.
    pub truncate: Option<i64>,
    /// Tokens that the answer may take, as far as the request says: with them one token less is the
    /// model's maximum.
    pub max_tokens: Option<i64>,
    /// Which tokens are dropped then.
    pub truncation_side: TruncationSide,
    /// Images in the order of their places. Each stands in the text as one placeholder that its tokens
    /// replace.
    pub images: Vec<ImagePart>,
}

/// The chat templates of a model, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    default: Option<Compiled>,
    tool_use: Option<Compiled>,
    /// Templates of other names that are valid.
    others: Vec<Compiled>,
    /// See [`anthropic::Reading`].
    merges_system: bool,
    disabled_effort: OnceLock<&'static str>,
    limits: Limits,
}

/// What is known about a template of the environment.
#[derive(Debug)]
struct Compiled {
    name: String,
    /// As written.
    text: String,
    format: ContentFormat,
    /// It knows the role `developer`.
    developer: bool,
}

impl ChatTemplate {
    /// Loads the templates of a model's directory, the one that holds `tokenizer.json`.
    ///
    /// `chat_template.jinja` counts before the templates of `tokenizer_config.json`; of a list
    /// there, and of `additional_chat_templates/`, `tool_use` is for requests with tools, and those of
    /// other names (64 at most; broken ones are left out) are for requests that come with them.
    pub fn load(dir: &Path) -> Result<ChatTemplate, TemplateError> {
        ChatTemplate::new(Source::load(dir)?)
    }

    /// Takes a template and the text of a `tokenizer_config.json`, whose own templates are not
    /// used.
    pub fn from_parts(template: &str, tokenizer_config: &[u8]) -> Result<Self, TemplateError> {
        ChatTemplate::new(Source::from_parts(template, tokenizer_config)?)
    }

    /// The same templates with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.env.set_fuel(Some(limits.fuel));
        self
    }

    /// The form of content that the template for requests without tools expects.
    pub fn content_format(&self) -> Option<ContentFormat> {
        self.default.as_ref().map(|template| template.format)
    }

    /// Renders the prompt of a request at a time, in seconds since 1970.
    ///
    /// As the engine does, this rebuilds each message from the members it knows, joins or wraps
    /// content to the form the template expects, parses the arguments of tool calls, makes
    /// `developer` messages part of the system message if the template does not know them, writes
    /// tools in its own order, and cuts the text for `continue_final_message`.
    ///
    /// Errors are those for which the engine answers with status 400, bodies it would not accept
    /// either, media, and exceeded limits.
    ///
    /// Cost: one copy of the texts, then the template's own.
    pub fn render(&self, api: ChatApi, body: &[u8], now: i64) -> Result<Rendered, TemplateError> {
        self.render_with(api, body, now, None)
    }

    /// The same for a model that knows images: those of a request are taken out of it, and placed as
    /// `style` says.
    ///
    /// # Errors
    /// As there. Other media stay errors, and so do images of a request with options for the model's
    /// processor.
    pub fn render_with(
        &self,
        api: ChatApi,
        body: &[u8],
        now: i64,
        style: Option<ImageStyle<'_>>,
    ) -> Result<Rendered, TemplateError> {
        self.rendered(chat_body(api, body, self)?, api, body.len(), now, style)
    }

    /// Renders the body of a chat completion that came as one of `api`, `length` bytes long.
    fn rendered(
        &self,
        body: Object,
        api: ChatApi,
        length: usize,
        now: i64,
        style: Option<ImageStyle<'_>>,
    ) -> Result<Rendered, TemplateError> {
        let request = Request::new(body, api)?;
        let template = self.template(&request)?;
        let (format, developer) = (template.format, template.developer);
        let mut images = Collected::new(style.filter(|_| !request.processor_options));
        let mut messages = chat::messages(request.messages, format, developer, api, &mut images)?;
        let unfinished = match request.continue_final {
            true => Some(resume::mark(&mut messages, &template.text)?),
            false => None,
        };
        let messages = Json::List(messages.into_iter().map(Json::Object).collect());
        let own = [
            (NOW, Value::from(now)),
            ("messages", object::value(&messages)),
            ("tools", object::value(&request.tools)),
        ];
        // Of equal names the last one counts in the context.
        let others = request.variables.iter().rev();
        let others = others.map(|(name, json)| (name.as_str(), object::value(json)));
        let context = Value::from_pairs(others.chain(own));
        let mut text = self.run(&template.name, context, length)?;
        if let Some(unfinished) = unfinished {
            resume::cut(&mut text, &unfinished)?;
        }
        Ok(Rendered {
            text,
            add_special_tokens: request.add_special_tokens,
            truncate: request.truncate,
            max_tokens: request.max_tokens,
            truncation_side: match request.truncate_right {
                true => TruncationSide::Right,
                false => TruncationSide::Left,
            },
            images: images.taken(),
        })
    }

    fn new(source: Source) -> Result<ChatTemplate, TemplateError> {
        let limits = Limits::default();
        let mut env = Environment::new();
        // Errors would take copies of the template and the conversation along.
        env.set_debug(false);
        env.set_syntax(syntax::config());
        env.set_fuel(Some(limits.fuel));
        filters::register(&mut env);
        for (name, token) in &source.tokens {
            env.add_global(name.clone(), object::value(token));
        }
        let mut compile = |name: String, text: String| {
            let text = with_line_feeds(text);
            let rewritten = charges::add(&syntax::rewrite(&text));
            if let Err(error) = env.add_template_owned(name.clone(), rewritten) {
                let reason = error.detail().unwrap_or("not a template").to_owned();
                return Err(TemplateError::Syntax {
                    name,
                    line: error.line().unwrap_or(0),
                    reason,
                });
            }
            let format = format::detect(&syntax::parsable(&text));
            Ok(Compiled { name, format, developer: knows_developer(&text), text })
        };
        let mut named = |name: &str, text: Option<String>| {
            text.map(|text| compile(name.to_owned(), text)).transpose()
        };
        let default = named("default", source.default)?;
        let tool_use = named("tool_use", source.tool_use)?;
        let others = source.others.into_iter().enumerate();
        let others = others.filter_map(|(n, text)| compile(format!("other {n}"), text).ok());
        let others = others.collect();
        let mut usual = default.iter().chain(&tool_use).peekable();
        let merges_system = usual.peek().is_none() || usual.any(|t| probe::merges_system(&t.text));
        let disabled_effort = OnceLock::new();
        Ok(ChatTemplate { env, default, tool_use, others, merges_system, disabled_effort, limits })
    }

    /// The template for a request.
    fn template(&self, request: &Request) -> Result<&Compiled, TemplateError> {
        let tools = !request.tools.is_null();
        let usual = self.tool_use.as_ref().filter(|_| tools).or(self.default.as_ref());
        let Some(own) = &request.template else {
            return usual.ok_or(TemplateError::Missing { tools });
        };
        let own = with_line_feeds(own.to_string());
        // One line feed at the end is nothing to Jinja.
        let end = |text: &str| text.strip_suffix('\n').map_or(text.len(), str::len);
        let same = |text: &str| text[..end(text)] == own[..end(&own)];
        let known = self.default.iter().chain(&self.tool_use).chain(&self.others);
        known.into_iter().find(|known| same(&known.text)).ok_or_else(|| {
            let expected = "a template of the model's own files: others are not trusted";
            TemplateError::field("chat_template", expected)
        })
    }

    /// A prompt is about as long as its request.
    fn run(&self, name: &str, context: Value, length: usize) -> Result<String, TemplateError> {
        let limit = self.limits.output;
        let bytes = Vec::with_capacity(limit.min(length + (1 << 10)));
        let mut out = Bounded { bytes, limit, exceeded: false };
        let template = self.env.get_template(name);
        let render = || {
            template.and_then(|template| template.render_captured_to(context, &mut out).map(drop))
        };
        let (rendered, exceeded) = budget::within(self.limits.values, render);
        match rendered {
            _ if out.exceeded => Err(TemplateError::Output { limit: out.limit }),
            _ if exceeded => Err(TemplateError::Values { limit: self.limits.values }),
            Ok(()) => String::from_utf8(out.bytes)
                .map_err(|error| TemplateError::Render { line: 0, reason: error.to_string() }),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &minijinja::Error) -> TemplateError {
        let mut line = error.line().unwrap_or(0);
        let mut reason = error.to_string();
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        // Macros and blocks wrap the error that counts.
        while let Some(current) = cause {
            if let Some(Raised(message)) = current.downcast_ref() {
                return TemplateError::Raised { message: message.clone() };
            }
            if let Some(error) = current.downcast_ref::<minijinja::Error>() {
                if error.kind() == ErrorKind::OutOfFuel {
                    return TemplateError::Fuel { limit: self.limits.fuel };
                }
                line = error.line().unwrap_or(line);
                reason = error.to_string();
            }
            cause = current.source();
        }
        TemplateError::Render { line, reason }
    }
}

/// Whether a template names the role `developer`: the engine's rule.
fn knows_developer(template: &str) -> bool {
    template.contains("\"developer\"") || template.contains("'developer'")
}

/// Jinja reads every line end as a line feed.
fn with_line_feeds(text: String) -> String {
    match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n"),
        false => text,
    }
}

/// The body of a chat completion that asks for the same prompt, for a renderer that knows no
/// other: `/v1/messages` and `/v1/responses` bodies are converted as vLLM does whose template takes
/// system messages anywhere, others are kept.
///
/// Arguments of tool calls are written as Python's `json.dumps` writes them.
pub fn to_chat(api: ChatApi, body: &[u8]) -> Result<Vec<u8>, TemplateError> {
    if api == ChatApi::Chat {
        return Ok(body.to_vec());
    }
    let chat = Json::Object(chat_body(api, body, &probe::Usual)?);
    let mut text = String::new();
    Dumps::default()
        .write(&mut text, &object::value(&chat), 0)
        .map_err(|error| TemplateError::Render { line: 0, reason: error.to_string() })?;
    Ok(text.into_bytes())
}

fn chat_body(
    api: ChatApi,
    body: &[u8],
    reading: &dyn anthropic::Reading,
) -> Result<Object, TemplateError> {
    let parsed = Json::parse(body)
        .map_err(|error| TemplateError::Body { offset: error.offset, expected: error.expected })?;
    let Json::Object(body) = parsed else {
        return Err(TemplateError::Body { offset: 0, expected: "an object" });
    };
    match api {
        ChatApi::Chat => Ok(body),
        ChatApi::Messages => anthropic::to_chat(body, reading),
        ChatApi::Responses => responses::to_chat(body),
    }
}

/// Keeps what is written up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
