//! The link between a job in the engine and the response that waits for it.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::Pod;
use crate::engine::job::{End, JobId, Listener};

/// How far a job has come.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    released: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

impl Listener for Arc<Ticket> {
    fn released(&self, tokens: usize) {
        let mut state = self.0.lock();
        state.released = tokens;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn finished(&self, end: End) {
        let mut state = self.0.lock();
        state.end = Some(end);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// A job taken by the engine; dropping it before its end aborts it.
#[derive(Debug)]
pub(crate) struct Running {
    pod: Arc<Pod>,
    id: JobId,
    ticket: Arc<Ticket>,
}

impl Running {
    pub(super) fn new(pod: Arc<Pod>, id: JobId, ticket: Arc<Ticket>) -> Self {
        Self { pod, id, ticket }
    }

    /// Tokens released so far and, once it has come, the end. Registers for news unless the end has come.
    pub(crate) fn poll(&self, context: &Context<'_>) -> (usize, Option<End>) {
        let mut state = self.ticket.0.lock();
        if state.end.is_none() {
            state.waker = Some(context.waker().clone());
        }
        (state.released, state.end.clone())
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> End {
        std::future::poll_fn(|context| match self.poll(context) {
            (_, Some(end)) => Poll::Ready(end),
            _ => Poll::Pending,
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ticket.0.lock().end.is_none() {
            self.pod.abort(self.id);
        }
    }
}
