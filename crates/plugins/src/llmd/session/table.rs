//! Which endpoint each session is bound to: one table for all workers of a proxy.
//!
//! Readers load a shard's list and search it, without a lock. A binding that exists is changed in
//! place by atomic stores; one that is new replaces its shard's list under that shard's lock, which
//! only `apply` takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

const SHARDS: usize = 1_024;

/// Sessions per shard, so 262,144 in all. Clients make up session ids: beyond that the session that
/// was idle longest makes room.
const SESSIONS_PER_SHARD: usize = 256;

/// When an idle session is forgotten.
///
/// Nothing runs in the background. A session counts as forgotten from the first sweep on that finds
/// it idle for longer than the TTL, with sweeps at the multiples of their interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Idle {
    pub(super) ttl_ms: u64,
    /// Not 0.
    pub(super) sweep_ms: u64,
}

impl Idle {
    fn is_over(self, seen_ms: u64, now_ms: u64) -> bool {
        let sweep = now_ms - now_ms.checked_rem(self.sweep_ms).unwrap_or(0);
        sweep.saturating_sub(seen_ms) > self.ttl_ms
    }
}

/// What was chosen for a request of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// Digest of the endpoint.
    pub(super) endpoint: u64,
    /// Digest of the endpoint that the session was bound to and that was no candidate; 0 = none.
    pub(super) gone: u64,
    /// Whether a session that stays bound to another endpoint is kept alive.
    pub(super) refresh_outscored: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Shard]>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Ordered by session.
    sessions: ArcSwap<Vec<Arc<Session>>>,
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Session {
    id: u64,
    endpoint: AtomicU64,
    seen_ms: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Table {
    /// Digest of the endpoint that a session is bound to.
    pub(super) fn find(&self, session: u64, idle: Idle, now_ms: u64) -> Option<u64> {
        let sessions = self.shard(session)?.sessions.load();
        let found = search(&sessions, session)?;
        // Acquire pairs with the release in `bind`: a fresh time comes with its endpoint.
        let seen_ms = found.seen_ms.load(Ordering::Acquire);
        (!idle.is_over(seen_ms, now_ms)).then(|| found.endpoint.load(Ordering::Relaxed))
    }

    /// Records a choice: binds a session that is not bound, or whose endpoint is gone; keeps one
    /// alive that went where it is bound to.
    pub(super) fn choose(&self, session: u64, choice: Choice, idle: Idle, now_ms: u64) {
        let Some(shard) = self.shard(session) else { return };
        if let Some(known) = search(&shard.sessions.load(), session) {
            let bound_to = known.endpoint.load(Ordering::Relaxed);
            let is_over = idle.is_over(known.seen_ms.load(Ordering::Acquire), now_ms);
            if is_over || bound_to == choice.gone {
                known.bind(choice.endpoint, now_ms);
            } else if bound_to == choice.endpoint || choice.refresh_outscored {
                known.bind(bound_to, now_ms);
            }
            return;
        }
        shard.insert(session, choice.endpoint, idle, now_ms);
    }

    fn shard(&self, session: u64) -> Option<&Shard> {
        // The high bits choose the shard, all bits the place in it.
        self.shards.get((session >> 54) as usize % SHARDS)
    }
}

impl Shard {
    fn insert(&self, id: u64, endpoint: u64, idle: Idle, now_ms: u64) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sessions = Vec::clone(&self.sessions.load());
        sessions.retain(|s| !idle.is_over(s.seen_ms.load(Ordering::Relaxed), now_ms));
        if sessions.len() >= SESSIONS_PER_SHARD {
            let oldest = sessions.iter().zip(0..);
            let oldest = oldest.min_by_key(|(s, _)| s.seen_ms.load(Ordering::Relaxed));
            if let Some((_, at)) = oldest {
                sessions.remove(at);
            }
        }
        match sessions.binary_search_by_key(&id, |s| s.id) {
            // Another worker was first.
            Ok(_) => {}
            Err(at) => {
                let (endpoint, seen_ms) = (AtomicU64::new(endpoint), AtomicU64::new(now_ms));
                sessions.insert(at, Arc::new(Session { id, endpoint, seen_ms }));
            }
        }
        self.sessions.store(Arc::new(sessions));
    }
}

