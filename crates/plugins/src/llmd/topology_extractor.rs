//! `topology-extractor`: where endpoints stand, from the labels of their pods.

use std::any::Any;
use std::sync::Arc;

use inlane_core::columns::{Col, Columns, Topology};
use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::{Endpoint, EndpointSet};
use inlane_core::plugin::{DataProducer, Part, PerTopology, Producing, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use inlane_core::state::CycleState;
use serde::Deserialize;

const HOST: &str = "kubernetes.io/hostname";
const RACK: &str = "topology.kubernetes.io/rack";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// The type `topology-extractor`.
pub const TYPE: PluginType = PluginType::new("topology-extractor", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters {} = params.decode()?;
    let plugin = Arc::new(TopologyExtractor { instance: build.instance(), col: build.produce() });
    Ok(Roles::default().part(Part::Extractor).per_topology(plugin.clone()).producer(plugin))
}

/// Digests of the four labels, once per topology; requests get a copy. An endpoint without any of
/// them has no topology.
#[derive(Debug)]
struct TopologyExtractor {
    instance: PluginIx,
    col: Col<Topology>,
}

/// Where each endpoint stands.
struct Places(Vec<Option<Topology>>);

fn place(endpoint: &Endpoint) -> Option<Topology> {
    let digest = |label| Topology::digest(endpoint.label(label).unwrap_or_default());
    let found = Topology {
        host: digest(HOST),
        rack: digest(RACK),
        zone: digest(ZONE),
        region: digest(REGION),
    };
    (found != Topology::default()).then_some(found)
}

impl PerTopology for TopologyExtractor {
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync> {
        Box::new(Places(endpoints.as_slice().iter().map(place).collect()))
    }
}

impl DataProducer for TopologyExtractor {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let Some(Places(places)) = cx.settled.get(self.instance) else {
            return Err(PluginError::new("the labels of the pool have not been read"));
        };
        for (cell, place) in columns.get_mut(self.col).iter_mut().zip(places) {
            *cell = *place;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Topology;
    use inlane_core::plugin::Part;
    use inlane_core::request::Request;

    use super::{HOST, RACK, REGION, ZONE};
    use crate::testing::{Idle, World};

    #[test]
    fn labels_become_digests_for_every_endpoint() {
        let mut world = World::labelled(&[
            &[(HOST, "n1"), (RACK, "k1"), (ZONE, "z1"), (REGION, "r1")],
            &[(ZONE, "z1"), (REGION, "")],
            &[("zone", "z1")],
        ]);
        let extractor = world.build("topology-extractor", "").unwrap();
        assert!(extractor.roles.plays(Part::Extractor));
        world.produce(&extractor, &Request::default(), &Idle).unwrap();
        let col = world.column::<Topology>("topology-extractor");
        let zone = Topology { zone: Topology::digest("z1"), ..Default::default() };
        let all = Topology {
            host: Topology::digest("n1"),
            rack: Topology::digest("k1"),
            region: Topology::digest("r1"),
            ..zone
        };
        assert_eq!(world.columns.get(col), [Some(all), Some(zone), None]);
    }

    #[test]
    fn there_are_no_parameters() {
        let mut world = World::new(0);
        assert!(world.build("topology-extractor", "{}").is_ok());
        assert!(world.build("topology-extractor", "{label: a}").is_err());
    }
}
