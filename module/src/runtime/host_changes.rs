//! Host changes: the topology's way into Envoy's cluster.
//!
//! The watcher compares topologies and files changes; the cluster's main-thread hook carries them
//! out. An added endpoint becomes a candidate only after the main thread has filled the host table;
//! a removed one first stops being a candidate, then loses its table entry, and its host goes when
//! its claims are zero or a grace has passed. A host is shared by the slots that name its address,
//! and goes with the last of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use inlane_core::endpoint::Slot;
use parking_lot::{Condvar, Mutex};

use crate::cluster::hosts::{HostPtr, HostTable};

/// One change of a cluster's hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// An endpoint is to get a host.
    Add {
        /// The endpoint's slot.
        slot: Slot,
        /// `ip:port` or `[ip]:port`.
        address: String,
    },
    /// An endpoint is to lose its table entry; the host stays for requests in flight.
    Clear {
        /// The endpoint's slot.
        slot: Slot,
    },
    /// The endpoint's host may go.
    Remove {
        /// The endpoint's slot.
        slot: Slot,
        /// Its address.
        address: String,
    },
}

/// Wakes a cluster's main-thread hook. Safe from any thread.
pub trait Wake: Send + Sync {
    /// Asks for the hook to run.
    fn wake(&self);
}

/// The hosts of one cluster: the table that workers read and the changes that wait.
pub struct PodsHosts {
    /// Slot → host.
    pub table: HostTable,
    waiting: Mutex<Vec<HostChange>>,
    filed: AtomicU64,
    done: Mutex<u64>,
    changed: Condvar,
    wake: Box<dyn Wake>,
    by_address: Mutex<HashMap<String, Vec<Slot>>>,
}

impl std::fmt::Debug for PodsHosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodsHosts").finish_non_exhaustive()
    }
}

impl PodsHosts {
    /// Hosts of a cluster whose main-thread hook `wake` calls.
    pub fn new(capacity: usize, wake: Box<dyn Wake>) -> Self {
        Self {
            table: HostTable::new(capacity),
            waiting: Mutex::default(),
            filed: AtomicU64::new(0),
            done: Mutex::default(),
            changed: Condvar::new(),
            wake,
            by_address: Mutex::default(),
        }
    }

    fn file(&self, changes: &[HostChange]) -> u64 {
        let filed = {
            let mut waiting = self.waiting.lock();
            waiting.extend_from_slice(changes);
            self.filed.fetch_add(1, Ordering::Relaxed) + 1
        };
        self.wake.wake();
        filed
    }

    fn wait(&self, filed: u64, until: Instant) {
        let mut done = self.done.lock();
        while *done < filed {
            if self.changed.wait_until(&mut done, until).timed_out() {
                return;
            }
        }
    }

    /// Carries out what waits. Main thread only; `cluster` is Envoy's.
    pub fn apply(&self, cluster: &dyn HostOperations) {
        let (changes, filed) = {
            let mut waiting = self.waiting.lock();
            (std::mem::take(&mut *waiting), self.filed.load(Ordering::Relaxed))
        };
        let mut by_address = self.by_address.lock();
        for change in changes {
            match change {
                HostChange::Add { slot, address } => {
                    if let Some(host) = cluster.find_or_add(&address) {
                        self.table.set(slot, host);
                        by_address.entry(address).or_default().push(slot);
                    }
                }
                HostChange::Clear { slot } => self.table.clear(slot),
                HostChange::Remove { slot, address } => {
                    self.table.clear(slot);
                    let Some(slots) = by_address.get_mut(&address) else { continue };
                    slots.retain(|other| *other != slot);
                    if slots.is_empty() {
                        by_address.remove(&address);
                        cluster.remove(&address);
                    }
                }
            }
        }
        drop(by_address);
        *self.done.lock() = filed;
        self.changed.notify_all();
    }
}

/// What the main thread can do with a cluster's hosts.
pub trait HostOperations {
    /// The host of an address, added when it is new; `None` when Envoy refuses the address.
    fn find_or_add(&self, address: &str) -> Option<HostPtr>;
    /// Removes the host of an address.
    fn remove(&self, address: &str);
}

/// The clusters that follow one topology.
#[derive(Debug, Default)]
pub struct Clusters(Mutex<Attached>);

#[derive(Debug, Default)]
struct Attached {
    clusters: Vec<Weak<PodsHosts>>,
    present: Vec<(Slot, String)>,
}

