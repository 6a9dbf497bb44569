//! The shape of a data file: its header, its regions, and the arithmetic between them.
//!
//! A [`Shape`] (what the writer asks for) determines every offset, so a header is validated by
//! recomputing it: there is exactly one valid header for a shape, and a header that is accepted has
//! all of its regions inside the file by construction.
//!
//! ```text
//! word  0  magic            4  endpoint slots      8..16  capacity in bytes of each document
//!       1  layout version   5  words per row      16..24  offset of each document, in words
//!       2  length in words  6  words for a table  24..28  offsets: slot table, flips, rows, table
//!       3  data id          7  0                  31      xxh3 of words 0..31
//! then, each on a cache line of its own: documents, slot table, row flips, rows, table
//! ```

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::document::DocumentRegion;
use crate::error::{Error, expect};
use crate::row::RowRegion;
use crate::slot::SlotRegion;
use crate::words::{Words, WordsMut};

/// The layout that this build writes and reads.
pub const LAYOUT_VERSION: u16 = 3;

/// Most endpoint slots that a segment may have.
pub const MAX_SLOTS: u32 = 16_384;

/// Most words in one copy of a row.
pub const MAX_ROW_WORDS: u32 = 512;

/// Words in a cache line, the unit in which regions are aligned.
pub(crate) const LINE: usize = 8;

const MAGIC: u64 = u64::from_le_bytes(*b"INLNdata");
const HEADER_WORDS: usize = 32;
const MAX_DOCUMENT_BYTES: u64 = 1 << 32;
const MAX_TABLE_WORDS: u64 = 1 << 37;
const DOCUMENTS: usize = Document::ALL.len();

/// A named blob of bytes that the segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Document {
    /// Endpoints with their slots, addresses, labels and roles.
    Topology,
    /// The scheduler's configuration.
    Config,
    /// Inference objectives and model rewrites.
    Objectives,
    /// The trained latency model, in the format of the crate that makes it.
    Model,
    /// With what parameters the block table's keys were made.
    Index,
}

impl Document {
    /// All documents, in the order of their places in the file.
    pub const ALL: [Self; 5] =
        [Self::Topology, Self::Config, Self::Objectives, Self::Model, Self::Index];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Topology => 0,
            Self::Config => 1,
            Self::Objectives => 2,
            Self::Model => 3,
            Self::Index => 4,
        }
    }
}

/// What a data file has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Endpoint slots, 1 to [`MAX_SLOTS`].
    pub slots: u32,
    /// Words in one copy of a row: a multiple of 8 (a cache line), at most [`MAX_ROW_WORDS`].
    pub row_words: u32,
    /// Capacity of each document in bytes, in the order of [`Document::ALL`].
    pub documents: [u64; DOCUMENTS],
    /// Words set aside for a block table; may be 0.
    pub table_words: u64,
}

impl Default for Shape {
    /// 1,024 slots of two-line rows, room for a 4 MiB topology, 1 MiB each for configuration,
    /// objectives and model and 64 KiB for the index's parameters, no block table: 14.5 MiB.
    fn default() -> Self {
        let documents = [4 << 20, 1 << 20, 1 << 20, 1 << 20, 64 << 10];
        Self { slots: 1024, row_words: 24, documents, table_words: 0 }
    }
}

impl Shape {
    /// The size in bytes of a data file of this shape.
    pub fn bytes(&self) -> Result<u64, Error> {
        Ok(Layout::of(*self)?.len as u64 * 8)
    }

    /// The smallest shape that holds both; rows take the width of `other`.
    pub(crate) fn union(self, other: Self) -> Self {
        let mut documents = self.documents;
        for (capacity, theirs) in documents.iter_mut().zip(other.documents) {
            *capacity = (*capacity).max(theirs);
        }
        Self {
            slots: self.slots.max(other.slots),
            row_words: other.row_words,
            documents,
            table_words: self.table_words.max(other.table_words),
        }
    }
}

/// Where everything is in a data file of a given shape. Offsets and lengths are in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) shape: Shape,
    pub(crate) len: usize,
    documents: [usize; DOCUMENTS],
    slots: usize,
    flips: usize,
    rows: usize,
    table: usize,
}

