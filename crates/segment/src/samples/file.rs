//! The ring's file: its layout, and the side that a proxy process owns for its life.
//!
//! ```text
//! line 0    magic, layout version, length in words, words per record, capacity in records,
//!           format of the records, instance, checksum
//! then      the ring
//! ```

use std::fs::File;
use std::path::Path;

use super::ring::{MAX_SAMPLE_WORDS, MAX_SAMPLES, Producer, Ring};
use crate::dir::{Directory, Owner, is_abandoned};
use crate::error::{Error, expect, refused};
use crate::layout::{LINE, checksum};
use crate::mapped::MappedWords;
use crate::owned::{self, Owned};
use crate::words::{Words, WordsMut};

/// The layout of rings that this build writes and reads.
pub const SAMPLES_VERSION: u16 = 1;

pub(super) const KIND: &str = "samples";
pub(super) const EXTENSION: &str = "smp";

const MAGIC: u64 = u64::from_le_bytes(*b"INLNsmpl");
const HEADER: usize = LINE;

/// Rings of dead processes that may wait for a collector.
const MOST_DEAD: usize = 4;

/// What a ring has room for. Its file takes 192 + 8 × words × capacity bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleShape {
    /// What the words of a record mean, by a number of the caller's. Whoever collects another format
    /// passes over the ring.
    pub format: u32,
    /// Words of a record, 1 to [`MAX_SAMPLE_WORDS`].
    pub words: u32,
    /// Records: a power of two, at most [`MAX_SAMPLES`].
    pub capacity: u32,
}

impl SampleShape {
    /// Room for 4,096 records of `words` words: for 24 words 768 KiB.
    pub fn new(format: u32, words: u32) -> Self {
        Self { format, words, capacity: 4096 }
    }

    fn check(self) -> Result<(), Error> {
        let refuse = |field, expected, found: u32| {
            Err(Error::Shape { field, expected, found: found.into() })
        };
        if !(1..=MAX_SAMPLE_WORDS).contains(&self.words) {
            return refuse("words per record", format!("1 to {MAX_SAMPLE_WORDS}"), self.words);
        }
        if !self.capacity.is_power_of_two() || self.capacity > MAX_SAMPLES {
            let expected = format!("a power of two up to {MAX_SAMPLES}");
            return refuse("capacity in records", expected, self.capacity);
        }
        Ok(())
    }

    fn len(self) -> usize {
        (HEADER + Ring::<()>::words(self.words, self.capacity)).next_multiple_of(LINE)
    }
}

/// This process's ring, in a file that it holds locked.
///
/// One thread pushes. When the process ends, however it ends, the lock is gone; what is in the ring
/// then is collected, and the file removed by whoever collects it.
#[derive(Debug)]
pub struct SampleWriter<W = MappedWords> {
    producer: Producer<W>,
    name: String,
    // Held for its lock.
    _lock: File,
}

impl SampleWriter {
    /// Makes this process's ring in the directory of a [`Writer`](crate::Writer).
    ///
    /// More than four rings of dead processes mean that nobody collects: they are removed first.
    pub fn create(dir: impl AsRef<Path>, shape: SampleShape) -> Result<Self, Error> {
        Self::create_in(dir, shape, |words| words)
    }
}

impl<W: WordsMut> SampleWriter<W> {
    /// As [`create`](SampleWriter::create), writing through `wrap` of the mapping.
    pub fn create_in(
        dir: impl AsRef<Path>,
        shape: SampleShape,
        wrap: impl FnOnce(MappedWords) -> W,
    ) -> Result<Self, Error> {
        shape.check()?;
        let dir = Directory::open(dir.as_ref(), Owner::Effective)?;
        remove_uncollected(&dir)?;
        let Owned { file, words, name } =
            owned::create(&dir, KIND, EXTENSION, shape.len(), |words, instance| {
                words.store_run(0, &header(shape, instance));
            })?;
        let ring = Ring::new(wrap(words), HEADER, shape.words, shape.capacity);
        Ok(Self { producer: Producer::new(ring), name, _lock: file })
    }

    /// Pushes a record; words that it lacks are zero. `false` where it was dropped, because the ring
    /// is full or the record longer than its shape says.
    #[inline]
    pub fn push(&mut self, record: &[u64]) -> bool {
        self.producer.push(record)
    }

    /// How many records were dropped.
    pub fn dropped(&self) -> u64 {
        self.producer.dropped()
    }

    /// The name of its file in the directory.
    pub fn file_name(&self) -> &str {
        &self.name
    }
}

/// Whether `name` is that of a ring.
pub(super) fn is_ring(name: &str) -> bool {
    belongs(name, EXTENSION)
}

/// Whether `name` is that of a ring that is being made.
pub(super) fn is_unfinished(name: &str) -> bool {
    belongs(name, "new")
}

fn belongs(name: &str, extension: &str) -> bool {
    name.split_once('-').is_some_and(|(kind, _)| kind == KIND)
        && name.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}

/// Validates the header of a ring's file.
pub(super) fn open<W: Words>(words: W, format: u32, path: &Path) -> Result<Ring<W>, Error> {
    let mut header = [0; HEADER];
    if words.len() < HEADER {
        let expected = format!("at least {HEADER}");
        return Err(refused(path, "length in words", words.len(), expected));
    }
    words.load_run(0, &mut header);
    let [magic, version, len, stride, capacity, found_format, _, sum] = header;
    expect(path, "magic", magic, MAGIC)?;
    expect(path, "layout version", version, SAMPLES_VERSION.into())?;
    expect(path, "header checksum", sum, checksum(&header))?;
    expect(path, "length in words", len, words.len() as u64)?;
    expect(path, "format of the records", found_format, format.into())?;
    let narrow = |field, word| {
        u32::try_from(word).map_err(|_| refused(path, field, word, "a 32-bit number"))
    };
    let shape = SampleShape {
        format,
        words: narrow("words per record", stride)?,
        capacity: narrow("capacity in records", capacity)?,
    };
    shape.check().map_err(|error| match error {
        Error::Shape { field, expected, found } => refused(path, field, found, expected),
        other => other,
    })?;
    expect(path, "length in words", words.len(), shape.len())?;
    Ok(Ring::new(words, HEADER, shape.words, shape.capacity))
}

fn header(shape: SampleShape, instance: u64) -> [u64; HEADER] {
    let mut header = [
        MAGIC,
        SAMPLES_VERSION.into(),
        shape.len() as u64,
        shape.words.into(),
        shape.capacity.into(),
        shape.format.into(),
        instance,
        0,
    ];
    header[HEADER - 1] = checksum(&header);
    header
}

fn remove_uncollected(dir: &Directory) -> Result<(), Error> {
    let mut dead = Vec::new();
    for name in dir.names()?.into_iter().filter(|name| is_ring(name)) {
        let Ok(file) = dir.open_file(&name) else { continue };
        if is_abandoned(&file, &dir.path_of(&name))? {
            dead.push(name);
        }
    }
    if dead.len() > MOST_DEAD {
        dead.iter().try_for_each(|name| dir.remove(name))?;
    }
    Ok(())
}
