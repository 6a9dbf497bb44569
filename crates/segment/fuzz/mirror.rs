//! Does to a mirror whatever the input says, damage included, and takes it over now and then. Shared
//! by the fuzz target and the test that replays the corpus.
//!
//! An input is a list of steps of four bytes: what to do, which slot (and tier), and two numbers.
//! Without damage the mirror is compared with who holds what by the answers of the writer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorWriter};
use inlane_segment::words::{HeapWords, Words, WordsMut};

const SPEC: MirrorSpec = MirrorSpec { slots: 200, blocks: 24, pages: 4 };
const KEYS: u64 = 32;

pub(crate) fn mirror(input: &[u8]) {
    let words = HeapWords::new(SPEC.words().expect("in range"));
    let mut writer = MirrorWriter::create(words.clone(), &SPEC, 3).expect("room");
    let reader = MirrorReader::open(words.clone()).expect("a mirror");
    let mut damaged = false;
    for step in input.as_chunks::<4>().0 {
        let &[kind, place, first, second] = step;
        let (slot, tier) = (u16::from(place % 50) * 4, place / 128);
        let (key, naming) = (u64::from(first) % KEYS, u64::from(second % 4) * 1_000);
        match kind % 8 {
            0..=2 => {
                let keys: Vec<u64> = (key..KEYS).take(usize::from(second / 16) + 1).collect();
                let engines: Vec<u64> =
                    keys.iter().map(|key| key / (1 + key % 2) + naming).collect();
                let refused = match kind % 8 {
                    0 => writer.hold(slot, tier, &engines, &keys),
                    _ => writer.hold_chain(slot, tier, key.checked_sub(1), &engines, &keys),
                };
                for &key in keys.iter().take(keys.len() - refused).filter(|_| !damaged) {
                    assert!(reader.holds(slot, tier, key));
                }
            }
            3 | 4 => {
                let mut keys = Vec::new();
                let engine = key + naming;
                writer.keys_of(slot, engine, &mut keys);
                if writer.release(slot, tier, engine) && !damaged {
                    let mut left = Vec::new();
                    writer.keys_of(slot, engine, &mut left);
                    // What is left is held in another tier.
                    assert!(!keys.is_empty() && left.iter().all(|key| keys.contains(key)));
                    let gone = keys.iter().filter(|key| !left.contains(key));
                    assert!(gone.copied().all(|key| !reader.holds(slot, tier, key)));
                }
            }
            5 => {
                writer.clear(slot);
                assert!(damaged || (0..KEYS).all(|key| !reader.holds(slot, tier, key)));
            }
            6 => writer = MirrorWriter::recover(words.clone()).expect("still a mirror"),
            _ => {
                // The header is what a file's checksum is for.
                let at = 16 + (usize::from(first) << 8 | usize::from(place)) % (words.len() - 16);
                let flipped = words.load(at, Relaxed) ^ 1 << (second % 64);
                words.store(at, flipped, Relaxed);
                damaged = true;
                look(&reader);
                // Between its own stores a writer trusts the words.
                writer = MirrorWriter::recover(words.clone()).expect("still a mirror");
            }
        }
        look(&reader);
    }
    assert!(damaged || writer.stats().dropped == 0);
    let held: usize = (0..SPEC.slots as u16).map(|slot| writer.iter(slot).count()).sum();
    assert_eq!(held as u64, writer.total());
    writer.reset();
    assert_eq!((writer.total(), writer.blocks(), reader.tiers()), (0, 0, 0));
}

/// Whatever is in the words, answers fit to the question.
fn look(reader: &MirrorReader<HeapWords>) {
    let keys: Vec<u64> = (0..KEYS).collect();
    for tier in 0..3 {
        let mut out = [0; SPEC.slots];
        let longest = reader.longest_prefix(tier, &keys, &mut out);
        assert!(longest <= keys.len() && out.iter().all(|&length| length as usize <= longest));
    }
    let mut next = 0;
    reader.runs(&keys, |run| {
        assert!(run.at == next && run.blocks > 0);
        next += run.blocks;
        let mut seen = BTreeSet::new();
        run.for_each(|slot, tier| assert!(seen.insert((slot, tier))));
        ControlFlow::Continue(())
    });
    assert!(next <= keys.len());
}
