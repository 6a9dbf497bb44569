//! The thread that speaks to the server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inlane_kv::MOST_TIERS;
use inlane_segment::table::HeldPair;
use parking_lot::Mutex;
use redis::{RedisResult, cmd};

use super::super::queue::PublisherId;
use super::Status;
use super::address::Address;
use super::layout::{Entry, engine_name};
use super::outbox::{Change, Flow, Outbox};
use super::pass::{Outcome, Pass, Sweep, compare};
use super::server::{BATCH, Server};
use super::view::{Member, View};

/// Between two attempts to connect: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A connection that stood so long was a good one.
const STABLE: Duration = Duration::from_secs(10);
/// How often the server is heard that says what changes, and asked for a sign of life otherwise.
const LISTEN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How often it is looked whether a pass is due.
const LOOK: Duration = Duration::from_millis(500);
/// Between passes: with deaf pods of which the server says what changes; without its doing so; with
/// none.
const PASSES: [Duration; 3] = [
    Duration::from_secs(60),
    // Tests do not wait for that long.
    Duration::from_secs(if cfg!(test) { 1 } else { 10 }),
    Duration::from_secs(300),
];

/// See the [module](self).
pub(super) struct Worker {
    address: Address,
    outbox: Arc<Outbox>,
    status: Arc<Mutex<Status>>,
    view: View,
    /// Own pods whose entries at the server are as the index has them.
    confirmed: BTreeSet<String>,
    /// Own pods of which something was written that may be wrong by now.
    written: BTreeSet<String>,
    /// Deaf pods of which all that the server has was read.
    read: BTreeSet<PublisherId>,
    has_begun: bool,
    /// The last pause after changes were dropped, until all is written.
    behind: Option<Duration>,
    pass: Option<Pass>,
    /// Underway when blocks were taken out whose engine hashes are not known.
    sweep: Option<Sweep>,
    pass_at: Instant,
    look_at: Instant,
    listen_at: Instant,
}

impl Worker {
    pub(super) fn new(
        address: Address,
        outbox: Arc<Outbox>,
        status: Arc<Mutex<Status>>,
        view: View,
    ) -> Self {
        let now = Instant::now();
        Self {
            address,
            outbox,
            status,
            view,
            confirmed: BTreeSet::new(),
            written: BTreeSet::new(),
            read: BTreeSet::new(),
            has_begun: false,
            behind: None,
            pass: None,
            sweep: None,
            pass_at: now,
            look_at: now,
            listen_at: now,
        }
    }

