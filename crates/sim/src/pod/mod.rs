//! One simulated model server: its engine, its counters, and what it is called.
//!
//! A pod is driven by the thread that serves it, and looked at by handles from others; everything that changes is
//! behind one lock ([`Life`]), held for microseconds. What a restart of a real server would lose (running
//! requests, cache, counters) is in `Life` and replaced when a killed pod is revived; the rest stays.

mod life;
mod log;
mod models;
mod ticket;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use hyper::header::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

pub(crate) use self::{
    life::Life,
    log::{LogEntry, RequestLog},
    models::{Models, Served},
    ticket::{Running, Ticket},
};
use crate::{
    alarm::Alarm,
    config::{Config, tunables::Tunables},
    engine::{
        Limits,
        job::{Job, JobId, Rejection},
    },
    events::{EventsError, Place, Plan, Publisher},
    server::Command,
    text::vocabulary::Vocabulary,
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) config: Arc<Config>,
    pub(crate) models: Models,
    /// The real tokenizer; without one, ids are made up.
    pub(crate) vocabulary: Option<Arc<Vocabulary>>,
    /// Value of `x-inference-pod`, `-port` and `-namespace`.
    pub(crate) identity: [HeaderValue; 3],
    pub(crate) log: RequestLog,
    /// New inference requests are refused.
    pub(crate) draining: AtomicBool,
    /// All pods of the process, this one among them.
    pub(crate) peers: OnceLock<Vec<Weak<Pod>>>,
    seed: u64,
    requests: AtomicU64,
    tunables: Mutex<Arc<Tunables>>,
    /// Dice for faults.
    dice: Mutex<Rng>,
    life: Mutex<Life>,
    /// Something became due earlier than the driver knows.
    wake: Notify,
    commands: mpsc::UnboundedSender<Command>,
    /// Where cache events go.
    events: Option<Plan>,
}

/// Who a pod is.
pub(crate) struct Identity {
    /// Its name; the names of the pods of a process differ.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// How many ports before it on its address belong to other pods of this process.
    pub(crate) offset: u16,
    /// Its data-parallel rank.
    pub(crate) rank: u32,
}

