//! `mm-embeddings-cache-scorer`: prefers endpoints that were sent the request's images before.

use std::sync::Arc;

use inlane_core::columns::{Col, EncoderMatch};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::mm_embeddings_cache_producer;

/// The type `mm-embeddings-cache-scorer`.
pub const TYPE: PluginType = PluginType::new("mm-embeddings-cache-scorer", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Instance that publishes matches; empty = `mm-embeddings-cache-producer`.
    producer_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let found = build.require(&parameters.producer_name, mm_embeddings_cache_producer::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(MmEmbeddingsCacheScorer { found })))
}

/// Size of the items that the endpoint has, over the size of all items of the request; 0 without
/// items (llm-d-router `mm-embeddings-cache-scorer`).
#[derive(Debug)]
struct MmEmbeddingsCacheScorer {
    found: Col<EncoderMatch>,
}

impl Scorer for MmEmbeddingsCacheScorer {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let column = cx.columns.get(self.found);
        for (&ix, out) in candidates.iter().zip(out) {
            let found = column.get(ix as usize).copied().flatten().unwrap_or_default();
            *out = match found.requested {
                0 => 0.0,
                requested => found.matched as f64 / requested as f64,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::EncoderMatch;

    use crate::testing::World;

    #[test]
    fn the_share_of_known_items_is_the_score() {
        let mut world = World::new(4);
        let scorer = world.build("mm-embeddings-cache-scorer", "").unwrap();
        let column = world.column::<EncoderMatch>("mm-embeddings-cache-producer");
        let found = [Some((2, 4)), Some((3, 4)), Some((0, 0)), None];
        for (cell, found) in world.columns.get_mut(column).iter_mut().zip(found) {
            *cell = found.map(|(matched, requested)| EncoderMatch { matched, requested });
        }
        assert_eq!(world.score(&scorer), [0.5, 0.75, 0.0, 0.0]);
    }

    #[test]
    fn the_producer_may_be_named() {
        let mut world = World::new(0);
        let scorer = world.build("mm-embeddings-cache-scorer", "{producerName: mine}").unwrap();
        let key = scorer.data.requires[0].to_string();
        assert_eq!(key, "MultiModalEncoderCacheMatchInfoKey/mine");
        assert!(world.build("mm-embeddings-cache-scorer", "{producer: mine}").is_err());
    }
}
