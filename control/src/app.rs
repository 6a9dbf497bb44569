//! The process: start, the loop, the end.
//!
//! Everything that happens on a timer happens in one loop, so that its order is evident: the
//! heartbeat, a look at the watched files, the judgement of the scrape pace, the release of slots.
//! Scrapes and HTTP connections are tasks beside it, on the same thread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use inlane_core::registry::Registry;
use inlane_core::snapshot::{FailureMode, IndexDocument, Pool};
use inlane_segment::{Opened, Origin};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::args::Args;
use crate::config::settings::{FileDiscovery, SHORTEST_INTERVAL, Settings};
use crate::config::{Accepted, Configurator};
use crate::discovery::Member;
use crate::discovery::file::{self, Endpoints, Entries};
use crate::http;
use crate::kv::{self, KvEvents};
use crate::latency::{self, Place, Training};
use crate::pool::PublishedPool;
use crate::process::thread_cpu_time;
use crate::scrape::pace::PaceLimits;
use crate::scrape::source::Target;
use crate::scrape::{Scrapers, Sink};
use crate::shared::Shared;
use crate::watch::{Change, FileWatch};

/// How often the segment's heartbeat and the watched files are seen to.
const BEAT: Duration = Duration::from_millis(250);

/// How often the pace is judged and slots are released.
const REVIEW: Duration = Duration::from_secs(1);

/// Why the process ends.
#[derive(Debug, Error)]
pub(crate) enum Fatal {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Endpoints(String),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error(
        "nothing says where endpoints come from: give --endpoints-file, or a configuration with \
         dataLayer.discovery"
    )]
    NoDiscovery,
    #[error("segment: {0}")]
    Segment(#[from] inlane_segment::Error),
    #[error("cannot handle signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs the control plane until SIGTERM or SIGINT.
pub(crate) async fn serve(args: Args, registry: Registry) -> Result<(), Fatal> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Signals)?;
    let mut control = Control::start(args, registry).await?;
    let mut beat = ticks(BEAT);
    let mut review = ticks(REVIEW);
    let mut gauges = ticks(control.args.refresh_prometheus_metrics_interval.max(REVIEW));
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = beat.tick() => control.beat(),
            _ = review.tick() => control.review(),
            _ = gauges.tick() => control.shared.refresh_gauges(control.args.metrics_staleness_threshold),
        }
    }
    control.shared.ready.set(false);
    // Lets them save and end; connections may hold what is shared for longer.
    control.shared.training.take();
    control.shared.pool.borrow_mut().set_mover(None);
    control.shared.events.take();
    tracing::info!("stopping: the segment stays as it is");
    Ok(())
}

/// Ticks of which the first comes after a whole period.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The parts that the loop drives.
struct Control {
    args: Args,
    shared: Rc<Shared>,
    scrapers: Rc<Scrapers>,
    configurator: Configurator,
    settings: Settings,
    endpoints: EndpointsFile,
    /// Where latency models are learned from and kept.
    training: Place,
    /// Members that could not be published yet.
    unpublished: Option<Vec<Member>>,
    /// Generation of the last refused configuration, by proxy.
    refusals: BTreeMap<String, u64>,
    /// Time of the last review, and the CPU time that this thread, which scrapes, had spent.
    reviewed: (Instant, Duration),
}

impl Control {
    async fn start(args: Args, registry: Registry) -> Result<Self, Fatal> {
        let address = args.http_address();
        let listener = TcpListener::bind(address).await.map_err(|e| Fatal::Listen(address, e))?;
        let failure_mode =
            if args.fail_open { FailureMode::FailOpen } else { FailureMode::FailClose };
        let pool = Pool { name: args.pool_name.clone(), namespace: args.namespace(), failure_mode };
        let training = training_place(&args, &pool)?;
        let (pool, opened) = PublishedPool::open(&args.segment_dir, args.max_endpoints, pool)?;
        log_opened(&args, &opened);
        let shared = Rc::new(Shared::new(pool));
        let source = args.config_source(environment()).map_err(Fatal::Config)?;
        let mut configurator = Configurator::new(registry, source, args.allow_experimental_plugins);
        let accepted = first_config(&mut configurator, &shared)?;
        let (endpoints, first) = EndpointsFile::open(&discovery(&args, &accepted.settings)?)
            .map_err(Fatal::Endpoints)?;
        let limits = limits(&args, &accepted.settings);
        let scrapers = Rc::new(Scrapers::new(Rc::clone(&shared) as Rc<dyn Sink>, limits));
        shared.pool.borrow_mut().set_config(&accepted.document)?;
        shared.pool.borrow_mut().set_scalars(&accepted.settings.scalars)?;
        shared.endpoints.borrow_mut().accept(None);
        let mut control = Self {
            args,
            scrapers,
            shared,
            configurator,
            settings: accepted.settings,
            endpoints,
            training,
            unpublished: None,
            refusals: BTreeMap::new(),
            reviewed: (Instant::now(), thread_cpu_time()),
        };
        control.set_members(first);
        control.train();
        control.follow_events();
        control.shared.ready.set(true);
        let address = listener.local_addr().unwrap_or(address);
        http::spawn(listener, Rc::clone(&control.shared), Rc::clone(&control.scrapers));
        tracing::info!(address = %address, "serving");
        Ok(control)
    }

