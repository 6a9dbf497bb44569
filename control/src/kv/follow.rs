//! One publisher's stream: which message to apply, when to ask for a replay, what to distrust.
//!
//! Pure: no socket and no clock; what is to be done comes back as [`Effect`]s, in order.
//!
//! **Invariant.** What the index holds of a publisher never exceeds what the publisher holds: messages
//! are applied without a gap, or everything from before the gap is cleared first. What follows a gap
//! may be applied, since a store whose parent is unknown adds nothing and a removal of what is unknown
//! takes nothing away.
//!
//! **Position.** After each message the sequence number that comes next and a print of the message are
//! kept beside the blocks ([`Position`]). A successor asks for a replay from the last message it
//! applied: if that comes back with the same print it is the same publisher, and nothing is missing;
//! if not, another life has begun and everything is cleared. A reconnection is checked the same way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::queue::{Message, Operation};

mod position;

pub(crate) use position::Position;

/// Longest wait for the next message of a replay.
const IDLE: Duration = Duration::from_secs(2);
/// Longest replay, its attempts together.
const LIMIT: Duration = Duration::from_secs(120);
/// Attempts without progress.
const ATTEMPTS: u32 = 3;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// After a replay that failed; each time it fails again twice as long, so often.
const COOL_DOWN: Duration = Duration::from_secs(30);
const DOUBLINGS: u32 = 4;
/// Bytes of live messages held while a replay runs, and while it waits for its turn.
const HELD: (usize, usize) = (4 << 20, 16 << 10);

/// Room that a held message takes.
fn held_bytes(message: &Message) -> usize {
    size_of::<Message>() + message.payload.len()
}

/// Why what was held is not believed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Messages are missing.
    Gap,
    /// The publisher has begun anew.
    Restarted,
    /// It has said nothing for too long.
    Silent,
}

impl Reason {
    /// For logs and labels.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Restarted => "restarted",
            Self::Silent => "silent",
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Apply a message; the stream then stands there.
    Apply(Message, Position),
    /// Forget all blocks of the publisher.
    Clear(Reason),
    /// Stop listening to the replay.
    EndReplay,
    /// Count a failure.
    Failed(Operation),
    /// Start a replay as soon as there is room: [`Follower::begin`].
    Replay,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Follower {
    position: Option<Position>,
    /// Whether this life of the publisher is known to be the one that `position` is of.
    verified: bool,
    /// Whether what came before a gap is missing, and a replay might bring some of it.
    partial: bool,
    last_live: Option<u64>,
    phase: Phase,
    /// Live messages for after the replay.
    held: VecDeque<Message>,
    held_bytes: usize,
    /// Whether messages were lost on the way here since the replay began.
    lost: bool,
    /// Whether the connection was made anew since the replay began.
    doubted: bool,
    can_replay: bool,
    /// The last replay brought nothing: another one would not either.
    fruitless: bool,
    attempts: u32,
    began: Option<Instant>,
    cool_until: Option<Instant>,
    /// Replays that failed, one after the other.
    failures: u32,
    heard: Instant,
    silent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Following,
    /// Wants a replay.
    Wanting,
    /// Between two attempts of one.
    Pausing(Instant),
    Replaying(Run),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    number: u64,
    /// Whether the first answer is to be the last message that was applied.
    verifies: bool,
    answered: bool,
    applied: bool,
    progress: Instant,
}

impl Follower {
    /// Goes on from where a predecessor stood.
    pub(crate) fn new(position: Option<Position>, now: Instant) -> Self {
        Self {
            position,
            verified: false,
            partial: position.is_some_and(|position| position.partial),
            last_live: None,
            phase: Phase::Following,
            held: VecDeque::new(),
            held_bytes: 0,
            lost: false,
            doubted: false,
            can_replay: false,
            fruitless: false,
            attempts: 0,
            began: None,
            cool_until: None,
            failures: 0,
            heard: now,
            silent: false,
        }
    }

