//! A reader beside a writer that recycles all the time. Small enough for Miri, which also delays what
//! one thread sees of the other.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{MirrorReader, MirrorSpec, MirrorWriter};
use crate::words::HeapWords;

const ROUNDS: u16 = if cfg!(miri) { 16 } else { 4_000 };

/// An even key is only ever held by even slots.
#[test]
fn a_reader_never_sees_a_holder_of_another_block() {
    let spec = MirrorSpec { slots: 100, blocks: 6, pages: 2 };
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words.clone(), &spec, 1).unwrap();
    let reader = MirrorReader::open(words).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let mut out = [0; 100];
            while !done.load(Relaxed) {
                for first in 0..6_u64 {
                    out.fill(0);
                    let keys = [first, first + 2, first + 4];
                    let longest = reader.longest_prefix(0, &keys, &mut out);
                    for (slot, &length) in out.iter().enumerate() {
                        assert!(length == 0 || slot as u64 % 2 == first % 2, "{slot} has {first}");
                        assert!(length as usize <= longest);
                    }
                }
            }
        });
        for round in 0..ROUNDS {
            let (slot, first) = (round * 7 % 50 * 2, u64::from(round % 4) / 2 * 2);
            let (slot, first) = (slot + round % 2, first + u64::from(round % 2));
            let keys = [first, first + 2, first + 4];
            let engines = keys.map(|key| key + 100 * u64::from(slot % 3));
            writer.hold_chain(slot, 0, None, &engines, &keys);
            if round % 3 == 0 {
                engines.iter().rev().for_each(|&engine| {
                    writer.release(slot, 0, engine);
                });
            } else if round % 5 == 0 {
                (0..100).for_each(|slot| writer.clear(slot));
            }
        }
        done.store(true, Relaxed);
    });
    assert!(writer.stats().epochs > 0);
}

/// Where blocks are known to go on from the ones before, with the same holders.
#[test]
#[cfg_attr(miri, ignore = "too slow under Miri, which has nothing to find in it")]
fn chains_are_stretches_also_for_a_successor() {
    let spec = MirrorSpec { slots: 8, blocks: 200, pages: 2 };
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words.clone(), &spec, 1).unwrap();
    let going_on = |writer: &MirrorWriter<HeapWords>| {
        let bits = (0..200).filter(|&entry| writer.table.stretch(entry).run(entry) > 0).count();
        let successor = MirrorWriter::recover(words.clone()).unwrap();
        let again = (0..200).filter(|&entry| successor.table.stretch(entry).run(entry) > 0);
        assert_eq!(again.count(), bits);
        bits
    };
    let keys: Vec<u64> = (1..=70).collect();
    writer.hold_chain(0, 0, None, &keys[..50], &keys[..50]);
    writer.hold_chain(0, 0, Some(50), &keys[50..], &keys[50..]);
    assert_eq!(going_on(&writer), 69);
    writer.hold_chain(1, 0, None, &keys[..40], &keys[..40]);
    assert_eq!(going_on(&writer), 68, "the 41st has other holders than the 40th");
    let back: Vec<u64> = keys[..40].iter().rev().copied().collect();
    assert_eq!(writer.release_all(1, 0, &back), 40);
    assert_eq!(going_on(&writer), 69);
    assert!(writer.release(0, 0, 30));
    assert_eq!(going_on(&writer), 67, "it went on from the 29th, and the 31st from it");
    let others: Vec<u64> = (101..=120).collect();
    writer.hold(2, 0, &others, &others);
    assert_eq!(going_on(&writer), 67, "nobody said that these are a chain");
    writer.hold_chain(3, 0, None, &others, &others);
    assert_eq!(going_on(&writer), 86);
}
