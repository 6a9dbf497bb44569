//! What the mirror costs on this machine: pairs stored and released per second, time of a lookup,
//! bytes per held block, for fleets of pods × chains × depth. Half of each chain is shared with 1/64
//! of all chains.
//!
//! `cargo run --release -p inlane-segment --example mirror [-- ROUNDS]`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program for developers")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use inlane_segment::mapped::{MappedView, MappedWords};
use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorWriter};

type Writer = MirrorWriter<MappedWords>;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

struct Fleet {
    pods: usize,
    depth: usize,
    /// Which pod stores which keys, in the order of the events.
    chains: Vec<(u16, Vec<u64>)>,
}

impl Fleet {
    fn new(pods: usize, chains: usize, depth: usize) -> Self {
        let mut rng = Rng(7);
        let mut all: Vec<(u16, Vec<u64>)> = (0..pods * chains)
            .map(|chain| {
                let group = rng.below(64) as u64;
                let key = |at: usize| match at < depth / 2 {
                    true => Rng(group << 32 | at as u64).next(),
                    false => Rng((chain as u64 + 64) << 32 | at as u64).next(),
                };
                ((chain % pods) as u16, (0..depth).map(key).collect())
            })
            .collect();
        for at in (1..all.len()).rev() {
            all.swap(at, rng.below(at + 1));
        }
        Self { pods, depth, chains: all }
    }

    fn pairs(&self) -> usize {
        self.chains.iter().map(|(_, keys)| keys.len()).sum()
    }
}

/// As an engine names a block.
fn engines(keys: &[u64]) -> Vec<u64> {
    keys.iter().map(|key| key.rotate_left(23) ^ 0x5555).collect()
}

fn store(writer: &mut Writer, events: &[(u16, Vec<u64>, &[u64])], batch: usize) -> usize {
    let mut refused = 0;
    let mut parents = Vec::new();
    for (slot, engines, keys) in events {
        let mut previous = None;
        for (engines, keys) in engines.chunks(batch).zip(keys.chunks(batch)) {
            if let Some(parent) = previous {
                parents.clear();
                writer.keys_of(*slot, parent, &mut parents);
                assert!(!parents.is_empty());
            }
            refused += writer.hold(*slot, 0, engines, keys);
            previous = engines.last().copied();
        }
    }
    refused
}

/// CPU time of this thread: what the writer costs on a machine that has other things to do.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds"))
}

fn percentiles(mut nanos: Vec<u64>) -> (u64, u64) {
    nanos.sort_unstable();
    (nanos[nanos.len() / 2], nanos[nanos.len() * 99 / 100])
}

fn lookups(reader: &MirrorReader<MappedView>, fleet: &Fleet, depth: usize) -> (u64, u64) {
    let mut rng = Rng(3);
    let mut out = vec![0; fleet.pods];
    let times = (0..20_000 * 128 / fleet.depth.max(128)).map(|_| {
        let (slot, keys) = &fleet.chains[rng.below(fleet.chains.len())];
        out.fill(0);
        let start = Instant::now();
        let longest = reader.longest_prefix(0, black_box(&keys[..depth]), &mut out);
        let nanos = start.elapsed().as_nanos() as u64;
        assert_eq!((longest, out[usize::from(*slot)] as usize), (depth, depth));
        nanos
    });
    percentiles(times.collect())
}

fn run(pods: usize, chains: usize, depth: usize, batch: usize) {
    let fleet = Fleet::new(pods, chains, depth);
    let pairs = fleet.pairs();
    let events: Vec<_> =
        fleet.chains.iter().map(|(slot, keys)| (*slot, engines(keys), &keys[..])).collect();
    let spec = MirrorSpec::within(pods, (pairs * 40).max(8 << 20));
    let words = MappedWords::anonymous(spec.words().unwrap()).unwrap();
    let reader = {
        let writer = Writer::create(words.clone(), &spec, 1).unwrap();
        drop(writer);
        MirrorReader::open(words.view()).unwrap()
    };
    let mut writer = Writer::recover(words.clone()).unwrap();
    // Touch all of the memory first: what page faults cost is the kernel's.
    store(&mut writer, &events, batch);
    writer.reset();

    let start = cpu();
    assert_eq!(store(&mut writer, &events, batch), 0);
    let stored = cpu() - start;
    let bytes = writer.bytes_in_use() as f64 / writer.total() as f64;
    let held = writer.total();

    let (slot, keys) = &fleet.chains[0];
    let mut out = vec![0; fleet.pods];
    let start = cpu();
    for _ in 0..10_000 {
        reader.longest_prefix(0, black_box(&keys[..]), &mut out);
    }
    let warm = (cpu() - start).as_nanos() / 10_000;
    black_box((slot, &out));
    let (p50, p99) = lookups(&reader, &fleet, depth);
    let short = lookups(&reader, &fleet, 8.min(depth));

    let start = Instant::now();
    let successor = Writer::recover(words).unwrap();
    let recovered = start.elapsed().as_millis();
    assert_eq!((successor.total(), successor.stats().dropped), (held, 0));
    let mut writer = successor;

    // A tenth of the chains lose their second half, tail first, and get it back.
    let mut rng = Rng(11);
    let victims: Vec<_> =
        (0..events.len() / 10).map(|_| &events[rng.below(events.len())]).collect();
    let start = cpu();
    let mut released = 0;
    for (slot, engines, _) in &victims {
        for &engine in engines[depth / 2..].iter().rev() {
            writer.release(*slot, 0, engine);
            released += 1;
        }
    }
    let took = cpu() - start;
    let start = cpu();
    for (slot, engines, keys) in &victims {
        writer.hold(*slot, 0, &engines[depth / 2..], &keys[depth / 2..]);
    }
    let again = cpu() - start;
    let rate = |count: usize, took: Duration| count as f64 / took.as_secs_f64() / 1e6;
    println!(
        "{:>16} {batch:>5} {held:>9} {:>8.1} {:>8.1} {:>8.1} {warm:>8} {p50:>8} {p99:>8} {:>6} {:>6} {bytes:>7.1} {recovered:>8}",
        format!("{pods}x{chains}x{depth}"),
        rate(pairs, stored),
        rate(released, took),
        rate(released, again),
        short.0,
        short.1,
    );
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(1, |rounds| rounds.parse().expect("a number"));
    println!(
        "{:>16} {:>5} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>7} {:>8}",
        "fleet",
        "event",
        "held",
        "store M/s",
        "release",
        "again",
        "warm ns",
        "p50 ns",
        "p99",
        "p50@8",
        "p99@8",
        "B/held",
        "recover"
    );
    for _ in 0..rounds {
        for (pods, chains, depth) in
            [(10, 200, 128), (100, 100, 128), (1_000, 20, 128), (100, 4, 6_250), (10_000, 2, 128)]
        {
            run(pods, chains, depth, depth);
        }
        run(100, 100, 128, 16);
        run(100, 100, 128, 1);
    }
}
