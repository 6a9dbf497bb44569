//! Endpoints: one pod, or one rank of a pod that serves several ports.

use std::collections::{BTreeMap, HashMap};

use crate::snapshot::ScalarKey;

/// Index of an endpoint in its [`EndpointSet`], dense from 0.
pub type EndpointIx = u32;

/// Stands for no endpoint where an index is stored.
const NOBODY: EndpointIx = EndpointIx::MAX;
/// Slots beyond are not found by index: no segment has as many, and a topology may say anything.
const MAX_INDEX: usize = 1 << 16;

/// A place in shared memory that belongs to one endpoint for as long as the endpoint lives.
///
/// The index selects rows and ledger cells; the generation tells a later tenant of the same place
/// from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Slot {
    /// Row index, below the segment's capacity.
    pub index: u32,
    /// Changes each time the index gets a new tenant; 12 bits are significant.
    pub generation: u32,
}

/// What is known of an endpoint apart from its changing numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `namespace/name`, unique in the pool, the identity that users see.
    pub id: String,
    /// Kubernetes namespace, `default` where there is none.
    pub namespace: String,
    /// Name within the namespace; for Kubernetes pods `<pod>-rank-<n>`.
    pub name: String,
    /// Name of the pod, without the rank suffix.
    pub pod_name: String,
    /// IP address (v6 without brackets).
    pub address: String,
    /// Serving port.
    pub port: u16,
    /// `address:port`, or `[address]:port` for IPv6: what Envoy calls the host.
    pub host_port: String,
    /// Index of the target port this endpoint serves.
    pub rank: u32,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Where its numbers live.
    pub slot: Slot,
}

impl Endpoint {
    /// Formats `address:port` the way Envoy expects it, IPv6 in brackets.
    pub fn join_host_port(address: &str, port: u16) -> String {
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    }

    /// The value of a pod label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// The pool's members at one topology generation, ordered by id.
///
/// Immutable once built: a new topology is a new set, swapped as a whole.
#[derive(Debug, Default)]
pub struct EndpointSet {
    generation: u64,
    endpoints: Vec<Endpoint>,
    slots: Vec<Slot>,
    /// Endpoint by slot index, [`NOBODY`] where there is none.
    by_slot: Vec<EndpointIx>,
    by_id: HashMap<String, EndpointIx>,
    adapters: Vec<String>,
    scalars: Vec<ScalarKey>,
}

impl EndpointSet {
    /// Builds a set. Endpoints are ordered by id; of two with the same id the last one stays.
    pub fn new(generation: u64, endpoints: Vec<Endpoint>) -> Self {
        let ordered: BTreeMap<String, Endpoint> =
            endpoints.into_iter().map(|e| (e.id.clone(), e)).collect();
        let endpoints: Vec<Endpoint> = ordered.into_values().collect();
        let by_id = endpoints.iter().zip(0..).map(|(e, ix)| (e.id.clone(), ix)).collect();
        let slots: Vec<Slot> = endpoints.iter().map(|e| e.slot).collect();
        let places = slots.iter().map(|slot| slot.index as usize).filter(|&i| i < MAX_INDEX);
        let mut by_slot = vec![NOBODY; places.max().map_or(0, |last| last + 1)];
        for (slot, ix) in slots.iter().zip(0..) {
            if let Some(place) = by_slot.get_mut(slot.index as usize) {
                *place = ix;
            }
        }
        let (adapters, scalars) = Default::default();
        Self { generation, endpoints, slots, by_slot, by_id, adapters, scalars }
    }

    /// Gives adapter names their bits: bit `i` stands for the name at `i`, of which 64 count.
    #[must_use]
    pub fn with_adapters(mut self, mut names: Vec<String>) -> Self {
        names.truncate(64);
        self.adapters = names;
        self
    }

    /// Says which custom metrics the rows of these endpoints have, by position.
    #[must_use]
    pub fn with_scalars(mut self, keys: Vec<ScalarKey>) -> Self {
        self.scalars = keys;
        self
    }

    /// Custom metrics of a row, by position.
    pub fn scalars(&self) -> &[ScalarKey] {
        &self.scalars
    }

    /// Names of LoRA adapters and models, by bit.
    pub fn adapters(&self) -> &[String] {
        &self.adapters
    }

    /// The set that holds the adapter or model `name` alone; empty when nobody has it.
    pub fn adapter_bit(&self, name: &str) -> u64 {
        self.adapters.iter().position(|known| known == name).map_or(0, |bit| 1 << bit)
    }

    /// The topology generation that this set was built from.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether the pool has no member.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// All endpoints, ordered by id; the position is the [`EndpointIx`].
    pub fn as_slice(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The slots of all endpoints, side by side: what a loop over a large pool should read.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The endpoint at `ix`, if there is one.
    pub fn get(&self, ix: EndpointIx) -> Option<&Endpoint> {
        self.endpoints.get(ix as usize)
    }

    /// Looks an endpoint up by the index of its slot, whatever the generation; of several the last.
    #[inline]
    pub fn at_slot(&self, index: u32) -> Option<EndpointIx> {
        self.by_slot.get(index as usize).copied().filter(|&ix| ix != NOBODY)
    }

    /// Looks an endpoint up by address and port; of several the first. Linear.
    pub fn at_address(&self, address: &str, port: u16) -> Option<EndpointIx> {
        let at = self.endpoints.iter().position(|e| e.port == port && e.address == address)?;
        u32::try_from(at).ok()
    }

    /// Looks an endpoint up by `namespace/name`.
    pub fn find(&self, id: &str) -> Option<EndpointIx> {
        self.by_id.get(id).copied()
    }
}

impl std::ops::Index<EndpointIx> for EndpointSet {
    type Output = Endpoint;

    fn index(&self, ix: EndpointIx) -> &Endpoint {
        &self.endpoints[ix as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, port: u16) -> Endpoint {
        Endpoint {
            id: format!("default/{name}"),
            namespace: "default".into(),
            name: name.into(),
            pod_name: name.into(),
            address: "10.0.0.1".into(),
            port,
            host_port: Endpoint::join_host_port("10.0.0.1", port),
            rank: 0,
            labels: BTreeMap::new(),
            slot: Slot::default(),
        }
    }

    #[test]
    fn order_is_by_id_and_the_last_duplicate_stays() {
        let set = EndpointSet::new(7, vec![endpoint("b", 1), endpoint("a", 2), endpoint("b", 3)]);
        let ids: Vec<_> = set.as_slice().iter().map(|e| (e.id.as_str(), e.port)).collect();
        assert_eq!(ids, [("default/a", 2), ("default/b", 3)]);
        assert_eq!(set.find("default/b"), Some(1));
        assert_eq!(set[0].host_port, "10.0.0.1:2");
        assert_eq!(set.generation(), 7);
        assert_eq!(set.slots().len(), set.len());
    }

    #[test]
    fn slots_lead_to_their_endpoints() {
        let at = |name: &str, index| {
            let slot = Slot { index, generation: 1 };
            Endpoint { slot, ..endpoint(name, 1) }
        };
        let set = EndpointSet::new(1, vec![at("b", 0), at("a", 5), at("c", u32::MAX)]);
        let found: Vec<_> = [0, 1, 5, 6, u32::MAX].map(|index| set.at_slot(index)).into();
        assert_eq!(found, [Some(1), None, Some(0), None, None]);
        assert_eq!(EndpointSet::default().at_slot(0), None);
    }

    #[test]
    fn ipv6_hosts_are_bracketed() {
        assert_eq!(Endpoint::join_host_port("fd00::1", 8000), "[fd00::1]:8000");
    }
}
