//! KV-cache events: who publishes them, and the table in the segment that they end in.
//!
//! ```text
//! engines ──ZeroMQ──► [ io thread: drains every socket ]
//!                          │ queue: bounded, drops rather than waits
//!                          ▼
//!                     [ index thread: sequence, decode, hash, apply ] ──► table in the segment
//!                          ▲ endpoints, places, reset      │ commands: connect, replay
//!                     main loop, on its beat               ▼ io thread
//! ```
//!
//! The [`core`] is what both the index thread and the main loop work on, under one lock that is held
//! for a few messages at a time. The rules of one stream are in [`follow`], free of clocks and sockets.

mod core;
mod follow;
mod io;
mod metrics;
mod publisher;
mod queue;
mod redis;
mod segment;
mod settings;
mod sources;

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inlane_core::snapshot::IndexDocument;
use inlane_kv::event::EngineType;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_kv::{Applier, Limits, MOST_TIERS};
use inlane_plugins::precise::parameters;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MirrorSpec, TableError};
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

use self::core::Core;
use self::io::{Command, Commander, Io, Strays};
pub(crate) use self::metrics::{page, write as write_metrics};
use self::publisher::{Identity, Place, Publisher};
use self::queue::{PublisherId, Queue};
use self::redis::Shared;
pub(crate) use self::segment::{SegmentTable, Tap, Ties};
pub(crate) use self::settings::KvSettings;
use self::sources::Found;
pub(crate) use self::sources::{Answer, Ask, ask};

/// Bytes that may wait between the threads.
const QUEUE_BYTES: usize = 128 << 20;

/// Events applied under one lock.
const CHUNK: usize = 64;

/// How often streams are looked at for what is due.
const TICK: Duration = Duration::from_millis(100);

/// Pods asked in one beat.
const MAX_ASKED: usize = 64;

/// Why events cannot be followed.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("ZeroMQ: {0}")]
    Sockets(#[from] zmq::Error),
    #[error("{0}")]
    Table(#[from] TableError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// What the command line says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// How long a publisher may be silent before its blocks are forgotten.
    pub(crate) ttl: Duration,
    /// When pods are asked where they publish.
    pub(crate) ask: Ask,
}

/// An endpoint as the events need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `namespace/name`.
    pub(crate) id: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) rank: u32,
    pub(crate) slot: u32,
}

