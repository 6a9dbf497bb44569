//! The thread beside a server that renders prompts. It brings bodies of other APIs into the form of
//! chat completions, which the server reads, and reads the answers: a hundred thousand numbers as text
//! are too much for a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use inlane_text::tokens::{PromptApi, PromptError, Tokenized, chat_body};

use super::{Delivery, Missed};

/// What may wait.
const QUEUE: usize = 256;

/// Where workers leave what is to be read. The thread ends with it.
#[derive(Debug)]
pub(super) struct Answers(SyncSender<Task>);

#[derive(Debug)]
enum Task {
    Convert(PromptApi, Vec<u8>, Arc<Delivery<Vec<u8>>>),
    Read(Vec<u8>, Arc<Delivery>),
}

impl Answers {
    /// Starts the thread.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start() -> Result<Self, String> {
        let (sender, tasks) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("inlane-rendered".into())
            .spawn(move || run(&tasks))
            .map_err(|e| {
                format!("the thread that reads rendered prompts cannot be started: {e}")
            })?;
        Ok(Self(sender))
    }

    /// Has a body brought into the form of a chat completion.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn convert(
        &self,
        api: PromptApi,
        body: Vec<u8>,
        delivery: &Arc<Delivery<Vec<u8>>>,
    ) -> Result<(), Missed> {
        self.leave(Task::Convert(api, body, Arc::clone(delivery)))
    }

    /// Has an answer read.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn read(&self, answer: Vec<u8>, delivery: &Arc<Delivery>) -> Result<(), Missed> {
        self.leave(Task::Read(answer, Arc::clone(delivery)))
    }

    fn leave(&self, task: Task) -> Result<(), Missed> {
        self.0.try_send(task).map_err(|_| Missed::Overloaded)
    }
}

fn run(tasks: &Receiver<Task>) {
    while let Ok(task) = tasks.recv() {
        match task {
            Task::Convert(api, body, delivery) => {
                work(&delivery, || chat_body(api, &body).map_err(Missed::Failed));
            }
            Task::Read(answer, delivery) => work(&delivery, || {
                Tokenized::from_render(&answer).map_err(|error| Missed::Render(error.to_string()))
            }),
        }
    }
}

/// Delivers what comes of it, unless nobody waits any more.
fn work<T>(delivery: &Delivery<T>, task: impl FnOnce() -> Result<T, Missed>) {
    if !delivery.is_over() {
        let done = catch_unwind(AssertUnwindSafe(task));
        let panicked = |_| Err(Missed::Failed(PromptError::Panic("at a rendered prompt".into())));
        delivery.deliver(done.unwrap_or_else(panicked));
    }
}
