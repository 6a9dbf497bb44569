//! `session-id-producer`: finds a request's session in a header or a cookie.

use std::sync::Arc;

use inlane_core::columns::Columns;
use inlane_core::decision::PluginError;
use inlane_core::plugin::{DataProducer, Producing, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use inlane_core::request::Headers;
use inlane_core::state::{CycleState, RequestAttribute};
use serde::Deserialize;

/// Name of the request attribute with the session id.
pub const SESSION_ID: &str = "SessionIDDataKey";

/// The type `session-id-producer`.
///
/// The default producer of [`SESSION_ID`], in name: made without parameters it has no source and
/// is refused, which tells the user what to write.
pub const TYPE: PluginType =
    PluginType::new("session-id-producer", build).default_producer_of(&[SESSION_ID]);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Request header, in any case.
    header_name: String,
    /// Cookie, its case matters.
    cookie_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { header_name, cookie_name } = params.decode()?;
    let (header, cookie) = (header_name.trim(), cookie_name.trim());
    let source = match (header.is_empty(), cookie.is_empty()) {
        (false, true) => Source::Header(header.to_ascii_lowercase()),
        (true, false) => Source::Cookie(cookie.to_owned()),
        _ => return Err(BuildError::new("expected exactly one of headerName and cookieName")),
    };
    build.produce_key(SESSION_ID);
    let producer = build.name().to_owned();
    Ok(Roles::default().producer(Arc::new(SessionIdProducer { producer, source })))
}

#[derive(Debug)]
enum Source {
    Cookie(String),
    Header(String),
}

impl Source {
    /// The session, when the request has one that is not empty.
    fn find<'a>(&self, headers: &'a dyn Headers) -> Option<&'a str> {
        let found = match self {
            Self::Header(name) => headers.get(name)?,
            Self::Cookie(name) => cookie(headers.get("cookie")?, name)?,
        };
        Some(found.trim()).filter(|value| !value.is_empty())
    }
}

/// The value of the first cookie called `name`.
fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let pairs = header.split(';').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value)
}

/// Publishes the header or cookie as request attribute [`SESSION_ID`] under the instance's name
/// (llm-d-router `session-id-producer`).
#[derive(Debug)]
struct SessionIdProducer {
    producer: String,
    source: Source,
}

impl DataProducer for SessionIdProducer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        _columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        if let Some(session) = self.source.find(cx.request.headers) {
            state.set_attribute(RequestAttribute {
                name: SESSION_ID.into(),
                producer: self.producer.clone(),
                value: session.to_owned(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::Request;

    use super::SESSION_ID;
    use crate::testing::{Idle, World};

    const PLUGIN: &str = "session-id-producer";

    fn session(parameters: &str, header: (&str, &str)) -> Option<String> {
        let mut world = World::new(1);
        let producer = world.build(PLUGIN, parameters).unwrap();
        let headers = [header];
        let request = Request { headers: &headers, ..Default::default() };
        world.produce(&producer, &request, &Idle).unwrap();
        world.state.attribute(SESSION_ID, PLUGIN).map(str::to_owned)
    }

    #[test]
    fn a_header_is_trimmed() {
        let header = |value| session("{headerName: X-Session}", ("x-session", value));
        assert_eq!(header(" u1 ").as_deref(), Some("u1"));
        assert_eq!(header("  "), None);
        assert_eq!(session("{headerName: X-Session}", ("x-other", "u1")), None);
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let cookie = |value| session("{cookieName: sid}", ("cookie", value));
        assert_eq!(cookie("x=1; sid=u7").as_deref(), Some("u7"));
        assert_eq!(cookie("sid = a=b ;y=2").as_deref(), Some("a=b"));
        assert_eq!(cookie("sid=1; sid=2").as_deref(), Some("1"));
        assert_eq!(cookie("SID=1; xsid=2; sid"), None);
        assert_eq!(cookie("sid="), None);
        assert_eq!(cookie(""), None);
    }

    #[test]
    fn exactly_one_source_is_required() {
        let mut world = World::new(0);
        for parameters in ["", "{}", "{headerName: ' '}", "{headerName: a, cookieName: b}"] {
            assert!(world.build(PLUGIN, parameters).is_err(), "{parameters}");
        }
        let built = world.build(PLUGIN, "{headerName: a}").unwrap();
        assert_eq!(built.data.produces[0].to_string(), "SessionIDDataKey/session-id-producer");
    }
}
