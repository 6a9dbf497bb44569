//! The engine of one pod: which request runs, which waits, and when each token appears.
//!
//! The engine is a state machine without clock, threads or IO. Jobs go in with [`Engine::submit`]; whoever drives
//! it calls [`Engine::poll`] whenever the time it last returned has come, and listeners are told what happened.
//! All answers are known beforehand; the engine only decides *when*.
//!
//! As in vLLM:
//! * At most [`Limits::running`] jobs run; the others wait in order of arrival. A job starts when a slot and the
//!   blocks of its whole prompt can be had. Blocks found in the cache are shared, the rest is computed; at least
//!   the last prompt token is always computed.
//! * An answer takes blocks as it grows. When none is free, the *youngest* running job is preempted: it gives all
//!   its blocks back, goes to the head of the queue and is computed again (from the cache, as far as that still
//!   has it) when it restarts. The oldest job is never preempted for a younger one, so there is always progress.
//!
//! Invariants: a running job has exactly one pending timer, and blocks for every token it has computed; a waiting
//! job has neither. Cost: logarithmic in the number of running jobs per token, linear when a job ends.

pub mod adapters;
pub mod cache;
pub mod events;
pub mod hash;
pub mod job;
pub mod latency;
mod sequence;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::Instant,
};

use fastrand::Rng;

use self::{
    adapters::Adapters,
    cache::BlockCache,
    events::{Event, Journal},
    job::{End, Finish, Job, JobId, Listener, Rejection},
    latency::{Load, Prefill},
    sequence::Sequence,
};
use crate::{
    config::tunables::Tunables,
    ids::BuildIdHasher,
    metrics::stats::{Counter, Distribution, Stats},
};

/// Sizes of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs that may run at once, at least 1.
    pub running: usize,
    /// Jobs that may wait.
    pub waiting: usize,
    /// LoRA adapters that may run at once.
    pub adapters: usize,
    /// Tokens per block, at least 1.
    pub block_size: usize,
    /// Blocks; `None` for an engine without block cache.
    pub blocks: Option<u32>,
    /// Longest prompt and answer together, in tokens.
    pub model_len: usize,
    /// Whether changes of the block cache are kept for [`Engine::take_events`].
    pub events: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Engine<L> {
    limits: Limits,
    /// Latencies; read at every step, so that changes apply at once.
    pub tunables: Tunables,
    cache: Option<BlockCache>,
    journal: Option<Journal>,
    jobs: HashMap<u64, Sequence<L>, BuildIdHasher>,
    /// Oldest first.
    running: Vec<JobId>,
    waiting: VecDeque<JobId>,
    /// (when, which job, the job's timer number); outdated entries are skipped.
    timers: BinaryHeap<Reverse<(Instant, JobId, u32)>>,
    adapters: Adapters,
    stats: Stats,
    rng: Rng,
    next_id: u64,
    /// Tokens processed since the poll began.
    step_tokens: usize,
    /// A job was preempted in this poll, and none has ended since.
    preempted: bool,
}

impl<L: Listener> Engine<L> {
    /// An idle engine. `seed` determines the noise of latencies.
    pub fn new(limits: Limits, tunables: Tunables, seed: u64) -> Self {
        let mut cache = limits.blocks.map(BlockCache::new);
        if let Some(cache) = cache.as_mut().filter(|_| limits.events) {
            cache.watch();
        }
        Self {
            limits,
            tunables,
            cache,
            journal: limits.events.then(Journal::default),
            jobs: HashMap::default(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            timers: BinaryHeap::new(),
            adapters: Adapters::new(limits.adapters),
            stats: Stats::new(limits.model_len),
            rng: Rng::with_seed(seed),
            next_id: 0,
            step_tokens: 0,
            preempted: false,
        }
    }

    /// Takes a job in. It starts at the next [`poll`](Self::poll).
    pub fn submit(&mut self, job: Job<L>, now: Instant) -> Result<JobId, Rejection> {
        // The last token is never computed on, so it needs no room.
        let tokens = job.prompt.len() + job.reply.len().saturating_sub(1);
        if self.cache.as_ref().is_some_and(|cache| self.blocks_for(tokens) > cache.capacity()) {
            return Err(Rejection::CacheTooSmall);
        }
        let must_wait = self.running.len() >= self.limits.running || !self.waiting.is_empty();
        if must_wait && self.waiting.len() >= self.limits.waiting {
            self.stats.add(Counter::RejectedQueueFull, 1);
            return Err(Rejection::QueueFull);
        }
        let id = JobId(self.next_id);
        self.next_id += 1;
        self.adapters.wait(job.adapter.as_ref());
        self.jobs.insert(id.0, Sequence::new(job, now));
        self.waiting.push_back(id);
        Ok(id)
    }

    /// Does everything that is due at `now`; returns when to call again at the latest.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.step_tokens = 0;
        self.preempted = false;
        loop {
            while let Some(&Reverse((due, id, timer))) = self.timers.peek() {
                if due > now {
                    break;
                }
                self.timers.pop();
                if self.jobs.get(&id.0).is_some_and(|job| job.timer == timer) {
                    self.step(id, due);
                }
            }
            // The blocks that a preemption freed are for older jobs: nothing starts until one ends or time passes.
            if !self.preempted {
                self.admit(now);
            }
            if self.timers.peek().is_none_or(|Reverse((due, ..))| *due > now) {
                break;
            }
        }
        if self.step_tokens > 0 {
            self.stats[Distribution::IterationTokens].observe(self.step_tokens as f64);
        }
        self.next_due()
    }

