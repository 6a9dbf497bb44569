//! The hand-over from the thread that reads sockets to the one that applies what they say.
//!
//! The reader never waits for the other: what finds no room is dropped, counted, and remembered as a
//! loss of its publisher, which the other side takes for a gap. No publisher gets more than a quarter
//! of the room, so that a flood of one is not a loss of all.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Names one stay of one endpoint: never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PublisherId(pub(crate) u64);

/// What a publisher, or its socket, has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message of the live stream.
    Live(Message),
    /// A message that the replay `run` asked for.
    Replayed { run: u64, message: Message },
    /// The replay `run` has given all that there is.
    ReplayEnd { run: u64 },
    /// The replay `run` cannot be asked for.
    ReplayFailed { run: u64, operation: Operation },
    /// Something went wrong at a socket.
    Failed(Operation),
    /// A connection stands.
    Connected,
    /// It is gone.
    Disconnected,
    /// Messages were dropped for want of room.
    Lost,
}

/// One batch of events, still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) seq: u64,
    /// Model that its topic names; `None` without a topic.
    pub(crate) model: Option<Arc<str>>,
    pub(crate) payload: Vec<u8>,
}

/// What went wrong, as the metric names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Connect,
    Recv,
    ReplayCapacity,
    ReplayConnect,
    ReplayIncomplete,
    ReplayNoProgress,
    ReplaySend,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] = [
        Self::Connect,
        Self::Recv,
        Self::ReplayCapacity,
        Self::ReplayConnect,
        Self::ReplayIncomplete,
        Self::ReplayNoProgress,
        Self::ReplaySend,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Recv => "recv",
            Self::ReplayCapacity => "replay-capacity",
            Self::ReplayConnect => "replay-connect",
            Self::ReplayIncomplete => "replay-incomplete",
            Self::ReplayNoProgress => "replay-no-progress",
            Self::ReplaySend => "replay-send",
        }
    }
}

/// Bytes that an event takes beside its payload.
const OVERHEAD: usize = size_of::<(PublisherId, Event)>() + 32;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    budget: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<(PublisherId, Event)>,
    bytes: usize,
    by_publisher: HashMap<PublisherId, Share>,
    dropped: u64,
    most_bytes: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    lost: bool,
}

/// The queue's numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueCounters {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// The most that there ever was.
    pub(crate) most_bytes: usize,
    /// Messages that found no room.
    pub(crate) dropped: u64,
}

impl Queue {
    /// Room for `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), budget }
    }

    /// Hands `events` over, emptying it.
    pub(crate) fn push(&self, events: &mut Vec<(PublisherId, Event)>) {
        if events.is_empty() {
            return;
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for (id, event) in events.drain(..) {
            let bytes = size_of_event(&event);
            let share = state.by_publisher.entry(id).or_default();
            let fits = state.bytes + bytes <= self.budget && share.bytes + bytes <= self.budget / 4;
            let is_message = matches!(event, Event::Live(_) | Event::Replayed { .. });
            if is_message && !fits {
                state.dropped += 1;
                // One notice until it has been taken.
                if !std::mem::replace(&mut share.lost, true) {
                    state.events.push_back((id, Event::Lost));
                    share.bytes += OVERHEAD;
                    state.bytes += OVERHEAD;
                }
                continue;
            }
            share.bytes += bytes;
            state.bytes += bytes;
            state.events.push_back((id, event));
        }
        state.most_bytes = state.most_bytes.max(state.bytes);
        drop(guard);
        self.filled.notify_one();
    }

    /// Takes up to `most` events into `out`, waiting for the first one until `timeout`. `false` when
    /// the queue is closed.
    pub(crate) fn take(
        &self,
        most: usize,
        out: &mut Vec<(PublisherId, Event)>,
        timeout: Duration,
    ) -> bool {
        let mut guard = self.state.lock();
        if guard.events.is_empty() && !guard.closed {
            self.filled.wait_for(&mut guard, timeout);
        }
        let state = &mut *guard;
        let count = state.events.len().min(most);
        for (id, event) in state.events.drain(..count) {
            let bytes = size_of_event(&event);
            state.bytes = state.bytes.saturating_sub(bytes);
            if let Some(share) = state.by_publisher.get_mut(&id) {
                share.bytes = share.bytes.saturating_sub(bytes);
                share.lost &= event != Event::Lost;
                if share.bytes == 0 {
                    state.by_publisher.remove(&id);
                }
            }
            out.push((id, event));
        }
        !state.closed
    }

    /// Lets the other side stop waiting, for good.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(crate) fn counters(&self) -> QueueCounters {
        let state = self.state.lock();
        QueueCounters {
            events: state.events.len(),
            bytes: state.bytes,
            most_bytes: state.most_bytes,
            dropped: state.dropped,
        }
    }
}

fn size_of_event(event: &Event) -> usize {
    OVERHEAD
        + match event {
            Event::Live(message) | Event::Replayed { message, .. } => message.payload.capacity(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(seq: u64, len: usize) -> Event {
        Event::Live(Message { seq, model: None, payload: vec![0; len] })
    }

    fn push(queue: &Queue, id: u64, event: Event) {
        queue.push(&mut vec![(PublisherId(id), event)]);
    }

    fn take(queue: &Queue) -> Vec<(u64, Event)> {
        let mut out = Vec::new();
        queue.take(usize::MAX, &mut out, Duration::ZERO);
        out.into_iter().map(|(id, event)| (id.0, event)).collect()
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_told_once() {
        let queue = Queue::new(4 * (OVERHEAD + 1_000));
        push(&queue, 1, live(0, 900));
        for seq in 1..5 {
            push(&queue, 1, live(seq, 900));
        }
        // Another one's share is its own.
        push(&queue, 2, live(7, 10));
        let counters = queue.counters();
        assert_eq!((counters.dropped, counters.events), (4, 3));
        assert!(counters.bytes <= queue.budget);
        assert_eq!(take(&queue), [(1, live(0, 900)), (1, Event::Lost), (2, live(7, 10))]);
        assert_eq!(queue.counters().bytes, 0);
        push(&queue, 1, live(9, 900));
        assert_eq!(take(&queue), [(1, live(9, 900))], "there is room again");
    }

    #[test]
    fn what_is_no_message_always_finds_room() {
        let queue = Queue::new(0);
        push(&queue, 1, Event::Connected);
        push(&queue, 1, Event::ReplayEnd { run: 3 });
        assert_eq!(take(&queue).len(), 2);
        let queue = Arc::new(queue);
        let other = Arc::clone(&queue);
        let waiter = std::thread::spawn(move || {
            let mut out = Vec::new();
            while other.take(1, &mut out, Duration::from_secs(60)) {}
        });
        queue.close();
        waiter.join().unwrap();
    }
}
