//! Opens a forged file in every way there is. Shared by the fuzz target and the test that replays
//! the corpus.
//!
//! The first byte of an input says what is forged: its low two bits choose head, data file, ledger or
//! ring of samples, bit 2 asks for the header's checksum to be made right again, bit 3 says that the rest *is* the file.
//! Otherwise the rest is a list of patches to a valid file, twelve bytes each: an offset in words
//! (u32, little-endian, modulo the length) and a value; two bytes
//! after the last patch are a new length.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use inlane_segment::{
    Document, Error, Ledger, LedgerSet, Origin, SampleSet, SampleShape, SampleWriter, Shape,
    SlotGeneration, Snapshot, SnapshotReader, Writer,
};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

const SHAPE: Shape = Shape { slots: 4, row_words: 8, documents: [64, 32, 8, 8, 8], table_words: 8 };
const SAMPLES: SampleShape = SampleShape { format: 1, words: 2, capacity: 4 };
const RESEAL: u8 = 1 << 2;
const WHOLE: u8 = 1 << 3;

/// Forges a file as `input` says, and opens it.
pub(crate) fn files(input: &[u8]) {
    let Some((&how, rest)) = input.split_first() else { return };
    let originals = originals();
    let (name, original, sealed_words) = match how & 3 {
        0 => ("head", &originals.head, 0),
        1 => (originals.data_name.as_str(), &originals.data, 32),
        2 => ("ledger-1-0000000000000001.led", &originals.ledger, 8),
        _ => ("samples-1-0000000000000001.smp", &originals.samples, 8),
    };
    let mut bytes = if how & WHOLE != 0 { rest.to_vec() } else { patched(original, rest) };
    if how & RESEAL != 0 {
        reseal(&mut bytes, sealed_words);
    }

    let dir = directory();
    fs::write(dir.path().join("head"), &originals.head).expect("write");
    fs::write(dir.path().join(&originals.data_name), &originals.data).expect("write");
    let forged = dir.path().join(name);
    fs::write(&forged, &bytes).expect("write");
    for file in ["head", &originals.data_name] {
        fs::set_permissions(dir.path().join(file), Permissions::from_mode(0o600)).expect("mode");
    }
    fs::set_permissions(&forged, Permissions::from_mode(0o600)).expect("mode");
    match how & 3 {
        2 => read_ledger(dir.path(), &forged),
        3 => collect_samples(dir.path(), &forged),
        _ => {
            read_snapshot(dir.path());
            continue_writing(dir.path());
        }
    }
}

fn read_snapshot(dir: &Path) {
    if let Ok(mut reader) = SnapshotReader::open(dir) {
        read_everything(reader.snapshot());
        assert!(!reader.poll().expect("nothing has changed"));
    }
}

fn read_everything(snapshot: &Snapshot) {
    for kind in Document::ALL {
        match snapshot.document(kind) {
            Ok(None) | Err(Error::Refused { .. }) => {}
            Ok(Some(document)) => {
                assert_eq!(document.generation, snapshot.document_generation(kind));
            }
            Err(e) => panic!("{e}"),
        }
    }
    let mut row = vec![0; snapshot.shape().row_words as usize];
    for slot in 0..snapshot.shape().slots {
        assert!(snapshot.row(slot, &mut row), "nobody writes");
    }
    assert!(!snapshot.row(snapshot.shape().slots, &mut row));
}

/// Whatever a writer finds, what it publishes afterwards is what readers get.
fn continue_writing(dir: &Path) {
    let (mut writer, opened) = match Writer::open_or_create(dir, SHAPE) {
        Ok(both) => both,
        // A forged id of the largest possible number leaves none for a successor.
        Err(Error::Refused { field: "data id", .. }) => return,
        Err(e) => panic!("{e}"),
    };
    if let Origin::Replaced(reason) = opened.origin {
        assert!(matches!(reason, Error::Refused { .. }), "{reason}");
    }
    let reader = SnapshotReader::open(dir).expect("a writer has just been here");
    read_everything(reader.snapshot());
    let generation = writer.publish_document(Document::Config, b"config").expect("fits");
    let document = reader.snapshot().document(Document::Config).expect("whole").expect("there");
    assert_eq!((document.generation, &document.bytes[..]), (generation, &b"config"[..]));
    assert!(writer.publish_row(3, &[4; 8]));
    let mut row = [0; 8];
    assert!(reader.snapshot().row(3, &mut row) && row == [4; 8]);
    if let Some(id) = writer.assign_slot() {
        assert!(writer.retire_slot(id) && writer.free_slot(id));
    }
}