    fn beat(&mut self) {
        self.shared.pool.borrow_mut().beat();
        if let Some(next) = self.configurator.next() {
            let taken = next.and_then(|accepted| self.take_config(accepted));
            if let Err(error) = taken {
                tracing::error!(
                    error,
                    "the configuration is refused, the one before stays in force"
                );
                self.shared.config.borrow_mut().refuse(error);
            }
        }
        if let Some(next) = self.endpoints.next() {
            self.take_endpoints(next);
        }
        self.publish_model();
        self.publish_index();
        self.ask_pods();
    }

    fn review(&mut self) {
        let now = (Instant::now(), thread_cpu_time());
        let (then, spent) = std::mem::replace(&mut self.reviewed, now);
        self.scrapers.judge(now.0 - then, now.1.saturating_sub(spent));
        if let Some(members) = self.unpublished.take() {
            self.set_members(members);
        }
        if let Err(error) = self.shared.pool.borrow_mut().reclaim() {
            self.shared.publish_failed(&error, "ledgers");
        }
        self.report_refusals();
    }

    /// Logs configurations that a proxy refuses although they were found good here, each once.
    fn report_refusals(&mut self) {
        let pool = self.shared.pool.borrow();
        let mut known = std::mem::take(&mut self.refusals);
        for (proxy, ledger) in pool.ledgers().iter() {
            let Some(refusal) = ledger.refusal() else { continue };
            let new = known.remove(proxy) != Some(refusal.generation);
            if new && refusal.generation > ledger.accepted_config() {
                tracing::error!(
                    proxy,
                    generation = refusal.generation,
                    reason = refusal.reason,
                    "a proxy refuses the configuration"
                );
            }
            self.refusals.insert(proxy.to_owned(), refusal.generation);
        }
    }

    fn take_config(&mut self, accepted: Accepted) -> Result<(), String> {
        let Accepted { document, mut settings } = accepted;
        settings.keep_sources(&self.settings);
        let wanted = discovery(&self.args, &settings).map_err(|e| e.to_string())?;
        let moved = if wanted == self.endpoints.origin {
            None
        } else {
            Some(EndpointsFile::open(&wanted)?)
        };
        let published = self.shared.pool.borrow_mut().set_config(&document);
        let generation = published.map_err(|e| e.to_string())?;
        let published = self.shared.pool.borrow_mut().set_scalars(&settings.scalars);
        published.map_err(|e| e.to_string())?;
        tracing::info!(source = document.source, generation, "configuration accepted");
        self.shared.config.borrow_mut().accept(None);
        self.scrapers.set_limits(limits(&self.args, &settings));
        self.settings = settings;
        self.train();
        self.follow_events();
        match moved {
            Some((endpoints, members)) => {
                self.endpoints = endpoints;
                self.shared.endpoints.borrow_mut().accept(None);
                self.set_members(members);
            }
            None => self.scrape_members(),
        }
        Ok(())
    }

    /// Starts to learn latencies, or ends it, as the configuration says.
    fn train(&self) {
        let mut training = self.shared.training.borrow_mut();
        if !self.settings.predicts_latency {
            *training = None;
        } else if training.is_none() {
            match Training::start(self.training.clone()) {
                Ok(started) => {
                    tracing::info!(state = %self.training.state.display(), "latencies are learned");
                    started.set_endpoints(self.ids().iter().map(String::as_str));
                    *training = Some(started);
                }
                Err(error) => tracing::error!(error = %error, "latencies cannot be learned"),
            }
        }
    }

    fn publish_model(&self) {
        let next = self.shared.training.borrow_mut().as_mut().and_then(Training::next);
        if let Some(model) = next
            && let Err(error) = self.shared.pool.borrow_mut().set_model(&model)
        {
            self.shared.publish_failed(&error, "latency models");
        }
    }

