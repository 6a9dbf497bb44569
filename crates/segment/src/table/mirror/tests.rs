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
fn chains_are_stretches_also_for_a_successor() {
    // A smaller one under Miri, which is slow.
    const N: u64 = if cfg!(miri) { 1 } else { 5 };
    const BLOCKS: usize = 40 * N as usize;
    let spec = MirrorSpec { slots: 8, blocks: BLOCKS, pages: 2 };
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words.clone(), &spec, 1).unwrap();
    let going_on = |writer: &MirrorWriter<HeapWords>| {
        let runs = |writer: &MirrorWriter<HeapWords>| {
            (0..BLOCKS).filter(|&entry| writer.table.stretch(entry).run(entry) > 0).count() as u64
        };
        let successor = MirrorWriter::recover(words.clone()).unwrap();
        assert_eq!(runs(&successor), runs(writer));
        runs(writer)
    };
    let keys: Vec<u64> = (1..=14 * N).collect();
    let (most, rest) = keys.split_at(10 * N as usize);
    writer.hold_chain(0, 0, None, most, most);
    writer.hold_chain(0, 0, Some(10 * N), rest, rest);
    assert_eq!(going_on(&writer), 14 * N - 1, "from each but the last");
    let (front, _) = keys.split_at(8 * N as usize);
    writer.hold_chain(1, 0, None, front, front);
    assert_eq!(going_on(&writer), 14 * N - 2, "the block behind the front has other holders");
    let back: Vec<u64> = front.iter().rev().copied().collect();
    assert_eq!(writer.release_all(1, 0, &back), front.len());
    assert_eq!(going_on(&writer), 14 * N - 1);
    assert!(writer.release(0, 0, 6 * N));
    assert_eq!(going_on(&writer), 14 * N - 3, "neither to it nor from it");
    let others: Vec<u64> = (101..=100 + 4 * N).collect();
    writer.hold(2, 0, &others, &others);
    assert_eq!(going_on(&writer), 14 * N - 3, "nobody said that these are a chain");
    writer.hold_chain(3, 0, None, &others, &others);
    assert_eq!(going_on(&writer), 18 * N - 4);
}

/// Every set of holders is a record of its own, and each holds its blocks twice: what is left of a set
/// finds no room.
#[test]
fn a_block_held_twice_is_gone_after_two_releases_also_without_room() {
    let spec = MirrorSpec { slots: 64, blocks: 2_000, pages: 2 };
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words, &spec, 1).unwrap();
    let reader = writer.reader();
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) % below
    };
    let mut twice = Vec::new();
    for key in 1..=if cfg!(miri) { 60 } else { 1_000 } {
        for slot in (0..64_u16).filter(|_| random(4) == 0) {
            let refused = [(); 2].map(|()| writer.hold(slot, 0, &[key], &[key]));
            if refused == [0, 0] {
                twice.push((slot, key));
            }
        }
    }
    assert!(cfg!(miri) || writer.stats().refused > 0, "the arena is full");
    while !twice.is_empty() {
        let (slot, key) = twice.swap_remove(random(twice.len() as u64) as usize);
        writer.release(slot, 0, key);
        writer.release(slot, 0, key);
        assert!(!reader.holds(slot, 0, key), "{slot} still has {key}");
    }
}
