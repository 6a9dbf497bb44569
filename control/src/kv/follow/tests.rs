use std::collections::{BTreeSet, VecDeque};

use super::position::NEXT_BITS;
use super::*;

/// A publisher: what it holds, what it has said in this life, and how much of that it can repeat.
struct Engine {
    life: u64,
    log: Vec<Message>,
    /// What it held after each message of this life.
    held: Vec<BTreeSet<u64>>,
    buffer: usize,
}

impl Engine {
    fn new(life: u64, buffer: usize) -> Self {
        Self { life, log: Vec::new(), held: Vec::new(), buffer }
    }

    /// Stores the block if it is not held, drops it otherwise, and says so.
    fn publish(&mut self, block: u64) -> Message {
        let mut held = self.held.last().cloned().unwrap_or_default();
        let stores = held.insert(block);
        if !stores {
            held.remove(&block);
        }
        self.held.push(held);
        let seq = self.log.len() as u64;
        let parts = [self.life, seq, block, u64::from(stores)];
        let payload = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        let message = Message { seq, model: None, payload };
        self.log.push(message.clone());
        message
    }

    fn replay(&self, from: u64) -> Vec<Message> {
        let oldest = self.log.len().saturating_sub(self.buffer);
        self.log.iter().skip(oldest.max(from as usize)).cloned().collect()
    }

    fn now(&self) -> BTreeSet<u64> {
        self.held.last().cloned().unwrap_or_default()
    }
}

/// A follower with what it applied.
struct World {
    follower: Follower,
    engine: Engine,
    /// What was believed of each life after each message.
    lives: Vec<Engine>,
    blocks: BTreeSet<u64>,
    now: Instant,
    runs: u64,
    replay: Option<(u64, VecDeque<Message>)>,
    reasons: Vec<Reason>,
    failures: Vec<Operation>,
}

const TTL: Duration = Duration::from_secs(3_600);

impl World {
    fn new(buffer: usize, can_replay: bool) -> Self {
        let now = Instant::now();
        let mut follower = Follower::new(None, now);
        follower.set_can_replay(can_replay, now, &mut Vec::new());
        Self {
            follower,
            engine: Engine::new(0, buffer),
            lives: Vec::new(),
            blocks: BTreeSet::new(),
            now,
            runs: 0,
            replay: None,
            reasons: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Apply(message, _) => self.apply(&message),
                Effect::Clear(reason) => {
                    self.reasons.push(reason);
                    self.blocks.clear();
                }
                Effect::EndReplay => self.replay = None,
                Effect::Failed(operation) => self.failures.push(operation),
                Effect::Replay => {}
            }
        }
        if self.follower.wants_replay() {
            self.runs += 1;
            let from = self.follower.begin(self.runs, self.now);
            self.replay = Some((self.runs, self.engine.replay(from).into()));
        }
    }

    fn apply(&mut self, message: &Message) {
        let mut parts = message.payload.chunks_exact(8);
        let mut part = || u64::from_le_bytes(parts.next().unwrap().try_into().unwrap());
        let (life, seq, block, stores) = (part(), part(), part(), part());
        if stores == 1 {
            self.blocks.insert(block);
        } else {
            self.blocks.remove(&block);
        }
        let engine = self.lives.get(life as usize).unwrap_or(&self.engine);
        let held = &engine.held[seq as usize];
        assert!(self.blocks.is_subset(held), "{:?} exceeds {held:?}", self.blocks);
    }

    fn with(&mut self, act: impl FnOnce(&mut Follower, Instant, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.follower, self.now, &mut effects);
        self.perform(effects);
    }

    fn live(&mut self, message: Message) {
        self.with(|follower, now, out| follower.on_live(message, now, out));
    }

    /// Publishes; whether the message arrives.
    fn publish(&mut self, block: u64, arrives: bool) {
        let message = self.engine.publish(block);
        if arrives {
            self.live(message);
        }
    }

    fn connect(&mut self) {
        self.with(|follower, now, out| follower.on_connected(now, out));
    }

    /// The next answer of the replay; `false` without one.
    fn answer(&mut self) -> bool {
        let Some((run, messages)) = &mut self.replay else { return false };
        let run = *run;
        match messages.pop_front() {
            Some(message) => {
                self.with(|follower, now, out| follower.on_replayed(run, message, now, out));
            }
            None => {
                self.replay = None;
                self.with(|follower, now, out| follower.on_end(run, now, out));
            }
        }
        true
    }

    fn answer_all(&mut self) {
        while self.answer() {}
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.with(|follower, now, out| follower.tick(now, TTL, out));
    }

    fn restart_engine(&mut self) {
        let life = self.engine.life + 1;
        let next = Engine::new(life, self.engine.buffer);
        self.lives.push(std::mem::replace(&mut self.engine, next));
    }

    /// Another follower goes on with what is kept.
    fn restart_follower(&mut self) {
        let word = self.follower.position.map_or(0, Position::to_word);
        let can_replay = self.follower.can_replay;
        let position = Position::from_word(word);
        if position.is_none() {
            self.blocks.clear();
        }
        self.follower = Follower::new(position, self.now);
        self.follower.set_can_replay(can_replay, self.now, &mut Vec::new());
        self.replay = None;
    }

    fn set_can_replay(&mut self, can: bool) {
        self.with(|follower, now, out| follower.set_can_replay(can, now, out));
    }

    /// A message of a megabyte arrives.
    fn publish_large(&mut self, block: u64) {
        let mut message = self.engine.publish(block);
        message.payload.resize(1 << 20, 0);
        *self.engine.log.last_mut().unwrap() = message.clone();
        self.live(message);
    }
}

