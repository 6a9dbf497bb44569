//! Which API a path belongs to.

use inlane_text::Api;

/// The inference API of a request path, if it is one that the scheduler reads.
///
/// As in the reference, the query and a trailing slash are cut off and the rest must end with the
/// API's suffix, the longest suffix winning.
pub(super) fn api(path: &str) -> Option<Api> {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    if path.ends_with("chat/completions") {
        Some(Api::ChatCompletions)
    } else if path.ends_with("completions") {
        Some(Api::Completions)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_decide() {
        assert_eq!(api("/v1/completions"), Some(Api::Completions));
        assert_eq!(api("/my/model/v1/chat/completions/?x=1"), Some(Api::ChatCompletions));
        assert_eq!(api("/v1/foocompletions"), Some(Api::Completions));
        assert_eq!(api("/v1/models"), None);
        assert_eq!(api("/v1/chat/completions/render"), None);
        assert_eq!(api(""), None);
    }
}
