//! Scraping: one task per endpoint and source, all on one thread.
//!
//! Every task has its own ticks, spread over the interval, and its own connection. A scrape
//! that takes long costs its task the ticks in between and nobody else anything; one that fails
//! is tried again at growing distance, at most a second apart, so that a pod that comes back is
//! seen at once and one that does not costs next to nothing.

mod fetch;
pub(crate) mod pace;
mod page;
mod response;
pub(crate) mod source;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Slot;
use inlane_core::plugin::Extraction;
use inlane_engine::EngineSample;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) use self::fetch::{Body, FetchError, Fetcher, SharedBuffer};
use self::pace::{Pace, PaceLimits, Window, next_tick, phase};
use self::page::Page;
use self::source::Target;

/// How long a scrape may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How far apart the attempts on a failing endpoint get.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Who gets what the scrapes find.
pub(crate) trait Sink {
    /// The load numbers of an endpoint's page were read; `places` says where custom ones go.
    fn scraped(&self, target: &Target, sample: &EngineSample, places: &[Option<u8>]);
    /// Lets a plugin write what it found on an endpoint's page.
    ///
    /// # Errors
    /// Those of the plugin.
    fn extracted(
        &self,
        target: &Target,
        places: &[Option<u8>],
        extraction: Box<dyn Extraction>,
    ) -> Result<(), PluginError>;
    /// A page could not be had.
    fn failed(&self, target: &Target, error: &FetchError);
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
    /// Failures by the type of the source, and of the extractor where it is that one's.
    failures: RefCell<BTreeMap<Blame, u64>>,
    /// Ticks since the pace was last judged, and the late ones among them.
    ticks: Cell<u32>,
    late: Cell<u32>,
}

/// Types of the source and of the extractor that failed.
pub(crate) type Blame = (&'static str, Option<&'static str>);

impl ScrapeCounters {
    /// Failures since the start, by who is to blame.
    pub(crate) fn failures(&self) -> BTreeMap<Blame, u64> {
        self.failures.borrow().clone()
    }

    fn blame(&self, blame: Blame) {
        let total = if blame.1.is_some() { &self.extract_errors } else { &self.poll_errors };
        total.set(total.get() + 1);
        *self.failures.borrow_mut().entry(blame).or_default() += 1;
    }
}

/// All scrape tasks.
pub(crate) struct Scrapers {
    shared: Rc<Shared>,
    tasks: RefCell<HashMap<(Slot, u16), (Target, AbortHandle)>>,
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
            let kept = old.remove(&target.key()).filter(|(known, task)| {
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
            tasks.insert(entry.0.key(), entry);
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

/// The scraping of one endpoint's page.
struct Task {
    shared: Rc<Shared>,
    fetcher: Fetcher,
    page: Page,
    failures: u32,
}

impl Task {
    fn new(target: Target, shared: Rc<Shared>) -> Self {
        let fetcher = Fetcher::new(target.address, &target.source.path);
        Self { fetcher, page: Page::new(target), shared, failures: 0 }
    }

    async fn run(mut self) {
        let target = self.page.target();
        // Pages of one endpoint come at different times, too.
        let phase = phase(target.slot.index.wrapping_add(u32::from(target.position) * 13));
        let stretch = target.stretch;
        // A page that is asked for seldom is asked for soon the first time.
        let mut factor = 1.0;
        let mut ended = Instant::now();
        loop {
            let interval = self.shared.pace.borrow().interval().mul_f64(factor);
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
            factor = stretch;
            ended = Instant::now();
            let counters = &self.shared.counters;
            let missed = (ended - started).as_nanos() / interval.as_nanos().max(1);
            counters.dropped_ticks.set(counters.dropped_ticks.get() + missed as u64);
        }
    }

    async fn scrape(&mut self) {
        let shared = Rc::clone(&self.shared);
        let running = Running::enter(&shared.counters);
        let fetch = self.fetcher.fetch(&shared.buffer, &mut self.page);
        let result =
            timeout(TIMEOUT, fetch).await.unwrap_or(Err(FetchError::Timeout(TIMEOUT.as_millis())));
        drop(running);
        match result {
            Ok(bytes) => self.read(bytes),
            Err(error) => self.failed(&error),
        }
    }

    fn read(&mut self, bytes: u64) {
        let Shared { counters, sink, .. } = &*self.shared;
        counters.pages.set(counters.pages.get() + 1);
        counters.bytes.set(counters.bytes.get() + bytes);
        let target = Rc::clone(self.page.target());
        let source = &target.source;
        if let Some(sample) = self.page.sample() {
            if !sample.missing.is_empty() {
                let extractor = source.engines.as_ref().map(|engines| engines.extractor_type);
                counters.blame((source.source_type, extractor));
            }
            let places = target.engine.as_ref().map_or(&[][..], |(_, places)| places);
            sink.scraped(&target, sample, places);
        }
        let readers = source.extractors.iter().zip(&target.places);
        for (reading, (reader, places)) in self.page.extractions().into_iter().zip(readers) {
            let done = reading.and_then(|extraction| sink.extracted(&target, places, extraction));
            if let Err(error) = done {
                counters.blame((source.source_type, Some(reader.extractor_type)));
                let extractor = reader.producer.as_str();
                tracing::debug!(endpoint = target.endpoint.id, extractor, error = %error, "extraction failed");
            }
        }
        if self.failures > 0 {
            tracing::info!(endpoint = target.endpoint.id, "endpoint answers scrapes again");
        }
        self.failures = 0;
    }

    fn failed(&mut self, error: &FetchError) {
        let target = self.page.target();
        self.shared.counters.blame((target.source.source_type, None));
        self.shared.sink.failed(target, error);
        if self.failures == 0 {
            tracing::warn!(
                endpoint = target.endpoint.id,
                address = %target.address,
                path = target.source.path,
                error = %error,
                "scrape failed"
            );
        }
        self.failures = self.failures.saturating_add(1);
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
