//! What all publishers said, applied to the table.
//!
//! One thread at a time: events come from the queue, endpoints and questions from the main loop. No
//! socket is touched here; what has to be done with one is a [`Command`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inlane_kv::event::{Buffers, EngineType, decode_into};
use inlane_kv::{Applier, Mirror};

use super::follow::{Effect, Follower, Position, Reason};
use super::io::Command;
use super::publisher::{Identity, Numbers, Place, Publisher};
use super::queue::{Event, Message, PublisherId};

/// Replays at a time.
const MAX_REPLAYS: usize = 8;

/// A table that remembers where each stream stands.
pub(crate) trait Table: Mirror {
    /// Number of slots.
    fn slots(&self) -> u16;
    /// The word kept beside the blocks of a slot; 0 where changes have followed it.
    fn position(&self, slot: u16) -> u64;
    /// Keeps a word.
    fn set_position(&mut self, slot: u16, word: u64);
    /// The slot's publisher is heard: what others know of it is not wanted any more.
    fn own(&mut self, _slot: u16) {}
    /// What the slot holds is of nobody who is known. Of that others are not told.
    fn vacate(&mut self, slot: u16) {
        self.clear(slot);
    }
}

/// Pairs of engine hash and request key that came and went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Pairs {
    pub(crate) stored: u64,
    pub(crate) removed: u64,
}

/// See the [module](self).
pub(crate) struct Core<T> {
    engine: EngineType,
    applier: Applier,
    /// `None` while the segment moves.
    table: Option<T>,
    publishers: BTreeMap<PublisherId, Publisher>,
    /// How long a publisher may be silent.
    ttl: Duration,
    runs: u64,
    /// Who wants a replay, in order, each once.
    waiting: VecDeque<PublisherId>,
    /// The same as a set.
    queued: BTreeSet<PublisherId>,
    replaying: BTreeSet<PublisherId>,
    commands: Vec<Command>,
    effects: Vec<Effect>,
    /// Memory of the last batch, for the next one.
    buffers: Buffers,
    resets: u64,
    pairs: Pairs,
    /// Of publishers that are gone.
    past: Numbers,
}

impl<T: Table> Core<T> {
    pub(crate) fn new(engine: EngineType, applier: Applier, table: T, ttl: Duration) -> Self {
        Self {
            engine,
            applier,
            table: Some(table),
            publishers: BTreeMap::new(),
            ttl,
            runs: 0,
            waiting: VecDeque::new(),
            queued: BTreeSet::new(),
            replaying: BTreeSet::new(),
            commands: Vec::new(),
            effects: Vec::new(),
            buffers: Buffers::default(),
            resets: 0,
            pairs: Pairs::default(),
            past: Numbers::default(),
        }
    }

    /// A publisher has come. What is known of its slot is kept where its position is.
    pub(crate) fn add(&mut self, id: PublisherId, who: Identity, place: Place, now: Instant) {
        let word = self.table.as_ref().map_or(0, |table| table.position(who.slot));
        let position = Position::from_word(word);
        if position.is_none() {
            self.applier.forget(who.slot);
            if let Some(table) = &mut self.table {
                let held = table.len(who.slot);
                if held > 0 {
                    // Of a shared index, or of a predecessor that died within a message.
                    tracing::info!(endpoint = who.endpoint, held, "cached blocks are learned anew");
                }
                table.vacate(who.slot);
                table.set_position(who.slot, 0);
            }
        }
        let mut follower = Follower::new(position, now);
        follower.set_can_replay(place.replays.is_some(), now, &mut self.effects);
        let (name, address) = (who.name.clone(), who.address);
        self.commands.push(Command::Register { id, name, address });
        connect(id, &who, &place, &mut self.commands);
        let publisher = Publisher {
            who,
            place,
            follower,
            model: None,
            nameless: false,
            connected: false,
            since: now,
            numbers: Numbers::default(),
        };
        self.publishers.insert(id, publisher);
    }

