//! The role that the control plane plays: reading engines.

use std::time::Duration;

use crate::decision::PluginError;
use crate::endpoint::Endpoint;
use crate::snapshot::MetricsRow;

/// Reads an engine's state over HTTP, in the control plane.
pub trait Scraper: Send + Sync {
    /// Path to GET on each endpoint.
    fn path(&self) -> &str;

    /// Port to ask instead of the serving port.
    fn port(&self) -> Option<u16> {
        None
    }

    /// How often; `None` = every tick.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Starts reading one answer of one endpoint.
    fn begin(&self, endpoint: &Endpoint) -> Box<dyn Extraction>;
}

/// One answer of one endpoint, as it arrives.
pub trait Extraction: Send {
    /// The next piece of the body.
    fn chunk(&mut self, bytes: &[u8]);

    /// The body is complete: writes what was found into `row`, leaves the rest as it was.
    ///
    /// # Errors
    /// What was missing or malformed. Values found all the same are written.
    fn finish(self: Box<Self>, row: &mut MetricsRow) -> Result<(), PluginError>;
}
