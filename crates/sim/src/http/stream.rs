//! A streamed answer: server-sent events, written as the engine releases tokens.
//!
//! Frames per choice: for chat one with the role, one per token, one with the finish reason; then one with the
//! usage if asked for, then `[DONE]`. Whatever is ready when the connection asks goes out as one piece.

use std::{
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    answer::{Answer, Api, Usage, quote},
    body::Reset,
};
use crate::{engine::job::Finish, pod::Running, server::Connection, text::reply::Reply};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct EventStream {
    api: Api,
    /// The beginning of every chunk.
    head: String,
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
    finished: bool,
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
        Self { running, reply, counts, sent: 0, started: false, finished: false }
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
        answer: &Answer,
        choices: Vec<Choice>,
        usage: Usage,
        include_usage: bool,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            api: answer.api,
            head: answer.chunk_head(),
            choices,
            usage,
            include_usage,
            fault,
            done: false,
        }
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
        if self.choices.iter().all(|choice| choice.finished) {
            self.done = true;
            if self.include_usage {
                out.push_str(&self.head);
                self.usage.write(&mut out);
                out.push_str(",\"choices\":[]}\n\n");
            }
            out.push_str("data: [DONE]\n\n");
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
        if choice.finished {
            return;
        }
        let (released, end) = choice.running.poll(context);
        if released == choice.sent && end.is_none() {
            return;
        }
        // A chunk around a token of five letters, roughly.
        out.reserve((released - choice.sent + 2) * (self.head.len() + 90));
        if self.api == Api::Chat && !choice.started {
            let _ = write!(
                out,
                "{}null,\"choices\":[{{\"index\":{index},\"finish_reason\":null,\"delta\":{{\"role\":\"assistant\"}}}}]}}\n\n",
                self.head
            );
        }
        choice.started = true;
        while choice.sent < released {
            if let Some(fault) = &mut self.fault {
                if fault.left == 0 {
                    return;
                }
                fault.left -= 1;
            }
            let token = choice.reply.token(choice.sent);
            choice.sent += 1;
            self.usage.completion += 1;
            let _ = write!(
                out,
                "{}null,\"choices\":[{{\"index\":{index},\"finish_reason\":null,",
                self.head
            );
            match self.api {
                Api::Chat => {
                    out.push_str("\"delta\":{\"content\":");
                    quote(token, out);
                    out.push_str("}}]}\n\n");
                }
                Api::Text => {
                    out.push_str("\"text\":");
                    quote(token, out);
                    out.push_str("}]}\n\n");
                }
            }
        }
        if self.fault.as_ref().is_some_and(|fault| fault.left == 0) {
            return;
        }
        let Some(end) = end else { return };
        choice.finished = true;
        if choice.counts {
            self.usage.cached = match (end.finish, self.usage.cached) {
                (Finish::CacheThreshold, _) | (_, None) => None,
                (_, Some(cached)) => Some(cached + end.cached),
            };
        }
        let rest = match self.api {
            Api::Chat => "\"delta\":{}",
            Api::Text => "\"text\":\"\"",
        };
        let _ = write!(
            out,
            "{}null,\"choices\":[{{\"index\":{index},\"finish_reason\":\"{}\",{rest}}}]}}\n\n",
            self.head,
            end.finish.as_str(),
        );
    }
}
