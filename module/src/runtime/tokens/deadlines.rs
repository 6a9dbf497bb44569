//! The thread that ends waits for tokens.
//!
//! All waits are equally long, so their ends come in the order in which they began: a queue, of
//! which the thread looks at the first. While it sleeps towards that, a new wait wakes nobody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::delivery::Expires;

/// When a wait ends, and whose it is.
type Wait = (Instant, Arc<dyn Expires>);

/// Where workers leave the ends of waits. The thread ends with it.
pub(super) struct Deadlines {
    sender: Sender<Wait>,
    after: Duration,
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadlines").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Deadlines {
    /// Starts a thread for waits of this length.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start(after: Duration) -> Result<Self, String> {
        let (sender, waits) = channel();
        std::thread::Builder::new()
            .name("inlane-deadline".into())
            .spawn(move || run(&waits))
            .map_err(|e| {
                format!("the thread of the tokenizers' deadlines cannot be started: {e}")
            })?;
        Ok(Self { sender, after })
    }

    /// Sets the end of a wait that begins now. `None` when nobody would ever end it.
    pub(super) fn set(&self, delivery: Arc<dyn Expires>) -> Option<Instant> {
        let at = Instant::now() + self.after;
        self.sender.send((at, delivery)).ok().map(|()| at)
    }
}

fn run(waits: &Receiver<Wait>) {
    while let Ok((at, delivery)) = waits.recv() {
        if !delivery.is_over() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            delivery.expire();
        }
    }
}
