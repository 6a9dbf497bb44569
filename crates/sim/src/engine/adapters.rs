//! Which LoRA adapters run and wait.
//!
//! At most `limit` different adapters run at once. For metrics, every change of the two sets is remembered with
//! its time, as the engine being simulated keeps each label set it has ever shown.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

/// Label sets kept for the metric; the oldest are dropped.
const HISTORY: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub struct Adapters {
    limit: usize,
    running: BTreeMap<Arc<str>, usize>,
    waiting: BTreeMap<Arc<str>, usize>,
    history: Vec<Snapshot>,
}

/// The adapters that ran and waited at one time, as comma-separated lists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Adapters with running requests.
    pub running: String,
    /// Adapters with waiting requests.
    pub waiting: String,
    /// When these sets were last entered.
    pub at: SystemTime,
}

impl Adapters {
    /// None yet; at most `limit` may run at once.
    pub fn new(limit: usize) -> Self {
        let mut adapters =
            Self { limit, running: BTreeMap::new(), waiting: BTreeMap::new(), history: Vec::new() };
        adapters.remember();
        adapters
    }

    /// A job of `adapter` begins to wait.
    pub fn wait(&mut self, adapter: Option<&Arc<str>>) {
        self.change(adapter, |this, adapter| add(&mut this.waiting, adapter));
    }

    /// A waiting job of `adapter` leaves the queue without running.
    pub fn leave(&mut self, adapter: Option<&Arc<str>>) {
        self.change(adapter, |this, adapter| remove(&mut this.waiting, adapter));
    }

    /// A waiting job of `adapter` begins to run.
    pub fn start(&mut self, adapter: Option<&Arc<str>>) {
        self.change(adapter, |this, adapter| {
            remove(&mut this.waiting, adapter);
            add(&mut this.running, adapter);
        });
    }

    /// A running job of `adapter` stops.
    pub fn stop(&mut self, adapter: Option<&Arc<str>>) {
        self.change(adapter, |this, adapter| remove(&mut this.running, adapter));
    }

    /// Whether a job of `adapter` can run without loading anything.
    pub fn is_loaded(&self, adapter: Option<&Arc<str>>) -> bool {
        adapter.is_none_or(|adapter| self.running.contains_key(adapter))
    }

    /// Whether another adapter may be loaded.
    pub fn has_room(&self) -> bool {
        self.running.len() < self.limit
    }

    /// How many adapters may run at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Every label set so far with its latest time.
    pub fn history(&self) -> &[Snapshot] {
        &self.history
    }

    fn change(&mut self, adapter: Option<&Arc<str>>, change: impl FnOnce(&mut Self, &Arc<str>)) {
        let Some(adapter) = adapter else { return };
        let sizes = (self.running.len(), self.waiting.len());
        change(self, adapter);
        if sizes != (self.running.len(), self.waiting.len()) {
            self.remember();
        }
    }

    fn remember(&mut self) {
        let join = |set: &BTreeMap<Arc<str>, usize>| {
            set.keys().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
        };
        let now = Snapshot {
            running: join(&self.running),
            waiting: join(&self.waiting),
            at: SystemTime::now(),
        };
        let same = |old: &&mut Snapshot| old.running == now.running && old.waiting == now.waiting;
        if let Some(known) = self.history.iter_mut().find(same) {
            known.at = now.at;
            return;
        }
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(now);
    }
}

fn add(set: &mut BTreeMap<Arc<str>, usize>, adapter: &Arc<str>) {
    *set.entry(Arc::clone(adapter)).or_default() += 1;
}

fn remove(set: &mut BTreeMap<Arc<str>, usize>, adapter: &Arc<str>) {
    if let Some(count) = set.get_mut(adapter) {
        *count -= 1;
        if *count == 0 {
            set.remove(adapter);
        }
    }
}