impl Layout {
    /// Computes the layout, refusing shapes outside their limits.
    pub(crate) fn of(shape: Shape) -> Result<Self, Error> {
        within("endpoint slots", shape.slots.into(), 1, MAX_SLOTS.into())?;
        within("words per row", shape.row_words.into(), LINE as u64, MAX_ROW_WORDS.into())?;
        if !(shape.row_words as usize).is_multiple_of(LINE) {
            return Err(Error::Shape {
                field: "words per row",
                expected: format!("a multiple of {LINE}"),
                found: shape.row_words.into(),
            });
        }
        within("words of table", shape.table_words, 0, MAX_TABLE_WORDS)?;

        // The limits above keep every sum below far from overflow of 64 bits.
        let mut end = HEADER_WORDS;
        let mut place = |words: usize| {
            let at = end;
            end += words.next_multiple_of(LINE);
            at
        };
        let mut documents = [0; DOCUMENTS];
        for (at, capacity) in documents.iter_mut().zip(shape.documents) {
            within("document capacity", capacity, 0, MAX_DOCUMENT_BYTES)?;
            *at = place(DocumentRegion::words(capacity as usize));
        }
        let slots = shape.slots as usize;
        let row_words = shape.row_words as usize;
        Ok(Self {
            shape,
            documents,
            slots: place(SlotRegion::words(slots)),
            flips: place(slots),
            rows: place(RowRegion::words(slots, row_words)),
            table: place(shape.table_words as usize),
            len: end,
        })
    }

    /// Writes the header of a new file.
    pub(crate) fn write(&self, words: &impl WordsMut, id: u64) {
        words.store_run(0, &self.header(id));
    }

    /// Reads and validates the header of a file of `words.len()` words.
    pub(crate) fn read(words: &impl Words, id: u64, path: &Path) -> Result<Self, Error> {
        let mut header = [0; HEADER_WORDS];
        if words.len() < HEADER_WORDS {
            return Err(crate::error::refused(
                path,
                "length in words",
                words.len(),
                format!("at least {HEADER_WORDS}"),
            ));
        }
        words.load_run(0, &mut header);
        expect(path, "magic", header[0], MAGIC)?;
        expect(path, "layout version", header[1], LAYOUT_VERSION.into())?;
        expect(path, "header checksum", header[HEADER_WORDS - 1], checksum(&header))?;
        expect(path, "length in words", header[2], words.len() as u64)?;
        expect(path, "data id", header[3], id)?;

        let narrow = |field, word| {
            u32::try_from(word)
                .map_err(|_| crate::error::refused(path, field, word, "a 32-bit number"))
        };
        let mut documents = [0; DOCUMENTS];
        documents.copy_from_slice(&header[8..8 + DOCUMENTS]);
        let shape = Shape {
            slots: narrow("endpoint slots", header[4])?,
            row_words: narrow("words per row", header[5])?,
            documents,
            table_words: header[6],
        };
        let layout = Self::of(shape).map_err(|error| match error {
            Error::Shape { field, expected, found } => {
                crate::error::refused(path, field, found, expected)
            }
            other => other,
        })?;
        expect(path, "length in words", words.len(), layout.len)?;
        for (found, expected) in header.iter().zip(layout.header(id)) {
            expect(path, "header word", *found, expected)?;
        }
        Ok(layout)
    }

    pub(crate) fn document(&self, kind: Document) -> DocumentRegion {
        let index = kind.index();
        DocumentRegion::new(self.documents[index], self.shape.documents[index] as usize)
    }

    pub(crate) fn slots(&self) -> SlotRegion {
        SlotRegion::new(self.slots, self.shape.slots as usize)
    }

    pub(crate) fn rows(&self) -> RowRegion {
        RowRegion::new(
            self.flips,
            self.rows,
            self.shape.slots as usize,
            self.shape.row_words as usize,
        )
    }

    /// Offset and length of the block table's words.
    pub(crate) fn table(&self) -> (usize, usize) {
        (self.table, self.shape.table_words as usize)
    }

    fn header(&self, id: u64) -> [u64; HEADER_WORDS] {
        let mut header = [0; HEADER_WORDS];
        header[0] = MAGIC;
        header[1] = LAYOUT_VERSION.into();
        header[2] = self.len as u64;
        header[3] = id;
        header[4] = self.shape.slots.into();
        header[5] = self.shape.row_words.into();
        header[6] = self.shape.table_words;
        header[8..8 + DOCUMENTS].copy_from_slice(&self.shape.documents);
        for (word, &at) in header[16..].iter_mut().zip(&self.documents) {
            *word = at as u64;
        }
        for (word, at) in
            header[24..28].iter_mut().zip([self.slots, self.flips, self.rows, self.table])
        {
            *word = at as u64;
        }
        header[HEADER_WORDS - 1] = checksum(&header);
        header
    }
}

/// xxh3 over all words but the last, as little-endian bytes.
pub(crate) fn checksum(header: &[u64]) -> u64 {
    let fields = header.split_last().map_or(&[][..], |(_, fields)| fields);
    let bytes: Vec<u8> = fields.iter().flat_map(|word| word.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

fn within(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), Error> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Shape { field, expected: format!("{least} to {most}"), found })
}
