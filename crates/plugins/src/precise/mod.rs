//! Precise prefix matching: what the engines themselves say they hold.
//!
//! ```text
//! token ids ──[keying]──► keys ──► [PreciseIndex] ──runs of holders──► [score] ──► columns
//!                                   │ engines: the mirror in the segment
//!                                   │ expected: where requests just went
//! ```
//!
//! [`keying`] turns token ids into the keys of their blocks, [`PreciseIndex`] answers who holds them,
//! [`score`] turns that into matches, and [`producer`] writes them into columns. The index is
//! [`EngineIndex`], which reads what the control plane keeps in the segment, unless somebody
//! attaches another one to a [`PreciseSource`]. Without an index nothing is written.

pub mod engines;
mod expected;
pub mod keying;
mod merge;
pub mod parameters;
pub mod producer;
mod repeats;
pub mod score;
pub mod scorer;
mod stats;
pub mod truth;

use std::fmt;
use std::sync::OnceLock;

use inlane_core::endpoint::{EndpointIx, EndpointSet, Slot};
use inlane_core::request::Request;
use inlane_core::snapshot::MetricsRow;

pub use engines::EngineIndex;
use keying::Keying;
use score::{TierWeights, Walk};
use truth::{Known, Truth};

/// What an index is asked about: one prompt of a request.
#[derive(Clone, Copy)]
pub struct Inquiry<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Which of its prompts.
    pub prompt: usize,
    /// The keys of the prompt's whole blocks, front to back; each covers everything before it.
    /// Empty where the prompt has no token ids.
    pub keys: &'a [u64],
    /// The pool.
    pub endpoints: &'a EndpointSet,
    /// What blocks weigh, by the tier that holds them.
    pub weights: &'a TierWeights,
}

/// An index of what engines hold, as decisions read it. Reading never waits and does not allocate.
pub trait PreciseIndex: Send + Sync {
    /// Whether there is anything to be had for keys that are made like this. Where not, nothing is
    /// hashed and nothing is known of any endpoint.
    fn answers(&self, keying: &Keying) -> bool {
        let _ = keying;
        true
    }

    /// Walks the blocks of a prompt and tells `walk`, which counts endpoints by their index in the
    /// pool, who holds them. Returns the number of whole blocks of the prompt, which is that of the
    /// keys unless the index has keys of its own; 0 = nothing can be said about it.
    fn walk(&self, inquiry: &Inquiry<'_>, walk: &mut Walk) -> u32;

    /// Expects the blocks of a prompt at an endpoint for `ttl_ms`, before the engine confirms them.
    fn expect(&self, inquiry: &Inquiry<'_>, endpoint: EndpointIx, ttl_ms: u64) {
        let _ = (inquiry, endpoint, ttl_ms);
    }
}

/// Where a producer finds its index. Kept across reloads: whoever runs an index finds all of them
/// with [`KeptState::all`](inlane_core::registry::KeptState::all).
#[derive(Default)]
pub struct PreciseSource {
    own: OnceLock<Box<dyn PreciseIndex>>,
    engines: EngineIndex,
    truth: Truth,
}

impl fmt::Debug for PreciseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attached = self.own.get().is_some();
        f.debug_struct("PreciseSource")
            .field("attached", &attached)
            .field("engines", &self.engines)
            .field("truth", &self.truth)
            .finish()
    }
}

impl PreciseSource {
    /// Attaches an index of one's own in place of the engines'. Returns whether there was none yet.
    pub fn attach(&self, index: Box<dyn PreciseIndex>) -> bool {
        self.own.set(index).is_ok()
    }

    /// Whether an index of one's own is attached.
    pub fn is_attached(&self) -> bool {
        self.own.get().is_some()
    }

    /// The index of what the engines say, which is read unless another one is attached.
    pub fn engines(&self) -> &EngineIndex {
        &self.engines
    }

    /// Judges predictions by what engines reported, and by what was scraped of their counters, which
    /// `row` reads ([`truth`]); returns what should be said of them. Times are of the rows' clock. For
    /// the owner thread, every [`truth::JUDGED_EVERY_MS`]. Costs a look at each endpoint.
    pub fn judge(
        &self,
        now_ms: u64,
        endpoints: &EndpointSet,
        row: impl Fn(Slot) -> Option<MetricsRow>,
    ) -> Vec<String> {
        let known = |slot| match self.is_attached() {
            // What an index of one's own holds is its own affair: only that it answered is known.
            true => Known::Blocks(1),
            false => self.engines.held(slot).map_or(Known::NoIndex, Known::Blocks),
        };
        self.truth.pass(now_ms, endpoints, known, row)
    }

    fn get(&self) -> &dyn PreciseIndex {
        self.own.get().map_or(&self.engines, Box::as_ref)
    }
}
