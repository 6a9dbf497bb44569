//! How often to scrape: the configured interval, or slower when scraping costs too much.
//!
//! Every second the controller looks at two figures: the share of a core that this process used,
//! and how many ticks came late by more than half an interval. Either one too high doubles the
//! interval, up to a bound. When a doubled rate would fit again for a while, the interval is
//! halved; each relapse doubles the while, so that a machine at its limit settles instead of
//! swinging.

use std::time::Duration;

/// Calm windows before the first attempt to go faster.
const PATIENCE: u32 = 3;
/// Most calm windows that a machine at its limit waits.
const MAX_PATIENCE: u32 = 96;
/// A window is late when more than one tick in this many is.
const LATE_SHARE: u32 = 10;

/// The limits of the controller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PaceLimits {
    /// The interval to keep when nothing speaks against it.
    pub(crate) base: Duration,
    /// The longest interval to fall back to.
    pub(crate) longest: Duration,
    /// Most CPU time per second of wall clock that the process may use, in cores.
    pub(crate) cores: f64,
}

/// What happened in one window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Window {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) ticks: u32,
    pub(crate) late: u32,
}

/// The controller.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: PaceLimits,
    doublings: u32,
    calm: u32,
    patience: u32,
    /// Windows since the interval was last halved.
    since_faster: u32,
    backoffs: u64,
}

impl Pace {
    pub(crate) fn new(limits: PaceLimits) -> Self {
        Self {
            limits,
            doublings: 0,
            calm: 0,
            patience: PATIENCE,
            since_faster: u32::MAX,
            backoffs: 0,
        }
    }

    /// The interval to keep now.
    pub(crate) fn interval(&self) -> Duration {
        (self.limits.base * 2_u32.saturating_pow(self.doublings)).min(self.longest())
    }

    /// Times that the interval was doubled.
    pub(crate) fn backoffs(&self) -> u64 {
        self.backoffs
    }

    /// Takes other limits and keeps the present slow-down as far as they allow.
    pub(crate) fn set_limits(&mut self, limits: PaceLimits) {
        self.limits = limits;
        while self.doublings > 0
            && self.limits.base * 2_u32.pow(self.doublings - 1) >= self.longest()
        {
            self.doublings -= 1;
        }
    }

    /// Judges a window.
    pub(crate) fn observe(&mut self, window: Window) {
        let wall = window.wall.as_secs_f64();
        if wall <= 0.0 {
            return;
        }
        self.since_faster = self.since_faster.saturating_add(1);
        let cores = window.cpu.as_secs_f64() / wall;
        let late = window.late * LATE_SHARE > window.ticks;
        if cores > self.limits.cores || late {
            self.calm = 0;
            if self.interval() < self.longest() {
                self.doublings += 1;
                self.backoffs += 1;
                if self.since_faster <= 2 {
                    self.patience = (self.patience * 2).min(MAX_PATIENCE);
                }
            }
            return;
        }
        if self.since_faster > MAX_PATIENCE {
            self.patience = PATIENCE;
        }
        let fits_faster = cores * 2.0 < self.limits.cores;
        self.calm = if fits_faster { self.calm + 1 } else { 0 };
        if self.doublings > 0 && self.calm >= self.patience {
            self.doublings -= 1;
            self.calm = 0;
            self.since_faster = 0;
        }
    }

    fn longest(&self) -> Duration {
        self.limits.longest.max(self.limits.base)
    }
}

/// The next tick strictly after `now` (both since a common epoch) of an endpoint whose place in
/// the interval is `phase`, a fraction: endpoints of different phases never come in one burst.
pub(crate) fn next_tick(now: Duration, interval: Duration, phase: f64) -> Duration {
    let interval = interval.max(Duration::from_millis(1));
    let offset = interval.mul_f64(phase.clamp(0.0, 0.999_999));
    if now < offset {
        return offset;
    }
    let rounds = (now - offset).as_nanos() / interval.as_nanos() + 1;
    // A process that runs for centuries keeps the last representable tick.
    let rounds = u32::try_from(rounds);
    match rounds {
        Ok(rounds) => offset + interval * rounds,
        Err(_) => now + interval,
    }
}

