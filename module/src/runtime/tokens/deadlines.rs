//! The thread that ends waits for tokens.
//!
//! All waits are equally long, so their ends come in the order in which they began: a queue, of
//! which the thread looks at the first. While it sleeps towards that, a new wait wakes nobody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::Delivery;

/// Where workers leave the ends of waits. The thread ends with it.
#[derive(Debug)]
pub(super) struct Deadlines {
    sender: Sender<(Instant, Arc<Delivery>)>,
    after: Duration,
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
    pub(super) fn set(&self, delivery: &Arc<Delivery>) -> Option<Instant> {
        let at = Instant::now() + self.after;
        self.sender.send((at, Arc::clone(delivery))).ok().map(|()| at)
    }
}

fn run(waits: &Receiver<(Instant, Arc<Delivery>)>) {
    while let Ok((at, delivery)) = waits.recv() {
        if !delivery.is_over() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            delivery.expire();
        }
    }
}
