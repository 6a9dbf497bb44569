//! One page on its way through everything that reads it.

use std::rc::Rc;
use std::sync::Arc;

use inlane_core::cycle::isolate;
use inlane_core::decision::PluginError;
use inlane_core::plugin::Extraction;
use inlane_engine::{EngineSample, Scanner};

use super::fetch::Body;
use super::source::Target;

/// The readers of one target's pages.
pub(crate) struct Page {
    target: Rc<Target>,
    scanner: Option<Scanner>,
    /// By extractor of the source; empty between two pages.
    extractions: Vec<Reading>,
}

/// A plugin at work on a page, or how it failed.
pub(super) type Reading = Result<Box<dyn Extraction>, PluginError>;

impl Page {
    pub(super) fn new(target: Target) -> Self {
        let scanner = target.engine.as_ref().map(|(plan, _)| Scanner::new(Arc::clone(plan)));
        Self { target: Rc::new(target), scanner, extractions: Vec::new() }
    }

    pub(super) fn target(&self) -> &Rc<Target> {
        &self.target
    }

    /// The load numbers of the page, which is complete.
    pub(super) fn sample(&mut self) -> Option<&EngineSample> {
        Some(self.scanner.as_mut()?.finish())
    }

    /// The extractions of the page, which is complete, by extractor of the source.
    pub(super) fn extractions(&mut self) -> Vec<Reading> {
        std::mem::take(&mut self.extractions)
    }
}

impl Body for Page {
    fn begin(&mut self) {
        if let Some(scanner) = &mut self.scanner {
            scanner.reset();
        }
        let readers = self.target.source.extractors.iter();
        let endpoint = &self.target.endpoint;
        let begun = readers.map(|reader| isolate(|| Ok(reader.extractor.begin(endpoint))));
        self.extractions.clear();
        self.extractions.extend(begun);
    }

    fn piece(&mut self, bytes: &[u8]) {
        if let Some(scanner) = &mut self.scanner {
            scanner.feed(bytes);
        }
        for reading in &mut self.extractions {
            let Ok(extraction) = reading else { continue };
            let read = isolate(|| {
                extraction.chunk(bytes);
                Ok(())
            });
            if let Err(error) = read {
                *reading = Err(error);
            }
        }
    }
}