/// The phase of the `n`th endpoint: multiples of the golden ratio lie far apart for any count.
pub(crate) fn phase(n: u32) -> f64 {
    (f64::from(n) * 0.618_033_988_749_894_9).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace() -> Pace {
        Pace::new(PaceLimits { base: 50 * MS, longest: 800 * MS, cores: 0.5 })
    }

    fn window(cpu_ms: u32, late: u32) -> Window {
        Window { wall: 1_000 * MS, cpu: cpu_ms * MS, ticks: 100, late }
    }

    #[test]
    fn load_doubles_up_to_the_bound() {
        let mut pace = pace();
        let intervals: Vec<_> = (0..6)
            .map(|_| {
                pace.observe(window(900, 0));
                pace.interval().as_millis()
            })
            .collect();
        assert_eq!(intervals, [100, 200, 400, 800, 800, 800]);
        assert_eq!(pace.backoffs(), 4);
    }

    #[test]
    fn lateness_counts_as_load() {
        let mut pace = pace();
        pace.observe(window(10, 10));
        assert_eq!(pace.interval(), 50 * MS);
        pace.observe(window(10, 11));
        assert_eq!(pace.interval(), 100 * MS);
    }

    #[test]
    fn it_recovers_only_when_the_faster_rate_fits() {
        let mut pace = pace();
        pace.observe(window(900, 0));
        for _ in 0..20 {
            pace.observe(window(300, 0));
        }
        assert_eq!(pace.interval(), 100 * MS, "600 ms/s would be over the limit again");
        for _ in 0..PATIENCE {
            pace.observe(window(100, 0));
        }
        assert_eq!(pace.interval(), 50 * MS);
    }

    #[test]
    fn a_relapse_makes_it_wait_longer() {
        let mut pace = pace();
        let mut faster = 0;
        for _ in 0..100 {
            let slow = pace.interval() > 50 * MS;
            pace.observe(window(if slow { 100 } else { 900 }, 0));
            faster += u32::from(slow && pace.interval() == 50 * MS);
        }
        // Without growing patience it would have tried every fourth window.
        assert!((2..=6).contains(&faster), "tried {faster} times");
    }

    #[test]
    fn other_limits_apply_at_once() {
        let mut pace = pace();
        (0..4).for_each(|_| pace.observe(window(900, 0)));
        pace.set_limits(PaceLimits { base: 500 * MS, longest: 800 * MS, cores: 0.5 });
        assert_eq!(pace.interval(), 800 * MS);
        pace.set_limits(PaceLimits { base: 1_000 * MS, longest: 800 * MS, cores: 0.5 });
        assert_eq!(pace.interval(), 1_000 * MS);
    }

    #[test]
    fn ticks_lie_on_a_grid_and_missed_ones_are_dropped() {
        assert_eq!(next_tick(Duration::ZERO, 50 * MS, 0.5), 25 * MS);
        assert_eq!(next_tick(25 * MS, 50 * MS, 0.5), 75 * MS);
        assert_eq!(next_tick(190 * MS, 50 * MS, 0.5), 225 * MS);
        assert_eq!(next_tick(190 * MS, 50 * MS, 0.0), 200 * MS);
    }

    #[test]
    fn phases_spread_endpoints_over_the_interval() {
        for count in [8_u32, 100, 1_000] {
            let mut slots = vec![0; 10];
            (0..count).for_each(|n| slots[(phase(n) * 10.0) as usize] += 1);
            let (min, max) = (slots.iter().min().unwrap(), slots.iter().max().unwrap());
            assert!(max - min <= 2, "{count}: {slots:?}");
        }
    }
}
