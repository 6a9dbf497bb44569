//! Tokenizers: what prompts are turned into tokens with, and by whom.
//!
//! ```text
//! worker ── copy of the body ──► pool of threads ── tokens ──► Delivery ── Envoy's scheduler ──► worker
//!        └─ end of the wait ───► deadlines ─────── none ─────┘
//! ```
//!
//! There is nothing of this until a configuration wants it: [`TokenService`] is then made, and made
//! anew when configuration or settings say otherwise. A worker copies a body, leaves it in a bounded
//! queue and goes on with other streams. It waits for no thread, and takes no lock that one could
//! hold for long.

mod answers;
mod complaints;
mod deadlines;
mod delivery;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use envoy_proxy_dynamic_modules_rust_sdk::{envoy_log_info, envoy_log_warn};
use inlane_plugins::token_producer::Wish;
use inlane_text::tokens::{
    Change, Engine, Job, MediaHasher, Model, Models, Pool, PoolSize, PromptApi, Source, TokenCache,
    Watch,
};
use parking_lot::Mutex;

use answers::Answers;
pub use complaints::Complaints;
use deadlines::Deadlines;
pub use delivery::{Delivery, Missed};

use super::Served;
use crate::settings::{self, MmHasher, Settings};

/// How often directories of models are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The tokenizers of a runtime, if any are wanted.
#[derive(Debug, Default)]
pub struct TokenService {
    tokenizers: ArcSwapOption<Tokenizers>,
    /// How often requests without tokens are logged.
    pub complaints: Complaints,
    following: Mutex<Following>,
}

/// The watcher's memory.
#[derive(Debug, Default)]
struct Following {
    epoch: Option<u64>,
    settings: Option<Arc<Settings>>,
    /// Those of former configurations that a stream may still refer to: their end waits for
    /// threads, which is nothing for a worker.
    retired: Vec<Arc<Tokenizers>>,
}

impl TokenService {
    /// The tokenizers.
    pub fn tokenizers(&self) -> Option<Arc<Tokenizers>> {
        self.tokenizers.load_full()
    }

    /// Brings the tokenizers in line with what is served. For the watcher thread alone.
    ///
    /// # Errors
    /// Why there are none now.
    pub(super) fn follow(&self, served: &Served, settings: &Arc<Settings>) -> Result<(), String> {
        let mut following = self.following.lock();
        let Following { epoch, settings: known, retired } = &mut *following;
        retired.retain(|tokenizers| Arc::strong_count(tokenizers) > 1);
        let same = known.as_ref().is_some_and(|known| Arc::ptr_eq(known, settings));
        if same && *epoch == Some(served.epoch) {
            return Ok(());
        }
        (*epoch, *known) = (Some(served.epoch), Some(Arc::clone(settings)));
        let wish = served.serving().and_then(|serving| serving.tokens.as_ref());
        let wanted = wish.map(|wish| Wanted::of(wish, settings));
        let there = self.tokenizers.load_full();
        if there.as_ref().map(|there| &there.wanted) == wanted.as_ref() {
            return Ok(());
        }
        let made = wanted.map(Tokenizers::start).transpose();
        self.tokenizers.store(made.as_ref().ok().cloned().flatten());
        retired.extend(there);
        made.map(drop)
    }
}

/// What tokenizers are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    source: Source,
    size: PoolSize,
    cache_bytes: usize,
    timeout: Duration,
    render_cluster: String,
}

impl Wanted {
    /// What the settings say goes before the environment, and that before the configuration.
    fn of(wish: &Wish, settings: &Settings) -> Self {
        let own = &settings.tokenizers;
        let mut source = Source::from_env();
        let named = || wish.directories.first().cloned();
        source.directory = own.directory.clone().or(source.directory).or_else(named);
        source.map = wish.map.clone();
        source.map.extend(own.map.clone());
        source.engines =
            own.engines.iter().map(|(name, own)| (name.clone(), engine(own))).collect();
        // Copies of bodies may take a quarter of what bodies may take.
        let bytes = usize::try_from(settings.max_held_bytes / 4).unwrap_or(usize::MAX);
        Self {
            source,
            size: PoolSize { threads: own.threads, queue: own.queue, bytes },
            cache_bytes: own.cache_bytes,
            timeout: own.timeout,
            render_cluster: own.render_cluster.clone(),
        }
    }
}

fn engine(own: &settings::Engine) -> Engine {
    let media_hasher = match own.mm_hasher {
        MmHasher::Blake3 => MediaHasher::Blake3,
        MmHasher::Sha256 => MediaHasher::Sha256,
        MmHasher::Sha512 => MediaHasher::Sha512,
    };
    Engine { model: own.model.clone(), media_hasher }
}