    /// Whether replays can be asked for. One that is wanted or under way when they no longer can be is
    /// given up, and with it what it was to confirm.
    pub(crate) fn set_can_replay(&mut self, can: bool, now: Instant, out: &mut Vec<Effect>) {
        if can == self.can_replay {
            return;
        }
        self.can_replay = can;
        (self.cool_until, self.failures) = (None, 0);
        if can || self.phase == Phase::Following {
            return;
        }
        if self.is_replaying() {
            out.push(Effect::EndReplay);
        }
        self.give_up(now, out);
    }

    /// Whether a replay is wanted that has not begun.
    pub(crate) fn wants_replay(&self) -> bool {
        self.phase == Phase::Wanting
    }

    /// Whether a replay is under way.
    pub(crate) fn is_replaying(&self) -> bool {
        matches!(self.phase, Phase::Replaying(_))
    }

    /// Whether anything was ever heard.
    pub(crate) fn heard_live(&self) -> bool {
        self.last_live.is_some()
    }

    /// Whether nothing is known at first hand: what others know is better.
    pub(crate) fn is_deaf(&self) -> bool {
        self.position.is_none() && (self.last_live.is_none() || self.silent)
    }

    /// Whether something is known, and nothing is being made up for.
    pub(crate) fn is_settled(&self) -> bool {
        self.position.is_some() && self.phase == Phase::Following
    }

    /// Whether only what came after a gap is known.
    pub(crate) fn is_partial(&self) -> bool {
        self.position.is_some_and(|position| position.partial)
    }

    /// When something was last heard, or this began.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Sequence number that comes next, where it is known.
    pub(crate) fn next(&self) -> Option<u64> {
        self.position.map(|position| position.next)
    }

    /// Lets a replay be asked for although the last one failed.
    pub(crate) fn end_cool_down(&mut self) {
        self.cool_until = None;
    }

    /// Nothing is known any more of what was applied: it is asked for again.
    pub(crate) fn relearn(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.is_replaying() {
            out.push(Effect::EndReplay);
        }
        (self.position, self.verified, self.partial) = (None, false, false);
        (self.cool_until, self.fruitless) = (None, false);
        if self.may_replay(now) {
            self.want(out);
        }
    }

    /// A message of the live stream.
    pub(crate) fn on_live(&mut self, message: Message, now: Instant, out: &mut Vec<Effect>) {
        self.hear(now);
        let last = self.last_live.replace(message.seq);
        let again = last == Some(message.seq);
        // The same number with another content is the first that two lives have said.
        let is_other = again
            && self.position.is_some_and(|known| {
                known.next == message.seq.saturating_add(1)
                    && known != Position::after(&message, known.partial)
            });
        if is_other || last.is_some_and(|last| message.seq < last) {
            self.restart(out);
        } else if again {
            return;
        }
        match self.phase {
            Phase::Following => self.take(message, now, out),
            // Where others have their turn for long, or nobody answers.
            Phase::Wanting | Phase::Pausing(_) if self.goes_on(&message) => {
                self.apply(message, out);
            }
            Phase::Wanting | Phase::Pausing(_) | Phase::Replaying(_) => self.hold(message),
        }
    }

    /// Whether a message follows what is certain: it need not wait for a replay.
    fn goes_on(&self, message: &Message) -> bool {
        self.verified && self.held.is_empty() && self.next() == Some(message.seq)
    }

    /// The connection stands, for the first time or again: what was missed has to be asked for.
    pub(crate) fn on_connected(&mut self, now: Instant, out: &mut Vec<Effect>) {
        // A failure before is no reason not to try with a new connection.
        (self.cool_until, self.failures) = (None, 0);
        if self.may_replay(now) {
            // It may be another life, of which a replay under way knows nothing.
            self.verified = false;
            self.doubted = self.is_replaying();
            if self.phase == Phase::Following {
                self.want(out);
            }
        }
    }

    /// Messages were dropped on the way here.
    pub(crate) fn on_lost(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.lost = true;
        if self.phase == Phase::Following && self.may_replay(now) {
            self.want(out);
        }
    }

    /// A replay begins under the number `run`; answers from where.
    pub(crate) fn begin(&mut self, run: u64, now: Instant) -> u64 {
        let verifies = self.position.is_some() && !self.partial;
        let from = self.position.filter(|_| verifies).map_or(0, |position| position.next - 1);
        let (answered, applied, progress) = (false, false, now);
        self.phase = Phase::Replaying(Run { number: run, verifies, answered, applied, progress });
        self.began.get_or_insert(now);
        self.lost = false;
        self.doubted = false;
        self.drop_known();
        from
    }

