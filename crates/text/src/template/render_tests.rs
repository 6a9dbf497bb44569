//! What a request may say, what a model's directory may hold, and what a render may take.

use std::path::{Path, PathBuf};

use super::{ChatApi, ChatTemplate, Limits, TemplateError, TruncationSide};

const PLAIN: &str = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}";
const PARTS: &str =
    "{% for m in messages %}{% for p in m.content %}{% endfor %}{{ m | tojson }}\n{% endfor %}";

fn render(template: &str, body: &str) -> Result<String, String> {
    let template = ChatTemplate::from_parts(template, b"{}").map_err(|error| error.to_string())?;
    let rendered = template.render(ChatApi::Chat, body.as_bytes(), 0);
    rendered.map(|rendered| rendered.text).map_err(|error| error.to_string())
}

fn message(template: &str, message: &str) -> Result<String, String> {
    render(template, &format!(r#"{{"messages": [{message}]}}"#))
}

#[test]
fn messages_are_rebuilt_from_the_members_the_engine_knows() {
    for (given, plain, parts) in [
        (
            r#"{"content": "a", "role": "user", "name": "n", "vendor": 1}"#,
            r#"{"role": "user", "content": "a", "name": "n"}"#,
            r#"{"role": "user", "content": [{"type": "text", "text": "a"}], "name": "n"}"#,
        ),
        (
            r#"{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}, {"type": "input_text", "text": ""}, "b", {"type": "refusal", "refusal": "no"}]}"#,
            r#"{"role": "user", "content": "a\nb\nno"}"#,
            r#"{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}, {"type": "text", "text": ""}, {"type": "text", "text": "b"}, {"type": "text", "text": "no"}]}"#,
        ),
        (
            r#"{"role": "assistant", "content": null, "reasoning": "r", "tool_calls": [], "tool_call_id": "x"}"#,
            r#"{"role": "assistant", "content": "", "reasoning": "r", "reasoning_content": "r"}"#,
            r#"{"role": "assistant", "content": [], "reasoning": "r", "reasoning_content": "r"}"#,
        ),
        (
            r#"{"role": "tool", "tool_call_id": "t", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}"#,
            r#"{"role": "tool", "content": "a\nb", "tool_call_id": "t"}"#,
            r#"{"role": "tool", "content": "a\nb", "tool_call_id": "t"}"#,
        ),
        (
            r#"{"role": "system", "content": "x-anthropic-billing-header: 1\nrest"}"#,
            r#"{"role": "system", "content": "rest"}"#,
            r#"{"role": "system", "content": [{"type": "text", "text": "rest"}]}"#,
        ),
        (
            r#"{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"b\": 1.50, \"a\": 123456789012345678901}"}, "id": "i", "index": 0}]}"#,
            r#"{"role": "assistant", "content": "", "tool_calls": [{"id": "i", "function": {"arguments": {"b": 1.5, "a": 123456789012345678901}, "name": "f"}, "type": "function", "index": 0}]}"#,
            r#"{"role": "assistant", "content": [], "tool_calls": [{"id": "i", "function": {"arguments": {"b": 1.5, "a": 123456789012345678901}, "name": "f"}, "type": "function", "index": 0}]}"#,
        ),
    ] {
        assert_eq!(message(PLAIN, given), Ok(format!("{plain}\n")));
        assert_eq!(message(PARTS, given), Ok(format!("{parts}\n")));
    }
}

#[test]
fn arguments_that_are_no_object_become_an_empty_one() {
    for arguments in ["\"\"", "\"{oops\"", "\"[1]\"", "\"42\"", "\"null\""] {
        let call = format!(
            r#"{{"id": "i", "type": "function", "function": {{"name": "f", "arguments": {arguments}}}}}"#
        );
        let given = format!(r#"{{"role": "assistant", "tool_calls": [{call}]}}"#);
        let template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
        assert_eq!(message(template, &given), Ok("{}".to_owned()), "{arguments}");
    }
}

#[test]
fn developers_speak_as_system_unless_the_template_knows_them() {
    let messages = r#"{"role": "user", "content": "u"}, {"role": "developer", "content": "d"}, {"role": "system", "content": [{"type": "text", "text": "s"}]}"#;
    let listed = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}";
    assert_eq!(message(listed, messages), Ok("system=d\n\ns;user=u;".to_owned()));
    let known = format!("{listed}{{# 'developer' #}}");
    assert_eq!(message(&known, messages), Ok("user=u;developer=d;system=s;".to_owned()));
}

#[test]
fn the_final_message_is_continued_where_it_ends() {
    let body = |content: &str| {
        format!(
            r#"{{"messages": [{{"role": "assistant", "content": {content}}}], "add_generation_prompt": false, "continue_final_message": true}}"#
        )
    };
    let plain = "<{% for m in messages %}{{ m.content }}{% endfor %}>";
    let trimmed = "<{% for m in messages %}{{ m.content | trim }}{% endfor %}>";
    let parts =
        "<{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}>";
    assert_eq!(render(plain, &body(r#""a b ""#)), Ok("<a b ".to_owned()));
    assert_eq!(render(trimmed, &body(r#""a b ""#)), Ok("<a b".to_owned()));
    assert_eq!(
        render(parts, &body(r#"[{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]"#)),
        Ok("<xy".to_owned())
    );
    for (template, content) in [(parts, "[]"), ("nothing", "\"a\""), (parts, "null")] {
        let error = render(template, &body(content)).unwrap_err();
        assert!(error.starts_with("the content of the final message: "), "{error}");
    }
}

#[test]
fn what_the_engine_refuses_is_refused_by_name() {
    let user = r#""messages": [{"role": "user", "content": "a"}]"#;
    for (body, start) in [
        ("[]".to_owned(), "expected an object at byte 0"),
        (r#"{"messages": [}"#.to_owned(), "expected a value at byte 14"),
        ("{}".to_owned(), "messages: expected a list"),
        (r#"{"messages": [1]}"#.to_owned(), "messages[0]: "),
        (r#"{"messages": [{"content": "a"}]}"#.to_owned(), "messages[0].role: "),
        (r#"{"messages": [{"role": "user", "content": 1}]}"#.to_owned(), "messages[0].content: "),
        (
            r#"{"messages": [{"role": "user", "content": [{"text": "a"}]}]}"#.to_owned(),
            "messages[0].content[0].type: ",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#.to_owned(),
            "messages[0].content[0]: a part of type \"image_url\" is not text",
        ),
        (
            r#"{"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}"#
                .to_owned(),
            "messages[0].tool_calls[0]: ",
        ),
        (format!(r#"{{{user}, "tools": []}}"#), "tools: "),
        (format!(r#"{{{user}, "tools": [{{}}]}}"#), "tools[0].function: "),
        (format!(r#"{{{user}, "continue_final_message": true}}"#), "add_generation_prompt: "),
        (format!(r#"{{{user}, "chat_template": "x"}}"#), "chat_template: "),
        (format!(r#"{{{user}, "chat_template_kwargs": 1}}"#), "chat_template_kwargs: "),
        (
            format!(r#"{{{user}, "chat_template_kwargs": {{"chat_template": "x"}}}}"#),
            "chat_template_kwargs.chat_template: ",
        ),
        (format!(r#"{{{user}, "documents": "x"}}"#), "documents: "),
        (format!(r#"{{{user}, "truncate_prompt_tokens": -2}}"#), "truncate_prompt_tokens: "),
        (format!(r#"{{{user}, "add_special_tokens": 2}}"#), "add_special_tokens: "),
    ] {
        let error = render(PLAIN, &body).unwrap_err();
        assert!(error.starts_with(start), "{body}: {error}");
    }
}

#[test]
fn members_of_the_request_count_before_keyword_arguments() {
    let template = "{{ add_generation_prompt }} {{ documents }} {{ reasoning_effort }} {{ enable_thinking }} {{ bos_token }} {{ other }} {{ tools }} {{ messages | length }}{{ mode }}{{ padding }}{% for i in range(0) %}{% endfor %}";
    let template = ChatTemplate::from_parts(template, br#"{"bos_token": "<s>"}"#).unwrap();
    let render = |more: &str| {
        let body = format!(r#"{{"messages": [{{"role": "user"}}] {more}}}"#);
        template.render(ChatApi::Chat, body.as_bytes(), 0).unwrap().text
    };
    assert_eq!(render(""), "True None   <s>  None 1");
    let kwargs = r#""chat_template_kwargs": {"add_generation_prompt": false, "documents": [{"b": 1}], "reasoning_effort": "low", "bos_token": "B", "other": 1.0, "tools": [{"a": 1}], "mode": "auto", "range": 1, "padding": true}"#;
    assert_eq!(render(&format!(", {kwargs}")), "True [{'b': 1}] low  B 1.0 [{'a': 1}] 1");
    let explicit = r#""add_generation_prompt": false, "documents": [], "reasoning_effort": "none""#;
    assert_eq!(
        render(&format!(", {explicit}, {kwargs}")),
        "False [] none False B 1.0 [{'a': 1}] 1"
    );
    let thinking =
        r#""reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": true}"#;
    assert_eq!(render(&format!(", {thinking}")), "True None none True <s>  None 1");
}

#[test]
fn what_the_tokenizer_must_know_is_handed_on() {
    let template = ChatTemplate::from_parts("x", b"{}").unwrap();
    let body = br#"{"messages": [{"role": "user"}], "add_special_tokens": true, "truncate_prompt_tokens": -1, "truncation_side": "right"}"#;
    let rendered = template.render(ChatApi::Chat, body, 0).unwrap();
    assert!(rendered.add_special_tokens);
    assert_eq!(rendered.truncate, Some(-1));
    assert_eq!(rendered.truncation_side, TruncationSide::Right);
}

#[test]
fn line_ends_of_a_template_are_line_feeds() {
    let template = "{% if true %}\r\na\r\n{% endif %}\rb{{ '\r' | length }}\r\n";
    assert_eq!(render(template, r#"{"messages": [{"role": "user"}]}"#), Ok("a\nb1".to_owned()));
}

#[test]
fn errors_of_templates_name_the_line_or_the_templates_words() {
    let user = r#"{"role": "user", "content": "a"}"#;
    assert_eq!(
        message("{{ raise_exception('no ' ~ 5) }}", user),
        Err("the template refuses the conversation: no 5".to_owned())
    );
    let nested = "{% macro m() %}{{ raise_exception('in') }}{% endmacro %}\n{{ m() }}";
    assert_eq!(message(nested, user), Err("the template refuses the conversation: in".to_owned()));
    let error = message("\n\n{{ messages[0].nothing.more }}", user).unwrap_err();
    assert!(error.starts_with("line 3 of the template: undefined value"), "{error}");
    let error = message("\n{% for %}", user).unwrap_err();
    assert!(error.starts_with("line 2 of the template \"default\": "), "{error}");
}

#[test]
fn fuel_and_output_are_bounded() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    let limits = Limits { fuel: 100_000, output: 1000, ..Limits::default() };
    let run = |template: &str| {
        let template = ChatTemplate::from_parts(template, b"{}").unwrap().with_limits(limits);
        template.render(ChatApi::Chat, br#"{"messages": [{"role": "user"}]}"#, 0)
    };
    assert!(matches!(run(endless), Err(TemplateError::Fuel { limit: 100_000 })));
    let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(run(recursive), Err(TemplateError::Render { .. })));
    let long = "{% for a in range(200) %}12345{% endfor %}";
    assert_eq!(run(long).unwrap().text.len(), 1000);
    let longer = "{% for a in range(200) %}12345{% endfor %}6";
    assert!(matches!(run(longer), Err(TemplateError::Output { limit: 1000 })));
}

/// Renders with few bytes for values; the body's only message holds 1,000 `a`s.
fn within(values: usize, template: &str) -> Result<usize, TemplateError> {
    let body =
        format!(r#"{{"messages": [{{"role": "user", "content": "{}"}}]}}"#, "a".repeat(1000));
    let template = ChatTemplate::from_parts(template, b"{}").unwrap();
    let template = template.with_limits(Limits { values, ..Limits::default() });
    template.render(ChatApi::Chat, body.as_bytes(), 0).map(|rendered| rendered.text.len())
}

#[test]
fn values_are_bounded_however_they_are_made() {
    for template in [
        // Twice as long with every step.
        "{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
        "{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
        "{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set n.t = [n.t, n.t]|join %}{% endfor %}",
        "{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set n.t = n.t * 2 %}{% endfor %}",
        "{% macro m(t) %}{{ t }}{{ t }}{% endmacro %}{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set n.t = m(n.t) %}{% endfor %}",
        "{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set t %}{{ n.t }}{{ n.t }}{% endset %}{% set n.t = t %}{% endfor %}",
        "{% set n = namespace(t=[1]) %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
        // Printed, a list of lists of the same list is.
        "{% set n = namespace(t=[]) %}{% for i in range(60) %}{% set n.t = [n.t, n.t] %}{% endfor %}{% set t = n.t|string %}",
        "{% set n = namespace(t=[]) %}{% for i in range(60) %}{% set n.t = [n.t, n.t] %}{% endfor %}{% set t = n.t|tojson %}",
        "{% set n = namespace(t=[]) %}{% for i in range(60) %}{% set n.t = [n.t, n.t] %}{% endfor %}{% set t %}{{ n.t }}{% endset %}",
        // Much out of little.
        "{% set t = messages[0].content.replace('a', messages[0].content) %}",
        "{% set t = messages[0].content|replace('', messages[0].content) %}",
        "{% set t = messages[0].content.join(messages[0].content|list) %}",
        "{% set t = messages[0].content|list|join(messages[0].content) %}",
        "{% set t = messages[0].content|replace('a', '\n')|indent(1000, blank=true) %}",
        "{% set t = messages[0].content|list|tojson(indent=1000) %}",
        "{% set t = messages[0].content * 1000 %}",
        // Text of the template, in a loop that prints nowhere.
        "{% set t %}{% for a in range(99999) %}12345678901{% endfor %}{% endset %}",
        "{% set t %}{% for a in range(99999) %}12345678901{% continue %}{% endfor %}{% endset %}",
        "{% set t %}{% for a in [range(99999)] recursive %}12345678901{{ loop(a) if a is iterable }}{% endfor %}{% endset %}",
    ] {
        let rendered = within(900_000, template);
        assert!(
            matches!(rendered, Err(TemplateError::Values { limit: 900_000 })),
            "{template}: {rendered:?}"
        );
    }
}

#[test]
fn what_is_only_looked_at_takes_no_bytes() {
    for template in [
        "{% for i in range(9999) %}{% if 'b' in messages[0].content %}{% endif %}{% endfor %}",
        "{% for i in range(9999) %}{% set t = messages[0].content %}{% set u = messages[0].get('content') %}{% endfor %}",
        "{% for i in range(9999) %}{% set t = messages[0].content|default('', true) %}{% set u = messages|first %}{% endfor %}",
        "{% for i in range(9999) %}{% if messages[0].content.startswith('a') %}{% endif %}{% endfor %}",
    ] {
        assert!(within(900_000, template).is_ok(), "{template}");
    }
    // A text that grows by each message is copied as often.
    let appended = "{% set n = namespace(t='') %}{% for i in range(40) %}{% set n.t = n.t ~ messages[0].content %}{% endfor %}{{ n.t }}";
    assert_eq!(within(900_000, appended).unwrap(), 40_000);
    let more = appended.replace("40", "50");
    assert!(matches!(within(900_000, &more), Err(TemplateError::Values { .. })));
}

/// A directory that is removed with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, files: &[(&str, &str)]) -> Dir {
        let unique = format!("inlane-template-{name}-{}", std::process::id());
        let dir = Dir(std::env::temp_dir().join(unique));
        for (file, text) in files {
            let path = dir.0.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn render(&self, tools: bool) -> Result<String, TemplateError> {
        let tools = if tools { r#", "tools": [{"function": {"name": "f"}}]"# } else { "" };
        let body = format!(r#"{{"messages": [{{"role": "user"}}]{tools}}}"#);
        let template = ChatTemplate::load(&self.0)?;
        template.render(ChatApi::Chat, body.as_bytes(), 0).map(|rendered| rendered.text)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn templates_are_found_where_engines_look() {
    let config = (
        "tokenizer_config.json",
        r#"{"chat_template": "config{{ bos_token }}", "bos_token": "1", "eos_token": null}"#,
    );
    let list = (
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}, {"name": "rag", "template": "{% broken"}], "bos_token": {"content": "2"}}"#,
    );
    let file = (
        "chat_template.jinja",
        "file{{ bos_token }}{{ pad_token }}{{ image_token }}{{ additional_special_tokens }}",
    );
    let named = ("additional_chat_templates/tool_use.jinja", "named");
    let map = (
        "special_tokens_map.json",
        r#"{"bos_token": "3", "pad_token": {"content": "4"}, "additional_special_tokens": ["5", {"content": "6"}]}"#,
    );
    for (name, files, plain, tools) in [
        ("config", vec![config], "config1", "config1"),
        ("list", vec![list], "plain", "tools"),
        ("file", vec![file, list], "file2", "file2"),
        ("named", vec![file, named, config], "file1", "named"),
        ("map", vec![file, map], "file34['5', '6']", "file34['5', '6']"),
        ("both", vec![config, map], "config1", "config1"),
    ] {
        let dir = Dir::new(name, &files);
        assert_eq!(dir.render(false).unwrap(), plain, "{name}");
        assert_eq!(dir.render(true).unwrap(), tools, "{name}");
    }
}

#[test]
fn a_template_of_a_request_counts_if_the_model_has_it_on_file() {
    let files = [
        ("chat_template.jinja", "usual"),
        ("additional_chat_templates/tool_use.jinja", "tools"),
        ("additional_chat_templates/rag.jinja", "rag\r\n{{ bos_token }}{{ messages[0].role }}\n"),
        ("additional_chat_templates/broken.jinja", "{% broken"),
        ("tokenizer_config.json", r#"{"bos_token": "1"}"#),
    ];
    let dir = Dir::new("own", &files);
    let template = ChatTemplate::load(&dir.0).unwrap();
    let render = |own: &str| {
        let own = serde_json::to_string(own).unwrap();
        let body = format!(
            r#"{{"messages": [{{"role": "user", "content": "x"}}], "chat_template": {own}}}"#
        );
        let rendered = template.render(ChatApi::Chat, body.as_bytes(), 0);
        rendered.map(|rendered| rendered.text).map_err(|error| error.to_string())
    };
    assert_eq!(render("usual").unwrap(), "usual");
    assert_eq!(render("tools\n").unwrap(), "tools");
    assert_eq!(render("rag\n{{ bos_token }}{{ messages[0].role }}").unwrap(), "rag\n1user");
    for other in ["another", "{% broken", "", "rag"] {
        let error = render(other).unwrap_err();
        assert!(
            error.starts_with("chat_template: expected a template of the model's own"),
            "{error}"
        );
    }
}

#[test]
fn a_model_without_a_usable_template_says_so() {
    let none = Dir::new("none", &[("tokenizer_config.json", "{}")]);
    assert!(matches!(none.render(true), Err(TemplateError::Missing { tools: true })));
    let only = Dir::new("only", &[("additional_chat_templates/tool_use.jinja", "t")]);
    assert!(matches!(only.render(false), Err(TemplateError::Missing { tools: false })));
    for (name, text, expected) in [
        ("json", "{", "tokenizer_config.json: expected a key at byte 1"),
        ("kind", r#"{"chat_template": 1}"#, "tokenizer_config.json: expected chat_template to be"),
        ("syntax", r#"{"chat_template": "{% if %}"}"#, "line 1 of the template \"default\""),
    ] {
        let error = Dir::new(name, &[("tokenizer_config.json", text)]).render(false).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(ChatTemplate::load(Path::new("/nonexistent")).is_ok());
}
