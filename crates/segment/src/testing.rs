//! Words for tests of protocol code: a writer that dies, and loom's memory.

#[cfg(loom)]
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use std::sync::{Mutex, atomic::AtomicUsize};

use crate::words::{Words, WordsMut};

/// Words whose writer dies after a number of stores: from then on its stores have no effect, which to
/// everybody else looks the same as no writer.
#[derive(Clone, Debug)]
pub(crate) struct Mortal<W> {
    words: W,
    left: Arc<AtomicU64>,
}

impl<W> Mortal<W> {
    pub(crate) fn new(words: W, stores: u64) -> Self {
        Self { words, left: Arc::new(AtomicU64::new(stores)) }
    }

    /// Whether the stores were not enough.
    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::Relaxed) == u64::MAX
    }

    fn may_store(&self) -> bool {
        // One store more than allowed marks the writer as dead.
        match self.left.load(Ordering::Relaxed) {
            u64::MAX => false,
            0 => {
                self.left.store(u64::MAX, Ordering::Relaxed);
                false
            }
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                true
            }
        }
    }
}

impl<W: Words> Words for Mortal<W> {
    fn len(&self) -> usize {
        self.words.len()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.words.load(at, order)
    }

    fn fence(&self, order: Ordering) {
        self.words.fence(order);
    }
}

impl<W: WordsMut> WordsMut for Mortal<W> {
    fn store(&self, at: usize, value: u64, order: Ordering) {
        if self.may_store() {
            self.words.store(at, value, order);
        }
    }

    fn compare_exchange(
        &self,
        at: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if self.may_store() {
            self.words.compare_exchange(at, current, new, success, failure)
        } else {
            Ok(current)
        }
    }

    fn fetch_add(&self, at: usize, delta: u64, order: Ordering) -> u64 {
        if self.may_store() {
            self.words.fetch_add(at, delta, order)
        } else {
            self.words.load(at, Ordering::Relaxed)
        }
    }
}

/// Words in loom's model of memory.
#[cfg(loom)]
#[derive(Clone, Debug)]
pub(crate) struct LoomWords(loom::sync::Arc<Vec<loom::sync::atomic::AtomicU64>>);

#[cfg(loom)]
impl LoomWords {
    pub(crate) fn new(len: usize) -> Self {
        let cells = (0..len).map(|_| loom::sync::atomic::AtomicU64::new(0)).collect();
        Self(loom::sync::Arc::new(cells))
    }
}

#[cfg(loom)]
impl Words for LoomWords {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0[at].load(order)
    }

    fn fence(&self, order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

#[cfg(loom)]
impl WordsMut for LoomWords {
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0[at].store(value, order);
    }

    fn compare_exchange(
        &self,
        at: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0[at].compare_exchange(current, new, success, failure)
    }

    fn fetch_add(&self, at: usize, delta: u64, order: Ordering) -> u64 {
        self.0[at].fetch_add(delta, order)
    }
}

/// Runs `body` in every execution that loom finds, with at most `preemptions` of a thread that could
/// go on, and returns everything it answered.
///
/// `least` is the fewest executions that count as a model. Loom 0.7 remembers one access per word, so
/// of a word that one thread loads and then stores, an earlier load by another thread is forgotten,
/// and with it the race: such a model passes after a single execution. Models here therefore spawn
/// the reader rather than the writer, and compare the answers with all that the protocol allows: one
/// too many is a broken protocol, one that never comes up a model that does not explore.
#[cfg(loom)]
pub(crate) fn explore<T: Ord + Send + 'static>(
    preemptions: Option<usize>,
    least: usize,
    body: impl Fn() -> T + Send + Sync + 'static,
) -> BTreeSet<T> {
    let executions = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(Mutex::new(BTreeSet::new()));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    // What sets a model up counts as well.
    builder.max_branches = 10_000;
    builder.check({
        let (executions, answers) = (Arc::clone(&executions), Arc::clone(&answers));
        move || {
            let answer = body();
            executions.fetch_add(1, Ordering::Relaxed);
            answers.lock().unwrap().insert(answer);
        }
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions");
    assert!(executions >= least, "only {executions} executions");
    std::mem::take(&mut *answers.lock().unwrap())
}