    /// A publisher is reached elsewhere than before.
    pub(crate) fn relocate(&mut self, id: PublisherId, place: Place, now: Instant) {
        let Some(publisher) = self.publishers.get_mut(&id) else { return };
        publisher.follower.set_can_replay(place.replays.is_some(), now, &mut self.effects);
        let before = std::mem::replace(&mut publisher.place, place);
        let place = &publisher.place;
        if (&before.events, &before.filter) != (&place.events, &place.filter) {
            publisher.connected = false;
            connect(id, &publisher.who, place, &mut self.commands);
        }
        let is_new = place.replays.is_some() && before.replays != place.replays;
        // Nothing tells when a publisher that connects to us does: it is asked for what was missed
        // as soon as it can be. So is one that was heard before it could be.
        if is_new && (place.events.is_none() || publisher.connected) {
            publisher.follower.on_connected(now, &mut self.effects);
        }
        self.perform(id, now);
    }

    /// What a publisher's model is when its messages do not say.
    pub(crate) fn set_model(&mut self, id: PublisherId, model: &str, now: Instant) {
        let Some(publisher) = self.publishers.get_mut(&id) else { return };
        if publisher.model.is_some() {
            return;
        }
        publisher.model = Some(model.into());
        let slot = publisher.who.slot;
        if std::mem::take(&mut publisher.nameless) {
            tracing::info!(
                endpoint = publisher.who.endpoint,
                model,
                "cached blocks are learned anew: their model was not known"
            );
            publisher.follower.relearn(now, &mut self.effects);
            self.empty(slot);
        } else if publisher.follower.next().is_none() && !publisher.follower.is_replaying() {
            // Replays that could not be read for want of it can be now.
            publisher.follower.on_connected(now, &mut self.effects);
        }
        self.perform(id, now);
    }

    /// A publisher is gone, and with it what it held.
    pub(crate) fn remove(&mut self, id: PublisherId) {
        if let Some(publisher) = self.publishers.remove(&id) {
            self.empty(publisher.who.slot);
            self.replaying.remove(&id);
            if self.queued.remove(&id) {
                self.waiting.retain(|waiting| *waiting != id);
            }
            self.commands.push(Command::Remove { id });
            self.past.absorb(&publisher.numbers);
        }
    }

    /// Empties all slots that no publisher has.
    pub(crate) fn sweep(&mut self) {
        let taken: BTreeSet<u16> = self.publishers.values().map(|p| p.who.slot).collect();
        let slots = self.table.as_ref().map_or(0, T::slots);
        for slot in (0..slots).filter(|slot| !taken.contains(slot)) {
            let Some(table) = &self.table else { return };
            if table.position(slot) != 0 || !table.is_empty(slot) {
                self.empty(slot);
            }
        }
    }

    /// Forgets everything, and asks for as much as can be had again.
    pub(crate) fn reset(&mut self, now: Instant) {
        self.resets += 1;
        let slots = self.table.as_ref().map_or(0, T::slots);
        for slot in 0..slots {
            self.empty(slot);
        }
        self.begin_all(now);
    }

    /// Gives the table away: nothing is applied until there is another one.
    pub(crate) fn park(&mut self) -> Option<T> {
        self.table.take()
    }

    /// Whether there is no table.
    pub(crate) fn is_parked(&self) -> bool {
        self.table.is_none()
    }

    /// Goes on with a table: the same one, or an empty one.
    pub(crate) fn resume(&mut self, table: T, now: Instant) {
        let known = self.publishers.values().all(|publisher| {
            publisher.follower.next()
                == Position::from_word(table.position(publisher.who.slot)).map(Position::next)
        });
        self.table = Some(table);
        if !known {
            self.begin_all(now);
        }
    }

