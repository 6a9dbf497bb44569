//! The one clock of shared memory: nanoseconds since boot, suspension included.
//!
//! All containers of a host share it, so a heartbeat written by one process can be aged by another.

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` in nanoseconds. Served by the vDSO, so no system call is made.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000) + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A start for the generations of a file that has no predecessor: microseconds since boot, so that
/// they exceed those of any lost file. Files in shared memory do not outlive a boot, and nobody
/// publishes a document a million times a second for long.
pub(crate) fn fresh_generation() -> u64 {
    boottime_ns() / 1_000 + 1
}

/// The least id of a new data file, for the same reason: milliseconds since boot, which leaves 48-bit
/// ids room for thousands of years.
pub(crate) fn fresh_id() -> u64 {
    boottime_ns() / 1_000_000 + 1
}