fn read_ledger(dir: &Path, forged: &Path) {
    let file = File::open(forged).expect("open");
    file.lock().expect("lock");
    let mut set = LedgerSet::open(dir).expect("a forged ledger is no failure of the set");
    for (_, view) in set.iter() {
        let _ = (view.counters(), view.refusal(), view.accepted_config());
        for slot in 0..=view.capacity() {
            let _ = view.observe(slot).requests();
        }
    }
    assert_eq!(set.iter().count() + set.unreadable().count(), 1);
    assert!(set.unreadable().count() == 0 || !set.is_idle(0));
    drop(file);
    set.refresh().expect("refresh");
    assert!(set.is_idle(0), "nobody holds the lock any more");
    assert!(!forged.exists());
}

fn collect_samples(dir: &Path, forged: &Path) {
    let file = File::open(forged).expect("open");
    file.lock().expect("lock");
    let mut set = SampleSet::open(dir, SAMPLES.format).expect("the only collector");
    for _ in 0..3 {
        let most = u64::from(inlane_segment::samples::MAX_SAMPLES);
        let taken = set.drain(|record| assert!(record.len() <= 24)).expect("drained");
        assert!(taken <= most);
        assert_eq!(set.live() + set.unreadable().count(), 1);
    }
    assert_eq!(set.drain(|_| {}).expect("drained"), 0, "nobody pushes");
    drop(file);
    set.drain(|_| {}).expect("drained");
    assert_eq!(set.live() + set.unreadable().count(), 0, "nobody holds the lock any more");
    assert!(!forged.exists());
}

/// Files as a writer and a ledger's owner leave them.
struct Originals {
    head: Vec<u8>,
    data: Vec<u8>,
    data_name: String,
    ledger: Vec<u8>,
    samples: Vec<u8>,
}

fn originals() -> &'static Originals {
    static ORIGINALS: OnceLock<Originals> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        let dir = directory();
        let (mut writer, _) = Writer::open_or_create(dir.path(), SHAPE).expect("writer");
        for kind in Document::ALL {
            writer.publish_document(kind, b"valid").expect("fits");
        }
        let id = writer.assign_slot().expect("a slot");
        assert!(writer.publish_row(id.index, &[1; 8]));
        let ledger = Ledger::create(dir.path(), 4).expect("ledger");
        let generation = SlotGeneration::new(1).expect("in range");
        ledger.adopt(0, generation).expect("empty");
        let _held = ledger.claim_any(0, generation, 7).expect("room");
        ledger.refuse_config(1, "a reason");
        let mut samples = SampleWriter::create(dir.path(), SAMPLES).expect("a ring");
        assert!((1..=3).all(|number| samples.push(&[number; 2])));
        let data = fs::read_dir(dir.path()).expect("list").filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.starts_with("data-").then_some(name)
        });
        let data_name = data.last().expect("one data file");
        let read = |name: &str| fs::read(dir.path().join(name)).expect("read");
        Originals {
            head: read("head"),
            data: read(&data_name),
            ledger: read(ledger.file_name()),
            samples: read(samples.file_name()),
            data_name,
        }
    })
}

fn patched(original: &[u8], patches: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let (patches, rest) = patches.as_chunks::<12>();
    for patch in patches {
        let (at, value) = patch.split_at(4);
        let words = bytes.len() / 8;
        let at = u32::from_le_bytes(at.try_into().expect("four bytes")) as usize % words.max(1);
        if let Some(word) = bytes.get_mut(at * 8..at * 8 + 8) {
            word.copy_from_slice(value);
        }
    }
    // What is left of an incomplete patch sets the length, twice the present one at most.
    if let Some(&[low, high]) = rest.first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes([low, high])) % (2 * original.len());
        bytes.resize(len, 0);
    }
    bytes
}

fn reseal(bytes: &mut [u8], words: usize) {
    if words != 0
        && let Some(header) = bytes.get_mut(..words * 8)
    {
        let (fields, checksum) = header.split_at_mut((words - 1) * 8);
        checksum.copy_from_slice(&xxh3_64(fields).to_le_bytes());
    }
}

fn directory() -> TempDir {
    let shm = PathBuf::from("/dev/shm");
    let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .expect("temporary directory")
}
