//! Errors as the API shows them.

use hyper::{Response, StatusCode};
use serde_json::json;

use super::{body::Payload, respond};
use crate::{config::tunables::FailureType, engine::job::Rejection};

/// An error answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) message: String,
    pub(super) param: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(super) fn unknown_model(name: &str) -> Self {
        Self::new(404, format!("The model `{name}` does not exist."))
    }

    pub(super) fn too_long(limit: usize, prompt: usize, completion: usize) -> Self {
        let total = prompt + completion;
        Self::bad_request(format!(
            "This model's maximum context length is {limit} tokens. However, you requested {total} tokens \
             ({prompt} in the messages, {completion} in the completion). Please reduce the length of the \
             messages or completion"
        ))
    }

    /// The error that failure injection sends for a request to `model`.
    pub(super) fn injected(failure: FailureType, model: &str) -> Self {
        let (status, message, param) = match failure {
            FailureType::ContextLength => (
                400,
                "This model's maximum context length is 4096 tokens. However, your messages resulted in \
                 4500 tokens."
                    .to_owned(),
                Some("messages"),
            ),
            FailureType::InvalidApiKey => (401, "Incorrect API key provided.".to_owned(), None),
            FailureType::InvalidRequest => (
                400,
                "Invalid request: missing required parameter 'model'.".to_owned(),
                Some("model"),
            ),
            FailureType::ModelNotFound => {
                (404, format!("The model '{model}-nonexistent' does not exist"), Some("model"))
            }
            FailureType::RateLimit => (
                429,
                format!(
                    "Rate limit reached for {model} in organization org-xxx on requests per min (RPM): \
                     Limit 3, Used 3, Requested 1."
                ),
                None,
            ),
            FailureType::ServerError => {
                (503, "The server is overloaded or not ready yet.".to_owned(), None)
            }
        };
        Self { status, message, param }
    }

    pub(super) fn into_response(self) -> Response<Payload> {
        // A status that HTTP cannot express is shown as a server error; the body still tells it.
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        respond::json(status, self.body())
    }

    fn body(&self) -> String {
        // Written by hand to keep the order of the keys.
        let Self { status, message, param } = self;
        let kind = kind(*status);
        let (message, param) = (json!(message), json!(param));
        format!(
            r#"{{"error":{{"message":{message},"type":"{kind}","param":{param},"code":{status}}}}}"#
        )
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection {
            Rejection::CacheTooSmall => 500,
            Rejection::QueueFull => 429,
        };
        Self::new(status, rejection.to_string())
    }
}

fn kind(status: u16) -> &'static str {
    match status {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        500.. => "InternalServerError",
        _ => "APIConnectionError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_as_recorded() {
        assert_eq!(
            ApiError::unknown_model("nope").body(),
            r#"{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}}"#
        );
        assert_eq!(
            ApiError::injected(FailureType::ModelNotFound, "m").body(),
            r#"{"error":{"message":"The model 'm-nonexistent' does not exist","type":"NotFoundError","param":"model","code":404}}"#
        );
    }
}
