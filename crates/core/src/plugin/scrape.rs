//! Roles that the control plane plays: reading engines.
//!
//! A data source that is a [`Scraper`] says where a page is; each of its extractors that is an
//! [`Extractor`] reads every page that comes from there. What they find goes into the endpoint's row
//! through [`Findings`].

use std::time::Duration;

use crate::decision::PluginError;
use crate::endpoint::Endpoint;
use crate::snapshot::MetricsRow;

/// How a page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// Says where an engine's pages are: the role of a data source.
pub trait Scraper: Send + Sync {
    /// Path to GET on each endpoint, with a leading slash.
    fn path(&self) -> &str;

    /// Port to ask instead of the serving port.
    fn port(&self) -> Option<u16> {
        None
    }

    /// How often; `None` = every tick.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// How to ask.
    fn scheme(&self) -> Scheme {
        Scheme::Http
    }
}

/// Reads pages: the role of an extractor.
pub trait Extractor: Send + Sync {
    /// Starts reading one page of one endpoint.
    fn begin(&self, endpoint: &Endpoint) -> Box<dyn Extraction>;
}

/// One page of one endpoint, as it arrives.
pub trait Extraction: Send {
    /// The next piece of the body. The source bounds what comes in all.
    fn chunk(&mut self, bytes: &[u8]);

    /// The body is complete: writes what was found, leaves the rest as it was.
    ///
    /// # Errors
    /// What was missing or malformed. Values found all the same are written.
    fn finish(self: Box<Self>, found: &mut Findings<'_>) -> Result<(), PluginError>;
}

/// Where an [`Extraction`] writes.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The endpoint's row as it is. `scraped_at_ms`, `scrapes`, the sets of models and the custom
    /// metrics are not for extractions to write: there are methods for them.
    pub row: &'a mut MetricsRow,
    places: &'a [Option<u8>],
    models: Option<Vec<String>>,
    is_scrape: bool,
}

impl<'a> Findings<'a> {
    /// Findings that go into `row`; `places` says where in it the custom metrics that the extractor
    /// declared are, in the order of its declarations, `None` for those that nobody reads.
    pub fn new(row: &'a mut MetricsRow, places: &'a [Option<u8>]) -> Self {
        Self { row, places, models: None, is_scrape: false }
    }

    /// Writes the custom metric that the extractor was the `declared`th to declare with
    /// [`Build::report`](crate::registry::Build::report), from 0 on; NaN = absent.
    pub fn scalar(&mut self, declared: usize, value: f64) {
        let place = self.places.get(declared).copied().flatten();
        if let Some(scalar) = place.and_then(|at| self.row.scalars.get_mut(usize::from(at))) {
            *scalar = value;
        }
    }

    /// Says which models the engine serves.
    pub fn serves(&mut self, models: Vec<String>) {
        self.models = Some(models);
    }

    /// Says that the row's load numbers are as of now. Without it they are as old as before.
    pub fn is_scrape(&mut self) {
        self.is_scrape = true;
    }

    /// The models that were said to be served, and whether the load numbers are new.
    pub fn into_parts(self) -> (Option<Vec<String>>, bool) {
        (self.models, self.is_scrape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_metrics_go_where_the_configuration_put_them() {
        let mut row = MetricsRow::default();
        let mut found = Findings::new(&mut row, &[Some(3), None, Some(200)]);
        for (declared, value) in [(0, 1.5), (1, 2.5), (2, 3.5), (9, 4.5)] {
            found.scalar(declared, value);
        }
        found.serves(vec!["m".into()]);
        assert_eq!(found.into_parts(), (Some(vec!["m".to_owned()]), false));
        let mut expected = MetricsRow::default();
        expected.scalars[3] = 1.5;
        assert_eq!(row, expected);
    }
}
