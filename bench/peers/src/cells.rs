//! What one process measures. Rows are `case, measure, value`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::{Duration, Instant};

use crate::fleet::{Answer, Event, Fleet, JOINED, Mix, ONE_BY_ONE};
use crate::peers::{Ours, Peer, Reader, Room};
use crate::threads;

/// Prompts that are looked up, at most.
const QUERIES: usize = 2_000;
/// Words of them, at most.
const QUERY_KEYS: usize = 2 << 20;
/// One lookup of so many is compared with what is known.
const CHECK_EVERY: u64 = 1_000;
/// Chains that are stored at once where that is not timed.
const CHUNK: usize = 64;
const SEED: u64 = 7;

/// Lines for the parent process.
#[derive(Debug, Default)]
pub struct Rows(pub String);

impl Rows {
    fn push(&mut self, case: &str, measure: &str, value: f64) {
        writeln!(self.0, "{case}\t{measure}\t{value}").expect("a string has room");
    }
}

/// A prompt, and between what and what the answer to it must lie while the fleet churns.
struct Query<Q> {
    query: Q,
    least: Answer,
    most: Answer,
}

impl<Q> Query<Q> {
    fn new<R: Reader<Query = Q>>(fleet: &Fleet, chain: usize, depth: usize) -> Self {
        let (least, most) = fleet.bounds(chain, depth);
        Self { query: R::prepare(&fleet.keys(chain, depth)), least, most }
    }

    /// Whether the answer is possible: not more than was ever stored, nor less than is held all the
    /// time.
    fn allows(&self, found: &Answer, all_stored: bool) -> bool {
        is_within(found, &self.most) && (!all_stored || is_within(&self.least, found))
    }
}

fn is_within(less: &Answer, more: &Answer) -> bool {
    let more: HashMap<_, _> = more.iter().copied().collect();
    less.iter().all(|(pod, blocks)| more.get(pod).is_some_and(|most| blocks <= most))
}

/// Steady chains, evenly over the fleet.
fn queries<R: Reader>(fleet: &Fleet, depth: usize) -> Vec<Query<R::Query>> {
    let count = QUERIES.min(QUERY_KEYS / depth);
    let steady: Vec<_> = (0..fleet.chains()).filter(|&at| Fleet::is_steady(at)).collect();
    let step = steady.len().div_ceil(count).max(1);
    let chains = steady.into_iter().step_by(step);
    chains.map(|chain| Query::new::<R>(fleet, chain, depth)).collect()
}

/// Compares answers with the fleet's state, exactly, when nobody writes.
fn verify<P: Peer>(peer: &P, fleet: &Fleet) {
    let mut reader = peer.reader();
    for chain in (0..fleet.chains()).step_by(fleet.chains().div_ceil(400)) {
        for depth in [fleet.mix.depth, fleet.mix.depth / 3 + 1] {
            reader.look_up(&P::Reader::prepare(&fleet.keys(chain, depth)));
            assert_eq!(reader.answer(), fleet.answer(chain, depth), "chain {chain} to {depth}");
        }
    }
    reader.look_up(&P::Reader::prepare(&Fleet::strange(1, 8)));
    assert!(reader.answer().is_empty(), "a prompt that nobody holds");
}

/// All chains stored, a few at a time: nothing but the index is left behind.
fn fill<P: Peer>(peer: &mut P, fleet: &mut Fleet) {
    let (chains, mut events) = (fleet.shuffled(), Vec::new());
    for chunk in chains.chunks(CHUNK) {
        for &chain in chunk {
            fleet.store(chain, &mut events);
        }
        peer.apply(events.drain(..).map(|event| P::prepare(&event)).collect());
        peer.drain();
    }
}

