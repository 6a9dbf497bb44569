//! Changes on their way to the server.
//!
//! The index never waits for the server: what finds no room here is dropped, with everything that
//! waits, and the flow is cut. Whoever sends then begins the flow anew and brings the server up to what
//! the index holds; what changes meanwhile waits behind that. A change is idempotent, and the last
//! one of a block says what the index holds: so it does no harm that some are sent after a state that
//! contains them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::Tap;

/// Pods that are remembered as gone while the server is away.
const MOST_CLEARED: usize = 16_384;

/// Something that the index has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A pod holds keys, each for an engine hash.
    Held { pod: Arc<str>, tier: u8, engine: Box<[u64]>, keys: Box<[u64]> },
    /// A pod no longer holds an engine hash.
    Released { pod: Arc<str>, tier: u8, engine: u64, keys: Box<[u64]> },
    /// A pod holds nothing of what it held: tiers and keys.
    Cleared { pod: Arc<str>, held: Box<[(u8, u64)]> },
}

impl Change {
    pub(super) fn blocks(&self) -> usize {
        match self {
            Self::Held { keys, .. } | Self::Released { keys, .. } => keys.len().max(1),
            Self::Cleared { held, .. } => held.len().max(1),
        }
    }
}

/// How it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Flows,
    /// Changes were dropped.
    Cut,
    /// Nobody wants them any more.
    Stopped,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Condvar,
    /// Blocks that may wait.
    room: usize,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<u16, Arc<str>>,
    changes: VecDeque<Change>,
    blocks: usize,
    flows: bool,
    stopped: bool,
    cleared: BTreeSet<Arc<str>>,
    dropped: u64,
}

impl Outbox {
    /// Room for so many blocks. Nothing flows yet.
    pub(super) fn new(room: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), room }
    }

    /// What the server calls a slot's pod.
    pub(super) fn name(&self, slot: u16, pod: &str) {
        self.state.lock().names.insert(slot, pod.into());
    }

    /// Forgets the names of all slots but these.
    pub(super) fn keep_names(&self, is_taken: impl Fn(u16) -> bool) {
        self.state.lock().names.retain(|&slot, _| is_taken(slot));
    }

    /// Lets changes wait here from now on.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.forget();
        state.flows = true;
    }

    /// Drops what waits and comes, until the flow begins anew.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        state.forget();
        state.flows = false;
        drop(state);
        self.filled.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.filled.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits until it is stopped; answers whether it was.
    pub(super) fn wait_for_stop(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.stopped && !self.filled.wait_until(&mut state, end).timed_out() {}
        state.stopped
    }

    /// Moves changes of about `most` blocks to `out`, waiting for the first for at most `time`.
    pub(super) fn take(&self, most: usize, out: &mut Vec<Change>, time: Duration) -> Flow {
        let mut state = self.state.lock();
        if state.changes.is_empty() && state.flows && !state.stopped && !time.is_zero() {
            self.filled.wait_for(&mut state, time);
        }
        let mut taken = 0;
        while taken < most
            && let Some(change) = state.changes.pop_front()
        {
            taken += change.blocks();
            out.push(change);
        }
        state.blocks = state.blocks.saturating_sub(taken);
        match &*state {
            State { stopped: true, .. } => Flow::Stopped,
            State { flows: true, .. } => Flow::Flows,
            _ => Flow::Cut,
        }
    }

    /// Pods that were cleared since this was asked last.
    pub(super) fn take_cleared(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.state.lock().cleared)
    }

    /// Whether there are any.
    pub(super) fn has_cleared(&self) -> bool {
        !self.state.lock().cleared.is_empty()
    }

    /// Puts back those whose blocks could not be taken out.
    pub(super) fn put_back(&self, pods: BTreeSet<Arc<str>>) {
        self.state.lock().cleared.extend(pods);
    }

    /// Blocks that wait, and those that were dropped.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.blocks, state.dropped)
    }

    fn push(&self, slot: u16, change: impl FnOnce(Arc<str>) -> Change) {
        let mut state = self.state.lock();
        if !state.flows {
            return;
        }
        let Some(pod) = state.names.get(&slot).cloned() else { return };
        let change = change(pod);
        let blocks = change.blocks();
        if state.blocks + blocks > self.room {
            state.dropped += (state.blocks + blocks) as u64;
            state.forget();
            state.flows = false;
        } else {
            state.blocks += blocks;
            state.changes.push_back(change);
        }
        drop(state);
        self.filled.notify_all();
    }
}