    /// Runs until the outbox is stopped.
    pub(super) fn run(mut self) {
        let mut pause = PAUSE.0;
        while !self.outbox.is_stopped() {
            let served = Server::connect(&self.address).and_then(|mut server| {
                self.status.lock().connect(self.address.shown());
                let began = Instant::now();
                let served = self.serve(&mut server);
                if began.elapsed() >= STABLE {
                    pause = PAUSE.0;
                }
                served
            });
            self.outbox.cut();
            self.abandon_pass();
            match served {
                Ok(()) => return,
                Err(error) => self.status.lock().fail(self.address.shown(), &error),
            }
            if self.outbox.wait_for_stop(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Serves until the outbox is stopped.
    fn serve(&mut self, server: &mut Server) -> RedisResult<()> {
        self.begin();
        let mut changes = Vec::new();
        loop {
            let next = self.pass.as_ref().map_or(self.look_at, |pass| pass.next_at);
            let next = self.sweep.as_ref().map_or(next, |sweep| sweep.next_at.min(next));
            let wait = next.min(self.listen_at).saturating_duration_since(Instant::now());
            match self.outbox.take(BATCH, &mut changes, wait) {
                Flow::Stopped => return Ok(()),
                Flow::Cut => {
                    changes.clear();
                    if self.behind.is_none() {
                        tracing::warn!(
                            server = self.address.shown(),
                            "the shared index is behind: what this control plane holds is written \
                             anew"
                        );
                    }
                    // More than the server takes does not become less by being written at once.
                    let pause = self.behind.map_or(PAUSE.0, |pause| (pause * 2).min(PAUSE.1));
                    self.behind = Some(pause);
                    if self.outbox.wait_for_stop(pause) {
                        return Ok(());
                    }
                    self.begin();
                }
                Flow::Flows => self.send(server, &mut changes)?,
            }
            let now = Instant::now();
            if now >= self.listen_at {
                server.listen()?;
                self.listen_at = now + if server.tells() { LISTEN.0 } else { LISTEN.1 };
            }
            self.follow(server)?;
            self.walk(server)?;
            self.sweep(server)?;
            self.status.lock().note(server);
        }
    }

    /// Lets changes flow, and believes nothing of what the server has.
    fn begin(&mut self) {
        self.abandon_pass();
        self.sweep = None;
        self.outbox.begin();
        self.view.expire();
        if std::mem::replace(&mut self.has_begun, true) && self.view.look().is_some() {
            let own = self.view.members().filter(|(_, member)| !member.is_deaf);
            self.written = own.map(|(pod, _)| pod.to_owned()).collect();
        }
        self.confirmed.clear();
        self.read.clear();
        let now = Instant::now();
        (self.pass_at, self.look_at, self.listen_at) = (now, now, now);
    }

    fn abandon_pass(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.outbox.put_back(pass.clearing);
        }
    }

    fn send(&mut self, server: &mut Server, changes: &mut Vec<Change>) -> RedisResult<()> {
        let (mut written, mut removed) = (0, 0);
        for change in changes.drain(..) {
            match change {
                Change::Held { pod, tier, engine, keys } => {
                    let mut fields = Fields::of(&pod);
                    let Some(field) = fields.get(&mut self.view, tier) else { continue };
                    let (mut before, mut order) = (None, 0);
                    for (&engine, &key) in engine.iter().zip(&keys) {
                        order = if before == Some(engine) { order + 1 } else { 0 };
                        before = Some(engine);
                        let name = engine_name(engine);
                        server.add(cmd("ZADD").arg(name).arg(order).arg(key))?;
                        server.add(cmd("HSET").arg(key).arg(field).arg(""))?;
                    }
                    written += keys.len() as u64;
                }
                Change::Released { pod, tier, engine, keys } => {
                    let mut fields = Fields::of(&pod);
                    let Some(field) = fields.get(&mut self.view, tier) else { continue };
                    for &key in &keys {
                        server.add(cmd("HDEL").arg(key).arg(field))?;
                    }
                    server.add_prune(&engine_name(engine))?;
                    removed += keys.len() as u64;
                }
                Change::Cleared { pod, held } => {
                    let mut fields = Fields::of(&pod);
                    for &(tier, key) in &held {
                        let Some(field) = fields.get(&mut self.view, tier) else { continue };
                        server.add(cmd("HDEL").arg(key).arg(field))?;
                    }
                    removed += held.len() as u64;
                }
            }
        }
        server.flush()?;
        let mut status = self.status.lock();
        status.written += written;
        status.removed += removed;
        Ok(())
    }

    /// Sends what waits.
    fn drain(&mut self, server: &mut Server) -> RedisResult<()> {
        let mut changes = Vec::new();
        self.outbox.take(usize::MAX, &mut changes, Duration::ZERO);
        self.send(server, &mut changes)
    }

    /// Reads what others have changed.
    fn follow(&mut self, server: &mut Server) -> RedisResult<()> {
        let changed = server.take_changed();
        if changed.all {
            self.abandon_pass();
            self.confirmed.clear();
            self.read.clear();
            self.look_at = Instant::now();
        }
        let keys: Vec<u64> = changed.keys.into_iter().collect();
        for keys in keys.chunks(BATCH / 2) {
            let Some(reader) = self.view.look() else {
                // While the segment moves; a pass makes up for it.
                self.read.clear();
                return Ok(());
            };
            let outcome = compare(server, &mut self.view, &reader, keys, self.pass.as_mut())?;
            self.status.lock().add(keys.len(), outcome);
        }
        Ok(())
    }

    /// Goes on with a pass, or begins one that is due.
    fn walk(&mut self, server: &mut Server) -> RedisResult<()> {
        let now = Instant::now();
        if self.pass.is_none() && now >= self.look_at {
            self.look_at = now + LOOK;
            self.view.expire();
            if self.view.look().is_some() && self.is_due(now) {
                self.begin_pass(server)?;
            }
        }
        let Some(pass) = self.pass.as_mut().filter(|pass| now >= pass.next_at) else {
            return Ok(());
        };
        let before = pass.keys;
        let (is_last, outcome) = pass.slice(server, &mut self.view)?;
        let read = pass.keys - before;
        self.status.lock().add(read as usize, outcome);
        if is_last && let Some(pass) = self.pass.take() {
            self.end_pass(server, pass);
        }
        Ok(())
    }

    /// Goes on with a sweep.
    fn sweep(&mut self, server: &mut Server) -> RedisResult<()> {
        let Some(sweep) = self.sweep.as_mut().filter(|sweep| Instant::now() >= sweep.next_at)
        else {
            return Ok(());
        };
        if sweep.slice(server)? {
            self.sweep = None;
        }
        Ok(())
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_new = |(pod, member): (&str, Member)| match member.is_deaf {
            true => !self.read.contains(&member.id),
            false => member.is_settled && !self.confirmed.contains(pod),
        };
        now >= self.pass_at || self.outbox.has_cleared() || self.view.members().any(is_new)
    }

    /// Writes what the server may lack, and begins to walk over what it has.
    fn begin_pass(&mut self, server: &mut Server) -> RedisResult<()> {
        // Before the walk: what changes behind its back is told.
        server.set_tells(!self.view.deaf().is_empty())?;
        let own = self.view.members().filter(|(pod, member)| {
            !member.is_deaf && member.is_settled && !self.confirmed.contains(*pod)
        });
        let own: Vec<(String, Member)> =
            own.map(|(pod, member)| (pod.to_owned(), member)).collect();
        // Others may know more of a pod of which only a part is known here. Unless what is wrong there
        // may be what was written here.
        let is_doubted =
            |(pod, member): &&(String, Member)| !member.is_partial || self.written.contains(pod);
        let doubted = own.iter().filter(is_doubted).map(|(pod, _)| pod.clone()).collect();
        let is_first = self.confirmed.is_empty() && self.read.is_empty();
        let mut pass = Pass::new(self.outbox.take_cleared(), doubted, &self.view, is_first);
        pass.written.extend(own.iter().map(|(pod, _)| pod.clone()));
        self.pass = Some(pass);
        for (pod, member) in own {
            let mut fields = Fields::of(&pod);
            let held = self.view.held(member.id);
            for &HeldPair { tier, engine, key } in &held {
                let Some(field) = fields.get(&mut self.view, tier) else { continue };
                if let Some(engine) = engine {
                    server.add(cmd("ZADD").arg(engine_name(engine)).arg(0).arg(key))?;
                }
                server.add(cmd("HSET").arg(key).arg(field).arg(""))?;
            }
            server.flush()?;
            self.status.lock().written += held.len() as u64;
            self.drain(server)?;
        }
        Ok(())
    }

    fn end_pass(&mut self, server: &Server, mut pass: Pass) {
        self.view.expire();
        let lacking = pass.finish(&mut self.view);
        let is_settled = |pod: &String| self.view.member(pod).is_some_and(|m| m.is_settled);
        let mut written = std::mem::take(&mut pass.written);
        written.retain(is_settled);
        self.confirmed.retain(is_settled);
        for pod in lacking {
            self.confirmed.remove(&pod);
        }
        self.confirmed.extend(written);
        self.read = std::mem::take(&mut pass.deaf);
        let period = match (self.read.is_empty(), server.tells()) {
            (true, _) => PASSES[2],
            (false, false) => PASSES[1],
            (false, true) => PASSES[0],
        };
        self.behind = None;
        if pass.leaves_names || !pass.clearing.is_empty() {
            self.sweep = Some(Sweep::new());
        }
        let now = Instant::now();
        (self.pass_at, self.look_at) = (now + period, now + LOOK);
        self.status.lock().end_pass(pass.keys, pass.began.elapsed());
    }
}

/// Fields of one pod, made once for each tier.
struct Fields<'a> {
    pod: &'a str,
    by_tier: [Option<String>; MOST_TIERS],
}

impl<'a> Fields<'a> {
    fn of(pod: &'a str) -> Self {
        Self { pod, by_tier: Default::default() }
    }

    fn get(&mut self, view: &mut View, tier: u8) -> Option<&str> {
        let known = self.by_tier.get_mut(usize::from(tier))?;
        if known.is_none() {
            if view.tier_name(tier).is_none() {
                // It is newer than the last look.
                view.look();
            }
            *known = Some(Entry::new(self.pod, view.tier_name(tier)?).field());
        }
        known.as_deref()
    }
}

impl Status {
    fn add(&mut self, keys: usize, outcome: Outcome) {
        self.keys_read += keys as u64;
        self.removed += outcome.removed;
        self.no_room += outcome.no_room;
    }
}