    /// Starts to follow KV-cache events, or ends it, as the configuration says.
    fn follow_events(&self) {
        let wanted = self.settings.events.as_ref().filter(|_| self.args.index_bytes > 0);
        let mut events = self.shared.events.borrow_mut();
        if events.as_ref().map(KvEvents::settings) == wanted {
            return;
        }
        self.shared.pool.borrow_mut().set_mover(None);
        *events = None;
        if let Some(settings) = wanted {
            match self.start_events(settings.clone()) {
                Ok(mut started) => {
                    started.set_members(self.shared.pool.borrow().kv_endpoints());
                    *events = Some(started);
                    return;
                }
                Err(error) => {
                    tracing::error!(error, "KV-cache events cannot be followed: there is no index");
                }
            }
        }
        // What nobody keeps true must not be read.
        let mut pool = self.shared.pool.borrow_mut();
        if pool.found_index().is_some_and(|found| found != IndexDocument::default()) {
            let published = pool.set_index(&IndexDocument::default());
            drop(pool);
            self.note_publication(published, "index");
        }
    }

    fn start_events(&self, settings: kv::KvSettings) -> Result<KvEvents, String> {
        let mut pool = self.shared.pool.borrow_mut();
        let found = pool.found_index();
        let options =
            kv::Options { ttl: self.args.kv_silence_ttl, ask: self.args.kv_event_sources };
        let (words, spec) = pool.make_index(self.args.index_bytes).map_err(|e| e.to_string())?;
        let events = KvEvents::start(settings, options, words, spec, found.as_ref())
            .map_err(|e| e.to_string())?;
        // Anew even if it says the same: the table may be another one.
        pool.set_index(events.document()).map_err(|e| e.to_string())?;
        pool.set_mover(Some(events.mover()));
        Ok(events)
    }

    fn publish_index(&self) {
        let next = self.shared.events.borrow_mut().as_mut().and_then(KvEvents::next_document);
        if let Some(document) = next {
            let published = self.shared.pool.borrow_mut().set_index(&document);
            self.note_publication(published, "index");
        }
    }

    fn note_publication(&self, published: Result<u64, inlane_segment::Error>, what: &str) {
        if let Err(error) = published {
            self.shared.publish_failed(&error, what);
        }
    }

    /// Asks pods where they publish events, where that is not known.
    fn ask_pods(&self) {
        let mut events = self.shared.events.borrow_mut();
        let Some(events) = events.as_mut() else { return };
        let base = events.settings().ports.map(|(port, _)| port);
        for endpoint in events.due_to_ask() {
            let shared = Rc::clone(&self.shared);
            tokio::task::spawn_local(async move {
                let at = SocketAddr::new(endpoint.address, endpoint.port);
                let answer = kv::ask(at, endpoint.rank, base).await;
                if let Some(events) = &mut *shared.events.borrow_mut() {
                    events.learn(&endpoint, answer);
                }
            });
        }
    }

    fn ids(&self) -> Vec<String> {
        self.shared.pool.borrow().members().map(|tracked| tracked.member.id()).collect()
    }

    fn take_endpoints(&mut self, next: Result<Endpoints, String>) {
        match next {
            Ok(endpoints) => {
                for error in &endpoints.invalid {
                    tracing::error!(error = %error, "endpoint skipped");
                }
                let reservation = endpoints.invalid.first().map(ToString::to_string);
                tracing::info!(count = endpoints.members.len(), "endpoints file reloaded");
                self.shared.endpoints.borrow_mut().accept(reservation);
                self.set_members(endpoints.members);
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "the endpoints file is refused, the set before stays in force"
                );
                self.shared.endpoints.borrow_mut().refuse(error);
            }
        }
    }

    /// Publishes members and scrapes them; what cannot be published is tried again later.
    fn set_members(&mut self, members: Vec<Member>) {
        let result = self.shared.pool.borrow_mut().set_members(members.clone());
        if let Err(error) = result {
            self.shared.publish_failed(&error, "topology");
            self.unpublished = Some(members);
        } else {
            self.unpublished = None;
        }
        if let Some(events) = &mut *self.shared.events.borrow_mut() {
            events.set_members(self.shared.pool.borrow().kv_endpoints());
        }
        if let Some(training) = &*self.shared.training.borrow() {
            training.set_endpoints(self.ids().iter().map(String::as_str));
        }
        self.scrape_members();
    }

    fn scrape_members(&self) {
        let pool = self.shared.pool.borrow();
        let intervals = self.settings.intervals(self.args.refresh_metrics_interval);
        let shortest = intervals.iter().min().copied().unwrap_or(SHORTEST_INTERVAL);
        let mut targets = Vec::new();
        for member in pool.members() {
            let endpoint = Rc::new(member.endpoint());
            let sources = (0..).zip(&self.settings.sources).zip(&intervals);
            targets.extend(sources.map(|(source, interval)| {
                let stretch = interval.as_secs_f64() / shortest.as_secs_f64();
                let (endpoint, address) = (Rc::clone(&endpoint), member.metrics_address());
                Target::new(endpoint, address, source, stretch, pool.scalars())
            }));
        }
        self.scrapers.reconcile(targets);
    }
}

