//! What a pod loses when it dies.

use std::{
    sync::Arc,
    time::{Instant, UNIX_EPOCH},
};

use super::{ticket::Ticket, unix_time};
use crate::{
    config::{Config, tunables::Tunables},
    engine::Engine,
    events::Publisher,
    metrics::{
        families::{self, Facts},
        http::HttpStats,
        page::{Gauge, Labels, Page, Section, Source, header, number},
        process::Process,
        stats::Stats,
    },
};

/// The state of a pod from its start to its end.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) engine: Engine<Arc<Ticket>>,
    pub(crate) http: HttpStats,
    pub(crate) started: Instant,
    /// When the driver will poll the engine next.
    pub(super) armed: Option<Instant>,
    /// Where cache events go; none after a kill.
    pub(super) publisher: Option<Publisher>,
    page: Arc<Page>,
}

impl Life {
    pub(super) fn new(
        config: &Config,
        model: &str,
        tunables: &Tunables,
        seed: u64,
        publisher: Option<Publisher>,
    ) -> Self {
        let limits = config.limits();
        let created = unix_time().as_secs_f64();
        let facts = Facts {
            model,
            block_size: limits.block_size,
            blocks: limits.blocks,
            model_len: limits.model_len,
            created,
        };
        Self {
            engine: Engine::new(limits, tunables.clone(), seed),
            http: HttpStats::new(created),
            started: Instant::now(),
            armed: None,
            publisher,
            page: Arc::new(families::page(&facts)),
        }
    }

    /// Polls the engine, and publishes what became of its cache.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Instant> {
        let due = self.engine.poll(now);
        let events = self.engine.take_events();
        if let Some(publisher) = self.publisher.as_mut().filter(|_| !events.is_empty()) {
            publisher.publish(&events);
        }
        due
    }

    /// The metrics page; with the LoRA family if there are adapters.
    pub(super) fn metrics(&self, adapters: bool) -> String {
        self.page.render(&Reading { life: self, adapters, process: Process::now() })
    }
}

/// The values of one page.
struct Reading<'a> {
    life: &'a Life,
    adapters: bool,
    process: Process,
}

impl Source for Reading<'_> {
    fn stats(&self) -> &Stats {
        self.life.engine.stats()
    }

    fn gauge(&self, gauge: Gauge) -> f64 {
        let engine = &self.life.engine;
        let count = |count: usize| count as f64;
        match gauge {
            Gauge::CacheUsage => engine
                .cache()
                .map_or(0.0, |cache| count(cache.referenced()) / count(cache.capacity().max(1))),
            Gauge::Capacity => count(engine.waiting() - engine.deferred()),
            Gauge::Cpu => self.process.cpu,
            Gauge::Deferred => count(engine.deferred()),
            Gauge::MaxFiles => self.process.max_files,
            Gauge::OpenFiles => self.process.open_files,
            Gauge::ResidentMemory => self.process.resident,
            Gauge::Running => count(engine.running()),
            Gauge::StartTime => self.process.start,
            Gauge::VirtualMemory => self.process.virtual_size,
            Gauge::Waiting => count(engine.waiting()),
        }
    }

    fn section(&self, section: Section, out: &mut String) {
        match section {
            Section::Http => self.life.http.render(out),
            Section::Lora if self.adapters => {
                let name = "vllm:lora_requests_info";
                header(name, "Running stats on lora requests.", "gauge", out);
                let adapters = self.life.engine.adapters();
                let limit = adapters.limit().to_string();
                for snapshot in adapters.history() {
                    out.push_str(name);
                    Labels::new([
                        ("max_lora", limit.as_str()),
                        ("running_lora_adapters", &snapshot.running),
                        ("waiting_lora_adapters", &snapshot.waiting),
                    ])
                    .write(out);
                    out.push(' ');
                    let at = snapshot.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                    number(at.as_secs_f64(), out);
                    out.push('\n');
                }
            }
            Section::Lora => {}
        }
    }
}
