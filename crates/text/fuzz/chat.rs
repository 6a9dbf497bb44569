//! Renders whatever chat the input holds, with a template of some model or with one of its own. Shared by
//! the fuzz target and the test that replays the corpus.
//!
//! The first byte chooses the interface (its low two bits) and the template (the others). From 61 up
//! the rest begins with a template of its own, which ends at the first byte `ff`.

use std::sync::OnceLock;

use inlane_text::template::{ChatApi, ChatTemplate, Limits, TemplateError};

/// Small ones, so that an input that would reach those of a proxy is done soon.
const LIMITS: Limits = Limits { fuel: 50_000, output: 1 << 16, values: 1 << 18 };
const CONFIG: &[u8] = br#"{"bos_token": "<s>", "eos_token": "</s>"}"#;

const TEMPLATES: [&str; 7] = [
    include_str!("../tests/jinja/deepseek-like.jinja"),
    include_str!("../tests/jinja/granite-like.jinja"),
    include_str!("../tests/jinja/llama-like.jinja"),
    include_str!("../tests/jinja/mistral-like.jinja"),
    include_str!("../tests/jinja/qwen-like.jinja"),
    include_str!("../tests/jinja/schema-like.jinja"),
    "{% for m in messages %}{{ m.role ~ ':' ~ m.content }}\n{% endfor %}{{ tools|tojson(indent=1) }}",
];

pub(crate) fn chat(input: &[u8]) {
    let Some((&how, rest)) = input.split_first() else { return };
    let api = match how & 3 {
        0 | 1 => ChatApi::Chat,
        2 => ChatApi::Messages,
        _ => ChatApi::Responses,
    };
    let known = usize::from(how >> 2);
    if known < 61 {
        check(&templates()[known % TEMPLATES.len()], api, rest);
        return;
    }
    let end = rest.iter().position(|byte| *byte == 0xff).unwrap_or(rest.len());
    let (own, body) = rest.split_at(end);
    let Ok(own) = str::from_utf8(own) else { return };
    match ChatTemplate::from_parts(own, CONFIG) {
        Ok(template) => {
            check(&template.with_limits(LIMITS), api, body.get(1..).unwrap_or_default());
        }
        Err(TemplateError::Syntax { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn templates() -> &'static [ChatTemplate] {
    static COMPILED: OnceLock<Vec<ChatTemplate>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let compile = |text| ChatTemplate::from_parts(text, CONFIG).expect("a template");
        TEMPLATES.iter().map(|text| compile(text).with_limits(LIMITS)).collect()
    })
}

fn check(template: &ChatTemplate, api: ChatApi, body: &[u8]) {
    let rendered = template.render(api, body, 1_700_000_000);
    match &rendered {
        Ok(rendered) => assert!(rendered.text.len() <= LIMITS.output),
        Err(
            TemplateError::Body { .. }
            | TemplateError::Field { .. }
            | TemplateError::Fuel { .. }
            | TemplateError::Media { .. }
            | TemplateError::Output { .. }
            | TemplateError::Raised { .. }
            | TemplateError::Render { .. }
            | TemplateError::Values { .. },
        ) => {}
        Err(error) => panic!("{error}"),
    }
    // The same request is the same prompt, whatever was rendered before it.
    let again = template.render(api, body, 1_700_000_000);
    assert_eq!(rendered.ok(), again.ok());
    // What another renderer is asked for renders to the same text here. Messages become the chat
    // that most templates take, not always the one that this template does.
    if api != ChatApi::Messages
        && let (Ok(chat), Ok(rendered)) =
            (inlane_text::template::to_chat(api, body), template.render(api, body, 1_700_000_000))
        && let Ok(converted) = template.render(ChatApi::Chat, &chat, 1_700_000_000)
    {
        assert_eq!(rendered.text, converted.text);
    }
}
