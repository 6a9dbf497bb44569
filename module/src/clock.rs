//! The module's clock.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the boot-time clock, which control plane and proxy share whatever container
/// they are in. Answered by the vDSO, without a system call.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Milliseconds of the boot-time clock.
pub(crate) fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// Milliseconds since 1970, for people.
pub(crate) fn unix_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec as u64).wrapping_mul(1_000) + now.tv_nsec as u64 / 1_000_000
}
