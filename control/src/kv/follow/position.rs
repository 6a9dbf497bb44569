//! Where a publisher's stream stands.

use super::super::queue::Message;

/// Where a stream stands, as kept beside the blocks in one word.
///
/// ```text
/// bits  0..40  sequence number that comes next, from 1
///      40..62  print of the message before it
///      62      what came before a gap is missing
///      63      0
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(super) next: u64,
    pub(super) print: u32,
    pub(super) partial: bool,
}

pub(super) const NEXT_BITS: u32 = 40;
const PRINT_BITS: u32 = 22;
const PARTIAL: u64 = 1 << 62;

impl Position {
    /// After a message; `partial`: what came before a gap is missing.
    pub(super) fn after(message: &Message, partial: bool) -> Self {
        let print = print(&message.payload);
        Self { next: message.seq.saturating_add(1), print, partial }
    }

    /// `None`: nothing is known.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let next = word & ((1 << NEXT_BITS) - 1);
        let known = next != 0;
        let print = (word >> NEXT_BITS) as u32 & ((1 << PRINT_BITS) - 1);
        known.then_some(Self { next, print, partial: word & PARTIAL != 0 })
    }

    /// The sequence number that comes next.
    pub(crate) fn next(self) -> u64 {
        self.next
    }

    /// 0 where the number does not fit: it is then as good as unknown.
    pub(crate) fn to_word(self) -> u64 {
        if self.next >> NEXT_BITS != 0 {
            return 0;
        }
        let partial = if self.partial { PARTIAL } else { 0 };
        partial | u64::from(self.print) << NEXT_BITS | self.next
    }
}

/// A few bits that tell a message from that of another life: FNV-1a over its length and its start,
/// where the time is.
fn print(payload: &[u8]) -> u32 {
    let start = payload.get(..64).unwrap_or(payload);
    let bytes = (payload.len() as u64).to_le_bytes().into_iter().chain(start.iter().copied());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    ((hash >> 32 ^ hash) & ((1 << PRINT_BITS) - 1)) as u32
}
