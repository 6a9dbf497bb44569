//! The holders word: who holds one block, in 64 bits.
//!
//! ```text
//!  63      48 47   45 44            17 16      2 1 0
//! | version  | class |     record      |  owner  | kind |   list, bitmap
//! | version  | 0 |  lane 2  |  lane 1  |  lane 0 | kind |   inline (15 bits per lane)
//! ```
//!
//! * **kind** 0: the entry is free; 1: up to three slots inline; 2: a list in the arena;
//!   3: a bitmap in the arena (with a class, one that counts).
//! * A lane, and the owner field, is `slot + 1`; 0 means none. Lane 0 of an inline word *is* the
//!   owner: the one holder whose recency links are embedded beside the entry
//!   ([`recency`](super::recency)). Every other holder has a node in the arena. Readers do not care.
//! * **version** changes whenever the entry is freed, its record moves, or a list gains a slot. A reader that finds the
//!   same version before and after knows that the key and the record it read between the
//!   two loads belonged together. It would be deceived only by 65,536 such changes of this one
//!   entry during one probe, and then by a wrong score, never by a wild access.

use super::layout::Layout;

pub(super) const INLINE_LANES: usize = 3;
/// List records come in this many sizes: 2, 4, 8 … 128 words.
pub(super) const LIST_CLASSES: usize = 7;

const LANE_BITS: u32 = 15;
const LANE_MASK: u64 = (1 << LANE_BITS) - 1;
const OWNER_SHIFT: u32 = 2;
const RECORD_SHIFT: u32 = 17;
const RECORD_BITS: u32 = 28;
const CLASS_SHIFT: u32 = 45;
const VERSION_SHIFT: u32 = 48;

/// Arena units (of two words) that a holders word can address.
pub(super) const MAX_UNITS: usize = 1 << RECORD_BITS;

/// One decoded-on-demand holders word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holders(pub(super) u64);

/// Where and what a record in the arena is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) shape: Shape,
    /// Offset in the arena in units of two words.
    pub(super) unit: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Four 16-bit lanes (`slot + 1`, 0 = none) per word, `2 << class` words.
    List(u8),
    /// One bit per slot.
    Bitmap,
    /// One bit per slot, and behind them lanes of slots that count again; in a cell as large as a
    /// list of this class. Only in a [`mirror`](super::mirror).
    Counted(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Free,
    Inline,
    Record(Record),
}

impl Shape {
    /// Words of the record.
    #[inline]
    pub(super) fn words(self, layout: &Layout) -> usize {
        match self {
            Self::List(class) | Self::Counted(class) => 2 << class,
            Self::Bitmap => layout.bitmap_words,
        }
    }
}

impl Holders {
    pub(super) fn free(version: u16) -> Self {
        Self(u64::from(version) << VERSION_SHIFT)
    }

    /// One holder, which is the owner.
    pub(super) fn single(slot: u16, version: u16) -> Self {
        Self(Self::free(version).0 | 1).with_lane(0, Some(slot))
    }

    pub(super) fn record(record: Record, owner: Option<u16>, version: u16) -> Self {
        let (kind, class) = match record.shape {
            Shape::List(class) => (2, u64::from(class)),
            Shape::Bitmap => (3, 0),
            Shape::Counted(class) => (3, u64::from(class) + 1),
        };
        Self(
            Self::free(version).0
                | class << CLASS_SHIFT
                | u64::from(record.unit) << RECORD_SHIFT
                | lane(owner) << OWNER_SHIFT
                | kind,
        )
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Free,
            1 => Kind::Inline,
            kind => {
                let class = (self.0 >> CLASS_SHIFT & 7) as u8;
                let shape = match (kind, class.checked_sub(1)) {
                    // Class 7 is never written; read as the largest list it stays in bounds.
                    (2, _) => Shape::List(class.min(LIST_CLASSES as u8 - 1)),
                    (_, None) => Shape::Bitmap,
                    (_, Some(class)) => Shape::Counted(class),
                };
                Kind::Record(Record {
                    shape,
                    unit: (self.0 >> RECORD_SHIFT) as u32 & (MAX_UNITS as u32 - 1),
                })
            }
        }
    }

    #[inline]
    pub(super) fn is_free(self) -> bool {
        self.0 & 3 == 0
    }

    #[inline]
    pub(super) fn version(self) -> u16 {
        (self.0 >> VERSION_SHIFT) as u16
    }

    /// The same holders under the next version.
    pub(super) fn next_version(self) -> Self {
        Self(self.0.wrapping_add(1 << VERSION_SHIFT))
    }

    /// Whether key and record were the same when `self` and `later` were loaded.
    #[inline]
    pub(super) fn same_version(self, later: Self) -> bool {
        self.version() == later.version()
    }

    /// The holder with the embedded links; lane 0 in every kind.
    #[inline]
    pub(super) fn owner(self) -> Option<u16> {
        if self.is_free() { None } else { self.lane(0) }
    }

    pub(super) fn with_owner(self, owner: Option<u16>) -> Self {
        self.with_lane(0, owner)
    }

    /// The slot in an inline lane.
    #[inline]
    pub(super) fn lane(self, lane: usize) -> Option<u16> {
        let raw = self.0 >> (OWNER_SHIFT + lane as u32 * LANE_BITS) & LANE_MASK;
        raw.checked_sub(1).map(|slot| slot as u16)
    }

    pub(super) fn with_lane(self, index: usize, slot: Option<u16>) -> Self {
        let shift = OWNER_SHIFT + index as u32 * LANE_BITS;
        Self(self.0 & !(LANE_MASK << shift) | lane(slot) << shift)
    }

    /// Whether two inline words name the same slots in the same lanes.
    #[inline]
    pub(super) fn same_lanes(self, other: Self) -> bool {
        (self.0 ^ other.0) << (64 - VERSION_SHIFT) == 0
    }

    /// The slots of an inline word.
    #[inline]
    pub(super) fn lanes(self) -> impl Iterator<Item = u16> {
        (0..INLINE_LANES).filter_map(move |lane| self.lane(lane))
    }
}

fn lane(slot: Option<u16>) -> u64 {
    slot.map_or(0, |slot| u64::from(slot) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_lanes_keep_version() {
        let word = Holders::single(16_383, 0xabcd).with_lane(2, Some(0)).with_lane(1, Some(7));
        assert_eq!(word.lanes().collect::<Vec<_>>(), [16_383, 7, 0]);
        assert_eq!(
            (word.kind(), word.version(), word.owner()),
            (Kind::Inline, 0xabcd, Some(16_383))
        );
        let word = word.with_lane(0, None);
        assert_eq!((word.owner(), word.lanes().count()), (None, 2));
    }

    #[test]
    fn records_round_trip() {
        for shape in
            [Shape::List(0), Shape::List(6), Shape::Bitmap, Shape::Counted(0), Shape::Counted(6)]
        {
            let record = Record { shape, unit: MAX_UNITS as u32 - 1 };
            let word = Holders::record(record, Some(16_383), u16::MAX);
            assert_eq!(word.kind(), Kind::Record(record));
            assert_eq!((word.owner(), word.version()), (Some(16_383), u16::MAX));
            assert_eq!(word.with_owner(None).kind(), Kind::Record(record));
        }
    }
}