/// Models, and the threads that tokenize for them.
#[derive(Debug)]
pub struct Tokenizers {
    wanted: Wanted,
    models: Arc<Models>,
    pool: Pool,
    deadlines: Deadlines,
    /// Where there is a cluster to render.
    answers: Option<Answers>,
    _watch: Watch,
}

impl Tokenizers {
    /// Starts the threads; models are loaded by one of them.
    fn start(wanted: Wanted) -> Result<Arc<Self>, String> {
        let no_thread = |e: std::io::Error| format!("tokenizers: no thread can be started: {e}");
        let Source { directory, map, .. } = &wanted.source;
        if directory.is_none() && map.is_empty() && wanted.render_cluster.is_empty() {
            envoy_log_warn!(
                "inlane: the configuration wants the tokens that engines see, and no tokenizer is \
                 at hand: set tokenizers.directory; until then prompts are compared by their text"
            );
        }
        let cache = Arc::new(TokenCache::new(wanted.cache_bytes));
        let models = Arc::new(Models::new(wanted.source.clone(), cache));
        Ok(Arc::new(Self {
            pool: Pool::new(wanted.size).map_err(no_thread)?,
            deadlines: Deadlines::start(wanted.timeout)?,
            answers: match wanted.render_cluster.is_empty() {
                true => None,
                false => Some(Answers::start()?),
            },
            _watch: models.watch(LOOK, |change| report(&change)).map_err(no_thread)?,
            models,
            wanted,
        }))
    }

    /// The model of that name, if it is loaded.
    pub fn model(&self, name: &str) -> Option<Arc<Model>> {
        self.models.get(name)
    }

    /// Names of the models that are loaded.
    pub fn models(&self) -> Vec<String> {
        self.models.names()
    }

    /// Requests that wait for a thread.
    pub fn queued(&self) -> usize {
        usize::try_from(self.pool.counters().queued()).unwrap_or(usize::MAX)
    }

    /// Envoy's cluster of the servers that render prompts; empty = none.
    pub fn render_cluster(&self) -> &str {
        &self.wanted.render_cluster
    }

    /// Has a body tokenized. The delivery's stream is woken when that is done, and in any case when
    /// the time for it is up.
    ///
    /// # Errors
    /// Too many wait already. The stream is not woken then.
    pub fn tokenize(
        &self,
        model: Arc<Model>,
        api: PromptApi,
        body: Vec<u8>,
        delivery: &Arc<Delivery>,
    ) -> Result<(), Missed> {
        let wait: Arc<Delivery> = Arc::clone(delivery);
        let deadline = self.deadlines.set(wait).ok_or(Missed::Overloaded)?;
        let to = Arc::clone(delivery);
        let done = Box::new(move |outcome: inlane_text::tokens::Outcome| {
            to.deliver(outcome.result.map_err(Missed::Failed));
        });
        self.pool.submit(Job { model, api, body, deadline, done }).map_err(|_| {
            delivery.settle();
            Missed::Overloaded
        })
    }

    /// Has the answer of a server that renders prompts read, under the same conditions as
    /// [`tokenize`](Self::tokenize).
    ///
    /// # Errors
    /// As there.
    pub fn read_answer(&self, answer: Vec<u8>, delivery: &Arc<Delivery>) -> Result<(), Missed> {
        let answers = self.answers.as_ref().ok_or(Missed::Overloaded)?;
        let wait: Arc<Delivery> = Arc::clone(delivery);
        self.deadlines.set(wait).ok_or(Missed::Overloaded)?;
        answers.read(answer, delivery)
    }

    /// Has the body of another API brought into the form that servers render, under the same
    /// conditions.
    ///
    /// # Errors
    /// As there.
    pub fn convert(
        &self,
        api: PromptApi,
        body: Vec<u8>,
        delivery: &Arc<Delivery<Vec<u8>>>,
    ) -> Result<(), Missed> {
        let answers = self.answers.as_ref().ok_or(Missed::Overloaded)?;
        let wait: Arc<Delivery<Vec<u8>>> = Arc::clone(delivery);
        self.deadlines.set(wait).ok_or(Missed::Overloaded)?;
        answers.convert(api, body, delivery)
    }
}

fn report(change: &Change) {
    match change {
        Change::Failed { .. } => envoy_log_warn!("inlane: tokenizers: {change}"),
        _ => envoy_log_info!("inlane: tokenizers: {change}"),
    }
}
