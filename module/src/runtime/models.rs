//! Latency models on their way to the plugins that predict.
//!
//! The watcher thread reads a model document once per generation, decodes it and hands it to every
//! instance that predicts, including those that a later configuration brings. Workers never wait for
//! that: an instance swaps a pointer. A document that cannot be used changes nothing.

use inlane_latency::Predictor;
use inlane_plugins::predicted_latency::LatencyState;
use inlane_segment::{Document, Snapshot};

use super::Runtime;

/// What the watcher remembers of models.
#[derive(Debug, Default)]
pub(super) struct Models {
    seen: Option<u64>,
    predictor: Option<Predictor>,
}

impl Models {
    /// Another segment counts generations from the start. What was learned from the one before stays
    /// until there is something better.
    pub(super) fn start_over(&mut self) {
        self.seen = None;
    }

    /// Reads a new document, and hands what is known to the plugins where it is new, or where
    /// `plugins_changed`.
    ///
    /// # Errors
    /// A document that cannot be used, once.
    pub(super) fn follow(
        &mut self,
        runtime: &Runtime,
        snapshot: &Snapshot,
        plugins_changed: bool,
    ) -> Result<(), String> {
        let mut changed = plugins_changed;
        let mut refused = Ok(());
        let generation = snapshot.document_generation(Document::Model);
        if self.seen != Some(generation) {
            match snapshot.document(Document::Model) {
                Ok(None) => self.seen = Some(generation),
                Ok(Some(document)) => {
                    self.seen = Some(document.generation);
                    match Predictor::decode(&document.bytes) {
                        Ok(predictor) => {
                            self.predictor = Some(predictor);
                            changed = true;
                        }
                        Err(error) => refused = Err(format!("latency models: {error}")),
                    }
                }
                Err(error) => refused = Err(error.to_string()),
            }
        }
        if changed && let Some(predictor) = &self.predictor {
            for (_, state) in runtime.kept.all::<LatencyState>() {
                state.set_predictor(Some(Box::new(predictor.clone())));
            }
        }
        refused
    }

    /// Generation of the document that was last looked at.
    pub(super) fn generation(&self) -> u64 {
        self.seen.unwrap_or(0)
    }
}