impl Pod {
    pub(crate) fn new(
        identity: Identity,
        config: Arc<Config>,
        vocabulary: Option<Arc<Vocabulary>>,
        seed: u64,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Result<Self, PodError> {
        let Identity { name, address, offset, rank } = identity;
        let header = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| InvalidName { name: text.to_owned() })
        };
        let models = Models::new(&config, seed);
        let place = Place { ip: address.ip(), port: address.port(), offset, rank };
        let mut events = Plan::new(&config, models.display(), place)?;
        let publisher = events.as_mut().map(Publisher::open).transpose()?;
        let life = Life::new(&config, models.display(), &config.tunables, seed, publisher);
        Ok(Self {
            identity: [
                header(&name)?,
                HeaderValue::from(address.port()),
                header(&config.pod_namespace)?,
            ],
            life: Mutex::new(life),
            tunables: Mutex::new(Arc::new(config.tunables.clone())),
            log: RequestLog::new(config.request_log),
            dice: Mutex::new(Rng::with_seed(seed)),
            draining: AtomicBool::new(false),
            peers: OnceLock::new(),
            requests: AtomicU64::new(0),
            wake: Notify::new(),
            name,
            address,
            config,
            models,
            vocabulary,
            seed,
            commands,
            events,
        })
    }

    /// Hands jobs to the engine, all or none. What is due at once has happened when this returns.
    pub(crate) fn submit(
        self: &Arc<Self>,
        jobs: Vec<(Job<Arc<Ticket>>, Arc<Ticket>)>,
    ) -> Result<Vec<Running>, Rejection> {
        let mut running = Vec::with_capacity(jobs.len());
        let mut refused = None;
        {
            let now = Instant::now();
            let mut life = self.life.lock();
            for (job, ticket) in jobs {
                match life.engine.submit(job, now) {
                    Ok(id) => {
                        running.push(Running::new(Arc::clone(self), id, ticket));
                        // Each starts if it can before the next one is judged by the queue's length.
                        self.poll(&mut life, now);
                    }
                    Err(rejection) => {
                        refused = Some(rejection);
                        break;
                    }
                }
            }
        }
        // Dropping what was taken aborts it, which needs the lock.
        refused.map_or(Ok(running), Err)
    }

    /// Drops a job.
    fn abort(&self, id: JobId) {
        let mut life = self.life.lock();
        life.engine.abort(id);
        self.poll(&mut life, Instant::now());
    }

    /// Polls the engine, and tells the driver if it must wake earlier than it intends to.
    fn poll(&self, life: &mut Life, now: Instant) {
        let due = life.poll(now);
        if due.is_some_and(|due| life.armed.is_none_or(|armed| due < armed)) {
            life.armed = due;
            self.wake.notify_one();
        }
    }

    /// Polls the engine whenever something is due, for ever.
    pub(crate) async fn drive(self: Arc<Self>) {
        let alarm = Alarm::new();
        loop {
            let due = {
                let mut life = self.life.lock();
                life.armed = life.poll(Instant::now());
                life.armed
            };
            match due {
                None => self.wake.notified().await,
                Some(due) => tokio::select! {
                    () = alarm.until(due) => {}
                    () = self.wake.notified() => {}
                },
            }
        }
    }

    /// Closes the sockets of cache events.
    pub(crate) fn silence(&self) {
        // Not under the lock: closing takes a while.
        let publisher = self.life.lock().publisher.take();
        drop(publisher);
    }

    /// Begins a new life: empty queue and cache, counters at zero, events from the first number on.
    pub(crate) fn restart(&self) -> io::Result<()> {
        let tunables = self.tunables();
        self.silence();
        let publisher = self.events.clone().map(|mut plan| Publisher::open(&mut plan)).transpose();
        let publisher = publisher.map_err(io::Error::other)?;
        let life = Life::new(&self.config, self.models.display(), &tunables, self.seed, publisher);
        *self.life.lock() = life;
        self.wake.notify_one();
        Ok(())
    }

    /// The answer of `/kv_event_sources`.
    pub(crate) fn event_sources(&self) -> serde_json::Value {
        self.events.as_ref().map_or_else(|| serde_json::json!({}), Plan::sources)
    }

    pub(crate) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock()
    }

    pub(crate) fn tunables(&self) -> Arc<Tunables> {
        Arc::clone(&self.tunables.lock())
    }

    /// Replaces the tunables. Whether the pod listens changes with [`Command::Apply`] only.
    pub(crate) fn set_tunables(&self, tunables: Tunables) {
        self.life.lock().engine.tunables = tunables.clone();
        *self.tunables.lock() = Arc::new(tunables);
    }

    /// Tells the accept loop to do something. Does nothing when the server has ended.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Whether something of `percent` in a hundred happens.
    pub(crate) fn chance(&self, percent: u8) -> bool {
        percent > 0 && crate::random::chance(percent, &mut self.dice.lock())
    }

    /// A number below `limit`, which must not be 0.
    pub(crate) fn roll(&self, limit: usize) -> usize {
        self.dice.lock().usize(..limit)
    }

    /// The id and the generator of a new request: the same for the n-th request of every run with the same seed.
    pub(crate) fn next_request(&self) -> (Uuid, Rng) {
        let serial = self.requests.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{serial}", self.seed, self.address.port());
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
        let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ serial;
        (id, Rng::with_seed(seed))
    }

    /// Whether the time that a real server needs to load its model has passed.
    pub(crate) fn is_ready(&self) -> bool {
        self.life.lock().started.elapsed() >= self.config.startup_duration.0
    }

    /// Whether nothing runs or waits.
    pub(crate) fn is_idle(&self) -> bool {
        let life = self.life.lock();
        life.engine.running() + life.engine.waiting() == 0
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        self.life.lock().metrics(self.models.has_adapters())
    }

    /// The pod called `name`, anywhere in this process.
    pub(crate) fn peer(&self, name: &str) -> Option<Arc<Self>> {
        let peers = self.peers.get()?.iter().filter_map(Weak::upgrade);
        peers.into_iter().find(|peer| peer.name == name)
    }
}

/// Why there is no pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// A name that cannot be a header value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` cannot be sent as a header")]
pub struct InvalidName {
    /// The name.
    pub name: String,
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            running: self.max_num_seqs as usize,
            waiting: self.max_waiting_queue_length as usize,
            adapters: self.max_loras as usize,
            block_size: self.block_size as usize,
            blocks: self.enable_kvcache.then_some(self.kv_cache_size),
            model_len: self.max_model_len as usize,
            events: self.enable_kvcache && self.events.settings().is_some(),
        }
    }
}

/// Time since the Unix epoch; zero for a clock before it.
pub(crate) fn unix_time() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
