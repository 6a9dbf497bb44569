//! `served-source` and `served-extractor`: how many requests every engine has finished.
//!
//! A source says which page to fetch and how often, an extractor reads it as it arrives and reports
//! custom metrics, which plugins find in columns of their names.

use std::sync::Arc;
use std::time::Duration;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Extraction, Extractor, Findings, Part, Roles, Scraper};
use inlane_core::registry::PluginType;

/// Name of the custom metric.
pub const SERVED: &str = "requests-served";

/// The type `served-source`.
pub const SOURCE: PluginType = PluginType::new("served-source", |_, _| {
    Ok(Roles::default().part(Part::DataSource).scraper(Arc::new(Source)))
});

/// The type `served-extractor`.
pub const EXTRACTOR: PluginType = PluginType::new("served-extractor", |build, _| {
    build.report(SERVED);
    Ok(Roles::default().part(Part::Extractor).extractor(Arc::new(Served)))
});

struct Source;

impl Scraper for Source {
    fn path(&self) -> &str {
        "/metrics"
    }

    fn interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

struct Served;

impl Extractor for Served {
    fn begin(&self, _: &Endpoint) -> Box<dyn Extraction> {
        Box::new(Page { line: Vec::new(), served: None })
    }
}

/// Longest line that is looked at: what is longer is not ours.
const MAX_LINE: usize = 1 << 10;

/// One page: adds up `vllm:request_success_total`, whatever the reason to finish.
struct Page {
    line: Vec<u8>,
    served: Option<f64>,
}

impl Page {
    fn take_line(&mut self) {
        let value = std::str::from_utf8(&self.line).ok().and_then(|line| {
            let rest = line.strip_prefix("vllm:request_success_total")?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        if let Some(value) = value {
            *self.served.get_or_insert(0.0) += value;
        }
        self.line.clear();
    }
}

impl Extraction for Page {
    fn chunk(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.take_line(),
                byte if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn finish(mut self: Box<Self>, found: &mut Findings<'_>) -> Result<(), PluginError> {
        self.take_line();
        let served = self
            .served
            .ok_or_else(|| PluginError::new("the page has no vllm:request_success_total"))?;
        // The first metric, and the only one, that the extractor declared.
        found.scalar(0, served);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::snapshot::MetricsRow;

    use super::*;

    #[test]
    fn every_split_of_a_page_adds_up() {
        let text = b"# HELP x\nvllm:request_success_total{finished_reason=\"stop\"} 3\nother 9\n\
                     vllm:request_success_total{finished_reason=\"length\"} 4";
        for at in 0..text.len() {
            let mut page = Box::new(Page { line: Vec::new(), served: None });
            page.chunk(&text[..at]);
            page.chunk(&text[at..]);
            let mut row = MetricsRow::default();
            page.finish(&mut Findings::new(&mut row, &[Some(0)])).expect("the metric is there");
            assert_eq!(row.scalars[0], 7.0, "split at {at}");
        }
    }
}