impl State {
    fn forget(&mut self) {
        self.changes.clear();
        self.blocks = 0;
    }
}

/// Hears of every change of the index.
pub(super) struct Feed(pub(super) Arc<Outbox>);

impl Tap for Feed {
    fn held(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]) {
        if !keys.is_empty() {
            self.0.push(slot, |pod| Change::Held {
                pod,
                tier,
                engine: engine.into(),
                keys: keys.into(),
            });
        }
    }

    fn released(&mut self, slot: u16, tier: u8, engine: u64, keys: &[u64]) {
        self.0.push(slot, |pod| Change::Released { pod, tier, engine, keys: keys.into() });
    }

    fn cleared(&mut self, slot: u16, held: &[(u8, u64)]) {
        let mut state = self.0.state.lock();
        let Some(pod) = state.names.get(&slot).cloned() else { return };
        if state.cleared.len() < MOST_CLEARED {
            state.cleared.insert(pod);
        } else {
            state.dropped += held.len() as u64;
        }
        drop(state);
        self.0.push(slot, |pod| Change::Cleared { pod, held: held.into() });
    }

    fn lost(&mut self) {
        self.0.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(room: usize) -> (Arc<Outbox>, Feed) {
        let outbox = Arc::new(Outbox::new(room));
        outbox.name(3, "p:1");
        (Arc::clone(&outbox), Feed(outbox))
    }

    fn take(outbox: &Outbox) -> (Vec<Change>, Flow) {
        let mut out = Vec::new();
        let flow = outbox.take(1_000, &mut out, Duration::ZERO);
        (out, flow)
    }

    #[test]
    fn changes_come_in_order_under_the_names_of_their_pods() {
        let (outbox, mut feed) = outbox(100);
        outbox.begin();
        feed.held(3, 0, &[7], &[70]);
        feed.held(4, 0, &[7], &[70]);
        feed.released(3, 0, 7, &[70]);
        feed.cleared(3, &[(1, 71)]);
        let (changes, flow) = take(&outbox);
        let pod: Arc<str> = "p:1".into();
        let expected = [
            Change::Held { pod: pod.clone(), tier: 0, engine: [7].into(), keys: [70].into() },
            Change::Released { pod: pod.clone(), tier: 0, engine: 7, keys: [70].into() },
            Change::Cleared { pod: pod.clone(), held: [(1, 71)].into() },
        ];
        assert_eq!((changes.as_slice(), flow), (&expected[..], Flow::Flows));
        assert_eq!(outbox.take_cleared(), BTreeSet::from([pod]));
        assert_eq!(outbox.counts(), (0, 0));
    }

    #[test]
    fn without_room_all_that_waits_is_dropped_and_the_flow_is_cut() {
        let (outbox, mut feed) = outbox(3);
        outbox.begin();
        feed.held(3, 0, &[1, 2], &[1, 2]);
        feed.held(3, 0, &[3, 4], &[3, 4]);
        feed.held(3, 0, &[5], &[5]);
        assert_eq!(outbox.counts(), (0, 4));
        assert_eq!(take(&outbox), (Vec::new(), Flow::Cut));
        outbox.begin();
        feed.held(3, 0, &[6], &[6]);
        assert_eq!(take(&outbox).0.len(), 1);
    }

    #[test]
    fn pods_cleared_while_nothing_flows_are_remembered() {
        let (outbox, mut feed) = outbox(3);
        feed.cleared(3, &[(0, 1); 10]);
        assert!(outbox.has_cleared());
        assert_eq!(take(&outbox), (Vec::new(), Flow::Cut));
        outbox.stop();
        assert_eq!(take(&outbox).1, Flow::Stopped);
        assert!(outbox.wait_for_stop(Duration::from_secs(60)));
    }
}
