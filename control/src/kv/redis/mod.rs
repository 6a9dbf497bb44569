//! An index that several schedulers share, in Redis or Valkey.
//!
//! The local index is the cache in front of it and all that proxies read. What this control plane hears of
//! its engines is written to the server; of pods of which it hears nothing itself it takes what others
//! have written there (they are *deaf*, their blocks *lent*).
//!
//! ```text
//! index thread ──changes──► [ outbox: bounded, drops rather than waits ]
//!      ▲                        ▼
//!      └──── lent blocks ──[ inlane-kv-shared ]◄──► server
//! ```
//!
//! **Writing.** Changes go in their order, in batches. Where that is not enough, because changes were dropped or
//! the server was away, every own pod is *doubted*: what the index holds of it is written, and a
//! [pass](pass) over the server's keys takes out what the index does not hold.
//!
//! **Reading.** A pass reads all entries, slice by slice. Between passes the server says which keys
//! others change (client tracking, from Redis 6 on), and these are read.
//!
//! Nobody waits for any of this: without the server the local index goes on.

mod address;
mod layout;
mod outbox;
mod pass;
mod report;
mod server;
mod view;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisError;

use super::{Guarded, Tap};
pub(crate) use address::Address;
use outbox::{Feed, Outbox};
pub(super) use report::{page, write};
use server::Server;
use view::View;
use worker::Worker;

/// Blocks that may wait for the server.
const ROOM: usize = 1 << 20;

/// The running part.
pub(crate) struct Shared {
    address: Address,
    outbox: Arc<Outbox>,
    status: Arc<Mutex<Status>>,
}

/// How it goes.
#[derive(Debug, Clone, Default)]
struct Status {
    is_connected: bool,
    /// Why it is not, or what the server has refused last.
    error: Option<String>,
    connections: u64,
    /// Entries written to the server, and taken out of it.
    written: u64,
    removed: u64,
    /// Commands that the server refused.
    refused: u64,
    refused_before: u64,
    passes: u64,
    /// The last one.
    pass_keys: u64,
    pass_time: Duration,
    keys_read: u64,
    /// Blocks lent for which the index had no room.
    no_room: u64,
    /// Whether the server says what others change.
    is_told: bool,
}

impl Shared {
    /// Starts to keep the index of `guarded` and the server equal. Its [`feed`](Self::feed) has to hear
    /// of every change from now on.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start(
        address: Address,
        guarded: Arc<Mutex<Guarded>>,
    ) -> Result<Self, std::io::Error> {
        let outbox = Arc::new(Outbox::new(ROOM));
        let status = Arc::<Mutex<Status>>::default();
        let worker = Worker::new(
            address.clone(),
            Arc::clone(&outbox),
            Arc::clone(&status),
            View::new(guarded),
        );
        let alive = Alive(Arc::clone(&status));
        let thread = std::thread::Builder::new().name("inlane-kv-shared".into());
        // Not waited for at the end: it may be with a name server for long. All that it could still do is
        // to write to a server, and the table is taken from it.
        thread.spawn(move || {
            let _alive = alive;
            worker.run();
        })?;
        Ok(Self { address, outbox, status })
    }

    /// Who has to hear of every change.
    pub(super) fn feed(&self) -> Box<dyn Tap> {
        Box::new(Feed(Arc::clone(&self.outbox)))
    }

    /// What the server calls the pod of a slot.
    pub(super) fn name(&self, slot: u16, pod: &str) {
        self.outbox.name(slot, pod);
    }

    /// Forgets the names of all slots but these.
    pub(super) fn keep_names(&self, is_taken: impl Fn(u16) -> bool) {
        self.outbox.keep_names(is_taken);
    }

    #[cfg(test)]
    pub(super) fn lose_changes(&self) {
        self.outbox.cut();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.outbox.stop();
    }
}

impl Status {
    fn connect(&mut self, server: &str) {
        tracing::info!(server, "the shared index is connected");
        self.is_connected = true;
        self.error = None;
        self.connections += 1;
    }

    fn fail(&mut self, server: &str, error: &RedisError) {
        // Once for each loss, and if there was never a connection.
        if self.is_connected || self.error.is_none() {
            tracing::warn!(
                server,
                error = %error,
                "there is no shared index: this control plane goes on with what it hears itself"
            );
        }
        self.is_connected = false;
        self.is_told = false;
        self.refused_before = self.refused;
        self.error = Some(error.to_string());
    }

    fn note(&mut self, server: &Server) {
        self.refused = self.refused_before + server.refused;
        if let Some(refusal) = &server.refusal
            && self.error.as_ref() != Some(refusal)
        {
            tracing::warn!(error = refusal, "the shared index has refused a command");
            self.error = Some(refusal.clone());
        }
        self.is_told = server.tells();
    }

    fn end_pass(&mut self, keys: u64, time: Duration) {
        self.passes += 1;
        (self.pass_keys, self.pass_time) = (keys, time);
    }
}

/// Notices a thread that ends by a panic.
struct Alive(Arc<Mutex<Status>>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the shared index has stopped unexpectedly");
            let mut status = self.0.lock();
            status.is_connected = false;
            status.error = Some("stopped unexpectedly".into());
        }
    }
}
