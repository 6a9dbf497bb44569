//! The timer thread: wakes streams that wait for a moment.
//!
//! Workers hand alarms over through a channel and never wait for the thread. It sleeps until the
//! next alarm is due; an alarm of a stream that has ended meanwhile wakes nobody. It holds nothing
//! of the runtime but the channel and ends with it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterScheduler;
use parking_lot::Mutex;

use crate::clock;

/// A stream that is to be woken.
pub struct Alarm {
    /// When, boot-time clock in ms.
    pub at_ms: u64,
    /// The stream.
    pub stream: Box<dyn EnvoyHttpFilterScheduler>,
    /// What its filter is told.
    pub event: u64,
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alarm").field("at_ms", &self.at_ms).finish_non_exhaustive()
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    /// The next one is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at_ms.cmp(&self.at_ms)
    }
}

/// Where workers leave alarms.
#[derive(Debug)]
pub struct Timer {
    sender: Sender<Alarm>,
    /// Until the thread takes it.
    receiver: Mutex<Option<Receiver<Alarm>>>,
}

impl Default for Timer {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Timer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start(&self) -> Result<(), String> {
        let Some(alarms) = self.receiver.lock().take() else { return Ok(()) };
        std::thread::Builder::new()
            .name("inlane-timer".into())
            .spawn(move || run(&alarms))
            .map(drop)
            .map_err(|e| format!("the timer thread cannot be started: {e}"))
    }

    /// Sets an alarm. `false` when nobody would ever wake the stream.
    pub fn set(&self, alarm: Alarm) -> bool {
        self.sender.send(alarm).is_ok()
    }

    /// The alarms that have been set, in a test without the thread.
    #[cfg(test)]
    pub(crate) fn drain(&self) -> Vec<Alarm> {
        self.receiver.lock().iter().flat_map(Receiver::try_iter).collect()
    }
}

/// Waits for alarms and wakes the streams that are due, until there is no sender any more.
fn run(alarms: &Receiver<Alarm>) {
    let mut waiting: BinaryHeap<Alarm> = BinaryHeap::new();
    loop {
        let next = match waiting.peek() {
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(first) => {
                let left_ns = (first.at_ms * 1_000_000).saturating_sub(clock::now_ns());
                alarms.recv_timeout(Duration::from_nanos(left_ns))
            }
        };
        match next {
            Ok(alarm) => waiting.push(alarm),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now_ms = clock::now_ms();
        while waiting.peek().is_some_and(|alarm| alarm.at_ms <= now_ms) {
            if let Some(alarm) = waiting.pop() {
                alarm.stream.commit(alarm.event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_proxy_dynamic_modules_rust_sdk::MockEnvoyHttpFilterScheduler;

    use super::*;

    #[test]
    fn streams_are_woken_in_the_order_of_their_alarms() {
        let timer = Timer::default();
        let (told, events) = channel();
        let now_ms = clock::now_ms();
        for (event, at_ms) in [(2, now_ms + 40), (1, now_ms + 20), (0, 0)] {
            let mut stream = MockEnvoyHttpFilterScheduler::new();
            let told = told.clone();
            stream.expect_commit().returning(move |event| {
                told.send((event, clock::now_ms())).unwrap();
            });
            assert!(timer.set(Alarm { at_ms, stream: Box::new(stream), event }));
        }
        timer.start().unwrap();
        let woken: Vec<(u64, u64)> = events.iter().take(3).collect();
        assert_eq!(woken.iter().map(|(event, _)| *event).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(woken[1].1 >= now_ms + 20 && woken[2].1 >= now_ms + 40);
    }
}
