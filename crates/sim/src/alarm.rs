//! A timer with the resolution of the kernel.
//!
//! The runtime's own timers count whole milliseconds, which is as long as some of the latencies to be simulated.
//! On Linux an [`Alarm`] is a `timerfd`, which wakes the runtime within some tens of microseconds; elsewhere it is
//! the runtime's timer.

use std::{io, time::Instant};

/// See the [module](self). One file descriptor on Linux.
#[derive(Debug)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    /// A timer is read like a pipe, which is the one kind of foreign descriptor the runtime takes without `unsafe`.
    timer: tokio::net::unix::pipe::Receiver,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// Waits until `due`. May return early: whoever waits looks at the clock anyway.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.timer.readable().await?;
        // The count of expirations must be read, or the descriptor stays readable.
        match self.timer.try_read(&mut [0_u8; 8]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits until `due`.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        tokio::time::sleep_until(due.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn wakes_after_the_time_and_can_be_set_again() {
        let alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let start = Instant::now();
            let due = start + Duration::from_micros(700);
            while Instant::now() < due {
                alarm.until(due).await.unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(2));
        }
        // A time in the past does not wait at all.
        alarm.until(Instant::now()).await.unwrap();
    }
}
