//! The thread that reads answers of servers which render prompts: a hundred thousand numbers as
//! text are too much for a worker.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use inlane_text::tokens::Tokenized;

use super::{Delivery, Missed};

/// Answers that may wait.
const QUEUE: usize = 256;

/// Where workers leave answers. The thread ends with it.
#[derive(Debug)]
pub(super) struct Answers(SyncSender<(Vec<u8>, Arc<Delivery>)>);

impl Answers {
    /// Starts the thread.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start() -> Result<Self, String> {
        let (sender, answers) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("inlane-rendered".into())
            .spawn(move || run(&answers))
            .map_err(|e| {
                format!("the thread that reads rendered prompts cannot be started: {e}")
            })?;
        Ok(Self(sender))
    }

    /// Has an answer read.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn read(&self, answer: Vec<u8>, delivery: &Arc<Delivery>) -> Result<(), Missed> {
        let sent = self.0.try_send((answer, Arc::clone(delivery)));
        sent.map_err(|_| Missed::Overloaded)
    }
}

fn run(answers: &Receiver<(Vec<u8>, Arc<Delivery>)>) {
    while let Ok((answer, delivery)) = answers.recv() {
        if !delivery.is_over() {
            let read = Tokenized::from_render(&answer);
            delivery.deliver(read.map_err(|error| Missed::Render(error.to_string())));
        }
    }
}
