//! Threads that tokenize for callers which must not wait.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, fence};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::error::PromptError;
use super::model::Model;
use super::prompt::{PromptApi, Tokenized};

/// Bodies above this are large: they never take the last thread, so that a few long prompts that
/// nobody has seen before do not hold up all others.
const LARGE_BYTES: usize = 64 * 1024;

/// The size of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Threads, at least 1.
    pub threads: usize,
    /// Jobs that may wait, small and large counted apart.
    pub queue: usize,
    /// Bytes of bodies that may wait.
    pub bytes: usize,
}

impl Default for PoolSize {
    fn default() -> Self {
        Self { threads: 2, queue: 256, bytes: 64 * 1024 * 1024 }
    }
}

/// A body to tokenize.
pub struct Job {
    /// The model that the request is for.
    pub model: Arc<Model>,
    /// Where the prompt stands in the body.
    pub api: PromptApi,
    /// The whole body.
    pub body: Vec<u8>,
    /// A job that is still queued then is dropped unworked.
    pub deadline: Instant,
    /// Called exactly once, on a thread of the pool. It should hand the outcome over and return.
    pub done: Box<dyn FnOnce(Outcome) + Send>,
}

/// What became of a job.
#[derive(Debug)]
pub struct Outcome {
    /// The prompts, or why there are none.
    pub result: Result<Tokenized, PromptError>,
    /// From submission to the start of the work.
    pub waited: Duration,
    /// From submission to now.
    pub elapsed: Duration,
}

/// The queue has no room: the job comes back, its `done` uncalled.
#[derive(Debug)]
pub struct Full(pub Job);

/// A fixed number of threads behind a bounded queue.
///
/// [`submit`](Self::submit) takes no lock that a pool thread holds while it works, and wakes one
/// thread at most. Dropping the pool ends its threads after the job at hand; jobs still queued end
/// with [`PromptError::Stopped`].
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    small: Lane,
    large: Lane,
    /// One flag per thread: parked, or about to look a last time before it parks.
    idle: Vec<AtomicBool>,
    stop: AtomicBool,
    bytes: usize,
    counters: Counters,
}

/// One queue. Threads of the pool alone take the mutex.
#[derive(Debug)]
struct Lane {
    into: SyncSender<Queued>,
    from: Mutex<Receiver<Queued>>,
}

#[derive(Debug)]
struct Queued {
    job: Job,
    since: Instant,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread that does not start; those that have started are ended.
    pub fn new(size: PoolSize) -> io::Result<Self> {
        let count = size.threads.max(1);
        let shared = Arc::new(Shared {
            small: Lane::new(size.queue),
            large: Lane::new(size.queue),
            idle: (0..count).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            bytes: size.bytes,
            counters: Counters::default(),
        });
        let mut pool = Self { shared, threads: Vec::with_capacity(count) };
        for index in 0..count {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("inlane-tokens-{index}"));
            // A failure drops the pool, which ends the threads that have started.
            pool.threads.push(builder.spawn(move || shared.run(index))?);
        }
        Ok(pool)
    }

    /// Queues a job. Takes about a microsecond, wake-up included.
    ///
    /// # Errors
    /// Gives the job back where its queue is full, or the bodies that wait have too many bytes.
    pub fn submit(&self, job: Job) -> Result<(), Box<Full>> {
        let shared = &*self.shared;
        let counters = &shared.counters;
        let bytes = job.body.len() as u64;
        let large = job.body.len() > LARGE_BYTES;
        let lane = if large { &shared.large } else { &shared.small };
        let waiting = counters.queued_bytes.fetch_add(bytes, Relaxed);
        counters.queued.fetch_add(1, Relaxed);
        let queued = Queued { job, since: Instant::now() };
        let sent = if waiting.saturating_add(bytes) > shared.bytes as u64 {
            Err(queued)
        } else {
            lane.into.try_send(queued).map_err(|error| match error {
                TrySendError::Full(queued) | TrySendError::Disconnected(queued) => queued,
            })
        };
        if let Err(queued) = sent {
            counters.queued_bytes.fetch_sub(bytes, Relaxed);
            counters.queued.fetch_sub(1, Relaxed);
            counters.refuse();
            return Err(Box::new(Full(queued.job)));
        }
        // Against the fence in `run`: either the thread's last look sees the job, or its flag is
        // seen here.
        fence(SeqCst);
        let first = usize::from(large && self.threads.len() > 1);
        let idle = shared.idle.iter().zip(&self.threads).skip(first);
        if let Some((_, thread)) = idle.into_iter().find(|(idle, _)| idle.swap(false, SeqCst)) {
            thread.thread().unpark();
        }
        Ok(())
    }

    /// What the pool has done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        for thread in self.threads.drain(..) {
            // Its panic, if it is one, was the business of its job.
            drop(thread.join());
        }
        while let Some(queued) = self.shared.small.take().or_else(|| self.shared.large.take()) {
            self.shared.end(queued, |_| Err(PromptError::Stopped));
        }
    }
}

impl Lane {
    fn new(queue: usize) -> Self {
        let (into, from) = sync_channel(queue.max(1));
        Self { into, from: Mutex::new(from) }
    }

    fn take(&self) -> Option<Queued> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }
}

impl Shared {
    fn run(&self, index: usize) {
        while !self.stop.load(SeqCst) {
            if let Some(queued) = self.take(index) {
                self.end(queued, tokenize);
                continue;
            }
            self.idle[index].store(true, SeqCst);
            fence(SeqCst);
            let last = self.take(index);
            if last.is_none() && !self.stop.load(SeqCst) {
                thread::park();
            }
            self.idle[index].store(false, SeqCst);
            if let Some(queued) = last {
                self.end(queued, tokenize);
            }
        }
    }

    /// The next job that this thread may do: the first takes no large ones unless it is alone.
    fn take(&self, index: usize) -> Option<Queued> {
        let large = index > 0 || self.idle.len() == 1;
        self.small.take().or_else(|| if large { self.large.take() } else { None })
    }

    fn end(&self, queued: Queued, work: impl FnOnce(&Job) -> Result<Tokenized, PromptError>) {
        let Queued { job, since } = queued;
        self.counters.queued.fetch_sub(1, Relaxed);
        self.counters.queued_bytes.fetch_sub(job.body.len() as u64, Relaxed);
        let waited = since.elapsed();
        let result = catch_unwind(AssertUnwindSafe(|| work(&job)))
            .unwrap_or_else(|panic| Err(PromptError::Panic(text_of(&*panic))));
        let elapsed = since.elapsed();
        self.counters.done(elapsed);
        match &result {
            Ok(tokenized) => self.counters.worked(tokenized.work),
            Err(error) => self.counters.failed(error),
        }
        let done = job.done;
        // The caller's panic must not end the thread.
        drop(catch_unwind(AssertUnwindSafe(|| done(Outcome { result, waited, elapsed }))));
    }
}

fn tokenize(job: &Job) -> Result<Tokenized, PromptError> {
    if Instant::now() >= job.deadline {
        return Err(PromptError::Late);
    }
    job.model.tokenize(job.api, &job.body)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("model", &self.model)
            .field("api", &self.api)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
