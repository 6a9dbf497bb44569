//! Hundreds of pods that come, go, start anew and fall silent, over thousands of rounds: what is kept
//! of them follows what they hold, and nothing stays of those that are gone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;

use inlane_kv::Mirror;

use super::core::Table;
use super::queue::{Event, Message, Operation};
use super::tests::engine::{Event as Said, batch, engine_hashes, prompt};
use super::*;

const SLOTS: u16 = 160;
const SPEC: MirrorSpec = MirrorSpec { slots: SLOTS as usize, blocks: 30_000, pages: 16 };
/// Pods at a time, at most.
const PODS: usize = 120;
const ROUNDS: u32 = 3_000;
/// Time of a round.
const ROUND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(40);
/// Blocks of the longest prompt.
const LONGEST: usize = 12;
/// Prompts that many pods are given.
const SHARED: u32 = 40;

/// What a pod does when it is asked for what was missed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replays {
    Answers,
    Fails,
    None,
}

struct Pod {
    slot: u16,
    replays: Replays,
    /// Everything that it has said in this life.
    log: Vec<Message>,
    /// Prompts that it holds: first blocks of each.
    held: BTreeMap<u32, usize>,
    heard: Instant,
    /// Whether it has nothing to say any more.
    silent: bool,
    /// Whether it had nothing to say for too long once.
    idle: bool,
}

impl Pod {
    /// The message of a step.
    fn say(&mut self, events: &[Said<'_>], now: Instant) -> Message {
        self.idle |= now >= self.heard + TTL;
        let seq = self.log.len() as u64;
        let message = Message { seq, model: Some("m".into()), payload: batch(events) };
        self.log.push(message.clone());
        self.heard = now;
        message
    }

    fn blocks(&self) -> usize {
        self.held.values().sum()
    }
}

/// Numbers that look random: a step of SplitMix64 each.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) % end.max(1) as u64) as usize
    }
}

struct World {
    core: Core<SegmentTable>,
    pods: BTreeMap<PublisherId, Pod>,
    free: Vec<u16>,
    rng: Rng,
    now: Instant,
    ids: u64,
    /// Prompts that nobody has sent before are numbered from here.
    next: u32,
    purged: usize,
}

fn fresh() -> SegmentTable {
    let words = MappedWords::anonymous(SPEC.words().unwrap()).unwrap();
    SegmentTable::open(words, SPEC, false).unwrap().0
}

impl World {
    fn new(seed: u64) -> Self {
        let settings = tests::settings(None);
        Self {
            core: Core::new(EngineType::Vllm, applier(&settings, &[]), fresh(), TTL),
            pods: BTreeMap::new(),
            free: (0..SLOTS).collect(),
            rng: Rng(seed),
            now: Instant::now(),
            ids: 0,
            next: SHARED,
            purged: 0,
        }
    }

    fn join(&mut self) {
        self.ids += 1;
        let slot = self.free.swap_remove(self.rng.below(self.free.len()));
        let id = PublisherId(self.ids);
        let replays = [Replays::Answers, Replays::Fails, Replays::None][self.rng.below(3)];
        let who = Identity {
            endpoint: format!("d/pod-{}", self.ids),
            name: format!("10.0.0.1:{}", self.ids),
            address: Ipv4Addr::new(10, 0, 0, 1).into(),
            slot,
        };
        let url = |port: u16| format!("tcp://10.0.0.1:{port}");
        let place = Place {
            events: Some(url(5_557)),
            replays: (replays != Replays::None).then(|| url(5_558)),
            filter: Vec::new(),
        };
        self.core.add(id, who, place, self.now);
        let (log, held) = Default::default();
        self.pods.insert(
            id,
            Pod { slot, replays, log, held, heard: self.now, silent: false, idle: false },
        );
        self.core.handle(id, Event::Connected, self.now);
    }

    fn leave(&mut self, id: PublisherId) {
        let Some(pod) = self.pods.remove(&id) else { return };
        self.core.remove(id);
        self.free.push(pod.slot);
        let table = self.core.table().unwrap();
        assert_eq!((table.len(pod.slot), table.position(pod.slot)), (0, 0));
    }

    fn any(&mut self) -> Option<PublisherId> {
        let at = self.rng.below(self.pods.len());
        self.pods.keys().nth(at).copied()
    }

    /// A step of a pod: it computes a prompt, and may evict others.
    fn step(&mut self, id: PublisherId) {
        let Some(pod) = self.pods.get_mut(&id).filter(|pod| !pod.silent) else { return };
        let mut gone: Vec<u64> = Vec::new();
        if pod.held.len() > 6 {
            let at = self.rng.below(pod.held.len());
            let evicted = pod.held.iter().nth(at).map(|(&seed, &blocks)| (seed, blocks));
            let (seed, blocks) = evicted.unwrap();
            gone = engine_hashes(&prompt(seed, blocks), None);
            gone.reverse();
            // All of it, or its end.
            gone.truncate(1 + self.rng.below(blocks));
            let left = blocks - gone.len();
            pod.held.insert(seed, left);
            pod.held.retain(|_, blocks| *blocks > 0);
        }
        let seed = if self.rng.below(2) == 0 {
            self.rng.below(SHARED as usize) as u32
        } else {
            self.next += 1;
            self.next
        };
        let tokens = prompt(seed, 1 + self.rng.below(LONGEST));
        let mut events: Vec<_> = gone.chunks(1).map(Said::Removed).collect();
        if let Entry::Vacant(new) = pod.held.entry(seed) {
            new.insert(tokens.len() / 16);
            events.push(Said::Stored { tokens: &tokens, parent: None });
        }
        let message = pod.say(&events, self.now);
        self.core.handle(id, Event::Live(message), self.now);
    }

