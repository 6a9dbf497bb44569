//! How close endpoints stand to each other.

use inlane_core::columns::{Col, Topology};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::Cycle;

/// The smallest place that two endpoints share, the tightest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Host,
    Rack,
    Zone,
    Region,
    None,
}

impl Level {
    /// The place that two endpoints share. The names are compared one by one: endpoints of one rack
    /// are close even if their zones differ.
    pub(super) fn shared(a: &Topology, b: &Topology) -> Self {
        let same = |a: u64, b: u64| a != 0 && a == b;
        if same(a.host, b.host) {
            Self::Host
        } else if same(a.rack, b.rack) {
            Self::Rack
        } else if same(a.zone, b.zone) {
            Self::Zone
        } else if same(a.region, b.region) {
            Self::Region
        } else {
            Self::None
        }
    }
}

/// Where the endpoint stands that the choice should be close to, if that is known.
pub(super) fn peer(cx: &Cycle<'_>, col: Col<Topology>) -> Option<Topology> {
    cx.columns.get(col).get(cx.peer? as usize).copied().flatten()
}

/// The place that an endpoint shares with the peer.
pub(super) fn level(cx: &Cycle<'_>, col: Col<Topology>, peer: &Topology, ix: EndpointIx) -> Level {
    let own = cx.columns.get(col).get(ix as usize).and_then(Option::as_ref);
    own.map_or(Level::None, |own| Level::shared(own, peer))
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Topology;

    use super::Level;

    #[test]
    fn names_are_compared_one_by_one() {
        let at = |host, rack, zone, region| Topology { host, rack, zone, region };
        let peer = at(1, 2, 3, 4);
        for (other, level) in [
            (at(1, 9, 9, 9), Level::Host),
            (at(9, 2, 9, 9), Level::Rack),
            (at(0, 0, 3, 9), Level::Zone),
            (at(9, 9, 9, 4), Level::Region),
            (at(9, 9, 9, 9), Level::None),
            (at(0, 0, 0, 0), Level::None),
        ] {
            assert_eq!(Level::shared(&other, &peer), level, "{other:?}");
        }
        assert_eq!(Level::shared(&Topology::default(), &Topology::default()), Level::None);
        assert!(Level::Host < Level::Rack && Level::Region < Level::None);
    }
}