    /// Something came from a publisher or its socket.
    pub(crate) fn handle(&mut self, id: PublisherId, event: Event, now: Instant) {
        let Some(publisher) = self.publishers.get_mut(&id) else { return };
        let Publisher { follower, numbers, model, .. } = publisher;
        let effects = &mut self.effects;
        match event {
            Event::Live(message) => {
                numbers.messages += 1;
                if let Some(named) = &message.model
                    && model.as_ref() != Some(named)
                {
                    // Replays that could not be read for want of it can be now.
                    if model.replace(Arc::clone(named)).is_none() {
                        follower.end_cool_down();
                    }
                }
                follower.on_live(message, now, effects);
            }
            Event::Replayed { run, message } => {
                let is_known = message.model.is_some() || model.is_some();
                let is_confirmation = follower.next() == Some(message.seq.wrapping_add(1));
                if is_known || is_confirmation {
                    follower.on_replayed(run, message, now, effects);
                } else {
                    let operation = super::queue::Operation::ReplayIncomplete;
                    follower.on_failed(run, operation, now, effects);
                }
            }
            Event::ReplayEnd { run } => follower.on_end(run, now, effects),
            Event::ReplayFailed { run, operation } => {
                follower.on_failed(run, operation, now, effects);
            }
            Event::Failed(operation) => numbers.count_error(operation),
            Event::Connected => {
                publisher.connected = true;
                numbers.connections += 1;
                follower.on_connected(now, effects);
            }
            Event::Disconnected => publisher.connected = false,
            Event::Lost => follower.on_lost(now, effects),
        }
        self.perform(id, now);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        let ids: Vec<PublisherId> = self.publishers.keys().copied().collect();
        for id in ids {
            if let Some(publisher) = self.publishers.get_mut(&id) {
                publisher.follower.tick(now, self.ttl, &mut self.effects);
            }
            if !self.effects.is_empty() {
                self.perform(id, now);
            }
        }
        self.start_replays(now);
    }

