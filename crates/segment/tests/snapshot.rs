//! What a writer publishes is what readers get, over restarts, growth and a directory made anew.

mod support;

use inlane_segment::{Document, Error, Origin, Shape, SlotState, SnapshotReader, Writer};
use support::{directory, open, small};

#[test]
fn a_reader_sees_documents_and_rows() {
    let dir = directory();
    let (mut writer, opened) = open(dir.path());
    assert!(matches!(opened.origin, Origin::Created));
    let allocation = opened.allocation.expect("a file was made");
    assert_eq!(allocation.required, small().bytes().unwrap());
    assert!(allocation.free >= allocation.required);

    let reader = SnapshotReader::open(dir.path()).unwrap();
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.document(Document::Config).unwrap(), None);
    assert_eq!(snapshot.row_publications(3), 0);

    let generation = writer.publish_document(Document::Config, b"a: 1").unwrap();
    assert!(writer.publish_row(3, &[7, 8]));
    let document = snapshot.document(Document::Config).unwrap().unwrap();
    assert_eq!((document.generation, &document.bytes[..]), (generation, &b"a: 1"[..]));
    assert_eq!(snapshot.document_generation(Document::Config), generation);
    let mut row = [u64::MAX; 8];
    assert!(snapshot.row(3, &mut row));
    assert_eq!(row, [7, 8, 0, 0, 0, 0, 0, 0]);
    assert_eq!(snapshot.row_publications(3), 1);

    assert_eq!(writer.publish_document(Document::Config, b"").unwrap(), generation + 1);
    assert_eq!(snapshot.document(Document::Config).unwrap().unwrap().bytes, b"");
}

#[test]
fn what_does_not_exist_is_refused_without_effect() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let reader = SnapshotReader::open(dir.path()).unwrap();
    assert!(!writer.publish_row(16, &[1]));
    assert!(!writer.publish_row(0, &[1; 9]));
    assert!(!reader.snapshot().row(16, &mut [0; 8]));
    assert!(!reader.snapshot().row(u32::MAX, &mut [0; 8]));
    assert!(!reader.snapshot().row(0, &mut [0; 9]));
    assert_eq!(reader.snapshot().row_publications(16), 0);

    let error = writer.publish_document(Document::Objectives, &[0; 65]).unwrap_err();
    assert!(matches!(error, Error::DocumentTooLarge { len: 65, capacity: 64, .. }), "{error}");
    assert_eq!(reader.snapshot().document(Document::Objectives).unwrap(), None);
    writer.publish_document(Document::Objectives, &[1; 64]).unwrap();
}

#[test]
fn there_is_one_writer() {
    let dir = directory();
    let (writer, _) = open(dir.path());
    let error = Writer::open_or_create(dir.path(), small()).unwrap_err();
    assert!(matches!(&error, Error::WriterLocked { path } if path.ends_with("writer.lock")));
    drop(writer);
    open(dir.path());
}

#[test]
fn a_restarted_writer_continues() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let reader = SnapshotReader::open(dir.path()).unwrap();
    let instance = reader.writer_instance();
    let generation = writer.publish_document(Document::Topology, b"one").unwrap();
    let id = writer.assign_slot().unwrap();
    assert!(writer.publish_row(id.index, &[5; 8]));
    drop(writer);

    let (mut writer, opened) = open(dir.path());
    assert!(matches!(opened.origin, Origin::Recovered), "{opened:?}");
    assert_ne!(reader.writer_instance(), instance);
    assert_eq!(writer.document(Document::Topology).unwrap().bytes, b"one");
    assert_eq!(writer.slots().collect::<Vec<_>>(), [(id, SlotState::Live)]);
    let mut row = [0; 8];
    assert!(writer.row(id.index, &mut row) && row == [5; 8]);
    // The very same mapping goes on being served.
    assert_eq!(writer.publish_document(Document::Topology, b"two").unwrap(), generation + 1);
    assert_eq!(reader.snapshot().document(Document::Topology).unwrap().unwrap().bytes, b"two");
}

