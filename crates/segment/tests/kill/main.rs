//! A writer is killed again and again, most often between two of its own stores; each time a new
//! writer continues, while readers check that all they read belongs to one generation and that
//! generations never go backwards.
//!
//! A proxy process is killed too: its claims are gone with it, and the samples that it has pushed are not.
//!
//! The processes are this test binary, run again for one test of [`child`] alone.

#[path = "../support/mod.rs"]
mod support;

mod child;
mod samples;
mod watch;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inlane_segment::{LedgerSet, SnapshotReader};
use support::directory;

const SIGKILL: i32 = 9;

#[test]
fn a_writer_may_be_killed_between_any_two_stores() {
    // The first stores of a process are those that recover; a publication is a few dozen, moving to a
    // new file some hundreds. Prime steps spread the places of death over all of them.
    survive((0..260).map(|run: u64| Death::AfterStores(1 + run * 37 % 1_999)));
}

#[test]
fn a_writer_may_be_killed_at_any_time() {
    survive((0..80).map(|run: u64| Death::After(Duration::from_micros(run * 331 % 9_000))));
}

#[test]
fn a_killed_process_holds_nothing() {
    let dir = directory();
    drop(support::open(dir.path()));
    let mut process = child::start_proxy(dir.path());
    let slot = child::PROXY_SLOT;
    let mut set = LedgerSet::open(dir.path()).expect("a directory");
    let deadline = Instant::now() + Duration::from_secs(30);
    while set.is_idle(slot) {
        assert!(Instant::now() < deadline, "the process never claimed");
        std::thread::sleep(Duration::from_millis(1));
        set.refresh().expect("refresh");
    }
    assert_eq!(set.iter().count(), 1);
    process.kill().expect("the process is still there");
    process.wait().expect("the process has ended");

    set.refresh().expect("refresh");
    assert!(set.is_idle(slot));
    assert_eq!(set.iter().count() + set.unreadable().count(), 0);
    let names = std::fs::read_dir(dir.path()).expect("list").flatten();
    let names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    assert!(!names.iter().any(|name| name.starts_with("ledger-")), "{names:?}");
}

/// How a writer's process ends: always by SIGKILL.
#[derive(Clone, Copy)]
enum Death {
    /// By its own hand, instead of the store after these.
    AfterStores(u64),
    /// By the parent's.
    After(Duration),
}

fn survive(deaths: impl Iterator<Item = Death>) {
    let deaths: Vec<_> = deaths.collect();
    let dir = directory();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watchers = [(); 2].map(|()| scope.spawn(|| watch::until(dir.path(), &over)));
        let last = run_writers(dir.path(), &deaths);
        over.store(true, Ordering::Relaxed);
        for watcher in watchers {
            let seen = watcher.join().expect("readers see whole generations");
            assert!(seen.rows > 1_000 && seen.documents > 100, "readers were at work: {seen:?}");
            assert!(seen.newest <= last);
        }
    });
}

/// Lets one writer after the other live and die; returns the newest generation.
fn run_writers(dir: &Path, deaths: &[Death]) -> u64 {
    let mut newest = 0;
    for (run, &death) in deaths.iter().enumerate() {
        // Before the first head and pointer are in place there is nothing to recover.
        let recover = SnapshotReader::open(dir).is_ok();
        let status = end(child::start(dir, recover, death), death);
        assert_eq!(status.signal(), Some(SIGKILL), "run {run} ended by {status}");
        if let Ok(reader) = SnapshotReader::open(dir) {
            let generation = watch::check_once(reader.snapshot());
            assert!(generation >= newest, "run {run}: {generation} after {newest}");
            newest = generation;
        }
    }
    assert!(newest > deaths.len() as u64, "writers made progress: {newest}");
    newest
}

fn end(mut child: Child, death: Death) -> ExitStatus {
    if let Death::After(time) = death {
        std::thread::sleep(time);
        child.kill().expect("the writer is still there");
    }
    child.wait().expect("the writer has ended")
}

fn this_test_binary() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("path of this binary"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