    /// What is to be done with sockets.
    pub(crate) fn take_commands(&mut self) -> std::vec::Drain<'_, Command> {
        self.commands.drain(..)
    }

    pub(crate) fn publishers(&self) -> impl Iterator<Item = (PublisherId, &Publisher)> {
        self.publishers.iter().map(|(&id, publisher)| (id, publisher))
    }

    pub(crate) fn table(&self) -> Option<&T> {
        self.table.as_ref()
    }

    pub(crate) fn table_mut(&mut self) -> Option<&mut T> {
        self.table.as_mut()
    }

    pub(crate) fn applier(&self) -> &Applier {
        &self.applier
    }

    /// The number of a tier, a new one if it is the first of its name and there is room.
    pub(crate) fn tier(&mut self, name: &str) -> Option<u8> {
        self.applier.tier(name)
    }

    pub(crate) fn publisher(&self, id: PublisherId) -> Option<&Publisher> {
        self.publishers.get(&id)
    }

    /// Replays under way, and those that wait for their turn.
    pub(crate) fn replays(&self) -> (usize, usize) {
        (self.replaying.len(), self.waiting.len())
    }

    pub(crate) fn pairs(&self) -> Pairs {
        self.pairs
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// What happened with all publishers that there ever were.
    pub(crate) fn totals(&self) -> Numbers {
        let mut totals = self.past.clone();
        for publisher in self.publishers.values() {
            totals.absorb(&publisher.numbers);
        }
        totals
    }

    /// Starts every stream anew: nothing is held of any.
    fn begin_all(&mut self, now: Instant) {
        for (&id, publisher) in &mut self.publishers {
            if publisher.follower.is_replaying() {
                self.commands.push(Command::EndReplay { id });
            }
            let mut follower = Follower::new(None, now);
            follower.set_can_replay(publisher.place.replays.is_some(), now, &mut self.effects);
            follower.on_connected(now, &mut self.effects);
            publisher.follower = follower;
            self.effects.clear();
            let slot = publisher.who.slot;
            self.applier.forget(slot);
            if let Some(table) = &mut self.table {
                table.clear(slot);
                table.set_position(slot, 0);
            }
        }
        self.replaying.clear();
        let wants = |publisher: &Publisher| publisher.follower.wants_replay();
        self.waiting =
            self.publishers.iter().filter(|(_, p)| wants(p)).map(|(&id, _)| id).collect();
        self.queued = self.waiting.iter().copied().collect();
        self.start_replays(now);
    }

    fn empty(&mut self, slot: u16) {
        self.applier.forget(slot);
        if let Some(table) = &mut self.table {
            table.clear(slot);
            table.set_position(slot, 0);
        }
    }

    fn perform(&mut self, id: PublisherId, now: Instant) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Apply(message, position) => self.apply(id, &message, position),
                Effect::Clear(reason) => self.clear(id, reason),
                Effect::EndReplay => self.commands.push(Command::EndReplay { id }),
                Effect::Failed(operation) => {
                    if let Some(publisher) = self.publishers.get_mut(&id) {
                        publisher.numbers.count_error(operation);
                    }
                }
                Effect::Replay => {
                    // A publisher that begins anew while it waits asks once more.
                    if self.queued.insert(id) {
                        self.waiting.push_back(id);
                    }
                }
            }
        }
        self.effects = effects;
        let is_replaying = |p: &Publisher| p.follower.is_replaying();
        if !self.publishers.get(&id).is_some_and(is_replaying) {
            self.replaying.remove(&id);
        }
        self.start_replays(now);
    }

    fn start_replays(&mut self, now: Instant) {
        while self.replaying.len() < MAX_REPLAYS
            && let Some(id) = self.waiting.pop_front()
        {
            self.queued.remove(&id);
            let Some(publisher) = self.publishers.get_mut(&id) else { continue };
            let Some(url) = publisher.place.replays.clone() else { continue };
            if publisher.follower.wants_replay() {
                self.runs += 1;
                let run = self.runs;
                let from = publisher.follower.begin(run, now);
                publisher.numbers.replays += 1;
                self.replaying.insert(id);
                self.commands.push(Command::Replay { id, run, url, from });
            }
        }
    }

    fn clear(&mut self, id: PublisherId, reason: Reason) {
        let Some(publisher) = self.publishers.get_mut(&id) else { return };
        publisher.numbers.count_clear(reason);
        publisher.nameless = false;
        let slot = publisher.who.slot;
        let held = self.table.as_ref().map_or(0, |table| table.len(slot));
        if held > 0 {
            let endpoint = publisher.who.endpoint.as_str();
            tracing::warn!(endpoint, held, reason = reason.text(), "cached blocks are distrusted");
        }
        self.empty(slot);
    }

    fn apply(&mut self, id: PublisherId, message: &Message, position: Position) {
        let Self { publishers, table, applier, engine, pairs, buffers, .. } = self;
        let (Some(publisher), Some(table)) = (publishers.get_mut(&id), table) else { return };
        let Publisher { who, numbers, model, nameless, .. } = publisher;
        let model = message.model.as_deref().or(model.as_deref()).unwrap_or_default();
        table.own(who.slot);
        match decode_into(&message.payload, *engine, std::mem::take(buffers)) {
            Ok(batch) => {
                numbers.applied += 1;
                numbers.malformed += u64::from(batch.malformed());
                if let Some(error) = batch.first_error() {
                    tracing::debug!(endpoint = who.endpoint, error = %error, "an event is malformed");
                }
                let applied = applier.apply(table, who.slot, model, &batch);
                *nameless |= model.is_empty() && applied.stored > 0;
                pairs.stored += applied.stored as u64;
                pairs.removed += applied.removed as u64;
                *buffers = batch.into_buffers();
            }
            Err(error) => {
                numbers.undecodable += 1;
                if numbers.undecodable == 1 {
                    tracing::warn!(
                        endpoint = who.endpoint, error = %error,
                        "a message is no batch of KV-cache events"
                    );
                }
            }
        }
        // Who dies before this leaves blocks that a successor does not believe.
        table.set_position(who.slot, position.to_word());
    }
}

/// Connects, where there is something to connect to.
fn connect(id: PublisherId, who: &Identity, place: &Place, commands: &mut Vec<Command>) {
    if let Some(url) = place.events.clone() {
        let (address, filter) = (who.address, place.filter.clone());
        commands.push(Command::Connect { id, url, address, filter });
    }
}
