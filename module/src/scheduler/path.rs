//! Which API a path belongs to.

use inlane_text::Api;

/// The inference API of a request path, if it is one that the scheduler reads.
///
/// As in the reference, the query and a trailing slash are cut off and the rest must end with the
/// API's suffix, the longest suffix winning. Suffixes are not aligned to segments, but for
/// `messages`, as there.
pub(super) fn api(path: &str) -> Option<Api> {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    [
        ("chat/completions", Api::ChatCompletions),
        ("completions", Api::Completions),
        ("/messages", Api::Messages),
        ("responses", Api::Responses),
        ("embeddings", Api::Embeddings),
    ]
    .into_iter()
    .find_map(|(suffix, api)| path.ends_with(suffix).then_some(api))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_decide() {
        assert_eq!(api("/v1/completions"), Some(Api::Completions));
        assert_eq!(api("/my/model/v1/chat/completions/?x=1"), Some(Api::ChatCompletions));
        assert_eq!(api("/v1/foocompletions"), Some(Api::Completions));
        assert_eq!(api("/v1/messages?beta=true"), Some(Api::Messages));
        assert_eq!(api("/v1/responses"), Some(Api::Responses));
        assert_eq!(api("/v1/embeddings/"), Some(Api::Embeddings));
        assert_eq!(api("/v1/messages/count_tokens"), None);
        assert_eq!(api("/v1/responses/resp_1/cancel"), None);
        assert_eq!(api("/v1/sent-messages"), None);
        assert_eq!(api("/v1/models"), None);
        assert_eq!(api("/v1/chat/completions/render"), None);
        assert_eq!(api(""), None);
    }
}
