//! Finds added tokens in a text as the tokenizer's own scan does.

use memchr::{memchr, memchr2, memchr3};

/// A token as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Index into the list that the matcher was built from.
    pub(super) token: u32,
}

/// Matches leftmost, then longest, without overlap: a byte trie tried at each byte that begins a
/// token.
///
/// At most the text's length times the longest token's; on real texts one look at each byte, since
/// added tokens begin with one or two rare characters.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    /// Node 0 is the root.
    nodes: Vec<Node>,
    /// The root's child by byte, 0 where no token begins so.
    roots: Box<[u32; 256]>,
    starts: Starts,
}

#[derive(Clone, Debug, Default)]
struct Node {
    token: Option<u32>,
    /// Sorted by byte.
    edges: Vec<(u8, u32)>,
}

/// The bytes that tokens begin with.
#[derive(Clone, Debug)]
enum Starts {
    One(u8),
    Two(u8, u8),
    Three(u8, u8, u8),
    Many,
}

impl Matcher {
    /// A matcher of these tokens, `None` without any. Empty tokens match nowhere.
    pub(super) fn new<'t>(tokens: impl Iterator<Item = &'t str>) -> Option<Self> {
        let mut nodes = vec![Node::default()];
        for (index, token) in tokens.enumerate() {
            let mut at = 0;
            for &byte in token.as_bytes() {
                at = match nodes[at].edges.binary_search_by_key(&byte, |edge| edge.0) {
                    Ok(found) => nodes[at].edges[found].1 as usize,
                    Err(place) => {
                        let new = nodes.len();
                        nodes[at].edges.insert(place, (byte, new as u32));
                        nodes.push(Node::default());
                        new
                    }
                };
            }
            if at != 0 {
                nodes[at].token = Some(index as u32);
            }
        }
        let mut roots = Box::new([0; 256]);
        for &(byte, node) in &nodes[0].edges {
            roots[usize::from(byte)] = node;
        }
        let starts = match nodes[0].edges.as_slice() {
            [] => return None,
            [a] => Starts::One(a.0),
            [a, b] => Starts::Two(a.0, b.0),
            [a, b, c] => Starts::Three(a.0, b.0, c.0),
            _ => Starts::Many,
        };
        Some(Self { nodes, roots, starts })
    }

    /// The first match that starts at `from` or later.
    pub(super) fn next(&self, text: &[u8], from: usize) -> Option<Match> {
        let mut from = from;
        loop {
            let start = from + self.skip(text.get(from..)?)?;
            if let Some((end, token)) = self.longest(text, start) {
                return Some(Match { start, end, token });
            }
            from = start + 1;
        }
    }

    fn skip(&self, text: &[u8]) -> Option<usize> {
        match self.starts {
            Starts::One(a) => memchr(a, text),
            Starts::Two(a, b) => memchr2(a, b, text),
            Starts::Three(a, b, c) => memchr3(a, b, c, text),
            Starts::Many => text.iter().position(|&byte| self.roots[usize::from(byte)] != 0),
        }
    }

    fn longest(&self, text: &[u8], start: usize) -> Option<(usize, u32)> {
        let mut node = *self.roots.get(usize::from(*text.get(start)?))?;
        let mut at = start + 1;
        let mut found = None;
        while node != 0 {
            let Node { token, edges } = &self.nodes[node as usize];
            if let Some(token) = token {
                found = Some((at, *token));
            }
            let Some(byte) = text.get(at) else { break };
            let Ok(edge) = edges.binary_search_by_key(byte, |edge| edge.0) else { break };
            node = edges[edge].1;
            at += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(tokens: &[&str], text: &str) -> Vec<(usize, usize, u32)> {
        let matcher = Matcher::new(tokens.iter().copied()).expect("tokens");
        let mut out = Vec::new();
        let mut from = 0;
        while let Some(found) = matcher.next(text.as_bytes(), from) {
            out.push((found.start, found.end, found.token));
            from = found.end;
        }
        out
    }

    #[test]
    fn the_leftmost_match_wins_then_the_longest() {
        assert_eq!(matches(&["<a>", "<a>b", "bc"], "x<a>bc<a>"), [(1, 5, 1), (6, 9, 0)]);
        assert_eq!(matches(&["ab", "bcd"], "abcd"), [(0, 2, 0)]);
    }

    #[test]
    fn a_failed_start_is_tried_again_one_byte_on() {
        assert_eq!(matches(&["<<x"], "<<<x"), [(1, 4, 0)]);
        assert_eq!(matches(&["aab"], "aaab"), [(1, 4, 0)]);
    }

    #[test]
    fn any_number_of_first_bytes_is_searched_for() {
        for count in 1..6 {
            let tokens = &["<a>", "[b]", "{c}", "(d)", "*e*"][..count];
            let text = "..<a>..[b]..{c}..(d)..*e*..";
            let found = matches(tokens, text);
            assert_eq!(found.len(), count);
            for (start, end, token) in found {
                assert_eq!(&text[start..end], tokens[token as usize]);
            }
        }
    }

    #[test]
    fn nothing_matches_without_tokens() {
        assert!(Matcher::new([].into_iter()).is_none());
        assert!(Matcher::new([""].into_iter()).is_none());
    }
}
