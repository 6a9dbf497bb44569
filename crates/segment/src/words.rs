//! Memory as an array of 64-bit words: the seam between protocol code and the memory it runs on.
//!
//! Every protocol of this crate (documents, rows, claims, the block table) is written against
//! [`Words`] and [`WordsMut`] and never against a mapping. Production runs it on mapped files
//! ([`mapped`](crate::mapped)), tests run the same code on [`HeapWords`] (Miri), on loom's atomics,
//! and on wrappers that stop a writer after any store.
//!
//! Reading and writing are two traits because a reader's mapping is read-only: a store into it would
//! be a fault, so the type has no store. The fence is a method because loom's memory has its own.
//!
//! Cost: every method is one instruction or a plain loop of them once inlined.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// An array of words that may be changed by others at any time and is read with atomic loads only.
///
/// Indices are the caller's invariant: an index at or past [`len`](Words::len) panics. Protocol code
/// therefore validates every offset that it reads from memory before it uses it.
pub trait Words {
    /// Number of words.
    fn len(&self) -> usize;

    /// Whether there is no word at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads the word at `at`; `order` is `Relaxed`, `Acquire` or `SeqCst`.
    fn load(&self, at: usize, order: Ordering) -> u64;

    /// A memory fence in the memory model of these words.
    fn fence(&self, order: Ordering);

    /// Has the word on its way when it will be loaded soon; nothing else comes of it.
    #[inline]
    fn prefetch(&self, at: usize) {
        let _ = at;
    }

    /// Loads `out.len()` words from `at` on, each with `Relaxed` ordering: a run is not a snapshot.
    #[inline]
    fn load_run(&self, at: usize, out: &mut [u64]) {
        for (offset, word) in out.iter_mut().enumerate() {
            *word = self.load(at + offset, Ordering::Relaxed);
        }
    }
}

/// [`Words`] that this side may also write.
pub trait WordsMut: Words {
    /// Stores `value` at `at`; `order` is `Relaxed`, `Release` or `SeqCst`.
    fn store(&self, at: usize, value: u64, order: Ordering);

    /// Replaces `current` by `new`, or returns the word that was there instead.
    fn compare_exchange(
        &self,
        at: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;

    /// Adds `delta` (wrapping) and returns the word before.
    fn fetch_add(&self, at: usize, delta: u64, order: Ordering) -> u64;

    /// Stores `values` from `at` on, each with `Relaxed` ordering, first to last.
    #[inline]
    fn store_run(&self, at: usize, values: &[u64]) {
        for (offset, &word) in values.iter().enumerate() {
            self.store(at + offset, word, Ordering::Relaxed);
        }
    }
}

/// Zeroed words in this process's own heap: for tests and for memory that no other process sees.
///
/// Clones share the same words.
#[derive(Clone, Debug)]
pub struct HeapWords(Arc<[AtomicU64]>);

impl HeapWords {
    /// Allocates `len` words of zero.
    pub fn new(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Words for HeapWords {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0[at].load(order)
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        prefetch(&self.0[at]);
    }
}

impl WordsMut for HeapWords {
    #[inline]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0[at].store(value, order);
    }

    #[inline]
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

    #[inline]
    fn fetch_add(&self, at: usize, delta: u64, order: Ordering) -> u64 {
        self.0[at].fetch_add(delta, order)
    }
}

/// Has what is referred to on its way into the cache, where the processor can be told so.
#[inline]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing; the address is one that could be read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast()) };
    }
    let _ = what;
}

/// Bytes from which memory is worth the kernel's large pages.
pub(crate) const LARGE: usize = 4 << 20;

/// Asks for large pages behind memory that is read and written all over: most of what a random
/// access costs there is finding the page. What the kernel does not grant is not missed.
#[allow(unsafe_code)]
pub(crate) fn ask_for_large_pages<T>(memory: &[T]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        use rustix::mm::{Advice, madvise};
        let page = rustix::param::page_size();
        let bytes = size_of_val(memory);
        let skip = memory.as_ptr().align_offset(page);
        let skip = skip.saturating_mul(size_of::<T>());
        let len = bytes.saturating_sub(skip) / page * page;
        if bytes < LARGE || len == 0 {
            return;
        }
        let first = memory.as_ptr().cast::<u8>().wrapping_add(skip);
        // SAFETY: whole pages inside of the slice; what is in them and who may access them stays as
        // it is whatever the kernel makes of the advice.
        let _ = unsafe { madvise(first.cast_mut().cast(), len, Advice::LinuxHugepage) };
    }
    let _ = memory;
}
