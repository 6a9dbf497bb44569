//! The parameters of session affinity.

use inlane_core::registry::{Build, BuildError, Params};
use serde::Deserialize;

use super::table::Idle;
use crate::llmd::session_id_producer::{self, SESSION_ID};

const DEFAULT_ENDPOINT_HEADER: &str = "x-session-token";
const DEFAULT_SESSION_HEADER: &str = "x-session-id";
const DEFAULT_TTL_S: f64 = 300.0;
const DEFAULT_SWEEP_S: f64 = 10.0;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// `encoded_endpoint_header` or `session_id`; empty = the former.
    strategy: String,
    /// Profile whose first target counts; empty = the primary one.
    profile_name: String,
    encoded_endpoint_header_config: Option<EndpointHeader>,
    session_id_config: Option<SessionId>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EndpointHeader {
    /// Header that names the endpoint; empty = `x-session-token`.
    header: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct SessionId {
    /// Where session ids come from, the first one with an id counts; empty = `x-session-id`.
    sources: Vec<SourceSpec>,
    /// Seconds after which an idle session is forgotten; 0 = 300.
    eviction_ttl_seconds: f64,
    /// Seconds between looks at idle sessions; 0 = 10.
    eviction_sweep_seconds: f64,
    /// Whether a request that went elsewhere keeps its session alive, too.
    refresh_outscored: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SourceSpec {
    header: String,
    attribute: String,
    producer: String,
}

/// Checked parameters.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) strategy: Strategy,
    pub(super) profile: String,
}

#[derive(Debug)]
pub(super) enum Strategy {
    EndpointHeader { header: String },
    SessionId { sources: Vec<Source>, idle: Idle, refresh_outscored: bool },
}

/// Where a session id comes from.
#[derive(Debug, PartialEq)]
pub(super) enum Source {
    Attribute { name: String, producer: String },
    Header(String),
}

impl Settings {
    /// Reads and checks the parameters.
    ///
    /// # Errors
    /// A parameter that does not fit.
    pub(super) fn read(params: &Params) -> Result<Self, BuildError> {
        let Parameters {
            strategy,
            profile_name: profile,
            encoded_endpoint_header_config,
            session_id_config,
        } = params.decode()?;
        let header = encoded_endpoint_header_config.unwrap_or_default().header;
        let header = header_name(&header).unwrap_or_else(|| DEFAULT_ENDPOINT_HEADER.into());
        let sessions = session_id_config.unwrap_or_default().check()?;
        let strategy = match strategy.as_str() {
            "" | "encoded_endpoint_header" => Strategy::EndpointHeader { header },
            "session_id" => sessions,
            other => {
                let message =
                    format!("expected encoded_endpoint_header or session_id, found {other:?}");
                return Err(BuildError::field("strategy", message));
            }
        };
        Ok(Self { strategy, profile })
    }
}

impl SessionId {
    fn check(self) -> Result<Strategy, BuildError> {
        let mut sources = Vec::with_capacity(self.sources.len().max(1));
        for (i, source) in self.sources.into_iter().enumerate() {
            let read = source.read();
            sources.push(read.map_err(|message| {
                BuildError::field(format!("sessionIdConfig.sources[{i}]"), message)
            })?);
        }
        if sources.is_empty() {
            sources.push(Source::Header(DEFAULT_SESSION_HEADER.into()));
        }
        let idle = Idle {
            ttl_ms: milliseconds("evictionTtlSeconds", self.eviction_ttl_seconds, DEFAULT_TTL_S)?,
            sweep_ms: milliseconds(
                "evictionSweepSeconds",
                self.eviction_sweep_seconds,
                DEFAULT_SWEEP_S,
            )?,
        };
        Ok(Strategy::SessionId { sources, idle, refresh_outscored: self.refresh_outscored })
    }
}

impl SourceSpec {
    fn read(self) -> Result<Source, &'static str> {
        let (header, name) = (header_name(&self.header), self.attribute.trim());
        let mut producer = self.producer;
        match (header, name) {
            (Some(_), "") if !producer.is_empty() => {
                Err("expected producer with attribute only, found it with header")
            }
            (Some(header), "") => Ok(Source::Header(header)),
            (None, name) if !name.is_empty() => {
                if name == SESSION_ID && producer.is_empty() {
                    session_id_producer::TYPE.name.clone_into(&mut producer);
                }
                Ok(Source::Attribute { name: name.to_owned(), producer })
            }
            _ => Err("expected exactly one of header and attribute"),
        }
    }
}

impl Source {
    /// Tells the configuration what the source needs. Attributes that hooks publish before the
    /// data producers run have no data key.
    pub(super) fn declare(&self, build: &mut Build<'_>) {
        if let Self::Attribute { name, producer } = self
            && name == SESSION_ID
        {
            build.require_key(SESSION_ID, producer);
        }
    }
}

/// The lower-case name of a header; `None` when it is blank.
fn header_name(name: &str) -> Option<String> {
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// Seconds in whole milliseconds, at least one; 0 = `default`.
fn milliseconds(field: &str, seconds: f64, default: f64) -> Result<u64, BuildError> {
    if !(0.0..f64::INFINITY).contains(&seconds) {
        let message = format!("expected a number of seconds that is not negative, found {seconds}");
        return Err(BuildError::field(format!("sessionIdConfig.{field}"), message));
    }
    let seconds = if seconds == 0.0 { default } else { seconds };
    Ok(((seconds * 1_000.0).round() as u64).max(1))
}
