//! `agent-identity`: recognises the agent behind a request by the session headers that agents send.

use std::sync::Arc;

use inlane_core::plugin::{PreCall, Refusal, RequestFacts, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use inlane_core::request::Request;
use inlane_core::state::RequestAttribute;
use serde::Deserialize;

/// Name of the request attribute with the identity; it has no producer.
pub const AGENT_IDENTITY: &str = "agent-identity";

/// Headers that agents are known to send, the most telling one first.
const SESSION_HEADERS: [&str; 4] =
    ["x-claude-code-session-id", "x-session-affinity", "session-id", "session_id"];

/// The type `agent-identity`.
pub const TYPE: PluginType = PluginType::new("agent-identity", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Further headers, looked at before the known ones.
    additional_session_headers: Vec<String>,
}

fn build(_build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { additional_session_headers } = params.decode()?;
    let mut headers = Vec::new();
    for (i, header) in additional_session_headers.iter().enumerate() {
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            let field = format!("additionalSessionHeaders[{i}]");
            return Err(BuildError::field(field, "expected the name of a request header"));
        }
        headers.push(header);
    }
    headers.extend(SESSION_HEADERS.map(str::to_owned));
    Ok(Roles::default().pre_call(Arc::new(AgentIdentity { headers })))
}

/// The first header with a value becomes the attribute [`AGENT_IDENTITY`], and the fairness id of a
/// request that came without one (llm-d-router `agent-identity` and its director).
#[derive(Debug)]
struct AgentIdentity {
    headers: Vec<String>,
}

impl PreCall for AgentIdentity {
    fn pre_call(&self, request: &Request<'_>, facts: &mut RequestFacts) -> Result<(), Refusal> {
        let values = self.headers.iter().filter_map(|header| request.headers.get(header));
        let Some(identity) = values.map(str::trim).find(|value| !value.is_empty()) else {
            return Ok(());
        };
        facts.attributes.push(RequestAttribute {
            name: AGENT_IDENTITY.into(),
            producer: String::new(),
            value: identity.to_owned(),
        });
        if request.fairness_id.is_empty() && facts.fairness_id.is_none() {
            facts.fairness_id = Some(identity.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::plugin::RequestFacts;
    use inlane_core::request::Request;

    use crate::testing::World;

    fn facts(parameters: &str, headers: &[(&str, &str)], fairness_id: &str) -> RequestFacts {
        let mut world = World::new(0);
        let built = world.build("agent-identity", parameters).unwrap();
        let headers = headers.to_vec();
        let request = Request { headers: &headers, fairness_id, ..Default::default() };
        let mut facts = RequestFacts::default();
        built.roles.pre_call.unwrap().pre_call(&request, &mut facts).unwrap();
        facts
    }

    fn identity(parameters: &str, headers: &[(&str, &str)]) -> Option<String> {
        let facts = facts(parameters, headers, "");
        assert_eq!(facts.fairness_id.as_deref(), facts.attributes.first().map(|a| &*a.value));
        facts.attributes.first().map(|a| {
            assert_eq!((&*a.name, a.producer.as_str()), ("agent-identity", ""));
            a.value.clone()
        })
    }

    #[test]
    fn headers_have_an_order() {
        let all = [
            ("session_id", "d"),
            ("session-id", "c"),
            ("x-session-affinity", "b"),
            ("x-claude-code-session-id", "a"),
        ];
        for (known, expected) in [(4, "a"), (3, "b"), (2, "c"), (1, "d")] {
            assert_eq!(identity("", &all[..known]).as_deref(), Some(expected));
        }
        assert_eq!(identity("", &[]), None);
    }

    #[test]
    fn empty_headers_do_not_count() {
        let headers = [("x-claude-code-session-id", " "), ("session-id", " s ")];
        assert_eq!(identity("", &headers).as_deref(), Some("s"));
    }

    #[test]
    fn additional_headers_come_first() {
        let headers = [("x-claude-code-session-id", "a"), ("x-mine", "m")];
        let parameters = "{additionalSessionHeaders: [X-Other, X-Mine]}";
        assert_eq!(identity(parameters, &headers).as_deref(), Some("m"));
    }

    #[test]
    fn a_fairness_id_of_the_client_stays() {
        let facts = facts("", &[("session-id", "s")], "tenant");
        assert_eq!(facts.fairness_id, None);
        assert_eq!(facts.attributes.len(), 1);
    }

    #[test]
    fn blank_header_names_are_refused() {
        let mut world = World::new(0);
        let error = world.build("agent-identity", "{additionalSessionHeaders: [a, ' ']}").err();
        assert_eq!(error.unwrap().field.as_deref(), Some("additionalSessionHeaders[1]"));
    }
}