/// The variables of this process that are text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The configuration to start with. Where the given one is bad and the segment has one that is
/// good, a restart must not be what breaks the service: that one stays in force.
fn first_config(configurator: &mut Configurator, shared: &Shared) -> Result<Accepted, Fatal> {
    let error = match configurator.first() {
        Ok(accepted) => {
            shared.config.borrow_mut().accept(None);
            return Ok(accepted);
        }
        Err(error) => error,
    };
    let found = shared.pool.borrow().found_config();
    match found.and_then(|document| configurator.judge(document).ok()) {
        Some(accepted) => {
            tracing::error!(
                error,
                "the configuration is refused, the published one stays in force"
            );
            shared.config.borrow_mut().refuse(error);
            Ok(accepted)
        }
        None => Err(Fatal::Config(error)),
    }
}

/// Where latency models are learned from and kept, as the command line and the environment say.
fn training_place(args: &Args, pool: &Pool) -> Result<Place, Fatal> {
    let latency::Read { options, notes } =
        latency::options(environment()).map_err(Fatal::Config)?;
    for note in notes {
        tracing::warn!("{note}");
    }
    let dir = args.state_dir().map_err(Fatal::Config)?;
    let state = dir.join(latency::file_name(&pool.namespace, &pool.name));
    Ok(Place { segment_dir: args.segment_dir.clone(), state, options })
}

fn discovery(args: &Args, settings: &Settings) -> Result<FileDiscovery, Fatal> {
    if let Some(path) = &args.endpoints_file {
        return Ok(FileDiscovery { path: path.clone(), watch: true, entries: Entries::Pods });
    }
    settings.discovery.clone().ok_or(Fatal::NoDiscovery)
}

fn limits(args: &Args, settings: &Settings) -> PaceLimits {
    let intervals = settings.intervals(args.refresh_metrics_interval);
    PaceLimits {
        base: intervals
            .into_iter()
            .min()
            .unwrap_or(args.refresh_metrics_interval.max(SHORTEST_INTERVAL)),
        longest: args.max_refresh_metrics_interval,
        cores: args.scrape_cpu_limit,
    }
}

fn log_opened(args: &Args, opened: &Opened) {
    let dir = args.segment_dir.display();
    let (required, free) = opened.allocation.map_or((0, 0), |a| (a.required, a.free));
    match &opened.origin {
        Origin::Replaced(reason) => tracing::warn!(
            dir = %dir, required_bytes = required, free_bytes = free, reason = %reason,
            "what the segment held cannot be used, starting anew"
        ),
        origin => {
            let origin = format!("{origin:?}").to_lowercase();
            tracing::info!(
                dir = %dir, required_bytes = required, free_bytes = free, origin,
                "segment opened"
            );
        }
    }
}

/// The endpoints file in use.
struct EndpointsFile {
    origin: FileDiscovery,
    watch: FileWatch,
}

impl EndpointsFile {
    /// Loads the file for the first time, when anything wrong with it is an error.
    fn open(origin: &FileDiscovery) -> Result<(Self, Vec<Member>), String> {
        let path: PathBuf = origin.path.clone();
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut watch = FileWatch::new(path.clone(), file::MAX_BYTES);
        let bytes = watch.first().map_err(|e| named(&e))?;
        let endpoints = file::parse(&bytes, origin.entries).map_err(|e| named(&e))?;
        if let Some(error) = endpoints.invalid.first() {
            return Err(named(error));
        }
        Ok((Self { origin: origin.clone(), watch }, endpoints.members))
    }

    fn next(&mut self) -> Option<Result<Endpoints, String>> {
        if !self.origin.watch {
            return None;
        }
        let named =
            |error: &dyn std::fmt::Display| format!("{}: {error}", self.origin.path.display());
        Some(match self.watch.look()? {
            Change::Content(bytes) => {
                file::parse(&bytes, self.origin.entries).map_err(|e| named(&e))
            }
            Change::Lost(error) => Err(named(&error)),
        })
    }
}
