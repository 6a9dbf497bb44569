//! Rings of samples as their owners, the collector and the kernel see them.

#![allow(clippy::unwrap_used)] // Helpers of tests fail by panicking too.

mod support;

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use inlane_segment::{Error, SampleSet, SampleShape, SampleWriter};
use proptest::collection::vec;
use proptest::prelude::*;
use support::directory;
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u32 = 1;

fn shape() -> SampleShape {
    SampleShape { format: FORMAT, words: 2, capacity: 4 }
}

fn drain(set: &mut SampleSet) -> Vec<u64> {
    let mut seen = Vec::new();
    let taken = set.drain(|record| seen.push(record[0])).unwrap();
    assert_eq!(taken, seen.len() as u64);
    seen
}

fn rings(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "smp")).count()
}

/// The writer may be made on one thread and used on another.
const _: fn() = || {
    fn sent<T: Send>() {}
    sent::<SampleWriter>();
    sent::<SampleSet>();
};

#[test]
fn the_collector_gets_what_all_processes_push() {
    let dir = directory();
    let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
    assert_eq!(drain(&mut set), [0; 0]);
    let mut first = SampleWriter::create(dir.path(), shape()).unwrap();
    assert!(first.push(&[1, 1]) && first.push(&[2, 2]));
    assert_eq!(drain(&mut set), [1, 2]);
    let mut second = SampleWriter::create(dir.path(), shape()).unwrap();
    assert!(first.push(&[3, 3]) && second.push(&[4, 4]));
    let mut seen = drain(&mut set);
    seen.sort_unstable();
    assert_eq!((seen, set.live()), (vec![3, 4], 2));
    for _ in 0..6 {
        second.push(&[5, 5]);
    }
    assert_eq!(second.dropped(), 2);
    assert_eq!(drain(&mut set), [5; 4]);
    let counters = set.counters();
    assert_eq!((counters.taken, counters.dropped, counters.damaged), (8, 2, 0));
}

#[test]
fn what_a_dead_process_has_left_is_drained_and_its_file_removed() {
    let dir = directory();
    let mut writer = SampleWriter::create(dir.path(), shape()).unwrap();
    assert!(writer.push(&[1]) && writer.push(&[2]));
    drop(writer);
    assert_eq!(rings(dir.path()), 1);
    let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
    assert_eq!(drain(&mut set), [1, 2]);
    assert_eq!((rings(dir.path()), set.live()), (0, 0));
}

#[test]
fn a_collector_goes_on_where_the_last_one_was() {
    let dir = directory();
    let mut writer = SampleWriter::create(dir.path(), shape()).unwrap();
    assert!(writer.push(&[1]));
    let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
    assert_eq!(drain(&mut set), [1]);
    assert!(writer.push(&[2]));
    let error = SampleSet::open(dir.path(), FORMAT).unwrap_err();
    assert!(matches!(&error, Error::CollectorLocked { .. }), "{error}");
    assert!(error.to_string().contains("samples.lock"), "{error}");
    drop(set);
    assert_eq!(drain(&mut SampleSet::open(dir.path(), FORMAT).unwrap()), [2]);
}

#[test]
fn rings_that_nobody_collects_do_not_pile_up() {
    let dir = directory();
    for _ in 0..5 {
        drop(SampleWriter::create(dir.path(), shape()).unwrap());
    }
    let live = SampleWriter::create(dir.path(), shape()).unwrap();
    assert_eq!(rings(dir.path()), 1, "the dead are removed, {} is not", live.file_name());
    drop(SampleWriter::create(dir.path(), shape()).unwrap());
    let _other = SampleWriter::create(dir.path(), shape()).unwrap();
    assert_eq!(rings(dir.path()), 3, "few of the dead wait for a collector");
}