    /// A message of the replay `run`.
    pub(crate) fn on_replayed(
        &mut self,
        run: u64,
        message: Message,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Replaying(at) = &mut self.phase else { return };
        if at.number != run {
            return;
        }
        at.progress = now;
        let is_first = !std::mem::replace(&mut at.answered, true);
        let verifies = at.verifies;
        self.hear(now);
        let last = self.position.filter(|position| message.seq.saturating_add(1) == position.next);
        if is_first
            && verifies
            && let Some(position) = last
        {
            if position == Position::after(&message, position.partial) {
                self.verified = true;
            } else {
                self.begin_anew(out);
            }
            return;
        }
        if is_first && self.position.is_some() {
            // Either it no longer has what would tell whose life this is, or this is a replay from
            // the start, which brings more than is known.
            self.clear(Reason::Gap, out);
        }
        match self.position.map(|position| position.next) {
            Some(next) if message.seq < next => return,
            Some(next) if message.seq > next => {
                out.push(Effect::EndReplay);
                self.retry(Operation::ReplayIncomplete, now, out);
                return;
            }
            _ => {}
        }
        if let Phase::Replaying(at) = &mut self.phase {
            at.applied = true;
        }
        self.attempts = 0;
        self.apply(message, out);
    }

    /// The replay `run` has given all there is.
    pub(crate) fn on_end(&mut self, run: u64, now: Instant, out: &mut Vec<Effect>) {
        let Phase::Replaying(at) = self.phase else { return };
        if at.number != run {
            return;
        }
        self.hear(now);
        if at.verifies && !at.answered {
            // It has published less than was applied.
            self.begin_anew(out);
            return;
        }
        if self.lost || self.doubted {
            self.retry(Operation::ReplayIncomplete, now, out);
            return;
        }
        self.verified = true;
        self.partial = false;
        self.failures = 0;
        self.fruitless = !at.applied;
        self.finish(now, out);
    }

    /// The replay `run` cannot be had.
    pub(crate) fn on_failed(
        &mut self,
        run: u64,
        operation: Operation,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if matches!(self.phase, Phase::Replaying(at) if at.number == run) {
            out.push(Effect::EndReplay);
            self.fail(operation, now, out);
        }
    }