    /// Drops a job whose answer nobody waits for any more. Its listener hears nothing.
    pub fn abort(&mut self, id: JobId) {
        let Some(mut job) = self.jobs.remove(&id.0) else { return };
        if let Some(at) = self.running.iter().position(|running| *running == id) {
            self.running.remove(at);
            self.adapters.stop(job.adapter.as_ref());
            self.release(&mut job);
        } else {
            self.waiting.retain(|waiting| *waiting != id);
            self.adapters.leave(job.adapter.as_ref());
        }
        self.stats.add(Counter::FinishedAbort, 1);
    }

    /// When the next token is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, ..))| *due)
    }

    /// Forgets every cached prefix. Does nothing, and returns false, while a job runs.
    pub fn reset_cache(&mut self) -> bool {
        let Some(cache) = &mut self.cache else { return true };
        if cache.referenced() > 0 {
            return false;
        }
        cache.forget();
        if let Some(journal) = &mut self.journal {
            journal.push(Event::Cleared);
        }
        true
    }

    /// What happened to the block cache since the last time, up to the last step. Empty if nobody asked for it
    /// in the [limits](Limits::events).
    pub fn take_events(&mut self) -> Vec<Event> {
        self.journal.as_mut().map(Journal::take).unwrap_or_default()
    }

    /// The number of running jobs.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The number of waiting jobs.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The number of waiting jobs that wait for an adapter, not for room.
    pub fn deferred(&self) -> usize {
        if self.adapters.has_room() {
            return 0;
        }
        self.waiting.iter().filter(|id| !self.adapters.is_loaded(self.adapter(**id))).count()
    }

    /// The block cache, if there is one.
    pub fn cache(&self) -> Option<&BlockCache> {
        self.cache.as_ref()
    }

    /// LoRA adapters.
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// Counters and histograms.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The sizes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Starts waiting jobs while there is room.
    fn admit(&mut self, now: Instant) {
        while self.running.len() < self.limits.running {
            let Some(at) = self.next_to_start() else { return };
            let id = self.waiting[at];
            if !self.start(id, now) {
                return;
            }
            self.waiting.remove(at);
        }
    }

    /// The position in the queue of the first job whose adapter is loaded, else of the first that may load its own.
    fn next_to_start(&self) -> Option<usize> {
        let loaded = |id: &JobId| self.adapters.is_loaded(self.adapter(*id));
        match self.waiting.iter().position(loaded) {
            Some(at) => Some(at),
            None => (self.adapters.has_room() && !self.waiting.is_empty()).then_some(0),
        }
    }

    /// Gives a waiting job its blocks and begins its prefill. False when there are not enough blocks.
    fn start(&mut self, id: JobId, now: Instant) -> bool {
        let Some(job) = self.jobs.get_mut(&id.0) else { return true };
        let tokens = job.computed_tokens();
        let mut cached = 0;
        if let Some(cache) = &mut self.cache {
            let size = self.limits.block_size;
            job.extend_chain(tokens / size, size);
            // At least one token is computed: without it there is nothing to sample the next one from.
            let hits = cache.find(&job.chain.keys()[..tokens.saturating_sub(1) / size]);
            let fresh = tokens.div_ceil(size) - hits;
            let Sequence { job: inner, table, .. } = &mut *job;
            if cache.acquire(&inner.chain.keys()[..hits], fresh, table).is_err() {
                return false;
            }
            let full = tokens / size;
            for (block, key) in job.table.iter().zip(&job.chain.keys()[..full]).skip(hits) {
                cache.seal(*block, *key);
            }
            cached = hits * size;
            if let Some(journal) = &mut self.journal {
                let reused = job.stored(0..hits, size).filter(|_| job.report_reused);
                journal.extend(reused);
                journal.evictions(cache);
                journal.extend(job.stored(hits..full, size));
                journal.step();
            }
        }
        self.adapters.start(job.adapter.as_ref());
        self.running.push(id);
        let load = Load { running: self.running.len(), limit: self.limits.running };
        if job.started.is_none() {
            job.started = Some(now);
            job.cached = cached;
            if self.cache.is_some() {
                self.stats.add(Counter::PrefixQueries, tokens);
                self.stats.add(Counter::PrefixHits, cached);
            }
            if job.below_threshold(cached) {
                self.finish(id, now, Some(Finish::CacheThreshold));
                return true;
            }
        }
        let remote = job.remote_prefill && job.produced == 0;
        let prefill = Prefill { prompt: tokens, cached, remote };
        let time = self.tunables.prefill_time(prefill, load, &mut self.rng);
        self.step_tokens += tokens - cached;
        job.pending = usize::from(!job.reply.is_empty());
        job.timer += 1;
        self.timers.push(Reverse((now + time, id, job.timer)));
        true
    }

    /// The timer of a running job has fired: its pending tokens appear at `at`.
    fn step(&mut self, id: JobId, at: Instant) {
        let Some(job) = self.jobs.get_mut(&id.0) else { return };
        let before = job.computed_tokens();
        let pending = std::mem::take(&mut job.pending);
        job.produced += pending;
        if let Some(cache) = &mut self.cache {
            // All but the newest token have been computed on, and are in their blocks.
            let size = self.limits.block_size;
            let (full, sealed) =
                (job.computed_tokens().saturating_sub(1) / size, before.saturating_sub(1) / size);
            if full > sealed {
                job.extend_chain(full, size);
                let mut known = sealed;
                for (block, key) in job.table.iter().zip(&job.chain.keys()[..full]).skip(sealed) {
                    // The last block of a prompt has been sealed at its start.
                    known += usize::from(!cache.seal(*block, *key));
                }
                if let Some(journal) = &mut self.journal {
                    journal.extend(job.stored(known..full, size));
                }
            }
            if let Some(journal) = &mut self.journal {
                journal.step();
            }
        }
        self.stats.add(Counter::GenerationTokens, pending);
        self.step_tokens += pending;
        if job.first_token.is_none() {
            job.first_token = Some(at);
            job.count_prefill(&mut self.stats, at);
        }
        job.listener.released(job.produced);
        if job.produced == job.reply.len() {
            self.finish(id, at, None);
        } else {
            self.grow(id, at);
        }
    }

    /// Makes room for the next tokens of a running job, preempting the youngest if need be, and sets its timer.
    fn grow(&mut self, id: JobId, at: Instant) {
        let size = self.limits.block_size;
        loop {
            let Some(job) = self.jobs.get_mut(&id.0) else { return };
            let Some(cache) = &mut self.cache else { break };
            if job.computed_tokens() <= job.table.len() * size
                || cache.acquire(&[], 1, &mut job.table).is_ok()
            {
                break;
            }
            let Some(youngest) = self.running.pop() else { return };
            self.preempt(youngest);
            if youngest == id {
                return;
            }
        }
        if let (Some(journal), Some(cache)) = (&mut self.journal, &mut self.cache) {
            journal.evictions(cache);
        }
        let load = Load { running: self.running.len(), limit: self.limits.running };
        let Some(job) = self.jobs.get_mut(&id.0) else { return };
        let left = job.reply.len() - job.produced;
        let timeless = self.tunables.inter_token_latency.0.is_zero();
        let mut tokens = if job.stepwise && !timeless { 1 } else { left };
        if self.cache.is_some() {
            tokens = tokens.min(job.table.len() * size - job.computed_tokens() + 1);
        }
        let mut due = at;
        if timeless {
            self.stats[Distribution::InterToken].observe_many(0.0, tokens as u64);
        } else {
            for _ in 0..tokens {
                let time = self.tunables.token_time(load, &mut self.rng);
                self.stats[Distribution::InterToken].observe(time.as_secs_f64());
                due += time;
            }
        }
        job.pending = tokens;
        job.timer += 1;
        self.timers.push(Reverse((due, id, job.timer)));
    }

    /// Takes a job that has just left `running` back to the head of the queue.
    fn preempt(&mut self, id: JobId) {
        let Some(mut job) = self.jobs.remove(&id.0) else { return };
        self.release(&mut job);
        job.timer += 1;
        job.pending = 0;
        job.preemptions += 1;
        self.adapters.stop(job.adapter.as_ref());
        self.adapters.wait(job.adapter.as_ref());
        self.stats.add(Counter::Preemptions, 1);
        self.preempted = true;
        self.jobs.insert(id.0, job);
        self.waiting.push_front(id);
    }

    fn finish(&mut self, id: JobId, at: Instant, instead: Option<Finish>) {
        let Some(mut job) = self.jobs.remove(&id.0) else { return };
        // Blocks become free: what was preempted may try again.
        self.preempted = false;
        self.running.retain(|running| *running != id);
        self.adapters.stop(job.adapter.as_ref());
        let blocks = job.table.clone();
        self.release(&mut job);
        let finish = instead.unwrap_or(job.finish);
        let counter = match finish {
            Finish::Length | Finish::RemoteDecode => Counter::FinishedLength,
            Finish::CacheThreshold | Finish::Stop => Counter::FinishedStop,
        };
        self.stats.add(counter, 1);
        job.count_end(&mut self.stats, at);
        let elapsed = at.saturating_duration_since(job.arrived);
        job.listener.finished(End { finish, cached: job.cached, blocks, elapsed });
    }

    fn release(&mut self, job: &mut Sequence<L>) {
        if let Some(cache) = &mut self.cache {
            cache.release(&mut job.table);
        }
    }

    fn adapter(&self, id: JobId) -> Option<&std::sync::Arc<str>> {
        self.jobs.get(&id.0).and_then(|job| job.adapter.as_ref())
    }

    fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.limits.block_size)
    }
}

#[cfg(test)]
mod tests;
