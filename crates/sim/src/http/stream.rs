//! A streamed answer: server-sent events, written as the engine releases tokens.
//!
//! Frames per choice: a beginning, one per token, an end; then what ends the stream. Whatever is ready when the
//! connection asks goes out as one piece.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    answer::{Answer, Usage},
    body::Reset,
    frames::Frames,
};
use crate::{engine::job::Finish, pod::Running, server::Connection, text::reply::Reply};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct EventStream {
    frames: Frames,
    choices: Vec<Choice>,
    usage: Usage,
    include_usage: bool,
    fault: Option<Fault>,
    done: bool,
}

/// One choice of a streamed answer.
#[derive(Debug)]
pub(super) struct Choice {
    running: Running,
    reply: Arc<Reply>,
    /// Its prompt's cached tokens count in the usage.
    counts: bool,
    sent: usize,
    started: bool,
    finished: Option<Finish>,
}

/// The connection is reset after so many tokens.
#[derive(Debug)]
pub(super) struct Fault {
    left: usize,
    connection: Connection,
    /// Runs while what was written makes its way to the client, which a reset would overtake.
    grace: Option<Pin<Box<Sleep>>>,
}

impl Choice {
    pub(super) fn new(running: Running, reply: Arc<Reply>, counts: bool) -> Self {
        Self { running, reply, counts, sent: 0, started: false, finished: None }
    }
}

impl Fault {
    /// How long written tokens may take to the client.
    const GRACE: Duration = Duration::from_millis(20);

    pub(super) fn new(tokens: usize, connection: Connection) -> Self {
        Self { left: tokens, connection, grace: None }
    }
}

impl EventStream {
    pub(super) fn new(
        answer: Answer,
        choices: Vec<Choice>,
        usage: Usage,
        include_usage: bool,
        fault: Option<Fault>,
    ) -> Self {
        Self { frames: Frames::new(answer), choices, usage, include_usage, fault, done: false }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        if let Some(Fault { connection, grace: Some(grace), .. }) = &mut self.fault {
            ready!(grace.as_mut().poll(context));
            connection.reset_on_close();
            return Poll::Ready(Some(Err(Reset)));
        }
        if self.done {
            return Poll::Ready(None);
        }
        let mut out = String::new();
        for index in 0..self.choices.len() {
            self.write_choice(index, context, &mut out);
        }
        if self.choices.iter().all(|choice| choice.finished.is_some()) {
            self.done = true;
            let first = self.choices.first();
            let finish = first.and_then(|choice| choice.finished).unwrap_or(Finish::Stop);
            let text = match (first, finish) {
                (None, _) | (_, Finish::CacheThreshold) => "",
                (Some(choice), _) => choice.reply.text(),
            };
            self.frames.end(self.usage, self.include_usage, (text, finish), &mut out);
        }
        if let Some(fault) = self.fault.as_mut().filter(|fault| fault.left == 0) {
            fault.grace = Some(Box::pin(tokio::time::sleep(Fault::GRACE)));
            if out.is_empty() {
                context.waker().wake_by_ref();
            }
        }
        if out.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(out.into()))) }
    }

    fn write_choice(&mut self, index: usize, context: &Context<'_>, out: &mut String) {
        let choice = &mut self.choices[index];
        if choice.finished.is_some() {
            return;
        }
        let (released, end) = choice.running.poll(context);
        if released == choice.sent && end.is_none() {
            return;
        }
        out.reserve((released - choice.sent + 2) * self.frames.overhead());
        if !choice.started {
            self.frames.start(index, self.usage, out);
        }
        choice.started = true;
        // The token that says why the choice ended waits until that is known.
        let held = usize::from(self.frames.ends_with_a_token() && end.is_none());
        let ready = released.saturating_sub(held);
        while choice.sent < ready {
            if let Some(fault) = &mut self.fault {
                if fault.left == 0 {
                    return;
                }
                fault.left -= 1;
            }
            let at = choice.sent;
            choice.sent += 1;
            self.usage.completion += 1;
            let last = end.as_ref().filter(|_| choice.sent == released).map(|end| end.finish);
            self.frames.token(index, (&choice.reply, at), last, out);
        }
        if self.fault.as_ref().is_some_and(|fault| fault.left == 0) {
            return;
        }
        let Some(end) = end else { return };
        choice.finished = Some(end.finish);
        if choice.counts {
            self.usage.cached = match (end.finish, self.usage.cached) {
                (Finish::CacheThreshold, _) | (_, None) => None,
                (_, Some(cached)) => Some(cached + end.cached),
            };
        }
        self.frames.finish(index, end.finish, choice.sent, out);
    }
}