    fn clear(&mut self, id: PublisherId) {
        let Some(pod) = self.pods.get_mut(&id).filter(|pod| !pod.silent) else { return };
        pod.held.clear();
        let message = pod.say(&[Said::Cleared], self.now);
        self.core.handle(id, Event::Live(message), self.now);
    }

    /// A pod starts anew, with nothing, and says something.
    fn restart(&mut self, id: PublisherId) {
        let Some(pod) = self.pods.get_mut(&id).filter(|pod| !pod.silent) else { return };
        pod.log.clear();
        pod.held.clear();
        (pod.idle, pod.heard) = (false, self.now);
        self.core.handle(id, Event::Disconnected, self.now);
        self.core.handle(id, Event::Connected, self.now);
        self.step(id);
    }

    /// Does what the core asks of sockets, until it asks nothing more.
    fn obey(&mut self) {
        loop {
            let commands: Vec<Command> = self.core.take_commands().collect();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                let Command::Replay { id, run, from, .. } = command else { continue };
                let Some(pod) = self.pods.get_mut(&id) else { continue };
                let mut events = Vec::new();
                if pod.replays == Replays::Answers && !pod.silent {
                    pod.heard = self.now;
                    let kept = pod.log.iter().skip(from as usize).cloned();
                    events.extend(kept.map(|message| Event::Replayed { run, message }));
                    events.push(Event::ReplayEnd { run });
                } else {
                    let operation = Operation::ReplayConnect;
                    events.push(Event::ReplayFailed { run, operation });
                }
                for event in events {
                    self.core.handle(id, event, self.now);
                }
            }
        }
    }

    fn round(&mut self) {
        self.now += ROUND;
        if self.pods.len() < PODS && self.rng.below(10) < 6 {
            self.join();
        }
        let chance = self.rng.below(20);
        if let Some(id) = self.any() {
            match chance {
                ..6 => self.leave(id),
                6..8 => self.restart(id),
                8 => self.clear(id),
                9..11 => {
                    if let Some(pod) = self.pods.get_mut(&id) {
                        pod.silent = true;
                    }
                }
                _ => {}
            }
        }
        for _ in 0..12 {
            if let Some(id) = self.any() {
                self.step(id);
            }
            self.obey();
        }
        self.core.tick(self.now);
        self.obey();
    }

    /// What is held is what pods hold that are there and were heard not too long ago.
    fn check(&mut self) {
        let table = self.core.table().unwrap();
        let mut total = 0;
        for pod in self.pods.values_mut() {
            let held = table.len(pod.slot);
            total += held;
            pod.idle |= self.now >= pod.heard + TTL;
            // A tick on, for the replay that asks whether it is still there.
            let is_purged = pod.silent && self.now >= pod.heard + TTL + ROUND;
            self.purged += usize::from(is_purged && pod.blocks() > 0);
            let expected = if is_purged { 0 } else { pod.blocks() };
            // Who was idle and cannot be asked is learned anew, from what it says then on.
            let exactly = !pod.silent && (!pod.idle || pod.replays == Replays::Answers);
            let is = if exactly { held == expected } else { held <= expected };
            assert!(is, "slot {}: {held} of {expected}, exactly: {exactly}", pod.slot);
        }
        assert_eq!(table.total(), total as u64);
        assert_eq!(self.core.publishers().count(), self.pods.len());
        for &slot in &self.free {
            assert_eq!((table.len(slot), table.position(slot)), (0, 0));
        }
        let (running, waiting) = self.core.replays();
        assert!(running + waiting <= self.pods.len());
    }
}

/// Blocks that a table takes of one slot.
fn room(table: &mut SegmentTable) -> usize {
    (0..).find(|&n| table.hold(0, 0, &[n], &[n]) > 0).unwrap() as usize
}

#[test]
fn nothing_stays_of_pods_that_are_gone_or_silent() {
    let mut world = World::new(7);
    let mut most = 0;
    let (mut early, mut late) = (0, 0);
    for round in 0..ROUNDS {
        world.round();
        world.check();
        let table = world.core.table().unwrap();
        most = most.max(table.total());
        let bytes = table.bytes_in_use();
        match round {
            ..1_000 => early = early.max(bytes),
            _ => late = late.max(bytes),
        }
    }
    assert!(world.ids > u64::from(ROUNDS) / 4, "{} pods were there", world.ids);
    assert!(world.purged > 100 && most > 2_000, "{} looks at purged pods, {most}", world.purged);
    assert!(late < early * 2, "{early} bytes at most in the beginning, {late} later");
    let ids: Vec<PublisherId> = world.pods.keys().copied().collect();
    ids.into_iter().for_each(|id| world.leave(id));
    world.core.sweep();
    world.check();
    let mut table = world.core.park().unwrap();
    assert_eq!((table.blocks(), table.total()), (0, 0));
    assert_eq!(room(&mut table), room(&mut fresh()), "there is as much room as ever");
}

#[test]
fn a_publisher_that_starts_anew_all_the_time_waits_once() {
    let mut world = World::new(3);
    while world.pods.len() < 20 {
        world.join();
    }
    // Those that can be asked are, and do not answer.
    let ids: Vec<PublisherId> = world.pods.keys().copied().collect();
    world.core.take_commands().for_each(drop);
    for seq in (0..1_000).map(|n| 100 - n % 100) {
        for &id in &ids {
            let message = Message { seq, model: None, payload: vec![0x90] };
            world.core.handle(id, Event::Live(message), world.now);
        }
        let (running, waiting) = world.core.replays();
        assert!(running + waiting <= ids.len(), "{running} + {waiting}");
    }
    ids.into_iter().for_each(|id| world.leave(id));
    assert_eq!(world.core.replays(), (0, 0));
}
