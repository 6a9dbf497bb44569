//! A reader that trusts nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use inlane_segment::{Document, Error, Snapshot, SnapshotReader};

use crate::child::{SLOTS, number};

/// How much a reader has read.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rows: u64,
    pub(crate) documents: u64,
    pub(crate) newest: u64,
    // The last numbers and generations, none of which may go backwards.
    last_rows: [u64; SLOTS as usize],
    last_documents: [(u64, u64); Document::ALL.len()],
}

/// Reads until it is over.
pub(crate) fn until(dir: &Path, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut reader = loop {
        match SnapshotReader::open(dir) {
            Ok(reader) => break reader,
            // Before the first writer is done there is nothing to open.
            Err(_) if !over.load(Ordering::Relaxed) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    };
    while !over.load(Ordering::Relaxed) {
        reader.poll().expect("a writer's death leaves a directory that can be followed");
        for _ in 0..10 {
            seen.check(reader.snapshot());
        }
    }
    seen
}

/// Reads everything once; returns the newest number.
pub(crate) fn check_once(snapshot: &Snapshot) -> u64 {
    let mut seen = Seen::default();
    seen.check(snapshot);
    seen.newest
}

impl Seen {
    fn check(&mut self, snapshot: &Snapshot) {
        for (slot, last) in self.last_rows.iter_mut().enumerate() {
            let mut row = [0; 8];
            if snapshot.row(slot as u32, &mut row) {
                assert_eq!(row, [row[0]; 8], "a row of two generations");
                assert!(row[0] >= *last, "row {slot}: {} after {last}", row[0]);
                *last = row[0];
                self.newest = self.newest.max(row[0]);
                self.rows += 1;
            }
        }
        for (kind, last) in Document::ALL.into_iter().zip(&mut self.last_documents) {
            let document = match snapshot.document(kind) {
                Ok(Some(document)) => document,
                Ok(None) | Err(Error::Unstable { .. }) => continue,
                Err(e) => panic!("{e}"),
            };
            let now = (document.generation, number(&document.bytes));
            assert!(now.0 >= last.0 && now.1 >= last.1, "{kind:?}: {now:?} after {last:?}");
            assert!((now.0 == last.0) == (now.1 == last.1), "{kind:?}: {now:?} after {last:?}");
            *last = now;
            self.newest = self.newest.max(now.1);
            self.documents += 1;
        }
    }
}
