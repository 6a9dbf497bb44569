//! The tree: nodes in one buffer, keys and scalars in another.

use std::ops::Range;

use crate::json::Kind;

/// A value and its key. Nodes lie in the order of the body: a container before its children.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Unescaped key, in `bytes`; empty in arrays.
    pub(super) key: Range<u32>,
    /// Unescaped string or number as written, in `bytes`.
    pub(super) scalar: Range<u32>,
    /// The index after its last descendant.
    end: u32,
}

/// One JSON value as a tree.
///
/// Memory: 24 bytes per node plus its unescaped key and scalar, all of it counted against the
/// bound; both buffers are kept for the next request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    bytes: Vec<u8>,
    /// Indices of the containers that are open.
    open: Vec<u32>,
    key: Range<u32>,
    limit: usize,
    overflow: bool,
}

impl Tree {
    /// Forgets the value; the next one may take `limit` bytes.
    pub(crate) fn reset(&mut self, limit: usize) {
        self.nodes.clear();
        self.bytes.clear();
        self.open.clear();
        self.key = 0..0;
        // Indices are 32 bits wide.
        self.limit = limit.min(1 << 30);
        self.overflow = false;
    }

    /// The bound was exceeded: the tree is incomplete.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// True if the value is a list with something in it.
    pub(crate) fn is_filled_list(&self) -> bool {
        self.nodes.len() > 1 && self.nodes[0].kind == Kind::Array
    }

    pub(crate) fn open(&mut self, kind: Kind) {
        if !self.reserve(size_of::<Node>()) {
            return;
        }
        let index = self.nodes.len() as u32;
        let end = self.bytes.len() as u32;
        let key = std::mem::replace(&mut self.key, end..end);
        let node = Node { kind, key, scalar: end..end, end: index + 1 };
        self.nodes.push(node);
        if matches!(kind, Kind::Array | Kind::Object) {
            self.open.push(index);
        }
    }

    pub(crate) fn close(&mut self, kind: Kind) {
        if self.overflow || !matches!(kind, Kind::Array | Kind::Object) {
            return;
        }
        let end = self.nodes.len() as u32;
        let container = self.open.pop().and_then(|index| self.nodes.get_mut(index as usize));
        if let Some(container) = container {
            container.end = end;
        }
    }

    pub(crate) fn key(&mut self, piece: &[u8]) {
        if self.key.is_empty() {
            let end = self.bytes.len() as u32;
            self.key = end..end;
        }
        if self.append(piece) {
            self.key.end = self.bytes.len() as u32;
        }
    }

    /// More of the string or number opened last.
    pub(crate) fn scalar(&mut self, piece: &[u8]) {
        if !self.append(piece) {
            return;
        }
        let end = self.bytes.len() as u32;
        if let Some(node) = self.nodes.last_mut() {
            node.scalar.end = end;
        }
    }

    pub(super) fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    pub(super) fn slice(&self, range: &Range<u32>) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Indices of the children of the container at `index`.
    pub(super) fn children(&self, index: u32) -> impl Iterator<Item = u32> + use<'_> {
        let end = self.node(index).map_or(0, |node| node.end);
        let next = move |child: &u32| {
            let after = self.node(*child)?.end;
            (after < end).then_some(after)
        };
        std::iter::successors((index + 1 < end).then_some(index + 1), next)
    }

    fn append(&mut self, piece: &[u8]) -> bool {
        let fits = self.reserve(piece.len());
        if fits {
            self.bytes.extend_from_slice(piece);
        }
        fits
    }

    fn reserve(&mut self, more: usize) -> bool {
        let used = self.nodes.len() * size_of::<Node>() + self.bytes.len();
        self.overflow |= used + more > self.limit;
        !self.overflow
    }
}

/// The exact value of a number, from the bytes that the lexer accepted.
pub(super) fn double(digits: &[u8]) -> f64 {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
