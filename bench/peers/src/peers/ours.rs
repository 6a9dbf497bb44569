//! The mirror of this project.

use std::sync::atomic::Ordering::Relaxed;

use inlane_segment::mapped::{MappedView, MappedWords};
use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorWriter};
use inlane_segment::words::WordsMut;

use super::{Bytes, Peer, Reader, Room};
use crate::fleet::{Answer, Event, Fleet, engine};

/// Bytes of budget per block of all chains: enough if no two had a block in common (36 bytes, and a
/// quarter of the budget is for sets of holders).
const BUDGET: usize = 48;

/// An event as the control plane has it when it has hashed the tokens.
pub enum Prepared {
    /// Blocks below a parent.
    Stored(u16, Option<u64>, Vec<u64>, Vec<u64>),
    /// Engine hashes.
    Removed(u16, Vec<u64>),
    /// Everything.
    Cleared(u16),
}

/// The mirror.
pub struct Ours {
    words: MappedWords,
    writer: MirrorWriter<MappedWords>,
    mapped: usize,
    parents: Vec<u64>,
    applied: u64,
    refused: usize,
    may_refuse: bool,
}

impl Ours {
    /// Blocks that found no room.
    pub fn refused(&self) -> usize {
        self.refused
    }
}

impl Peer for Ours {
    type Event = Prepared;
    type Reader = OurReader;

    fn new(fleet: &Fleet, room: Option<Room>) -> Self {
        let slots = fleet.mix.pods;
        let blocks = fleet.chains() * fleet.mix.depth;
        let spec = match room {
            Some(Room { blocks, pages }) => MirrorSpec { slots, blocks, pages },
            None => MirrorSpec::within(slots, (blocks * BUDGET).max(8 << 20)),
        };
        let len = spec.words().expect("sizes in range");
        let words = MappedWords::anonymous(len).expect("memory");
        // The bytes of a segment are all there before it is used, and as on tmpfs in large pages.
        (0..len).step_by(512).for_each(|word| words.store(word, 0, Relaxed));
        words.ask_for_large_pages();
        let writer = MirrorWriter::create(words.clone(), &spec, 0x5eed).expect("room");
        Self {
            words,
            writer,
            mapped: len * 8,
            parents: Vec::new(),
            applied: 0,
            refused: 0,
            may_refuse: room.is_some(),
        }
    }

    fn prepare(event: &Event) -> Prepared {
        let engines = |keys: &[u64]| keys.iter().map(|&key| engine(key)).collect();
        match event {
            Event::Stored { pod, parent, keys } => {
                Prepared::Stored(*pod as u16, *parent, engines(keys), keys.clone())
            }
            Event::Removed { pod, keys } => Prepared::Removed(*pod as u16, engines(keys)),
            Event::Cleared { pod } => Prepared::Cleared(*pod as u16),
        }
    }

    fn apply(&mut self, events: Vec<Prepared>) -> Vec<Prepared> {
        for event in &events {
            self.applied += 1;
            let slot = match event {
                Prepared::Stored(slot, parent, engines, keys) => {
                    self.parents.clear();
                    if let Some(parent) = parent {
                        self.writer.keys_of(*slot, *parent, &mut self.parents);
                        if self.parents.is_empty() {
                            self.refused += keys.len();
                            continue;
                        }
                    }
                    let parent = self.parents.last().copied();
                    self.refused += self.writer.hold_chain(*slot, 0, parent, engines, keys);
                    *slot
                }
                Prepared::Removed(slot, engines) => {
                    self.writer.release_all(*slot, 0, engines);
                    *slot
                }
                Prepared::Cleared(slot) => {
                    self.writer.clear(*slot);
                    *slot
                }
            };
            self.writer.set_position(slot, self.applied);
        }
        assert!(self.may_refuse || self.refused == 0, "the budget is for all blocks");
        events
    }

    fn drain(&mut self) {}

    fn reader(&self) -> OurReader {
        let reader = MirrorReader::open(self.words.view()).expect("a mirror");
        OurReader { reader, found: Vec::new() }
    }

    fn bytes(&self) -> Bytes {
        Bytes { mapped: self.mapped, in_use: self.writer.bytes_in_use() }
    }
}

/// Reads into a list that is reused.
pub struct OurReader {
    reader: MirrorReader<MappedView>,
    found: Answer,
}

impl Reader for OurReader {
    type Query = Vec<u64>;

    fn prepare(keys: &[u64]) -> Vec<u64> {
        keys.to_vec()
    }

    fn look_up(&mut self, query: &Vec<u64>) {
        let found = &mut self.found;
        found.clear();
        self.reader.prefixes(0, query, |pod, blocks| found.push((u32::from(pod), blocks)));
    }

    fn answer(&self) -> Answer {
        let mut found = self.found.clone();
        found.sort_unstable();
        found
    }
}
