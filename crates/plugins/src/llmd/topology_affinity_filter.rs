//! `topology-affinity-filter`: keeps the endpoints that stand close to the peer.

use std::sync::Arc;

use inlane_core::columns::{Col, Topology};
use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::topology::{Level, level, peer};
use super::topology_extractor;

/// The type `topology-affinity-filter`.
pub const TYPE: PluginType = PluginType::new("topology-affinity-filter", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The largest place to share: `host`, `rack`, `zone` or `region`; empty = `host`.
    min_affinity: String,
    /// Instance that publishes places; empty = `topology-extractor`.
    topology_producer_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { min_affinity, topology_producer_name } = params.decode()?;
    let largest = match min_affinity.as_str() {
        "" | "host" => Level::Host,
        "rack" => Level::Rack,
        "zone" => Level::Zone,
        "region" => Level::Region,
        other => {
            let message = format!("expected host, rack, zone or region, found {other:?}");
            return Err(BuildError::field("minAffinity", message));
        }
    };
    let col = build.optional(&topology_producer_name, topology_extractor::TYPE.name);
    Ok(Roles::default().filter(Arc::new(TopologyAffinity { col, largest })))
}

/// Keeps the endpoints that share a place with the peer, `minAffinity` or a smaller one
/// (llm-d-router `topology-affinity-filter`). Everything stays when there is no peer, when nobody
/// knows where it stands, and when nobody is close.
#[derive(Debug)]
struct TopologyAffinity {
    col: Col<Topology>,
    largest: Level,
}

impl Filter for TopologyAffinity {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let Some(peer) = peer(cx, self.col) else { return Ok(()) };
        let is_close = |ix| level(cx, self.col, &peer, ix) <= self.largest;
        if candidates.as_slice().iter().any(|&ix| is_close(ix)) {
            candidates.retain(|ix| if is_close(ix) { Ok(()) } else { Err("far from the peer") });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::Request;

    use crate::testing::{Idle, World};

    const PLUGIN: &str = "topology-affinity-filter";
    const HOST: &str = "kubernetes.io/hostname";
    const RACK: &str = "topology.kubernetes.io/rack";
    const ZONE: &str = "topology.kubernetes.io/zone";
    const REGION: &str = "topology.kubernetes.io/region";

    fn kept(parameters: &str, peer: Option<u32>) -> Vec<u32> {
        let mut world = World::labelled(&[
            &[(HOST, "n2"), (RACK, "k1"), (ZONE, "z1"), (REGION, "r1")],
            &[(HOST, "n3"), (RACK, "k2"), (ZONE, "z2"), (REGION, "r1")],
            &[(HOST, "n1"), (RACK, "k1"), (ZONE, "z1"), (REGION, "r1")],
            &[],
            &[(REGION, "r9")],
        ]);
        let extractor = world.build("topology-extractor", "").unwrap();
        let filter = world.build(PLUGIN, parameters).unwrap();
        world.produce(&extractor, &Request::default(), &Idle).unwrap();
        world.peer = peer;
        world.filter(&filter)
    }

    #[test]
    fn keeps_what_shares_a_place() {
        assert_eq!(kept("{minAffinity: rack}", Some(2)), [0, 2]);
        assert_eq!(kept("", Some(2)), [2]);
        assert_eq!(kept("{minAffinity: zone}", Some(2)), [0, 2]);
        assert_eq!(kept("{minAffinity: region}", Some(2)), [0, 1, 2]);
    }

    #[test]
    fn fails_open() {
        let all = [0, 1, 2, 3, 4];
        assert_eq!(kept("", None), all);
        assert_eq!(kept("", Some(3)), all, "nobody knows where the peer stands");
        assert_eq!(kept("", Some(4)), all, "nobody is close");
        assert_eq!(kept("{topologyProducerName: other}", Some(2)), all);
        assert_eq!(kept("", Some(99)), all);
    }

    #[test]
    fn levels_are_checked() {
        let mut world = World::new(0);
        let error = world.build(PLUGIN, "{minAffinity: node}").err().unwrap();
        assert_eq!(error.field.as_deref(), Some("minAffinity"));
    }
}
