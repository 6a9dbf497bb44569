//! What vLLM tries out with a template, to see how it must read Anthropic's messages.

use minijinja::{Environment, context};

use super::anthropic::{EFFORTS, Reading};
use super::filters;
use super::{ChatApi, ChatTemplate, budget, charges, syntax};

/// Steps and bytes of values that a short conversation may take.
const FUEL: u64 = 100_000;
const BYTES: usize = 1 << 20;

/// The reading of an engine whose template is not known.
pub(super) struct Usual;

impl Reading for Usual {
    fn merges_system(&self) -> bool {
        false
    }

    fn disabled_effort(&self) -> &'static str {
        "none"
    }
}

impl Reading for ChatTemplate {
    fn merges_system(&self) -> bool {
        self.merges_system
    }

    /// `none`, unless the template refuses it or takes it for one of the others: tried once.
    fn disabled_effort(&self) -> &'static str {
        self.disabled_effort.get_or_init(|| {
            let prompt = |effort: &str| {
                let body = format!(
                    r#"{{"messages":[{{"role":"user","content":"Hi"}}],"reasoning_effort":"{effort}"}}"#
                );
                self.render(ChatApi::Chat, body.as_bytes(), 0).ok().map(|rendered| rendered.text)
            };
            match prompt("none") {
                Some(none) if EFFORTS.iter().all(|e| prompt(e).as_ref() != Some(&none)) => "none",
                _ => "low",
            }
        })
    }
}

/// Whether a template takes system messages at the front only, or nothing that is tried. It is given
/// a conversation and no more: neither the functions of the engine nor any special token.
pub(super) fn merges_system(template: &str) -> bool {
    if template.is_empty() || syntax::marks_generation(template) {
        return true;
    }
    let mut env = Environment::new();
    env.set_debug(false);
    env.set_syntax(syntax::config());
    env.set_fuel(Some(FUEL));
    filters::register(&mut env);
    for function in ["raise_exception", "strftime_now"] {
        env.remove_global(function);
    }
    let message = |role: &str| context! { role, content => "t" };
    let messages = ["system", "user", "system", "user"].map(message);
    let context = context! { messages, add_generation_prompt => false };
    let template = charges::add(&syntax::rewrite(template));
    let (rendered, exceeded) = budget::within(BYTES, || env.render_str(&template, context));
    exceeded || rendered.is_err()
}