impl Clusters {
    /// Adds a cluster; it gets the hosts that are present now.
    pub fn attach(&self, hosts: &Arc<PodsHosts>) {
        let mut attached = self.0.lock();
        let add = |(slot, address): &(Slot, String)| HostChange::Add {
            slot: *slot,
            address: address.clone(),
        };
        let changes: Vec<_> = attached.present.iter().map(add).collect();
        hosts.file(&changes);
        attached.clusters.push(Arc::downgrade(hosts));
    }

    /// Files changes with every cluster and waits up to `limit` until they are carried out.
    pub fn change(&self, changes: &[HostChange], limit: Duration) {
        let clusters: Vec<Arc<PodsHosts>> = {
            let mut attached = self.0.lock();
            for change in changes {
                match change {
                    HostChange::Add { slot, address } => {
                        attached.present.push((*slot, address.clone()));
                    }
                    HostChange::Clear { slot } => attached.present.retain(|(s, _)| s != slot),
                    HostChange::Remove { .. } => {}
                }
            }
            attached.clusters.retain(|cluster| cluster.strong_count() > 0);
            attached.clusters.iter().filter_map(Weak::upgrade).collect()
        };
        let until = Instant::now() + limit;
        let filed: Vec<u64> = clusters.iter().map(|cluster| cluster.file(changes)).collect();
        for (cluster, filed) in clusters.iter().zip(filed) {
            cluster.wait(filed, until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    struct NoWake;

    impl Wake for NoWake {
        fn wake(&self) {}
    }

    #[derive(Default)]
    struct FakeCluster(RefCell<BTreeMap<String, usize>>);

    impl HostOperations for FakeCluster {
        fn find_or_add(&self, address: &str) -> Option<HostPtr> {
            if address == "bad" {
                return None;
            }
            let mut hosts = self.0.borrow_mut();
            let next = 0x100 + hosts.len();
            Some(*hosts.entry(address.to_owned()).or_insert(next) as HostPtr)
        }

        fn remove(&self, address: &str) {
            self.0.borrow_mut().remove(address);
        }
    }

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 1 }
    }

    fn add(index: u32, address: &str) -> HostChange {
        HostChange::Add { slot: slot(index), address: address.into() }
    }

    #[test]
    fn hosts_follow_the_topology() {
        let clusters = Clusters::default();
        let hosts = Arc::new(PodsHosts::new(8, Box::new(NoWake)));
        clusters.change(&[add(0, "10.0.0.1:1")], Duration::ZERO);
        clusters.attach(&hosts);
        let envoy = FakeCluster::default();
        hosts.apply(&envoy);
        assert!(hosts.table.get(slot(0)).is_some());

        clusters.change(&[add(1, "10.0.0.1:1"), add(2, "bad")], Duration::ZERO);
        hosts.apply(&envoy);
        assert_eq!(hosts.table.get(slot(0)), hosts.table.get(slot(1)));
        assert_eq!(hosts.table.get(slot(2)), None);

        let remove = |n| HostChange::Remove { slot: slot(n), address: "10.0.0.1:1".into() };
        clusters.change(&[HostChange::Clear { slot: slot(0) }, remove(0)], Duration::ZERO);
        hosts.apply(&envoy);
        assert_eq!(hosts.table.get(slot(0)), None);
        assert!(hosts.table.get(slot(1)).is_some(), "the address has another tenant");
        assert_eq!(envoy.0.borrow().len(), 1);

        clusters.change(&[HostChange::Clear { slot: slot(1) }, remove(1)], Duration::ZERO);
        hosts.apply(&envoy);
        assert!(envoy.0.borrow().is_empty());
    }

    #[test]
    fn waiting_ends_with_the_main_thread() {
        let clusters = Arc::new(Clusters::default());
        let hosts = Arc::new(PodsHosts::new(8, Box::new(NoWake)));
        clusters.attach(&hosts);
        let waiter = std::thread::spawn({
            let clusters = Arc::clone(&clusters);
            move || clusters.change(&[add(3, "10.0.0.9:1")], Duration::from_secs(30))
        });
        let envoy = FakeCluster::default();
        while hosts.table.get(slot(3)).is_none() {
            hosts.apply(&envoy);
            std::thread::yield_now();
        }
        hosts.apply(&envoy);
        waiter.join().unwrap();
    }
}
