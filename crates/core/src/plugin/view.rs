//! What plugins see: of the running decision, of a request that data are produced for.

use std::any::Any;
use std::fmt;

use crate::columns::{Columns, InFlight};
use crate::decision::Rejection;
use crate::effect::PluginIx;
use crate::endpoint::{EndpointIx, EndpointSet, Slot};
use crate::request::Request;
use crate::rng::Rng;
use crate::state::CycleState;

/// Spreads the small numbers that plugins salt their generators with over all bits.
const SALT: u64 = 0xd134_2543_de82_ef95;

/// What every role sees of the running decision.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The pool.
    pub endpoints: &'a EndpointSet,
    /// The numbers.
    pub columns: &'a Columns,
    /// Per-cycle state of the plugins.
    pub state: &'a CycleState,
    /// What plugins settled for this pool.
    pub settled: &'a Settled,
    /// The endpoint that the choice should be close to, when an earlier stage made one.
    pub peer: Option<EndpointIx>,
    /// The time of the decision, boot-time clock in ms.
    pub now_ms: u64,
    /// The seed of the decision.
    pub seed: u64,
}

impl Cycle<'_> {
    /// A generator for this decision. Plugins pass something of their own as `salt`, usually their
    /// instance's index, so that they do not see each other's numbers.
    pub fn rng(&self, salt: u64) -> Rng {
        Rng::new(self.seed ^ salt.wrapping_mul(SALT))
    }
}

/// What plugins worked out for a pool, once per topology: see [`PerTopology`](super::PerTopology).
#[derive(Default)]
pub struct Settled(Vec<Option<Box<dyn Any + Send + Sync>>>);

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settled").field("plugins", &self.0.len()).finish()
    }
}

impl Settled {
    /// Files what the instance `plugin` worked out.
    pub fn set(&mut self, plugin: PluginIx, settled: Box<dyn Any + Send + Sync>) {
        let at = usize::from(plugin);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(settled);
    }

    /// What the instance `plugin` worked out; `None` when that failed.
    pub fn get<T: 'static>(&self, plugin: PluginIx) -> Option<&T> {
        self.0.get(usize::from(plugin))?.as_ref()?.downcast_ref()
    }
}

/// The endpoints that are still in the race, and why the others are not.
#[derive(Debug)]
pub struct Candidates<'a> {
    kept: &'a mut Vec<EndpointIx>,
    rejections: &'a mut Vec<Rejection>,
    filter: u16,
}

impl<'a> Candidates<'a> {
    /// Wraps the candidate list for the filter at position `filter`.
    pub fn new(
        kept: &'a mut Vec<EndpointIx>,
        rejections: &'a mut Vec<Rejection>,
        filter: u16,
    ) -> Self {
        Self { kept, rejections, filter }
    }

    /// The remaining endpoints, in order.
    pub fn as_slice(&self) -> &[EndpointIx] {
        self.kept
    }

    /// Keeps the endpoints for which `verdict` is `Ok`, drops the others with a reason.
    pub fn retain(&mut self, mut verdict: impl FnMut(EndpointIx) -> Result<(), &'static str>) {
        let (rejections, filter) = (&mut *self.rejections, self.filter);
        self.kept.retain(|&endpoint| match verdict(endpoint) {
            Ok(()) => true,
            Err(reason) => {
                rejections.push(Rejection { endpoint, filter, reason });
                false
            }
        });
    }

    /// Keeps the endpoints of `order`, in that order, and drops the others for `reason`. Entries
    /// that are no candidates are ignored. Linear in candidates times `order`, for short lists.
    pub fn keep_in_order(&mut self, order: &[EndpointIx], reason: &'static str) {
        let dropped = self.kept.iter().filter(|endpoint| !order.contains(endpoint));
        let filter = self.filter;
        self.rejections.extend(dropped.map(|&endpoint| Rejection { endpoint, filter, reason }));
        let were = std::mem::take(self.kept);
        self.kept.extend(order.iter().filter(|endpoint| were.contains(endpoint)));
    }
}

/// Reads the bookings of an endpoint.
pub trait LoadSource {
    /// Requests and tokens in flight on the endpoint of `slot`.
    fn in_flight(&self, slot: Slot) -> InFlight;
}

/// A place in a window that a producer collects requests in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Names the place, to the producer alone.
    pub id: u64,
    /// When the window closes, boot-time clock in ms: the request waits until then.
    pub ready_at_ms: u64,
}

/// The places that a request has been given, by plugin.
pub type Tickets = Vec<(PluginIx, Ticket)>;

/// What screeners and data producers see.
#[derive(Clone, Copy)]
pub struct Producing<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The pool.
    pub endpoints: &'a EndpointSet,
    /// The endpoints that may serve the request.
    pub candidates: &'a [EndpointIx],
    /// Live bookings.
    pub load: &'a dyn LoadSource,
    /// What plugins settled for this pool.
    pub settled: &'a Settled,
    /// Places in windows that the request has waited for.
    pub tickets: &'a [(PluginIx, Ticket)],
    /// Boot-time clock in ms.
    pub now_ms: u64,
    /// The seed of the decision.
    pub seed: u64,
}

impl Producing<'_> {
    /// The place that the instance `plugin` gave the request.
    pub fn ticket(&self, plugin: PluginIx) -> Option<Ticket> {
        self.tickets.iter().find(|(owner, _)| *owner == plugin).map(|(_, ticket)| *ticket)
    }

    /// A generator for this decision, see [`Cycle::rng`].
    pub fn rng(&self, salt: u64) -> Rng {
        Rng::new(self.seed ^ salt.wrapping_mul(SALT))
    }
}
