//! `topology-affinity-scorer`: prefers endpoints that stand close to the peer.

use std::sync::Arc;

use inlane_core::columns::{Col, Topology};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::topology::{Level, level, peer};
use super::topology_extractor;

/// The type `topology-affinity-scorer`.
pub const TYPE: PluginType = PluginType::new("topology-affinity-scorer", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Instance that publishes places; empty = `topology-extractor`.
    topology_producer_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { topology_producer_name } = params.decode()?;
    let col = build.optional(&topology_producer_name, topology_extractor::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(TopologyAffinity { col })))
}

/// By the smallest place that an endpoint shares with the peer: host 1, rack 0.20, zone 0.05,
/// region 0.02, none 0; without a peer 0 (llm-d-router `topology-affinity-scorer`).
#[derive(Debug)]
struct TopologyAffinity {
    col: Col<Topology>,
}

impl Scorer for TopologyAffinity {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let Some(peer) = peer(cx, self.col) else {
            out.fill(0.0);
            return Ok(());
        };
        for (&ix, out) in candidates.iter().zip(out) {
            *out = match level(cx, self.col, &peer, ix) {
                Level::Host => 1.0,
                Level::Rack => 0.20,
                Level::Zone => 0.05,
                Level::Region => 0.02,
                Level::None => 0.0,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Topology;

    use crate::testing::World;

    #[test]
    fn closer_is_better() {
        let mut world = World::new(6);
        let scorer = world.build("topology-affinity-scorer", "").unwrap();
        let col = world.column::<Topology>("topology-extractor");
        let at = |host, rack, zone, region| Some(Topology { host, rack, zone, region });
        let places =
            [at(1, 1, 1, 1), at(2, 1, 1, 1), at(3, 2, 1, 1), at(4, 3, 2, 1), at(5, 4, 3, 2), None];
        world.columns.get_mut(col).copy_from_slice(&places);
        world.peer = Some(0);
        assert_eq!(world.score(&scorer), [1.0, 0.2, 0.05, 0.02, 0.0, 0.0]);
        world.peer = Some(5);
        assert_eq!(world.score(&scorer), [0.0; 6]);
        world.peer = None;
        assert_eq!(world.score(&scorer), [0.0; 6]);
    }
}
