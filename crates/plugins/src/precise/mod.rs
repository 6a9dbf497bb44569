//! Precise prefix matching: what the engines themselves say they hold.
//!
//! [`score`] turns what an index knows about the blocks of a prompt into matches. [`PreciseSource`]
//! is where an index is attached; [`producer`] reads it into columns. Without a source nothing is
//! written.

pub mod parameters;
pub mod producer;
pub mod score;
pub mod scorer;

use std::fmt;
use std::sync::OnceLock;

use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::request::Request;

use score::Walk;

/// An index of what engines hold, as decisions read it. Reading never waits.
pub trait PreciseIndex: Send + Sync {
    /// Walks the blocks of the request's prompt number `prompt` and tells `walk`, which counts
    /// endpoints by their index in `endpoints`, who holds them. Returns the number of whole blocks
    /// of the prompt; 0 when it has none or cannot be hashed as the engines do.
    fn walk(
        &self,
        request: &Request<'_>,
        prompt: usize,
        endpoints: &EndpointSet,
        walk: &mut Walk,
    ) -> u32;

    /// Expects the blocks of the request at an endpoint until `until_ms`, before the engine
    /// confirms them.
    fn expect(
        &self,
        request: &Request<'_>,
        endpoints: &EndpointSet,
        endpoint: EndpointIx,
        until_ms: u64,
    ) {
        let _ = (request, endpoints, endpoint, until_ms);
    }
}

/// The place where an index is attached to a producer, once. Found in the kept state of a
/// configuration by whoever runs the index.
#[derive(Default)]
pub struct PreciseSource(OnceLock<Box<dyn PreciseIndex>>);

impl fmt::Debug for PreciseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreciseSource").field("attached", &self.0.get().is_some()).finish()
    }
}

impl PreciseSource {
    /// Attaches an index. Returns whether there was none yet.
    pub fn attach(&self, index: Box<dyn PreciseIndex>) -> bool {
        self.0.set(index).is_ok()
    }

    fn get(&self) -> Option<&dyn PreciseIndex> {
        self.0.get().map(Box::as_ref)
    }
}
