//! The answers that the scheduler gives in place of a pod.

use std::borrow::Cow;

use inlane_core::decision::ScheduleError;
use inlane_core::plugin::Refusal;

/// A complete answer: status, body and the reason header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status.
    pub status: u32,
    /// Error code of the body and of the error counter.
    pub code: &'static str,
    /// Text after the code.
    pub message: Cow<'static, str>,
    /// Value of the reason header.
    pub reason: Option<&'static str>,
}

impl Answer {
    /// The body, in the form that clients of the endpoint picker know.
    pub(super) fn body(&self) -> String {
        format!("inference error: {} - {}", self.code, self.message)
    }

    /// 400: the body or what it asks for is wrong.
    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: 400, code: "BadRequest", message: message.into(), reason: None }
    }

    /// A plugin's own verdict.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let code = match refusal.status {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            412 => "PreconditionFailed",
            429 => "ResourceExhausted",
            503 => "ServiceUnavailable",
            _ => "Internal",
        };
        let (status, message) = (u32::from(refusal.status), refusal.message.clone().into());
        Self { status, code, message, reason: None }
    }

    /// 400: no parser of the configuration takes this path.
    pub(super) fn unclaimed(path: &str) -> Self {
        Self::bad_request(format!("no parser registered matching path suffix for: {path}"))
    }

    /// 400: a parser takes paths that end so, but not this one.
    pub(super) fn unsupported(path: &str) -> Self {
        Self::bad_request(format!("unsupported API endpoint: {path}"))
    }

    /// 404: a path that the pool does not serve.
    pub(super) fn unknown_path() -> Self {
        Self {
            status: 404,
            code: "NotFound",
            message: "this path is not an inference API of the pool".into(),
            reason: None,
        }
    }

    /// 413: the body is larger than the settings allow.
    pub(super) fn too_large(limit: u64) -> Self {
        Self {
            status: 413,
            code: "PayloadTooLarge",
            message: format!("the request body exceeds {limit} bytes").into(),
            reason: Some("rejected-body-too-large"),
        }
    }

    /// 429: all streams together hold as many bytes as the settings allow.
    pub(super) fn too_much_held() -> Self {
        Self {
            status: 429,
            code: "ResourceExhausted",
            message: "the proxy holds too many request bytes".into(),
            reason: Some("rejected-saturated"),
        }
    }

    /// 503: there is no snapshot, or a part of it is missing.
    pub(super) fn no_snapshot() -> Self {
        Self {
            status: 503,
            code: "ServiceUnavailable",
            message: "the scheduler has no snapshot of the pool".into(),
            reason: Some("rejected-no-snapshot"),
        }
    }

    /// 503: the control plane has not been heard of for too long.
    pub(super) fn stale_snapshot() -> Self {
        Self {
            status: 503,
            code: "ServiceUnavailable",
            message: "the scheduler's snapshot of the pool is stale".into(),
            reason: Some("rejected-stale-snapshot"),
        }
    }

    /// 503: the decision panicked.
    pub(super) fn panicked() -> Self {
        Self {
            status: 503,
            code: "ServiceUnavailable",
            message: "the scheduling decision failed".into(),
            reason: Some("rejected-decision-failed"),
        }
    }
}

impl From<&ScheduleError> for Answer {
    fn from(error: &ScheduleError) -> Self {
        let http = error.http();
        Self {
            status: u32::from(http.status),
            code: http.code,
            message: error.to_string().into(),
            reason: http.drop_reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_errors_have_their_answers() {
        let empty = Answer::from(&ScheduleError::NoEndpoints);
        assert_eq!((empty.status, empty.reason), (503, Some("rejected-no-endpoints")));
        let filtered =
            Answer::from(&ScheduleError::Filtered { profile: "p".into(), said: "no".into() });
        assert_eq!((filtered.status, filtered.reason), (429, Some("rejected-saturated")));
        assert_eq!(
            filtered.body(),
            "inference error: ResourceExhausted - no endpoints available for the given request"
        );
    }
}