#[test]
fn growing_keeps_everything_and_readers_follow() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let mut reader = SnapshotReader::open(dir.path()).unwrap();
    let old = reader.snapshot().clone();
    let generation = writer.publish_document(Document::Config, b"config").unwrap();
    let id = writer.assign_slot().unwrap();
    for count in 0..5 {
        assert!(writer.publish_row(id.index, &[count; 8]));
    }

    let more = Shape { slots: 32, documents: [512, 128, 64, 128, 64], ..small() };
    writer.grow(more).unwrap();
    let grown = Shape { slots: 32, documents: [512, 256, 64, 128, 64], ..small() };
    assert_eq!(writer.shape(), grown, "nothing shrinks");
    assert!(reader.poll().unwrap());
    assert!(!reader.poll().unwrap());
    let new = reader.snapshot();
    assert_ne!(new.data_id(), old.data_id());
    let document = new.document(Document::Config).unwrap().unwrap();
    assert_eq!((document.generation, &document.bytes[..]), (generation, &b"config"[..]));
    assert_eq!(new.row_publications(id.index), 6);
    let mut row = [0; 8];
    assert!(new.row(id.index, &mut row) && row == [4; 8]);
    assert_eq!(writer.slots().next(), Some((id, SlotState::Live)));

    // Who still maps the old file can go on reading it, although it has no name any more.
    assert!(old.row(id.index, &mut row) && row == [4; 8]);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 3, "lock, head and one data file: {names:?}");
}

#[test]
fn a_writer_that_asks_for_more_moves_and_one_that_asks_for_less_stays() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    writer.publish_document(Document::Config, b"config").unwrap();
    assert!(writer.publish_row(1, &[9; 8]));
    drop(writer);

    let wider = Shape { row_words: 16, ..small() };
    let (writer, opened) = Writer::open_or_create(dir.path(), wider).unwrap();
    assert!(matches!(opened.origin, Origin::Moved));
    assert!(opened.allocation.is_some());
    assert_eq!(writer.document(Document::Config).unwrap().bytes, b"config");
    let mut row = [1; 16];
    assert!(writer.row(1, &mut row) && row == [0; 16], "rows of another width are left behind");
    drop(writer);

    let fewer = Shape { slots: 1, row_words: 16, documents: [0; 5], table_words: 0 };
    let (writer, opened) = Writer::open_or_create(dir.path(), fewer).unwrap();
    assert!(matches!(opened.origin, Origin::Recovered));
    assert_eq!(writer.shape(), wider);
}

#[test]
fn a_reader_follows_a_directory_made_anew() {
    let dir = directory();
    let path = dir.path().join("segment");
    let (mut writer, _) = open(&path);
    let first = writer.publish_document(Document::Config, b"old").unwrap();
    let mut reader = SnapshotReader::open(&path).unwrap();
    drop(writer);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(reader.poll().is_err(), "nothing to follow yet");
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"old");

    let (mut writer, opened) = open(&path);
    assert!(matches!(opened.origin, Origin::Created));
    assert!(writer.publish_document(Document::Config, b"new").unwrap() > first);
    assert!(reader.poll().unwrap());
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"new");
}

#[test]
fn a_reader_follows_a_head_made_anew() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let first = writer.publish_document(Document::Config, b"old").unwrap();
    let mut reader = SnapshotReader::open(dir.path()).unwrap();
    drop(writer);
    std::fs::write(dir.path().join("other"), b"no head").unwrap();
    std::fs::rename(dir.path().join("other"), dir.path().join("head")).unwrap();
    assert!(matches!(reader.poll(), Err(Error::Refused { .. })));
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"old");

    let (mut writer, opened) = open(dir.path());
    assert!(matches!(opened.origin, Origin::Replaced(Error::Refused { .. })), "{opened:?}");
    assert!(writer.publish_document(Document::Config, b"new").unwrap() > first);
    assert!(reader.poll().unwrap());
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"new");
}