/// Block operations per second until everything can be seen, while one reader looks up: stores, then
/// stores and removals as vLLM reports them, then the same with the removals of an eviction joined, and
/// after everything was cleared the stores again.
pub fn ingest<P: Peer>(mix: Mix) -> Rows {
    let mut rows = Rows::default();
    let mut fleet = Fleet::new(mix, SEED);
    let mut peer = P::new(&fleet, None);
    let mut reader = peer.reader();
    let queries = queries::<P::Reader>(&fleet, mix.depth);

    let mut stores = Vec::new();
    for chain in fleet.shuffled() {
        fleet.store(chain, &mut stores);
    }
    let half = stores.iter().map(Event::blocks).sum::<usize>() / 2;
    let (mixed, joined) = (fleet.churn(half, ONE_BY_ONE), fleet.churn(half, JOINED));
    let (cleared, mut again) = (fleet.clear(), Vec::new());
    for chain in fleet.shuffled() {
        fleet.store(chain, &mut again);
    }
    let phases = [
        ("stores", stores),
        ("mixed", mixed),
        ("joined", joined),
        ("cleared", cleared),
        ("again", again),
    ];
    let phases = phases.map(|(name, events)| {
        let blocks = events.iter().map(Event::blocks).sum::<usize>();
        (name, blocks, events.iter().map(P::prepare).collect::<Vec<_>>())
    });

    let (done, stored, thread) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU32::new(0));
    let wrong = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread.store(threads::this(), Relaxed);
            let mut rng = fastrand::Rng::with_seed(1);
            let mut lookups = 0_u64;
            while !done.load(Relaxed) {
                let query = &queries[rng.usize(..queries.len())];
                let before = stored.load(SeqCst);
                reader.look_up(&query.query);
                let all_stored = before && stored.load(SeqCst);
                lookups += 1;
                if lookups.is_multiple_of(CHECK_EVERY) {
                    let right = query.allows(&reader.answer(), all_stored);
                    wrong.fetch_add(u32::from(!right), Relaxed);
                }
            }
        });
        while thread.load(Relaxed) == 0 {
            thread::yield_now();
        }
        for (name, blocks, events) in phases {
            stored.store(matches!(name, "mixed" | "joined"), SeqCst);
            let before = threads::cpu();
            let start = Instant::now();
            let left = peer.apply(events);
            peer.drain();
            let took = start.elapsed();
            let cpu = threads::busiest(&before, thread.load(Relaxed));
            drop(left);
            if blocks == 0 {
                continue;
            }
            rows.push(name, "M/s", blocks as f64 / took.as_nanos() as f64 * 1e3);
            rows.push(name, "M/cpu-s", blocks as f64 / cpu as f64 * 1e3);
        }
        done.store(true, Relaxed);
    });
    rows.push("answers", "wrong", f64::from(wrong.into_inner()));
    verify(&peer, &fleet);
    rows
}

/// Nanoseconds of a lookup, found and not found, while the writer applies `rate` block operations per
/// second. Each series takes `series`. `late` is how far behind the writer was in handing events over.
pub fn lookup<P: Peer + Send>(mix: Mix, rate: usize, series: Duration) -> Rows {
    let mut rows = Rows::default();
    let mut fleet = Fleet::new(mix, SEED);
    let mut peer = P::new(&fleet, None);
    fill(&mut peer, &mut fleet);
    let depths: Vec<_> = if mix.depth > 128 { vec![mix.depth] } else { vec![8, mix.depth] };
    let hits: Vec<_> = depths.iter().map(|&depth| queries::<P::Reader>(&fleet, depth)).collect();
    let misses: Vec<Vec<_>> = depths
        .iter()
        .map(|&depth| (0..200).map(|at| P::Reader::prepare(&Fleet::strange(at, depth))).collect())
        .collect();

    // Twice what is due while the series last, a millisecond's worth at a time.
    let seconds = 2.0 * depths.len() as f64 * series.as_secs_f64();
    let (mut due, mut total) = (Vec::new(), 0);
    while (total as f64) < 2.0 * seconds * rate as f64 {
        let events = fleet.churn(rate / 1_000, ONE_BY_ONE);
        total += events.iter().map(Event::blocks).sum::<usize>();
        let at = Duration::from_secs_f64(total as f64 / rate as f64);
        due.push((at, events.iter().map(P::prepare).collect::<Vec<_>>()));
    }

    let (done, mut reader) = (AtomicBool::new(false), peer.reader());
    thread::scope(|scope| {
        let (peer, done) = (&mut peer, &done);
        let writer = scope.spawn(move || {
            let start = Instant::now();
            let (mut left, mut late) = (Vec::new(), Duration::ZERO);
            for (at, events) in due {
                if !done.load(Relaxed) {
                    match at.checked_sub(start.elapsed()) {
                        Some(early) => thread::sleep(early),
                        None => late = start.elapsed() - at,
                    }
                }
                left.push(peer.apply(events));
            }
            peer.drain();
            late
        });
        let mut rng = fastrand::Rng::with_seed(1);
        let mut times = Vec::with_capacity(4 << 20);
        let mut wrong = 0;
        for ((depth, hits), misses) in depths.iter().zip(&hits).zip(&misses) {
            let mut lookups = 0_u64;
            measure(&mut times, series, || {
                let query = &hits[rng.usize(..hits.len())];
                let start = Instant::now();
                reader.look_up(&query.query);
                let took = start.elapsed();
                lookups += 1;
                if lookups.is_multiple_of(CHECK_EVERY) {
                    wrong += u32::from(!query.allows(&reader.answer(), true));
                }
                took
            });
            report(&mut rows, &format!("hit {depth}"), &mut times);
            measure(&mut times, series, || {
                let query = &misses[rng.usize(..misses.len())];
                let start = Instant::now();
                reader.look_up(query);
                start.elapsed()
            });
            assert!(reader.answer().is_empty(), "a prompt that nobody holds");
            report(&mut rows, &format!("miss {depth}"), &mut times);
        }
        assert!(!writer.is_finished(), "nobody wrote during the last lookups");
        done.store(true, Relaxed);
        let late = writer.join().expect("the writer ends");
        rows.push("answers", "wrong", f64::from(wrong));
        rows.push("writer", "late ms", late.as_secs_f64() * 1e3);
    });
    verify(&peer, &fleet);
    rows
}