    /// Does what is due; `ttl` is how long a publisher may be silent.
    pub(crate) fn tick(&mut self, now: Instant, ttl: Duration, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Replaying(at) => {
                let too_long = self.began.is_some_and(|began| now >= began + LIMIT);
                if too_long {
                    out.push(Effect::EndReplay);
                    self.fail(Operation::ReplayIncomplete, now, out);
                } else if now >= at.progress + IDLE {
                    out.push(Effect::EndReplay);
                    self.retry(Operation::ReplayNoProgress, now, out);
                }
            }
            Phase::Pausing(until) if now >= until => self.want(out),
            Phase::Following => {
                let cooled = self.cool_until.is_some_and(|until| now >= until);
                if cooled {
                    self.cool_until = None;
                }
                let doubtful = self.partial || (!self.verified && self.position.is_some());
                let is_silent = now >= self.heard + ttl && !self.silent;
                if (cooled && doubtful || is_silent) && self.may_replay(now) {
                    self.want(out);
                } else if is_silent {
                    self.purge(out);
                }
            }
            Phase::Pausing(_) | Phase::Wanting => {}
        }
    }

    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.silent = false;
    }

    fn purge(&mut self, out: &mut Vec<Effect>) {
        self.silent = true;
        self.clear(Reason::Silent, out);
    }

    /// Takes a live message in its turn.
    fn take(&mut self, message: Message, now: Instant, out: &mut Vec<Effect>) {
        let may_replay = self.may_replay(now) && !self.fruitless;
        match self.position.map(|position| position.next) {
            Some(next) if self.verified && message.seq < next => {}
            Some(next) if self.verified && message.seq == next => self.apply(message, out),
            None if message.seq == 0 => self.apply(message, out),
            _ if may_replay => {
                self.hold(message);
                self.want(out);
            }
            Some(next) if message.seq == next => self.apply(message, out),
            // A live stream does not go back: this is another life.
            Some(next) if message.seq < next => {
                self.restart(out);
                self.take(message, now, out);
            }
            known => {
                if known.is_some() {
                    self.clear(Reason::Gap, out);
                }
                self.partial = true;
                if self.can_replay {
                    self.cool_until.get_or_insert(now + COOL_DOWN);
                }
                self.apply(message, out);
            }
        }
    }

    fn apply(&mut self, message: Message, out: &mut Vec<Effect>) {
        let position = Position::after(&message, self.partial);
        self.position = Some(position);
        self.verified = true;
        self.fruitless = false;
        out.push(Effect::Apply(message, position));
    }

    fn hold(&mut self, message: Message) {
        let most = if self.is_replaying() { HELD.0 } else { HELD.1 };
        let bytes = held_bytes(&message);
        if self.held_bytes + bytes > most {
            self.drop_known();
        }
        if self.held_bytes + bytes > most {
            self.lost = true;
            return;
        }
        self.held_bytes += bytes;
        self.held.push_back(message);
    }

    /// Gives up the room of messages that a replay has brought already.
    fn drop_known(&mut self) {
        let Some(next) = self.next().filter(|_| self.verified) else { return };
        while let Some(message) = self.held.pop_front_if(|message| message.seq < next) {
            self.held_bytes = self.held_bytes.saturating_sub(held_bytes(&message));
        }
    }

    fn clear(&mut self, reason: Reason, out: &mut Vec<Effect>) {
        self.position = None;
        self.verified = false;
        self.partial = false;
        out.push(Effect::Clear(reason));
    }

    /// A new life of the publisher has begun; nothing of the old one matters.
    fn restart(&mut self, out: &mut Vec<Effect>) {
        if self.is_replaying() {
            out.push(Effect::EndReplay);
        }
        self.clear(Reason::Restarted, out);
        self.phase = Phase::Following;
        self.held.clear();
        self.held_bytes = 0;
        (self.cool_until, self.failures) = (None, 0);
        self.fruitless = false;
        self.attempts = 0;
        self.began = None;
    }

    /// As a replay has shown, a new life has begun: it is asked for all of it.
    fn begin_anew(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::EndReplay);
        self.clear(Reason::Restarted, out);
        self.last_live = None;
        self.want(out);
    }

    fn may_replay(&self, now: Instant) -> bool {
        self.can_replay && self.cool_until.is_none_or(|until| now >= until)
    }

    fn want(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Wanting;
        out.push(Effect::Replay);
    }

    /// Asks again a little later, unless there was no progress too often.
    fn retry(&mut self, operation: Operation, now: Instant, out: &mut Vec<Effect>) {
        self.attempts += 1;
        self.verified &= !self.doubted;
        if self.attempts >= ATTEMPTS {
            self.fail(operation, now, out);
        } else {
            self.phase = Phase::Pausing(now + PAUSE);
        }
    }

    /// Gives the replay up. What was to be confirmed by it is not believed; what the live stream goes
    /// on with is judged without it.
    fn fail(&mut self, operation: Operation, now: Instant, out: &mut Vec<Effect>) {
        out.push(Effect::Failed(operation));
        self.cool_until = Some(now + COOL_DOWN * (1 << self.failures.min(DOUBLINGS)));
        self.failures += 1;
        self.give_up(now, out);
    }

    fn give_up(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.verified &= !self.doubted;
        if !self.verified && self.position.is_some() {
            self.clear(Reason::Gap, out);
        }
        self.finish(now, out);
    }

    /// Goes on with the live stream.
    fn finish(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.phase = Phase::Following;
        self.attempts = 0;
        self.began = None;
        while self.phase == Phase::Following
            && let Some(message) = self.held.pop_front()
        {
            self.held_bytes = self.held_bytes.saturating_sub(held_bytes(&message));
            let behind = std::mem::take(&mut self.held);
            self.take(message, now, out);
            // What it put back comes first.
            self.held.extend(behind);
        }
    }
}

#[cfg(test)]
mod tests;
