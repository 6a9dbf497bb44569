//! The outcome of a decision, with everything needed to explain it.

use thiserror::Error;

use crate::effect::PluginIx;
use crate::endpoint::EndpointIx;
use crate::plugin::Refusal;

/// Index of a scheduling profile in the loaded configuration.
pub type ProfileIx = u16;

/// How many endpoints a profile's ranking keeps for retries.
pub const RANKING: usize = 16;

/// Why a filter dropped an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The endpoint.
    pub endpoint: EndpointIx,
    /// Position of the filter in its profile.
    pub filter: u16,
    /// A short reason, for people.
    pub reason: &'static str,
}

/// Why a plugin's part in a decision was ignored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PluginError {
    /// The plugin said so.
    #[error("{0}")]
    Failed(String),
    /// The plugin panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl PluginError {
    /// An error with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }
}

/// Why there is no decision.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The pool, or the part of it that the request may use, is empty (503,
    /// `rejected-no-endpoints`).
    #[error("failed to find endpoint candidates for serving the request")]
    NoEndpoints,
    /// The filters of the profile left nothing (429, `rejected-saturated`).
    #[error("no endpoints available for the given request")]
    Filtered {
        /// Name of the profile.
        profile: String,
        /// What the profile handler said of it.
        said: String,
    },
    /// The profile handler ran nothing or could not make a result (429, no reason).
    #[error("failed to find target endpoint: {0}")]
    Handler(String),
    /// The handler named a result without a target (500).
    #[error("results must be greater than zero")]
    EmptyResult,
    /// An admitter turned the request away (429, or 500 as the reference answers it).
    #[error("{}", .0.message)]
    Denied(Refusal),
    /// The client asked for a warm cache only (`prefer: if-available`), and there is none (412).
    #[error("no decode worker has the requested KV cache")]
    NotCached,
}

/// A schedule error as HTTP says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpError {
    /// Status code.
    pub status: u16,
    /// Name of the error code, part of the body.
    pub code: &'static str,
    /// Value of the response header `x-llm-d-request-dropped-reason`, when there is one.
    pub drop_reason: Option<&'static str>,
}

impl ScheduleError {
    /// How the error is answered.
    pub fn http(&self) -> HttpError {
        let error = |status, code, drop_reason| HttpError { status, code, drop_reason };
        match self {
            Self::NoEndpoints => error(503, "ServiceUnavailable", Some("rejected-no-endpoints")),
            Self::Filtered { .. } => error(429, "ResourceExhausted", Some("rejected-saturated")),
            Self::Handler(_) => error(429, "ResourceExhausted", None),
            Self::EmptyResult => error(500, "Internal", None),
            Self::Denied(refusal) if refusal.status == 429 => error(429, "ResourceExhausted", None),
            Self::Denied(refusal) => error(refusal.status, "Internal", None),
            Self::NotCached => error(412, "PreconditionFailed", None),
        }
    }

    /// The body of the answer, text.
    pub fn body(&self) -> String {
        format!("inference error: {} - {self}", self.http().code)
    }

    /// All that is known of the reason, for logs: the body, after what the handler said where a
    /// profile found nobody.
    pub fn detail(&self) -> String {
        match self {
            Self::Filtered { profile, said } => {
                format!("{said}\nprofile {profile:?}: {}", self.body())
            }
            _ => self.body(),
        }
    }
}

/// What one profile did. Vectors are reused between requests.
#[derive(Debug, Default, Clone)]
pub struct ProfileRun {
    /// Name of the profile; stays when the run is reset.
    pub name: String,
    /// Whether the profile ran in this decision.
    pub ran: bool,
    /// Whether it ended without a target.
    pub failed: bool,
    /// Whether the handler considered it and decided against running it.
    pub skipped: bool,
    /// Endpoints that passed the filters, ascending unless a filter reordered them.
    pub candidates: Vec<EndpointIx>,
    /// Weighted totals, parallel to `candidates`.
    pub totals: Vec<f64>,
    /// Per scorer of the profile the raw scores, parallel to `candidates`; NaN = not scored.
    pub scores: Vec<Vec<f64>>,
    /// What the filters dropped.
    pub rejections: Vec<Rejection>,
    /// The picker's choice, best first.
    pub targets: Vec<EndpointIx>,
    /// Targets, then the other candidates by total: where a retry goes next. At most [`RANKING`].
    pub ranking: Vec<EndpointIx>,
    /// Plugins that failed and were ignored.
    pub errors: Vec<(PluginIx, PluginError)>,
}

impl ProfileRun {
    /// Forgets the last request, keeps the memory.
    pub fn reset(&mut self) {
        self.ran = false;
        self.failed = false;
        self.skipped = false;
        self.candidates.clear();
        self.totals.clear();
        for scores in &mut self.scores {
            scores.clear();
        }
        self.rejections.clear();
        self.targets.clear();
        self.ranking.clear();
        self.errors.clear();
    }
}

/// The outcome of one decision.
#[derive(Debug, Default, Clone)]
pub struct Decision {
    /// The profile whose targets are the destination.
    pub primary: ProfileIx,
    /// Port to send the request to instead of the target's own.
    pub port: Option<u16>,
    /// The endpoint that the profiles still to run should be close to: the choice of the stage
    /// before.
    pub peer: Option<EndpointIx>,
    /// What screeners dropped before anything else; `filter` counts the screeners.
    pub screened: Vec<Rejection>,
    /// One entry per configured profile, in configuration order.
    pub profiles: Vec<ProfileRun>,
}

impl Decision {
    /// The run of the primary profile.
    pub fn primary_run(&self) -> Option<&ProfileRun> {
        self.profiles.get(usize::from(self.primary))
    }

    /// The run of the profile called `name`.
    pub fn profile(&self, name: &str) -> Option<&ProfileRun> {
        self.profiles.iter().find(|run| run.name == name)
    }

    /// The destination: the first target of the primary profile.
    pub fn target(&self) -> Option<EndpointIx> {
        self.primary_run()?.targets.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_answered_as_documented() {
        let said = "failed to find available decode workers".to_owned();
        let filtered = ScheduleError::Filtered { profile: "decode".into(), said };
        assert_eq!(
            filtered.body(),
            "inference error: ResourceExhausted - no endpoints available for the given request"
        );
        assert_eq!(filtered.http().drop_reason, Some("rejected-saturated"));
        assert_eq!(
            filtered.detail(),
            "failed to find available decode workers\nprofile \"decode\": inference error: \
             ResourceExhausted - no endpoints available for the given request"
        );
        assert_eq!(
            ScheduleError::NoEndpoints.body(),
            "inference error: ServiceUnavailable - failed to find endpoint candidates for serving \
             the request"
        );
        let handler = ScheduleError::Handler("nothing ran".into());
        assert_eq!((handler.http().status, handler.http().drop_reason), (429, None));
        assert_eq!(ScheduleError::EmptyResult.http().status, 500);
        assert_eq!(ScheduleError::NotCached.http().status, 412);
    }
}