fn measure(times: &mut Vec<u32>, lasts: Duration, mut once: impl FnMut() -> Duration) {
    times.clear();
    let start = Instant::now();
    while start.elapsed() < lasts && times.len() < times.capacity() {
        times.push(once().as_nanos().try_into().unwrap_or(u32::MAX));
    }
}

fn report(rows: &mut Rows, case: &str, times: &mut [u32]) {
    times.sort_unstable();
    rows.push(case, "p50 ns", f64::from(times[times.len() / 2]));
    rows.push(case, "p99 ns", f64::from(times[times.len() * 99 / 100]));
}

/// Bytes that it takes to hold what the fleet stores. `heap` says how much of it is in use.
pub fn memory<P: Peer>(mix: Mix, room: Option<Room>, heap: impl Fn() -> usize) -> Rows {
    let mut rows = Rows::default();
    let mut fleet = Fleet::new(mix, SEED);
    let (heap_before, resident_before) = (heap(), threads::resident());
    let mut peer = P::new(&fleet, room);
    fill(&mut peer, &mut fleet);
    let (heap, resident) = (heap() - heap_before, threads::resident() - resident_before);
    verify(&peer, &fleet);
    let (bytes, held) = (peer.bytes(), fleet.total() as f64);
    rows.push("stored", "held", held);
    rows.push("stored", "B/held", (heap + bytes.mapped) as f64 / held);
    rows.push("stored", "heap B", heap as f64 / held);
    rows.push("stored", "mapped B", bytes.mapped as f64 / held);
    rows.push("stored", "RSS B", resident as f64 / held);
    rows.push("stored", "in use B", bytes.in_use as f64 / held);
    rows
}

/// The smallest mirror that holds what the fleet stores: what makes its bytes comparable with those
/// of an index that grows as it needs. Sizes are found by trial, to 1/32.
pub fn smallest_room(mix: Mix) -> Room {
    let refused = |room| {
        let mut fleet = Fleet::new(mix, SEED);
        let mut ours = Ours::new(&fleet, Some(room));
        fill(&mut ours, &mut fleet);
        ours.refused() > 0
    };
    let plenty = mix.pods * mix.chains * mix.depth;
    let mut blocks = distinct(mix);
    while refused(Room { blocks, pages: 64 + plenty / 64 }) {
        blocks += blocks.div_ceil(64);
    }
    let (mut few, mut pages) = (0, 1);
    while refused(Room { blocks, pages }) {
        (few, pages) = (pages, pages * 2);
    }
    while pages - few > 1 + few / 32 {
        let middle = few.midpoint(pages);
        if refused(Room { blocks, pages: middle }) { few = middle } else { pages = middle }
    }
    Room { blocks, pages }
}

fn distinct(mix: Mix) -> usize {
    let fleet = Fleet::new(mix, SEED);
    let mut firsts: Vec<_> = (0..fleet.chains()).map(|chain| fleet.keys(chain, 1)).collect();
    firsts.sort_unstable();
    firsts.dedup();
    let half = mix.depth / 2;
    firsts.len() * half + fleet.chains() * (mix.depth - half)
}
