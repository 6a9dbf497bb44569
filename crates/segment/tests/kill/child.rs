//! The processes that are killed.
//!
//! The writer publishes one generation after the other: the number in every word of every row and of every
//! document. Every so often it moves to a new data file.

use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inlane_segment::mapped::MappedWords;
use inlane_segment::words::{Words, WordsMut};
use inlane_segment::{
    Document, Ledger, Origin, SampleShape, SampleWriter, Shape, SlotGeneration, Writer,
};

use crate::{Death, this_test_binary};

pub(crate) const SLOTS: u32 = 4;

const DIR: &str = "SEGMENT_KILL_DIR";
const STORES: &str = "SEGMENT_KILL_STORES";
const RECOVER: &str = "SEGMENT_KILL_RECOVER";

/// Starts a writer; `recover` is whether it must continue with what it finds.
pub(crate) fn start(dir: &Path, recover: bool, death: Death) -> Child {
    this_test_binary()
        .args(["--exact", "child::writes_until_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(STORES, stores_of(death).to_string())
        .env(RECOVER, recover.to_string())
        .spawn()
        .expect("a writer starts")
}

fn stores_of(death: Death) -> u64 {
    match death {
        Death::AfterStores(stores) => stores,
        Death::After(_) => u64::MAX,
    }
}

#[test]
#[ignore = "runs as a child process of the other tests"]
fn writes_until_killed() {
    let dir = std::env::var_os(DIR).expect("started by `start`");
    let variable = |name| std::env::var(name).expect("started by `start`");
    let left = Arc::new(AtomicU64::new(variable(STORES).parse().expect("a number")));
    let shape =
        Shape { slots: SLOTS, row_words: 8, documents: [512, 64, 64, 64, 64], table_words: 0 };
    let wrap = move |words| Deadly { words, left: Arc::clone(&left) };
    let (mut writer, opened) = Writer::open_or_create_in(dir, shape, wrap).expect("a writer");
    let recovered = matches!(opened.origin, Origin::Recovered);
    let created = matches!(opened.origin, Origin::Created);
    let recover = variable(RECOVER) == "true";
    assert!(if recover { recovered } else { created || recovered }, "{opened:?}");

    let mut generation = newest(&writer);
    loop {
        generation += 1;
        for kind in Document::ALL {
            // Documents change their length, so that a torn one cannot look right by accident.
            let numbers = 1 + generation as usize % 8;
            let bytes = generation.to_le_bytes().repeat(numbers);
            writer.publish_document(kind, &bytes).expect("there is room");
        }
        for slot in 0..SLOTS {
            assert!(writer.publish_row(slot, &[generation; 8]));
        }
        writer.beat();
        if generation.is_multiple_of(7) {
            writer.grow(shape).expect("a new data file");
        }
    }
}

/// The slot that the proxy process claims.
pub(crate) const PROXY_SLOT: u32 = 2;

/// Starts a process that claims a request and holds it.
pub(crate) fn start_proxy(dir: &Path) -> Child {
    this_test_binary()
        .args(["--exact", "child::claims_until_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .spawn()
        .expect("a proxy starts")
}

#[test]
#[ignore = "runs as a child process of the other tests"]
fn claims_until_killed() {
    let dir = std::env::var_os(DIR).expect("started by `start_proxy`");
    let ledger = Ledger::create(dir, 4).expect("a ledger");
    let generation = SlotGeneration::new(1).expect("in range");
    ledger.adopt(PROXY_SLOT, generation).expect("empty");
    let claim = ledger.claim_any(PROXY_SLOT, generation, 1).expect("room");
    // Far longer than the test, and yet not forever should the test fail.
    std::thread::sleep(Duration::from_secs(120));
    assert!(ledger.release(claim));
}

/// Words of a record of the process that pushes.
pub(crate) const SAMPLE: usize = 5;

/// The format of these records.
pub(crate) const FORMAT: u32 = 3;

const RUN: &str = "SEGMENT_KILL_RUN";

/// Starts a process that pushes samples: each is its number, counted from 1 and in all words but the
/// second, which has the number of the run.
pub(crate) fn start_sampling(dir: &Path, run: u64, death: Death) -> Child {
    this_test_binary()
        .args(["--exact", "child::pushes_until_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(STORES, stores_of(death).to_string())
        .env(RUN, run.to_string())
        .spawn()
        .expect("a process starts")
}

#[test]
#[ignore = "runs as a child process of the other tests"]
fn pushes_until_killed() {
    let dir = std::env::var_os(DIR).expect("started by `start_sampling`");
    let variable = |name| std::env::var(name).expect("started by `start_sampling`");
    let run = variable(RUN).parse().expect("a number");
    let left = Arc::new(AtomicU64::new(variable(STORES).parse().expect("a number")));
    let shape = SampleShape { format: FORMAT, words: SAMPLE as u32, capacity: 16 };
    let wrap = |words| Deadly { words, left };
    let mut samples = SampleWriter::create_in(dir, shape, wrap).expect("a ring");
    for number in 1.. {
        samples.push(&[number, run, number, number, number]);
    }
}

fn newest<W: WordsMut>(writer: &Writer<W>) -> u64 {
    let document = |kind| writer.document(kind).map(|document| number(&document.bytes));
    Document::ALL.into_iter().filter_map(document).max().unwrap_or(0)
}

/// The number that a document repeats.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let (numbers, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty() && !numbers.is_empty(), "{bytes:?}");
    assert!(numbers.iter().all(|number| number == &numbers[0]), "{bytes:?}");
    u64::from_le_bytes(numbers[0])
}

/// Words that kill their process instead of making one store too many.
#[derive(Clone)]
struct Deadly {
    words: MappedWords,
    left: Arc<AtomicU64>,
}

impl Deadly {
    fn count(&self) {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("dead");
        }
        self.left.store(left.wrapping_sub(1), Ordering::Relaxed);
    }
}

impl Words for Deadly {
    fn len(&self) -> usize {
        self.words.len()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.words.load(at, order)
    }

    fn fence(&self, order: Ordering) {
        self.words.fence(order);
    }
}

impl WordsMut for Deadly {
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.count();
        self.words.store(at, value, order);
    }

    fn compare_exchange(
        &self,
        at: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.count();
        self.words.compare_exchange(at, current, new, success, failure)
    }

    fn fetch_add(&self, at: usize, delta: u64, order: Ordering) -> u64 {
        self.count();
        self.words.fetch_add(at, delta, order)
    }
}