#[test]
fn the_heartbeat_ages() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let reader = SnapshotReader::open(dir.path()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let age = reader.heartbeat_age();
    assert!(age.as_millis() >= 20, "{age:?}");
    assert!(writer.publish_row(0, &[]));
    let began = std::time::Instant::now();
    writer.beat();
    assert!(reader.heartbeat_age() <= began.elapsed() + std::time::Duration::from_millis(1));
    assert_eq!(reader.publications(), 1);
}

#[test]
fn slots_go_round() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let first = writer.assign_slot().unwrap();
    assert_eq!((first.index, first.generation.number()), (0, 1));
    assert!(writer.publish_row(0, &[3; 8]));
    let second = writer.assign_slot().unwrap();
    assert_eq!(second.index, 1);

    assert!(!writer.free_slot(first), "still live");
    assert!(writer.retire_slot(first));
    assert!(!writer.retire_slot(first));
    assert_eq!(writer.assign_slot().unwrap().index, 2, "a retired slot is not assigned");
    assert!(writer.free_slot(first));
    assert!(!writer.free_slot(first));

    let again = writer.assign_slot().unwrap();
    assert_eq!((again.index, again.generation), (0, first.generation.next()));
    assert!(!writer.retire_slot(first), "another assignment");
    let mut row = [1; 8];
    assert!(writer.row(0, &mut row) && row == [0; 8], "the predecessor's row is gone");

    let rest: Vec<_> = std::iter::from_fn(|| writer.assign_slot()).collect();
    assert_eq!(rest.len(), 16 - 3);
}

#[test]
fn the_table_region_is_shared() {
    use inlane_segment::words::{Words, WordsMut};
    use std::sync::atomic::Ordering;

    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let mut reader = SnapshotReader::open(dir.path()).unwrap();
    assert_eq!(writer.table().len(), 64);
    writer.table().store(63, 11, Ordering::Release);
    assert_eq!(reader.snapshot().table().load(63, Ordering::Acquire), 11);

    writer.grow(Shape { slots: 17, ..small() }).unwrap();
    assert!(reader.poll().unwrap());
    assert_eq!(reader.snapshot().table().load(63, Ordering::Acquire), 11, "moved along");
    writer.grow(Shape { table_words: 128, ..small() }).unwrap();
    assert_eq!(writer.table().len(), 128);
    assert_eq!(writer.table().load(63, Ordering::Acquire), 0, "another size starts empty");
}

#[test]
fn a_volume_without_room_fails_the_writer_and_nobody_else() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    writer.publish_document(Document::Config, b"config").unwrap();
    let mut reader = SnapshotReader::open(dir.path()).unwrap();

    let huge = Shape { table_words: 1 << 37, ..small() };
    let error = writer.grow(huge).unwrap_err();
    let Error::NoSpace { required, free, .. } = error else { panic!("{error}") };
    assert_eq!(required, huge.bytes().unwrap());
    assert!(free < required);

    assert!(!reader.poll().unwrap());
    writer.publish_document(Document::Config, b"goes on").unwrap();
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"goes on");
}

#[test]
fn shapes_outside_their_limits_are_refused() {
    let dir = directory();
    for (shape, field) in [
        (Shape { slots: 0, ..small() }, "endpoint slots"),
        (Shape { slots: 16_385, ..small() }, "endpoint slots"),
        (Shape { row_words: 12, ..small() }, "words per row"),
        (Shape { row_words: 0, ..small() }, "words per row"),
        (Shape { documents: [0, (1 << 32) + 1, 0, 0, 0], ..small() }, "document capacity"),
        (Shape { table_words: u64::MAX, ..small() }, "words of table"),
    ] {
        let error = Writer::open_or_create(dir.path(), shape).unwrap_err();
        assert!(matches!(error, Error::Shape { field: f, .. } if f == field), "{error}");
    }
    assert_eq!(Shape::default().bytes().unwrap(), 15_221_952);
}
