//! Processes that are killed while they push samples, and a collector beside them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use inlane_segment::SampleSet;

use crate::support::{self, directory};
use crate::{Death, SIGKILL, child};

#[test]
fn a_process_may_be_killed_between_any_two_stores_of_a_sample() {
    // A record is five stores and the count: 16 records fill the ring, and what is dropped is two.
    collect((0..200_u64).map(|run| Death::AfterStores(run * 7 % 311)));
}

#[test]
fn a_process_may_be_killed_at_any_time_while_it_samples() {
    collect((0..120_u64).map(|run| Death::After(Duration::from_micros(run * 331 % 9_000))));
}

/// What the collector has of the process at work.
#[derive(Debug, Default)]
struct Seen {
    run: u64,
    taken: u64,
    newest: u64,
}

impl Seen {
    fn take(&mut self, record: &[u64]) {
        let &[number, run, ..] = record else { panic!("{record:?}") };
        assert_eq!(record, [number, run, number, number, number], "half of a record");
        assert_eq!(run, self.run, "of a process whose ring was drained to the end");
        assert!(number > self.newest, "{number} after {}", self.newest);
        self.newest = number;
        self.taken += 1;
    }
}

fn collect(deaths: impl Iterator<Item = Death>) {
    let dir = directory();
    drop(support::open(dir.path()));
    let mut set = SampleSet::open(dir.path(), child::FORMAT).expect("the only collector");
    let (mut taken, mut dropped) = (0, 0);
    for (run, death) in (1..).zip(deaths) {
        let mut process = child::start_sampling(dir.path(), run, death);
        let mut seen = Seen { run, ..Seen::default() };
        if let Death::After(time) = death {
            // It is at work, however long it took to get there.
            while seen.taken == 0 {
                set.drain(|record| seen.take(record)).expect("drained");
                assert!(
                    process.try_wait().expect("a child").is_none(),
                    "run {run} ended by itself"
                );
            }
            let end = std::time::Instant::now() + time;
            while std::time::Instant::now() < end {
                set.drain(|record| seen.take(record)).expect("drained");
            }
            process.kill().expect("the process is still there");
        }
        while process.try_wait().expect("a child").is_none() {
            set.drain(|record| seen.take(record)).expect("drained");
        }
        let status = process.wait().expect("the process has ended");
        assert_eq!(status.signal(), Some(SIGKILL), "run {run} ended by {status}");
        set.drain(|record| seen.take(record)).expect("drained");

        let counters = set.counters();
        assert_eq!((set.live(), set.unreadable().count(), counters.damaged), (0, 0, 0));
        let lost = counters.dropped - dropped;
        assert!(seen.newest <= seen.taken + lost, "run {run}: {seen:?}, {lost} dropped");
        if let Death::AfterStores(stores) = death {
            // The first 16 find room without a collector.
            assert!(seen.taken >= 16.min(stores / 6), "run {run}: {seen:?}");
        }
        assert!(seen.taken > 0 || matches!(death, Death::AfterStores(..6)), "run {run}: {seen:?}");
        taken += seen.taken;
        dropped = counters.dropped;
        assert_eq!(counters.taken, taken);
    }
    let left = std::fs::read_dir(dir.path()).expect("list").flatten();
    let left: Vec<_> = left.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| name.ends_with(".smp")), "{left:?}");
}
