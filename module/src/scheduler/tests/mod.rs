//! The filter against the SDK's mock and a real segment.

mod booking;
mod counted;
mod hooks;
mod paths;
mod request;
mod response;
mod shadow;
mod tokens;
mod traces;
mod undecided;
mod window;

use super::testing::Stream;

/// A request that every path of the filter takes.
const BODY: &str = r#"{"model":"m","prompt":"hello there","max_tokens":3}"#;