/// The running parts.
pub(crate) struct KvEvents {
    settings: KvSettings,
    options: Options,
    guarded: Arc<Mutex<Guarded>>,
    queue: Arc<Queue>,
    strays: Arc<Mutex<Strays>>,
    members: BTreeMap<String, Known>,
    ids: u64,
    /// Whether a thread has died.
    dead: Arc<AtomicBool>,
    /// What readers were told last.
    document: IndexDocument,
    /// The index that others keep too.
    shared: Option<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The core, and who carries its commands out.
struct Guarded {
    core: Core<SegmentTable>,
    commander: Commander,
}

/// An endpoint that is followed.
struct Known {
    id: PublisherId,
    endpoint: Endpoint,
    /// What the pod says of itself.
    found: Option<Found>,
    /// When it may be asked next.
    ask_at: Instant,
}

impl Guarded {
    /// Has sockets follow what the core has decided.
    fn flush(&mut self) {
        for command in self.core.take_commands() {
            self.commander.send(command);
        }
    }
}

impl KvEvents {
    /// Starts to follow events into `words`. `found` is the document of the table that may be in
    /// there: what it says of the keys decides whether the table is of use.
    ///
    /// # Errors
    /// No room, no sockets, no threads.
    pub(crate) fn start(
        settings: KvSettings,
        options: Options,
        words: MappedWords,
        spec: MirrorSpec,
        found: Option<&IndexDocument>,
    ) -> Result<Self, StartError> {
        let found = found.filter(|document| settings.keys.are_of(document));
        let (table, is_known) = SegmentTable::open(words, spec, found.is_some())?;
        let tiers = found.filter(|_| is_known).map(|document| document.tiers.clone());
        let tiers = tiers.unwrap_or_default();
        let applier = applier(&settings, &tiers);
        let engine = match settings.engine {
            parameters::EngineType::Vllm => EngineType::Vllm,
            parameters::EngineType::Sglang => EngineType::Sglang,
        };
        tracing::info!(
            blocks = table.blocks(),
            slots = spec.slots,
            room = spec.blocks,
            recovered = is_known,
            "KV-cache events are followed"
        );
        let core = Core::new(engine, applier, table, options.ttl);
        let queue = Arc::new(Queue::new(QUEUE_BYTES));
        let strays = Arc::new(Mutex::new(Strays::default()));
        let (io, commander) = Io::new(Arc::clone(&queue), Arc::clone(&strays))?;
        let url = settings.central.clone();
        commander.send(Command::Central { url, filter: settings.filter.clone().into() });
        let document = settings.keys.document(core.applier().tiers().to_vec());
        let guarded = Arc::new(Mutex::new(Guarded { core, commander }));
        let mut this = Self {
            settings,
            options,
            guarded,
            queue,
            strays,
            members: BTreeMap::new(),
            ids: 0,
            dead: Arc::default(),
            document,
            shared: None,
            threads: Vec::new(),
        };
        if let Some(address) = this.settings.redis.clone() {
            let shared = Shared::start(address, Arc::clone(&this.guarded));
            let shared = shared.map_err(StartError::Thread)?;
            this.set_tap(shared.feed());
            this.shared = Some(shared);
        }
        this.spawn("inlane-kv-io", move || io.run())?;
        let (guarded, queue) = (Arc::clone(&this.guarded), Arc::clone(&this.queue));
        this.spawn("inlane-kv-index", move || apply(&guarded, &queue))?;
        Ok(this)
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let alive = Alive(Arc::clone(&self.dead));
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let alive = alive;
            work();
            // Not reached by a panic.
            alive.end();
        });
        self.threads.push(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    pub(crate) fn settings(&self) -> &KvSettings {
        &self.settings
    }

    /// Follows these endpoints and no others. Those that left take their blocks with them at once.
    pub(crate) fn set_members(&mut self, endpoints: impl Iterator<Item = Endpoint>) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.members);
        let guarded = Arc::clone(&self.guarded);
        let mut guarded = guarded.lock();
        let mut new = Vec::new();
        for endpoint in endpoints {
            match before.remove(&endpoint.id) {
                Some(known) if known.endpoint == endpoint => {
                    self.members.insert(endpoint.id.clone(), known);
                }
                Some(moved) => {
                    guarded.core.remove(moved.id);
                    new.push(endpoint);
                }
                None => new.push(endpoint),
            }
        }
        for gone in before.into_values() {
            guarded.core.remove(gone.id);
        }
        for endpoint in new {
            let Ok(slot) = u16::try_from(endpoint.slot) else { continue };
            self.ids += 1;
            let id = PublisherId(self.ids);
            let place = self.place(&endpoint, None);
            let who = Identity {
                endpoint: endpoint.id.clone(),
                name: inlane_core::endpoint::Endpoint::join_host_port(
                    &endpoint.address.to_string(),
                    endpoint.port,
                ),
                address: endpoint.address,
                slot,
            };
            if let Some(shared) = &self.shared {
                shared.name(slot, &who.shared_name());
            }
            guarded.core.add(id, who, place, now);
            let ask_at = now + self.options.ask.first().unwrap_or_default();
            let known = Known { id, endpoint, found: None, ask_at };
            self.members.insert(known.endpoint.id.clone(), known);
        }
        if let Some(shared) = &self.shared {
            let taken: HashSet<u16> =
                guarded.core.publishers().map(|(_, publisher)| publisher.who.slot).collect();
            shared.keep_names(|slot| taken.contains(&slot));
        }
        guarded.core.sweep();
        guarded.flush();
    }

    /// Where an endpoint publishes: as it says itself, or as the configuration says.
    fn place(&self, endpoint: &Endpoint, found: Option<&Found>) -> Place {
        let rank = u16::try_from(endpoint.rank).unwrap_or(0);
        let url = |port: u16| {
            let port = port.checked_add(rank)?;
            Some(format!("tcp://{}", SocketAddr::new(endpoint.address, port)))
        };
        let filter = self.settings.filter.clone();
        let (events, replays) = self
            .settings
            .ports
            .map_or((None, None), |(events, replays)| (url(events), replays.and_then(url)));
        let Some(found) = found else {
            return Place { events, replays, filter: filter.into() };
        };
        let expected = events.filter(|_| !found.connects);
        Place {
            events: found.events.clone().or(expected).filter(|_| self.settings.ports.is_some()),
            replays: found.replays.clone().or(replays),
            filter: if found.is_elsewhere(&filter) { found.topic.clone() } else { filter }.into(),
        }
    }

    /// Endpoints whose pods are to be asked where they publish, each once in a while.
    pub(crate) fn due_to_ask(&mut self) -> Vec<Endpoint> {
        let now = Instant::now();
        let Some(again) = self.options.ask.again() else { return Vec::new() };
        // Who is away may come back with another port; who is silent may be elsewhere; and without the
        // model's name what is heard is of no use.
        let is_away =
            |p: &Publisher| p.follower.heard_live() && p.place.events.is_some() && !p.connected;
        let pauses: BTreeMap<PublisherId, Duration> = {
            let guarded = self.guarded.lock();
            let pause = |p: &Publisher| match is_away(p) {
                true => Some(sources::SILENT),
                false => (!p.follower.heard_live() || p.model.is_none()).then_some(again),
            };
            guarded.core.publishers().filter_map(|(id, p)| Some((id, pause(p)?))).collect()
        };
        let mut due = Vec::new();
        for known in self.members.values_mut() {
            let pause = pauses.get(&known.id).copied();
            let always = known.found.is_none() && self.options.ask.is_always();
            let Some(pause) = pause.or(always.then_some(again)) else { continue };
            if now >= known.ask_at && due.len() < MAX_ASKED {
                known.ask_at = now + pause;
                due.push(known.endpoint.clone());
            }
        }
        due
    }

    /// What a pod has said of itself.
    pub(crate) fn learn(&mut self, endpoint: &Endpoint, answer: Answer) {
        let Some(known) = self.members.get(&endpoint.id) else { return };
        if known.endpoint != *endpoint {
            return;
        }
        let id = known.id;
        let place = answer.found.as_ref().map(|found| self.place(endpoint, Some(found)));
        let is_new = known.found != answer.found;
        let now = Instant::now();
        let mut guarded = self.guarded.lock();
        if let Some(model) = &answer.model {
            guarded.core.set_model(id, model, now);
        }
        if let (Some(place), Some(found)) = (place, &answer.found) {
            if is_new {
                tracing::info!(
                    endpoint = endpoint.id,
                    events = place.events,
                    replays = place.replays,
                    topic = found.topic,
                    "the pod says where it publishes KV-cache events"
                );
            }
            guarded.core.relocate(id, place, now);
        }
        guarded.flush();
        drop(guarded);
        if let Some(known) = self.members.get_mut(&endpoint.id).filter(|_| answer.found.is_some()) {
            known.found = answer.found;
        }
    }

    /// The document to publish, if readers do not know it yet. When a thread has died it says
    /// that nothing can be found, so that nobody reads what nobody keeps true.
    pub(crate) fn next_document(&mut self) -> Option<IndexDocument> {
        let next = if self.has_failed() {
            IndexDocument::default()
        } else {
            let tiers = self.guarded.lock().core.applier().tiers().to_vec();
            self.settings.keys.document(tiers)
        };
        if next == self.document {
            return None;
        }
        if self.has_failed() {
            tracing::error!("the index of cached blocks has stopped unexpectedly: it is not used");
        }
        self.document.clone_from(&next);
        Some(next)
    }

    /// The document in force.
    pub(crate) fn document(&self) -> &IndexDocument {
        &self.document
    }

    /// Whether a thread has died.
    pub(crate) fn has_failed(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Forgets everything and asks for as much as can be had again.
    pub(crate) fn reset(&self) {
        let mut guarded = self.guarded.lock();
        guarded.core.reset(Instant::now());
        guarded.flush();
        tracing::warn!("the index of cached blocks was reset");
    }

    /// A handle for whoever moves the segment.
    pub(crate) fn mover(&self) -> Mover {
        Mover { guarded: Arc::clone(&self.guarded), ties: Ties::default() }
    }

    /// Lets somebody else know of every change.
    fn set_tap(&self, tap: Box<dyn Tap>) {
        let mut guarded = self.guarded.lock();
        if let Some(table) = guarded.core.table_mut() {
            table.set_tap(Some(tap));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock()
    }
}

impl Drop for KvEvents {
    /// Ends the threads. The table stays as it is, for a successor to go on with.
    fn drop(&mut self) {
        self.queue.close();
        self.guarded.lock().commander.send(Command::Stop);
        for thread in self.threads.drain(..) {
            // A panic in there has been reported where it happened.
            let _ = thread.join();
        }
        // Whoever else still knows the table must not write to it.
        self.guarded.lock().core.park();
    }
}

/// Moves the table with the segment.
pub(crate) struct Mover {
    guarded: Arc<Mutex<Guarded>>,
    ties: Ties,
}

impl Mover {
    /// Nothing is written until [`resume`](Self::resume).
    pub(crate) fn park(&mut self) {
        let parked = self.guarded.lock().core.park();
        self.ties = parked.map(|mut table| table.take_ties()).unwrap_or_default();
    }

    /// Goes on in `words`, which have the same content as those before or none.
    ///
    /// # Errors
    /// There is no room for the table; nothing is applied then.
    pub(crate) fn resume(
        &mut self,
        words: MappedWords,
        spec: MirrorSpec,
    ) -> Result<(), TableError> {
        let (mut table, has_blocks) = SegmentTable::open(words, spec, true)?;
        table.set_ties(std::mem::take(&mut self.ties), has_blocks);
        let mut guarded = self.guarded.lock();
        guarded.core.resume(table, Instant::now());
        guarded.flush();
        Ok(())
    }
}

/// The index thread.
fn apply(guarded: &Mutex<Guarded>, queue: &Queue) {
    let mut events = Vec::new();
    let mut tick_at = Instant::now();
    let mut goes_on = true;
    while goes_on {
        goes_on = queue.take(CHUNK, &mut events, TICK);
        let now = Instant::now();
        let mut guarded = guarded.lock();
        while guarded.core.is_parked() && !queue.is_closed() {
            MutexGuard::unlocked_fair(&mut guarded, || {
                std::thread::sleep(Duration::from_millis(1));
            });
        }
        for (id, event) in events.drain(..) {
            guarded.core.handle(id, event, now);
        }
        if now >= tick_at {
            tick_at = now + TICK;
            guarded.core.tick(now);
        }
        guarded.flush();
        // Whoever waits is served before the next chunk.
        MutexGuard::unlock_fair(guarded);
    }
}

/// Notices a thread that ends by a panic.
struct Alive(Arc<AtomicBool>);

impl Alive {
    fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn applier(settings: &KvSettings, tiers: &[String]) -> Applier {
    let algorithm = match settings.keys.algorithm {
        parameters::HashAlgorithm::CborFnv => Algorithm::CborFnv,
        parameters::HashAlgorithm::Xxh64 => Algorithm::Xxh64,
    };
    let tokens = NonZeroU32::new(settings.keys.block_tokens).unwrap_or(NonZeroU32::MIN);
    let hasher = Hasher::new(algorithm, &settings.keys.seed, tokens);
    let tiers = tiers.iter().take(MOST_TIERS).map(String::as_str);
    Applier::new(hasher, tiers, Limits::default())
}

#[cfg(test)]
mod churn;
#[cfg(test)]
mod tests;
