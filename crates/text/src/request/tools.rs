//! `tools` of a request, as they stand in its prompt.

use super::Limits;
use crate::error::{Bounded, ScanError};
use crate::json::Kind;
use crate::sink::Sink;
use crate::tools::Tree;

/// Tools, held until their keys can be sorted.
#[derive(Clone, Default)]
pub(crate) struct Tools {
    pub(crate) tree: Tree,
    json: Vec<u8>,
    /// Scratch space of the writer.
    sorted: Vec<u32>,
}

impl Tools {
    /// Forgets the tools.
    pub(crate) fn reset(&mut self) {
        self.tree.reset(0);
    }

    /// `tools` begins, perhaps once more.
    pub(crate) fn open(&mut self, limits: &Limits) {
        self.tree.reset(limits.tools_bytes);
    }

    /// `tools` is complete.
    pub(crate) fn close(&self, limits: &Limits) -> Result<(), ScanError> {
        if self.tree.overflowed() {
            let limit = limits.tools_bytes;
            return Err(ScanError::TooLarge { what: Bounded::Tools, limit });
        }
        Ok(())
    }

    /// There are some.
    pub(crate) fn is_filled_list(&self) -> bool {
        self.tree.is_filled_list()
    }

    /// Sends their text, if there are some. Answers whether there are.
    pub(crate) fn send(&mut self, sink: &mut impl Sink) -> bool {
        let filled = self.is_filled_list();
        if filled {
            self.json.clear();
            self.tree.write(&mut self.json, &mut self.sorted);
            sink.text(&self.json);
        }
        filled
    }

    /// A container or scalar below `tools` begins.
    pub(crate) fn open_below(&mut self, kind: Kind) {
        self.tree.open(kind);
    }
}
