//! Request parsers: which APIs a configuration lets in.
//!
//! The proxy reads bodies itself while they arrive (`inlane-text`), so a parser has nothing to do at
//! run time; its instance says that the API is wanted. The proxy reads the OpenAI and Anthropic APIs and
//! vLLM's own over HTTP, and schedules unread what falls to the passthrough parser. A parser of another
//! API loads, and the load says that its requests are not read yet.

pub mod anthropic_parser;
pub mod openai_parser;
pub mod passthrough_parser;
pub mod sglanghttp_parser;
pub mod vertexai_parser;
pub mod vllmgrpc_parser;
pub mod vllmhttp_parser;

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{Build, BuildError, Params};

use crate::ignored::ignore;

/// Builds a parser; `unread` says what the proxy does not do of it yet.
fn parser(
    build: &mut Build<'_>,
    params: &Params,
    unread: Option<&str>,
) -> Result<Roles, BuildError> {
    ignore(build, params);
    if let Some(unread) = unread {
        build.warn(format!(
            "{unread}; the proxy reads the OpenAI, Anthropic and vLLM HTTP APIs so far"
        ));
    }
    Ok(Roles::default().part(Part::Parser))
}

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Part;

    use crate::testing::World;

    #[test]
    fn parsers_take_no_parameters_and_say_what_is_not_read() {
        let mut world = World::new(0);
        for (name, warnings) in [
            ("openai-parser", 0),
            ("anthropic-parser", 0),
            ("vllmhttp-parser", 0),
            ("sglanghttp-parser", 1),
            ("vllmgrpc-parser", 1),
            ("vertexai-parser", 1),
            ("passthrough-parser", 0),
        ] {
            let built = world.build(name, "").unwrap();
            assert!(built.roles.plays(Part::Parser), "{name}");
            assert_eq!(built.warnings.len(), warnings, "{name}: {:?}", built.warnings);
            let given = world.build(name, "{anything: 1}").unwrap();
            assert_eq!(given.warnings.len(), warnings + 1, "{name}");
        }
    }
}