impl Session {
    fn bind(&self, endpoint: u64, now_ms: u64) {
        self.endpoint.store(endpoint, Ordering::Relaxed);
        self.seen_ms.store(now_ms, Ordering::Release);
    }
}

fn search(sessions: &[Arc<Session>], id: u64) -> Option<&Session> {
    let at = sessions.binary_search_by_key(&id, |s| s.id).ok()?;
    sessions.get(at).map(|session| &**session)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const IDLE: Idle = Idle { ttl_ms: 100, sweep_ms: 50 };

    fn to(endpoint: u64) -> Choice {
        Choice { endpoint, gone: 0, refresh_outscored: false }
    }

    #[test]
    fn a_session_is_forgotten_at_the_first_sweep_after_its_ttl() {
        let table = Table::default();
        table.choose(7, to(1), IDLE, 1_010);
        assert_eq!(table.find(7, IDLE, 1_149), Some(1), "the sweep at 1100 finds it 90 ms idle");
        assert_eq!(table.find(7, IDLE, 1_150), None, "that at 1150 finds it 140 ms idle");
        let rare = Idle { sweep_ms: 10_000, ..IDLE };
        assert_eq!(table.find(7, rare, 9_999), Some(1));
        assert_eq!(table.find(7, rare, 10_000), None);
    }

    #[test]
    fn idle_for_exactly_the_ttl_is_not_over() {
        let table = Table::default();
        table.choose(7, to(1), IDLE, 1_000);
        assert_eq!(table.find(7, IDLE, 1_100), Some(1));
        assert_eq!(table.find(7, IDLE, 900), Some(1), "a clock that went back");
    }

    #[test]
    fn only_what_is_gone_is_bound_anew() {
        let table = Table::default();
        table.choose(7, to(1), IDLE, 1_000);
        table.choose(7, to(2), IDLE, 1_010);
        assert_eq!(table.find(7, IDLE, 1_010), Some(1), "outscored");
        table.choose(7, Choice { gone: 3, ..to(2) }, IDLE, 1_020);
        assert_eq!(table.find(7, IDLE, 1_020), Some(1), "bound elsewhere in the meantime");
        table.choose(7, Choice { gone: 1, ..to(2) }, IDLE, 1_030);
        assert_eq!(table.find(7, IDLE, 1_030), Some(2));
        table.choose(7, to(4), IDLE, 1_400);
        assert_eq!(table.find(7, IDLE, 1_400), Some(4), "forgotten and bound anew");
    }

    #[test]
    fn outscored_sessions_are_kept_alive_on_request_only() {
        for refresh_outscored in [false, true] {
            let table = Table::default();
            for now_ms in [1_000, 1_060, 1_120] {
                let endpoint = if now_ms == 1_000 { 1 } else { 2 };
                let choice = Choice { endpoint, gone: 0, refresh_outscored };
                table.choose(7, choice, IDLE, now_ms);
            }
            let expected = refresh_outscored.then_some(1);
            assert_eq!(table.find(7, IDLE, 1_200), expected);
        }
    }

    #[test]
    fn a_full_shard_forgets_the_longest_idle() {
        let table = Table::default();
        let forever = Idle { ttl_ms: u64::MAX, sweep_ms: 1 };
        let most = SESSIONS_PER_SHARD as u64;
        for session in 0..most {
            table.choose(session, to(1), forever, session);
        }
        table.choose(0, to(1), forever, most);
        table.choose(most, to(1), forever, most + 1);
        let is_known = |session| table.find(session, forever, most + 1).is_some();
        assert_eq!([0, 1, 2, most].map(is_known), [true, false, true, true]);
        assert_eq!(table.shards[0].sessions.load().len(), SESSIONS_PER_SHARD);
    }

    #[test]
    fn workers_share_the_table() {
        let table = Table::default();
        thread::scope(|scope| {
            for worker in 0..4u64 {
                let table = &table;
                scope.spawn(move || {
                    for n in 0..500u64 {
                        let session = n << 52 | worker;
                        table.choose(session, to(worker + 1), IDLE, 1_000);
                        assert_eq!(table.find(session, IDLE, 1_000), Some(worker + 1));
                    }
                });
            }
        });
        for worker in 0..4 {
            let known =
                (0..500).filter(|n| table.find(n << 52 | worker, IDLE, 1_000) == Some(worker + 1));
            assert_eq!(known.count(), 500);
        }
    }
}
