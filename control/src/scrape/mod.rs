//! Scraping: one task per endpoint, all on one thread.
//!
//! Every endpoint has its own ticks, spread over the interval, and its own connection. A scrape
//! that takes long costs its endpoint the ticks in between and nobody else anything; one that fails
//! is tried again at growing distance, at most a second apart, so that a pod that comes back is
//! seen at once and one that does not costs next to nothing.

mod fetch;
pub(crate) mod pace;
mod response;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use inlane_core::endpoint::Slot;
use inlane_engine::{EngineSample, Plan, Scanner};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) use self::fetch::FetchError;
use self::fetch::{Fetcher, SharedBuffer};
use self::pace::{Pace, PaceLimits, Window, next_tick, phase};

/// How long a scrape may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How far apart the attempts on a failing endpoint get.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// What to scrape. Two that are equal need no new task.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Identity of the endpoint, for logs.
    pub(crate) id: String,
    /// Where its numbers go.
    pub(crate) slot: Slot,
    /// The server of the page.
    pub(crate) address: SocketAddr,
    /// Path of the page, with a leading slash.
    pub(crate) path: Rc<str>,
    /// How to read the page.
    pub(crate) plan: Arc<Plan>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot
            && self.address == other.address
            && self.path == other.path
            && Arc::ptr_eq(&self.plan, &other.plan)
            && self.id == other.id
    }
}

/// Who gets what the scrapes find.
pub(crate) trait Sink {
    /// A page of an endpoint was read.
    fn scraped(&self, slot: Slot, sample: &EngineSample);
    /// A page could not be had.
    fn failed(&self, slot: Slot, error: &FetchError);
}

/// Counters of all scrapes.
#[derive(Debug, Default)]
pub(crate) struct ScrapeCounters {
    /// Pages read.
    pub(crate) pages: Cell<u64>,
    /// Bytes received with them.
    pub(crate) bytes: Cell<u64>,
    /// Pages that could not be had.
    pub(crate) poll_errors: Cell<u64>,
    /// Pages that lacked something.
    pub(crate) extract_errors: Cell<u64>,
    /// Ticks dropped because the endpoint's scrape was still running.
    pub(crate) dropped_ticks: Cell<u64>,
    /// Scrapes running now.
    pub(crate) running: Cell<u32>,
    /// Ticks since the pace was last judged, and the late ones among them.
    ticks: Cell<u32>,
    late: Cell<u32>,
}

/// All scrape tasks.
pub(crate) struct Scrapers {
    shared: Rc<Shared>,
    tasks: RefCell<HashMap<Slot, (Target, AbortHandle)>>,
}

struct Shared {
    sink: Rc<dyn Sink>,
    counters: ScrapeCounters,
    pace: RefCell<Pace>,
    buffer: SharedBuffer,
    epoch: Instant,
}

impl Scrapers {
    /// No tasks yet. Must live on a `LocalSet`.
    pub(crate) fn new(sink: Rc<dyn Sink>, limits: PaceLimits) -> Self {
        let shared = Shared {
            sink,
            counters: ScrapeCounters::default(),
            pace: RefCell::new(Pace::new(limits)),
            buffer: SharedBuffer::new(),
            epoch: Instant::now(),
        };
        Self { shared: Rc::new(shared), tasks: RefCell::default() }
    }

    /// Makes the running tasks those of `targets`: leaves unchanged ones alone.
    pub(crate) fn reconcile(&self, targets: Vec<Target>) {
        let mut tasks = self.tasks.borrow_mut();
        let mut old = std::mem::take(&mut *tasks);
        for target in targets {
            let kept = old.remove(&target.slot).filter(|(known, task)| {
                let same = *known == target;
                if !same {
                    task.abort();
                }
                same
            });
            let entry = kept.unwrap_or_else(|| {
                let task = Task::new(target.clone(), Rc::clone(&self.shared));
                (target, tokio::task::spawn_local(task.run()).abort_handle())
            });
            tasks.insert(entry.0.slot, entry);
        }
        old.into_values().for_each(|(_, task)| task.abort());
    }

    /// Takes other limits.
    pub(crate) fn set_limits(&self, limits: PaceLimits) {
        self.shared.pace.borrow_mut().set_limits(limits);
    }

