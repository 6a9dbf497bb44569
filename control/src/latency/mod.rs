//! The latency models: trained here while a configuration predicts latencies, on a thread of their own.
//!
//! ```text
//! proxies ──samples──► [ trainer thread: drain, learn, retrain in slices, save ]
//!    ▲                       │ document, numbers            ▲ endpoints, or the end
//!    └── model document ◄── main loop, on its beat ─────────┘
//! ```
//!
//! The thread works for a share of one core at most and owns everything that learns. The main loop only
//! passes on what it has been handed, so scraping and publishing wait for nothing here. The loop and the
//! thread hold the two ends of channels: when the loop drops its end the thread saves and ends, and a
//! thread that died is seen by its own.

mod environment;
mod metrics;
mod state;
mod worker;

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

use inlane_latency::Report;
use inlane_segment::SampleCounters;

pub(crate) use environment::{Read, options};
pub(crate) use metrics::write as write_metrics;
pub(crate) use state::file_name;

use self::worker::Worker;

/// The type whose presence in a configuration turns training on.
pub(crate) const PRODUCER: &str = "predicted-latency-producer";

/// Where samples come from, where the state goes, and what is learned from the former.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The segment, with the proxies' rings.
    pub(crate) segment_dir: PathBuf,
    /// The file that survives a restart.
    pub(crate) state: PathBuf,
    /// Settings of the trainer.
    pub(crate) options: inlane_latency::Options,
}

/// What the thread tells the loop.
#[derive(Debug)]
struct Update {
    /// A document to publish.
    model: Option<Vec<u8>>,
    status: Status,
}

/// The thread's numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status {
    pub(crate) report: Report,
    pub(crate) samples: SampleCounters,
    /// Records that are no samples.
    pub(crate) unreadable: u64,
    /// Documents made.
    pub(crate) published: u64,
    pub(crate) saves: u64,
    pub(crate) save_errors: u64,
}

/// The loop's end of the training.
#[derive(Debug)]
pub(crate) struct Training {
    /// Dropped first when it ends.
    endpoints: Option<Sender<Vec<u64>>>,
    updates: Receiver<Update>,
    thread: Option<JoinHandle<()>>,
    status: Option<Status>,
    failed: bool,
}

impl Training {
    /// Starts the thread, which goes on from the state that it finds.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(place: Place) -> std::io::Result<Self> {
        let (endpoints, commands) = mpsc::channel();
        let (updates, received) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("inlane-latency".into())
            .spawn(move || Worker::new(place, updates).run(&commands))?;
        Ok(Self {
            endpoints: Some(endpoints),
            updates: received,
            thread: Some(thread),
            status: None,
            failed: false,
        })
    }

    /// Says which endpoints there are; what was learned of others is forgotten. An empty pool is taken
    /// for one that comes back.
    pub(crate) fn set_endpoints<'i>(&self, ids: impl Iterator<Item = &'i str>) {
        let keys: Vec<u64> = ids.map(inlane_latency::endpoint_key).collect();
        if let Some(endpoints) = self.endpoints.as_ref().filter(|_| !keys.is_empty()) {
            // An error means that the thread has died, which the next look at its updates reports.
            let _ = endpoints.send(keys);
        }
    }

    /// The newest document that waits to be published.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let mut newest = None;
        loop {
            match self.updates.try_recv() {
                Ok(update) => {
                    newest = update.model.or(newest);
                    self.status = Some(update.status);
                }
                Err(TryRecvError::Empty) => return newest,
                Err(TryRecvError::Disconnected) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::error!(
                            "the training of latency models has ended unexpectedly; the last models \
                             stay in force"
                        );
                    }
                    return newest;
                }
            }
        }
    }

    /// The thread's last numbers.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// Whether the thread has died.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }
}

impl Drop for Training {
    /// Lets the thread save and end.
    fn drop(&mut self) {
        self.endpoints = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported where it happened.
            let _ = thread.join();
        }
    }
}
