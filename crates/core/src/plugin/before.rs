//! Roles that are played before the profiles run.

use std::any::Any;

use crate::columns::{Columns, Metrics};
use crate::decision::PluginError;
use crate::endpoint::{EndpointIx, EndpointSet};
use crate::request::{BlockUnit, Request};
use crate::state::{CycleState, RequestAttribute};

use super::view::{Candidates, Cycle, Producing, Ticket};

/// Works something out of the endpoints' metadata, once per topology instead of once per request:
/// parsed labels, digests of names.
pub trait PerTopology: Send + Sync {
    /// What requests will find in [`Cycle::settled`] and [`Producing::settled`], usually a vector
    /// with one entry per endpoint.
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync>;
}

/// Takes endpoints out before anything else is done for a request. Every screener sees the same
/// endpoints; those that all of them keep stay. Nobody left: the request has no endpoints (503).
pub trait Screener: Send + Sync {
    /// Drops endpoints from `candidates`.
    ///
    /// # Errors
    /// A screener that fails drops nothing.
    fn screen(
        &self,
        cx: &Producing<'_>,
        candidates: &mut Candidates<'_>,
    ) -> Result<(), PluginError>;
}

/// Turns requests away after the data producers have run and before a profile does.
pub trait Admitter: Send + Sync {
    /// Lets the request pass, or says with `Ok(Some(why))` why not.
    ///
    /// # Errors
    /// An admitter that fails lets the request pass.
    fn admit(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
    ) -> Result<Option<String>, PluginError>;
}

/// Fills attribute columns before the profiles run.
pub trait DataProducer: Send + Sync {
    /// Reads the plugin's state and writes its columns.
    ///
    /// # Errors
    /// The producers that come after are skipped; the request is scheduled all the same.
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError>;

    /// Asks whether the request has to wait for others, before anything is produced: the answer
    /// comes back in [`Producing::tickets`] when the time has passed. The load, metrics and
    /// attributes that the decision is made on are read after the wait.
    ///
    /// # Errors
    /// The request does not wait; [`produce`](Self::produce) finds no ticket.
    fn enroll(&self, cx: &Producing<'_>) -> Result<Option<Ticket>, PluginError> {
        let _ = cx;
        Ok(None)
    }

    /// Whether [`enroll`](Self::enroll) ever answers with a ticket.
    fn has_window(&self) -> bool {
        false
    }

    /// The block size that prompts should be packed into while the body is read, for a producer
    /// that matches prefixes; `None` = the producer does not care. `first` is the first endpoint
    /// that may serve the request.
    fn block_unit(&self, metrics: &Metrics, first: EndpointIx) -> Option<BlockUnit> {
        let _ = (metrics, first);
        None
    }

    /// How many blocks of a prompt, from the front, the producer looks at.
    fn block_limit(&self, unit: BlockUnit) -> usize {
        let _ = unit;
        0
    }
}

/// Hook before anything is decided: may change what the decision sees of the request.
pub trait PreCall: Send + Sync {
    /// Changes request facts or refuses the request.
    ///
    /// # Errors
    /// The HTTP status and text with which the request is refused.
    fn pre_call(&self, request: &Request<'_>, facts: &mut RequestFacts) -> Result<(), Refusal>;
}

/// Facts that a [`PreCall`] hook may set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Fairness id, when the client named none.
    pub fairness_id: Option<String>,
    /// Priority, when no objective set one.
    pub priority: Option<i32>,
    /// Texts for other plugins.
    pub attributes: Vec<RequestAttribute>,
}

/// A request refused by a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Text of the answer.
    pub message: String,
}