    /// Judges the pace on what happened since the last call.
    pub(crate) fn judge(&self, wall: Duration, cpu: Duration) {
        let counters = &self.shared.counters;
        let window = Window { wall, cpu, ticks: counters.ticks.take(), late: counters.late.take() };
        let mut pace = self.shared.pace.borrow_mut();
        let before = pace.interval();
        pace.observe(window);
        let after = pace.interval();
        if before != after {
            tracing::info!(
                interval_ms = after.as_millis() as u64,
                cpu_ms_per_s = (cpu.as_secs_f64() / wall.as_secs_f64() * 1e3) as u64,
                late_ticks = window.late,
                ticks = window.ticks,
                "scrape interval changed"
            );
        }
    }

    /// The counters.
    pub(crate) fn counters(&self) -> &ScrapeCounters {
        &self.shared.counters
    }

    /// The interval in force.
    pub(crate) fn interval(&self) -> Duration {
        self.shared.pace.borrow().interval()
    }

    /// Times that the interval was doubled.
    pub(crate) fn backoffs(&self) -> u64 {
        self.shared.pace.borrow().backoffs()
    }
}

impl Drop for Scrapers {
    fn drop(&mut self) {
        self.tasks.get_mut().values().for_each(|(_, task)| task.abort());
    }
}

/// The scraping of one endpoint.
struct Task {
    target: Target,
    shared: Rc<Shared>,
    fetcher: Fetcher,
    scanner: Scanner,
    failures: u32,
}

impl Task {
    fn new(target: Target, shared: Rc<Shared>) -> Self {
        Self {
            fetcher: Fetcher::new(target.address, &target.path),
            scanner: Scanner::new(Arc::clone(&target.plan)),
            target,
            shared,
            failures: 0,
        }
    }

    async fn run(mut self) {
        let phase = phase(self.target.slot.index);
        let mut ended = Instant::now();
        loop {
            let interval = self.shared.pace.borrow().interval();
            let mut earliest = ended;
            if self.failures > 0 {
                let wait = interval * 2_u32.pow(self.failures.min(6));
                earliest += wait.min(LONGEST_RETRY).saturating_sub(interval);
            }
            let epoch = self.shared.epoch;
            let tick = epoch + next_tick(earliest - epoch, interval, phase);
            sleep_until(tick).await;
            let started = Instant::now();
            let counters = &self.shared.counters;
            add(&counters.ticks, 1);
            if started - tick > interval / 2 {
                add(&counters.late, 1);
            }
            self.scrape().await;
            ended = Instant::now();
            let counters = &self.shared.counters;
            let missed = (ended - started).as_nanos() / interval.as_nanos().max(1);
            counters.dropped_ticks.set(counters.dropped_ticks.get() + missed as u64);
        }
    }

    async fn scrape(&mut self) {
        let shared = Rc::clone(&self.shared);
        let running = Running::enter(&shared.counters);
        let fetch = self.fetcher.fetch(&shared.buffer, &mut self.scanner);
        let result =
            timeout(TIMEOUT, fetch).await.unwrap_or(Err(FetchError::Timeout(TIMEOUT.as_millis())));
        drop(running);
        let counters = &shared.counters;
        match result {
            Ok(bytes) => {
                let sample = self.scanner.finish();
                counters.pages.set(counters.pages.get() + 1);
                counters.bytes.set(counters.bytes.get() + bytes);
                if !sample.missing.is_empty() {
                    counters.extract_errors.set(counters.extract_errors.get() + 1);
                }
                shared.sink.scraped(self.target.slot, sample);
                if self.failures > 0 {
                    tracing::info!(endpoint = self.target.id, "endpoint answers scrapes again");
                }
                self.failures = 0;
            }
            Err(error) => {
                counters.poll_errors.set(counters.poll_errors.get() + 1);
                shared.sink.failed(self.target.slot, &error);
                if self.failures == 0 {
                    tracing::warn!(
                        endpoint = self.target.id,
                        address = %self.target.address,
                        error = %error,
                        "scrape failed"
                    );
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
    }
}

/// Counts a running scrape, also one that is aborted.
struct Running<'a>(&'a ScrapeCounters);

impl<'a> Running<'a> {
    fn enter(counters: &'a ScrapeCounters) -> Self {
        add(&counters.running, 1);
        Self(counters)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
    }
}

fn add(cell: &Cell<u32>, n: u32) {
    cell.set(cell.get().saturating_add(n));
}

#[cfg(test)]
mod tests;
