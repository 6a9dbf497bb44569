//! A timer with the resolution of the kernel.
//!
//! The runtime's own timers count whole milliseconds, which is as long as some of the latencies to be simulated.
//! On Linux an [`Alarm`] is a `timerfd`, which wakes the runtime within some tens of microseconds; elsewhere it is
//! the runtime's timer.

use std::time::Instant;

/// See the [module](self). One file descriptor on Linux; without one to spare, the runtime's timer.
#[derive(Debug)]
pub(crate) struct Alarm(Option<kernel::Timer>);

impl Alarm {
    pub(crate) fn new() -> Self {
        Self(kernel::Timer::new().ok())
    }

    /// Waits until `due`. May return early: whoever waits looks at the clock anyway.
    pub(crate) async fn until(&self, due: Instant) {
        if let Some(timer) = &self.0
            && timer.until(due).await.is_ok()
        {
            return;
        }
        tokio::time::sleep_until(due.into()).await;
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::{io, time::Instant};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::net::unix::pipe;

    /// A timer is read like a pipe, the one kind of foreign descriptor that the runtime takes without `unsafe`.
    #[derive(Debug)]
    pub(super) struct Timer(pipe::Receiver);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self(pipe::Receiver::from_owned_fd_unchecked(timer)?))
        }

        pub(super) async fn until(&self, due: Instant) -> io::Result<()> {
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
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            self.0.readable().await?;
            // The count of expirations must be read, or the descriptor stays readable.
            match self.0.try_read(&mut [0_u8; 8]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::{io, time::Instant};

    /// There is none.
    #[derive(Debug)]
    pub(super) enum Timer {}

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn until(&self, _due: Instant) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn wakes_after_the_time_and_can_be_set_again() {
        let alarm = Alarm::new();
        for _ in 0..3 {
            let due = Instant::now() + Duration::from_micros(700);
            let woken = async {
                while Instant::now() < due {
                    alarm.until(due).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), woken).await.expect("it wakes");
        }
        // A time in the past does not wait at all.
        alarm.until(Instant::now()).await;
    }
}