fn blocks(list: &[u64]) -> BTreeSet<u64> {
    list.iter().copied().collect()
}

#[test]
fn a_stream_from_its_start_is_applied_as_it_comes() {
    for can_replay in [false, true] {
        let mut world = World::new(100, can_replay);
        for block in [1, 2, 3, 2] {
            world.publish(block, true);
        }
        assert_eq!(world.blocks, blocks(&[1, 3]));
        assert_eq!((world.runs, world.reasons.len()), (0, 0));
    }
}

#[test]
fn a_first_connection_asks_for_everything() {
    let mut world = World::new(100, true);
    for block in [1, 2, 3] {
        world.publish(block, false);
    }
    world.connect();
    world.publish(4, true);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 2, 3, 4]));
    assert_eq!(world.follower.next(), Some(4));
}

#[test]
fn a_gap_is_filled_by_a_replay() {
    let mut world = World::new(100, true);
    world.publish(1, true);
    world.publish(2, false);
    world.publish(1, false);
    world.publish(3, true);
    world.publish(4, true);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[2, 3, 4]));
    assert!(world.reasons.is_empty(), "nothing had to be forgotten");
}

#[test]
fn without_a_replay_a_gap_costs_what_came_before() {
    let mut world = World::new(100, false);
    world.publish(1, true);
    world.publish(2, false);
    world.publish(3, true);
    assert_eq!(world.blocks, blocks(&[3]));
    assert_eq!(world.reasons, [Reason::Gap]);
    world.publish(4, true);
    assert_eq!(world.blocks, blocks(&[3, 4]));
}

#[test]
fn what_the_publisher_no_longer_has_costs_what_came_before() {
    let mut world = World::new(2, true);
    world.publish(1, true);
    for block in [2, 3, 4, 5] {
        world.publish(block, false);
    }
    world.publish(6, true);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[5, 6]), "the last two that it still has");
    assert_eq!(world.reasons, [Reason::Gap]);
}

#[test]
fn a_lower_number_is_another_life() {
    for can_replay in [false, true] {
        let mut world = World::new(100, can_replay);
        world.publish(1, true);
        world.publish(2, true);
        world.restart_engine();
        world.publish(3, true);
        world.publish(4, true);
        world.answer_all();
        assert_eq!(world.blocks, blocks(&[3, 4]));
        assert_eq!(world.reasons, [Reason::Restarted]);
    }
}

#[test]
fn another_life_is_seen_when_the_connection_comes_back() {
    let mut world = World::new(100, true);
    for block in [1, 2, 3] {
        world.publish(block, true);
    }
    // As many messages, so that the numbers do not tell.
    world.restart_engine();
    for block in [7, 8, 9, 10] {
        world.publish(block, false);
    }
    world.connect();
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[7, 8, 9, 10]));
    assert_eq!(world.reasons, [Reason::Restarted]);
    // One that has said nothing yet.
    world.restart_engine();
    world.connect();
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[]));
    world.publish(1, true);
    assert_eq!(world.blocks, blocks(&[1]));
}

