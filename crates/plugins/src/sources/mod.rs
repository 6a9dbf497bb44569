//! Data sources beside the engine's metrics page, and what reads them.
//!
//! A source says where a page is; its extractors read it. Both are carried out by the control plane.

pub mod dcgm_data_source;
pub mod dcgm_extractor;
pub mod k8s_notification_source;
pub mod models_data_extractor;
pub mod models_data_source;

use std::sync::Arc;
use std::time::Duration;

use inlane_core::plugin::{Part, Roles, Scheme, Scraper};
use inlane_core::registry::{BuildError, Params};
use serde_yaml::{Mapping, Value};

use crate::metrics_data_source::{self, Parameters};

/// A source with the parameters of `metrics-data-source`, of which some have other defaults.
pub(crate) fn page(params: &Params, defaults: &[(&str, Value)]) -> Result<Roles, BuildError> {
    let mut given = match params.raw() {
        None => Mapping::new(),
        Some(Value::Mapping(given)) => given.clone(),
        // Something else: decoding says what was expected.
        Some(_) => return Parameters::read(params).map(|_| Roles::default()),
    };
    for (name, value) in defaults {
        given.entry(Value::from(*name)).or_insert_with(|| value.clone());
    }
    let parameters = Parameters::read(&Params::new(Some(Value::Mapping(given))))?;
    Ok(Roles::default().part(Part::DataSource).scraper(Arc::new(Page(parameters))))
}

#[derive(Debug)]
struct Page(Parameters);

impl Scraper for Page {
    fn path(&self) -> &str {
        &self.0.path
    }

    fn port(&self) -> Option<u16> {
        self.0.port
    }

    fn interval(&self) -> Option<Duration> {
        self.0.interval()
    }

    fn scheme(&self) -> Scheme {
        match self.0.scheme {
            metrics_data_source::Scheme::Http => Scheme::Http,
            metrics_data_source::Scheme::Https => Scheme::Https,
        }
    }
}

/// Reads `text` as one page of an endpoint, in pieces of `size` bytes; answers the row, the models
/// found and whether something was missing.
#[cfg(test)]
pub(crate) fn read_page(
    roles: &Roles,
    endpoint: &inlane_core::endpoint::Endpoint,
    text: &str,
    size: usize,
) -> (Vec<f64>, Option<Vec<String>>, bool) {
    let mut row = inlane_core::snapshot::MetricsRow::default();
    let places: Vec<_> = (0..8).map(Some).collect();
    let mut found = inlane_core::plugin::Findings::new(&mut row, &places);
    let mut extraction = roles.extractor.as_ref().expect("an extractor").begin(endpoint);
    text.as_bytes().chunks(size).for_each(|piece| extraction.chunk(piece));
    let complete = extraction.finish(&mut found).is_ok();
    let (models, is_scrape) = found.into_parts();
    assert!(!is_scrape, "these are no load numbers");
    (row.scalars.to_vec(), models, complete)
}
