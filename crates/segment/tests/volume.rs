//! A volume that is really full: a memory volume of 3 MiB, mounted for the test.
//!
//! Where mounting is not permitted this says so and proves nothing; the failure paths themselves are
//! also covered without a mount, by a file too large for any volume and by an allocation that fails.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;

use inlane_segment::{Document, Error, Ledger, Origin, Shape, SnapshotReader, Writer};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

const SHAPE: Shape = Shape {
    slots: 16,
    row_words: 8,
    documents: [400_000, 100_000, 1_000, 1_000, 1_000],
    table_words: 0,
};

/// A mounted volume, unmounted at the end.
struct Volume(TempDir);

impl Volume {
    fn mount() -> Option<Self> {
        let dir = support::directory();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match mount("tmpfs", dir.path(), "tmpfs", flags, Some(c"size=3m,mode=0700")) {
            Ok(()) => Some(Self(dir)),
            Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => None,
            Err(e) => panic!("{e}"),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).expect("a file");
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).expect("unmount");
    }
}

#[test]
fn a_full_volume_fails_only_what_needs_more_of_it() {
    let Some(volume) = Volume::mount() else {
        eprintln!("not permitted to mount a volume: nothing was tested");
        return;
    };
    let dir = volume.path().join("segment");
    let (mut writer, _) = Writer::open_or_create(&dir, SHAPE).expect("room");
    let mut reader = SnapshotReader::open(&dir).expect("published");
    volume.fill();

    assert!(matches!(writer.grow(SHAPE), Err(Error::NoSpace { .. })));
    assert!(matches!(Ledger::create(&dir, 16), Err(Error::NoSpace { .. })));
    // What is mapped is there: every byte of it can be written.
    for number in 0..4_u64 {
        for (kind, capacity) in Document::ALL.into_iter().zip(SHAPE.documents) {
            let bytes = vec![number as u8; capacity as usize];
            writer.publish_document(kind, &bytes).expect("has its place");
            let document = reader.snapshot().document(kind).expect("whole").expect("there");
            assert_eq!(document.bytes, bytes);
        }
        assert!((0..SHAPE.slots).all(|slot| writer.publish_row(slot, &[number; 8])));
    }
    assert!(!reader.poll().expect("nothing has changed"));
    drop(writer);

    let (_, opened) = Writer::open_or_create(&dir, SHAPE).expect("needs no room");
    assert!(matches!(opened.origin, Origin::Recovered), "{opened:?}");
    let files = fs::read_dir(&dir).expect("list").count();
    assert_eq!(files, 3, "lock, head and data file: failures leave nothing behind");
}