#[test]
fn a_successor_goes_on_where_its_predecessor_stood() {
    let mut world = World::new(100, true);
    for block in [1, 2, 3] {
        world.publish(block, true);
    }
    world.restart_follower();
    world.publish(2, false);
    world.publish(4, false);
    world.connect();
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 3, 4]));
    assert!(world.reasons.is_empty());
    // Without replays the next number is all there is to go by.
    for (missed, kept) in [(false, true), (true, false)] {
        let mut world = World::new(100, false);
        world.publish(1, true);
        world.restart_follower();
        if missed {
            world.publish(2, false);
        }
        world.publish(3, true);
        assert_eq!(world.blocks.contains(&1), kept);
    }
}

#[test]
fn a_replay_that_loses_messages_is_resumed() {
    let mut world = World::new(100, true);
    for block in 1..=6 {
        world.publish(block, false);
    }
    world.connect();
    world.answer();
    let (_, messages) = world.replay.as_mut().unwrap();
    messages.drain(1..3);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 2]));
    world.wait(PAUSE);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 2, 3, 4, 5, 6]));
    assert!(world.failures.is_empty() && world.reasons.is_empty());
}

#[test]
fn a_silent_replay_is_given_up_and_tried_again_later() {
    let mut world = World::new(100, true);
    world.publish(1, true);
    world.publish(2, false);
    world.publish(3, true);
    for _ in 0..ATTEMPTS {
        world.replay = None;
        world.wait(IDLE);
        world.wait(PAUSE);
    }
    assert_eq!(world.failures, [Operation::ReplayNoProgress]);
    assert_eq!(world.blocks, blocks(&[3]), "what follows a gap is true by itself");
    world.publish(4, true);
    let runs = world.runs;
    world.wait(COOL_DOWN);
    assert_eq!(world.runs, runs + 1);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 2, 3, 4]));
}

#[test]
fn a_replay_that_cannot_be_asked_for_any_more_is_not_waited_for() {
    for phase in 0..3 {
        let mut world = World::new(100, true);
        world.publish(1, true);
        world.publish(2, false);
        if phase == 0 {
            let message = world.engine.publish(3);
            world.follower.on_live(message, world.now, &mut Vec::new());
            assert!(world.follower.wants_replay());
        } else {
            world.publish(3, true);
            assert!(world.follower.is_replaying());
        }
        if phase == 2 {
            world.replay = None;
            world.wait(IDLE);
            assert!(matches!(world.follower.phase, Phase::Pausing(_)));
        }
        world.set_can_replay(false);
        assert!(world.replay.is_none() && world.follower.is_settled());
        assert_eq!((&world.blocks, &world.reasons[..]), (&blocks(&[3]), &[Reason::Gap][..]));
        world.publish(4, true);
        assert_eq!(world.blocks, blocks(&[3, 4]));
        // It can be asked again.
        world.set_can_replay(true);
        world.connect();
        world.answer_all();
        assert_eq!(world.blocks, blocks(&[1, 2, 3, 4]));
        assert!(world.failures.is_empty());
    }
}

#[test]
fn what_was_to_be_confirmed_goes_with_the_replay_that_would_have_done_it() {
    let mut world = World::new(100, true);
    world.publish(1, true);
    world.restart_follower();
    world.connect();
    world.set_can_replay(false);
    assert_eq!((world.blocks.len(), &world.reasons[..]), (0, &[Reason::Gap][..]));
}

#[test]
fn live_messages_that_outgrow_their_room_are_made_up_for_by_the_replay() {
    let mut world = World::new(100, true);
    world.publish(1, true);
    world.publish(2, false);
    for block in 3..9 {
        world.publish_large(block);
    }
    assert!(world.follower.lost && world.follower.held_bytes <= HELD.0);
    world.answer_all();
    world.wait(PAUSE);
    assert!(world.follower.is_replaying(), "some of them were published after its start");
    for _ in 0..4 {
        world.answer();
    }
    // What the replay has brought by now makes room.
    world.publish_large(9);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert!(world.failures.is_empty() && world.reasons.is_empty());
    assert_eq!((world.follower.held.len(), world.follower.held_bytes), (0, 0));
}

#[test]
fn messages_of_no_size_take_room_too() {
    let mut follower = Follower::new(None, Instant::now());
    follower.set_can_replay(true, Instant::now(), &mut Vec::new());
    for seq in 1..100_000 {
        let message = Message { seq, model: None, payload: Vec::new() };
        follower.on_live(message, Instant::now(), &mut Vec::new());
    }
    assert!(follower.held.len() * size_of::<Message>() <= HELD.1);
}

