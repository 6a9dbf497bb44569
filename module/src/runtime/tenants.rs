//! Who has a slot, and who is on the way out: the topology's course through ledger and clusters.
//!
//! A new endpoint gets its ledger cell and its hosts before workers can choose it. One that is gone
//! keeps its table entry for [`SETTLE`], for requests that were decided before; its host goes as long
//! again after that, or later: when its claims are zero or the grace has passed.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use envoy_proxy_dynamic_modules_rust_sdk::envoy_log_warn;
use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_segment::Ledger;

use super::served::slot_generation;
use super::{Clusters, HostChange};

/// How long an added endpoint waits for Envoy's main thread before it is published regardless.
const HOSTS_LIMIT: Duration = Duration::from_secs(2);
/// How long a worker may still be in the middle of a decision on what was served before.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// An endpoint on its way out.
#[derive(Debug)]
struct Leaving {
    slot: Slot,
    address: String,
    since: Instant,
    /// Whether it has lost its entry in the host table.
    cleared: bool,
}

/// The endpoints that have hosts.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    /// Slot index and generation → address.
    present: BTreeMap<(u32, u32), String>,
    leaving: Vec<Leaving>,
}

impl Tenants {
    /// Gives new endpoints their ledger cell and their host before workers can choose them.
    pub(super) fn admit(&mut self, clusters: &Clusters, set: &EndpointSet, ledger: &Ledger) {
        let mut changes = Vec::new();
        for endpoint in set.as_slice() {
            let slot = endpoint.slot;
            if let Some(generation) = slot_generation(slot)
                && let Err(error) = ledger.adopt(slot.index, generation)
            {
                envoy_log_warn!("inlane: {} has no ledger cell: {error}", endpoint.id);
            }
            let (key, address) = ((slot.index, slot.generation), &endpoint.host_port);
            if self.present.get(&key) == Some(address) {
                continue;
            }
            // A directory made anew counts slots from the start: the same slot may name another
            // address, and nobody else would ever remove the old one's host.
            let left = self.leaving.iter().position(|leaving| leaving.slot == slot);
            let left = left.map(|at| self.leaving.swap_remove(at).address);
            let before = self.present.insert(key, address.clone()).or(left);
            if let Some(address) = before.filter(|before| before != address) {
                changes.push(HostChange::Clear { slot });
                changes.push(HostChange::Remove { slot, address });
            }
            changes.push(HostChange::Add { slot, address: address.clone() });
        }
        if !changes.is_empty() {
            clusters.change(&changes, HOSTS_LIMIT);
        }
    }

    /// Notes endpoints that are gone. Their table entries stay for a moment: the whole pool may have
    /// been replaced under requests that are about to ask for their host.
    pub(super) fn dismiss(&mut self, set: &EndpointSet) {
        let stays: HashSet<(u32, u32)> =
            set.slots().iter().map(|slot| (slot.index, slot.generation)).collect();
        let leaving = &mut self.leaving;
        self.present.retain(|&key, address| {
            let stays = stays.contains(&key);
            if !stays {
                leaving.push(Leaving {
                    slot: Slot { index: key.0, generation: key.1 },
                    address: std::mem::take(address),
                    since: Instant::now(),
                    cleared: false,
                });
            }
            stays
        });
    }

    /// Takes endpoints that are gone out of the host table, and a moment later lets the hosts go
    /// whose claims are zero, or whose grace has passed.
    pub(super) fn release(&mut self, clusters: &Clusters, ledger: &Ledger, grace: Duration) {
        let mut changes = Vec::new();
        self.leaving.retain_mut(|leaving| {
            let age = leaving.since.elapsed();
            if age >= SETTLE && !leaving.cleared {
                leaving.cleared = true;
                changes.push(HostChange::Clear { slot: leaving.slot });
            }
            let observed = ledger.observe(leaving.slot.index);
            let busy = slot_generation(leaving.slot) == Some(observed.generation())
                && observed.requests() > 0;
            let stays = age < 2 * SETTLE || (busy && age < grace);
            if !stays {
                let (slot, address) = (leaving.slot, leaving.address.clone());
                changes.push(HostChange::Remove { slot, address });
            }
            stays
        });
        if !changes.is_empty() {
            clusters.change(&changes, Duration::ZERO);
        }
    }
}
