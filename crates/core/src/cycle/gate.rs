//! The gate of conditional decoding: `prefer: if-available`.
//!
//! A client that sends this header wants an answer only from an endpoint that holds the start of
//! its prompt. The reference looks at the producer with the default name alone, and so refuses
//! everything when only another producer is configured; here a match of any producer counts.

use crate::columns::{Columns, PrefixMatch};
use crate::endpoint::EndpointIx;
use crate::registry::Schema;
use crate::request::Headers;

/// Whether the header asks for a warm cache only.
pub(crate) fn is_conditional(headers: &dyn Headers) -> bool {
    let preference = |item: &str| {
        let token = item.split_once(';').map_or(item, |(token, _)| token);
        token.trim().eq_ignore_ascii_case("if-available")
    };
    headers.get("prefer").is_some_and(|value| value.split(',').any(preference))
}

/// Whether any producer found blocks of the prompt on `endpoint`.
pub(crate) fn is_cached(schema: &Schema, columns: &Columns, endpoint: EndpointIx) -> bool {
    schema.columns::<PrefixMatch>().any(|(_, col)| {
        let found = columns.get(col).get(endpoint as usize).copied().flatten();
        found.is_some_and(|m| m.match_blocks > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preference_is_one_of_a_list() {
        let asks = |value: &str| is_conditional(&[("prefer", value)]);
        assert!(asks("respond-async, If-Available; wait=5"));
        assert!(asks("if-available"));
        assert!(!asks("if-available-soon"));
        assert!(!asks("wait=5; if-available"));
        assert!(!is_conditional(&[("other", "if-available")]));
    }
}