#[test]
fn who_never_answers_is_asked_less_often_and_followed_meanwhile() {
    let mut world = World::new(100, true);
    world.publish(1, true);
    world.publish(2, false);
    world.publish(3, true);
    for _ in 0..1_800 {
        world.wait(Duration::from_secs(1));
        world.replay = None;
    }
    assert!((4..9).contains(&world.failures.len()), "{:?}", world.failures);
    // While others have their turn what it says is applied.
    for second in 0..600 {
        let now = world.now + Duration::from_secs(second);
        world.follower.tick(now, TTL, &mut Vec::new());
        if world.follower.wants_replay() {
            break;
        }
    }
    assert!(world.follower.wants_replay());
    let message = world.engine.publish(4);
    let mut effects = Vec::new();
    world.follower.on_live(message, world.now, &mut effects);
    assert!(matches!(effects[..], [Effect::Apply(..)]));
    // What leaves a gap waits.
    world.engine.publish(5);
    let message = world.engine.publish(6);
    effects.clear();
    world.follower.on_live(message, world.now, &mut effects);
    assert_eq!((effects.len(), world.follower.held.len()), (0, 1));
    // A new connection is a reason to try again at once.
    world.connect();
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1, 2, 3, 4, 5, 6]));
}

#[test]
fn silence_is_asked_about_and_then_believed() {
    let mut world = World::new(100, true);
    world.publish(1, true);
    world.wait(TTL);
    world.answer_all();
    assert_eq!(world.blocks, blocks(&[1]), "it answers: it has nothing to say");
    world.wait(TTL);
    for _ in 0..ATTEMPTS {
        world.replay = None;
        world.wait(IDLE);
        world.wait(PAUSE);
    }
    world.wait(PAUSE);
    assert_eq!((world.blocks.len(), world.reasons.last()), (0, Some(&Reason::Silent)));
    let mut world = World::new(100, false);
    world.publish(1, true);
    world.wait(TTL - PAUSE);
    assert_eq!(world.blocks, blocks(&[1]));
    world.wait(PAUSE);
    world.wait(PAUSE);
    assert_eq!((world.blocks.len(), &world.reasons[..]), (0, &[Reason::Silent][..]));
}

#[test]
fn positions_survive_in_a_word() {
    let mut engine = Engine::new(3, 1);
    for block in 0..100 {
        let position = Position::after(&engine.publish(block), block % 2 == 0);
        assert_eq!(Position::from_word(position.to_word()), Some(position));
    }
    assert_eq!(Position::from_word(0), None);
    assert_eq!(Position { next: 1 << NEXT_BITS, print: 0, partial: false }.to_word(), 0);
}

/// Messages lost, replays cut, either side restarted, in any order: what is believed is never more
/// than the engine holds, and after a quiet time with replays it is all of it.
#[test]
fn nothing_is_believed_that_is_not_held() {
    for seed in 0..300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let can_replay = seed % 3 != 0;
        let buffer = if seed % 2 == 0 { 1_000 } else { 5 };
        let mut world = World::new(buffer, can_replay);
        for _ in 0..400 {
            match random(25) {
                0 => world.connect(),
                1 => world.restart_follower(),
                2 if random(4) == 0 => {
                    world.restart_engine();
                    // The connection is made anew; without replays the first message has to tell.
                    world.connect();
                    if !world.follower.can_replay {
                        world.publish(random(12), true);
                    }
                }
                3 => world.wait(Duration::from_millis(random(3_000))),
                4 => world.replay = None,
                5 => {
                    // A peer whose queue is full drops; its first answer finds room.
                    if let Some((_, messages)) = &mut world.replay {
                        messages.remove(1);
                    }
                }
                6 => world.with(|follower, now, out| follower.on_lost(now, out)),
                7..=11 => drop(world.answer()),
                24 if can_replay && random(3) == 0 => {
                    let can = world.follower.can_replay;
                    world.set_can_replay(!can);
                }
                12 | 13 => world.publish(random(12), false),
                _ => world.publish(random(12), true),
            }
        }
        if can_replay && buffer == 1_000 {
            world.set_can_replay(true);
            world.wait(COOL_DOWN);
            for _ in 0..ATTEMPTS + 2 {
                world.wait(IDLE);
                world.wait(PAUSE);
                world.answer_all();
            }
            world.wait(COOL_DOWN);
            world.connect();
            world.answer_all();
            world.publish(99, true);
            world.answer_all();
            world.wait(PAUSE);
            world.answer_all();
            assert_eq!(world.blocks, world.engine.now(), "seed {seed}");
        }
    }
}