#[test]
fn what_a_killed_process_was_making_is_removed_later() {
    let dir = directory();
    let (fresh, old) = (dir.path().join("samples-1-1.new"), dir.path().join("samples-1-2.new"));
    fs::write(&fresh, b"").unwrap();
    let file = fs::File::create(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
    drain(&mut SampleSet::open(dir.path(), FORMAT).unwrap());
    assert!(fresh.exists() && !old.exists());
}

#[test]
fn shapes_outside_their_limits_are_refused() {
    let dir = directory();
    for (shape, named) in [
        (SampleShape { words: 0, ..shape() }, "words per record"),
        (SampleShape { words: 25, ..shape() }, "words per record"),
        (SampleShape { capacity: 0, ..shape() }, "capacity in records"),
        (SampleShape { capacity: 3, ..shape() }, "capacity in records"),
        (SampleShape { capacity: 131_072, ..shape() }, "capacity in records"),
    ] {
        let error = SampleWriter::create(dir.path(), shape).unwrap_err();
        assert!(matches!(error, Error::Shape { field, .. } if field == named), "{error}");
    }
    assert!(SampleWriter::create(dir.path().join("missing"), shape()).is_err());
    let widest = SampleWriter::create(dir.path(), SampleShape::new(FORMAT, 24)).unwrap();
    let metadata = fs::metadata(dir.path().join(widest.file_name())).unwrap();
    assert_eq!(metadata.len(), 192 + 768 * 1024);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_forged_ring_is_refused_by_name_and_removed_with_its_process() {
    for (word, value, sealed, named) in [
        (0, 0, false, "magic"),
        (1, 2, false, "layout version"),
        (7, 0, false, "header checksum"),
        (2, 8, true, "length in words"),
        (3, 0, true, "words per record"),
        (3, 25, true, "words per record"),
        (3, 3, true, "length in words"),
        (4, 3, true, "capacity in records"),
        (4, 1 << 32, true, "capacity in records"),
        (4, 8, true, "length in words"),
        (5, 2, true, "format of the records"),
    ] {
        let dir = directory();
        let writer = SampleWriter::create(dir.path(), shape()).unwrap();
        let path = dir.path().join(writer.file_name());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&u64::to_le_bytes(value), word * 8).unwrap();
        if sealed {
            let bytes = fs::read(&path).unwrap();
            file.write_all_at(&xxh3_64(&bytes[..56]).to_le_bytes(), 56).unwrap();
        }
        let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
        assert_eq!(drain(&mut set), [0; 0]);
        let (name, error) = set.unreadable().next().unwrap();
        assert_eq!(name, writer.file_name());
        assert!(matches!(error, Error::Refused { field, .. } if *field == named), "{error}");
        drop(writer);
        assert_eq!(drain(&mut set), [0; 0]);
        assert_eq!((set.unreadable().count(), rings(dir.path())), (0, 0));
    }
}

#[test]
fn a_ring_that_others_could_write_is_not_opened() {
    let dir = directory();
    let mut writer = SampleWriter::create(dir.path(), shape()).unwrap();
    assert!(writer.push(&[1]));
    let path = dir.path().join(writer.file_name());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
    assert_eq!(drain(&mut set), [0; 0]);
    let (_, error) = set.unreadable().next().unwrap();
    assert!(matches!(error, Error::Refused { field: "mode", .. }), "{error}");
}

/// What may happen to a directory.
#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Drain,
    /// The proxy process ends and another one starts.
    NewProcess,
    /// The control plane ends and another one starts.
    NewCollector,
    /// Somebody stores a number of his own into one of the counts.
    Forge(u8, u64),
}

fn step(forge: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Push),
        3 => Just(Step::Drain),
        1 => Just(Step::NewProcess),
        1 => Just(Step::NewCollector),
        forge => (0..3_u8, prop_oneof![0..12_u64, any::<u64>()])
            .prop_map(|(which, value)| Step::Forge(which, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rings_are_queues_of_four(steps in vec(step(0), 0..60)) {
        let dir = directory();
        let mut writer = SampleWriter::create(dir.path(), shape()).unwrap();
        let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
        // Those of dead processes and that of the present one.
        let (mut dead, mut queue) = (Vec::new(), VecDeque::new());
        let mut number = 0;
        for step in steps {
            match step {
                Step::Push(_) => {
                    number += 1;
                    let room = queue.len() < 4;
                    prop_assert_eq!(writer.push(&[number]), room);
                    if room {
                        queue.push_back(number);
                    }
                }
                Step::Drain => {
                    let mut seen = drain(&mut set);
                    // Rings are drained by name, which says nothing of their age.
                    seen.sort_unstable();
                    dead.extend(queue.drain(..));
                    dead.sort_unstable();
                    prop_assert_eq!(seen, std::mem::take(&mut dead));
                    prop_assert_eq!(rings(dir.path()), 1);
                }
                Step::NewProcess => {
                    if rings(dir.path()) > 4 {
                        continue;
                    }
                    dead.extend(queue.drain(..));
                    drop(writer);
                    writer = SampleWriter::create(dir.path(), shape()).unwrap();
                }
                Step::NewCollector => {
                    drop(set);
                    set = SampleSet::open(dir.path(), FORMAT).unwrap();
                }
                Step::Forge(..) => {}
            }
        }
    }

    #[test]
    fn forged_counts_are_survived(steps in vec(step(4), 0..60)) {
        let dir = directory();
        let mut writer = SampleWriter::create(dir.path(), shape()).unwrap();
        let mut set = SampleSet::open(dir.path(), FORMAT).unwrap();
        for step in steps {
            match step {
                Step::Push(n) => {
                    writer.push(&[n.into()]);
                }
                Step::Forge(which, value) => {
                    let path = dir.path().join(writer.file_name());
                    let file = OpenOptions::new().write(true).open(path).unwrap();
                    let word = [8, 9, 16][usize::from(which)];
                    file.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
                }
                _ => prop_assert!(drain(&mut set).len() <= 4),
            }
        }
        // Whatever happened, they find back to each other.
        for _ in 0..3 {
            writer.push(&[0]);
            drain(&mut set);
        }
        prop_assert!(writer.push(&[77]));
        prop_assert_eq!(drain(&mut set), [77]);
    }
}
