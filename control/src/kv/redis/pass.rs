//! What the server holds, compared with the index: key by key, or all of it in slices.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inlane_segment::mapped::MappedWords;
use inlane_segment::table::MirrorReader;
use redis::{RedisResult, cmd};

use super::super::queue::PublisherId;
use super::layout::{Entry, is_engine_name, key_of};
use super::server::{Fields, Server};
use super::view::View;

/// Blocks of an own pod that may be missing at the server for having come or gone meanwhile: so
/// many, or one of so many.
const SLACK: (u64, u64) = (64, 16);

/// Fields that are read at a time, if they are not those of one key.
const FIELDS: usize = 1 << 16;

/// One walk over all of the server's keys.
pub(super) struct Pass {
    pub(super) cursor: u64,
    /// Pods whose entries go, of whatever form, unless they have come since.
    pub(super) clearing: BTreeSet<Arc<str>>,
    /// Pods whose entries, of the form that is written here, go if the index does not have them.
    pub(super) doubted: BTreeSet<String>,
    /// Own pods of which everything was written when it began.
    pub(super) written: BTreeSet<String>,
    /// Deaf pods when it began.
    pub(super) deaf: BTreeSet<PublisherId>,
    /// Keys that are there and of which some are lent.
    seen: HashSet<u64>,
    /// Entries that are as the index has them, by slot.
    found: HashMap<u16, u64>,
    pub(super) began: Instant,
    /// Whether it is the first, which everything waits for.
    hurries: bool,
    /// When the next slice is due.
    pub(super) next_at: Instant,
    pub(super) keys: u64,
    /// Whether entries were taken out for which engine hashes may stand yet.
    pub(super) leaves_names: bool,
}

/// What came of a comparison.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Outcome {
    /// Entries taken out of the server.
    pub(super) removed: u64,
    /// Blocks lent that found no room.
    pub(super) no_room: u64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.removed += other.removed;
        self.no_room += other.no_room;
    }
}

impl Pass {
    pub(super) fn new(
        clearing: BTreeSet<Arc<str>>,
        doubted: BTreeSet<String>,
        view: &View,
        hurries: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            cursor: 0,
            clearing,
            doubted,
            written: BTreeSet::new(),
            deaf: view.deaf().values().copied().collect(),
            seen: HashSet::new(),
            found: HashMap::new(),
            began: now,
            hurries,
            next_at: now,
            keys: 0,
            leaves_names: false,
        }
    }

    /// The next slice; answers whether it was the last.
    pub(super) fn slice(
        &mut self,
        server: &mut Server,
        view: &mut View,
    ) -> RedisResult<(bool, Outcome)> {
        let Some(reader) = view.look() else {
            self.next_at = Instant::now() + Duration::from_millis(5);
            return Ok((false, Outcome::default()));
        };
        let began = Instant::now();
        let (next, names) = server.scan(self.cursor, "[0-9]*")?;
        let mut keys: Vec<u64> = names.iter().filter_map(|name| key_of(name)).collect();
        keys.sort_unstable();
        keys.dedup();
        self.keys += keys.len() as u64;
        let outcome = compare(server, view, &reader, &keys, Some(self))?;
        self.leaves_names |= outcome.removed > 0;
        self.cursor = next;
        self.next_at = if self.hurries { Instant::now() } else { after(began) };
        Ok((next == 0, outcome))
    }

    /// Takes back what is not there any more. Answers the pods that lack much of what they hold.
    pub(super) fn finish(&self, view: &mut View) -> Vec<String> {
        let Some(reader) = view.look() else { return Vec::new() };
        for &id in view.deaf().values() {
            let mut gone: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            for (tier, key) in view.lent(id) {
                if !self.seen.contains(&key) {
                    gone.entry(tier).or_default().push(key);
                }
            }
            for (tier, keys) in gone {
                for keys in keys.chunks(1_024) {
                    view.take_back(id, tier, keys);
                }
            }
        }
        let lacking = view.members().filter(|(_, member)| {
            let held = reader.len(member.slot) as u64;
            let found = self.found.get(&member.slot).copied().unwrap_or(0);
            !member.is_deaf && held > found + SLACK.0.max(held / SLACK.1)
        });
        lacking.map(|(pod, _)| pod.to_owned()).collect()
    }
}

/// One walk over the names of engine hashes, for those that stand for nothing any more.
pub(super) struct Sweep {
    cursor: u64,
    /// When the next slice is due.
    pub(super) next_at: Instant,
}

impl Sweep {
    pub(super) fn new() -> Self {
        Self { cursor: 0, next_at: Instant::now() }
    }

    /// The next slice; answers whether it was the last.
    pub(super) fn slice(&mut self, server: &mut Server) -> RedisResult<bool> {
        let began = Instant::now();
        let (next, names) = server.scan(self.cursor, "engine:*")?;
        for name in names.iter().filter_map(|name| is_engine_name(name)) {
            server.add_prune(name)?;
        }
        server.flush()?;
        self.cursor = next;
        self.next_at = after(began);
        Ok(next == 0)
    }
}

/// When to go on after something that began at that time: three quarters of the time are the
/// server's and ours for something else.
fn after(began: Instant) -> Instant {
    let now = Instant::now();
    now + (now - began).min(Duration::from_millis(20)) * 3
}

/// Brings the index up to what the server has of deaf pods under these keys, and takes out of the
/// server what a pass says.
pub(super) fn compare(
    server: &mut Server,
    view: &mut View,
    reader: &MirrorReader<MappedWords>,
    keys: &[u64],
    mut pass: Option<&mut Pass>,
) -> RedisResult<Outcome> {
    let lengths = server.lengths(keys)?;
    let mut outcome = Outcome::default();
    let mut at = 0;
    while at < keys.len() {
        // As many as are read at a time, but one at least.
        let mut total = 0;
        let fits = |length: &&Option<usize>| {
            total += length.unwrap_or(0);
            total <= FIELDS
        };
        let next = at + lengths.iter().skip(at).take_while(fits).count().max(1);
        let group: Vec<u64> = keys
            .iter()
            .zip(&lengths)
            .take(next)
            .skip(at)
            .filter_map(|(&key, length)| length.map(|_| key))
            .collect();
        let fields = server.fields(&group)?;
        outcome += compare_fields(server, view, reader, &group, &fields, pass.as_deref_mut())?;
        at = next;
    }
    if let Some(pass) = pass.filter(|_| !view.deaf().is_empty()) {
        // What cannot be read is there too.
        pass.seen.extend(keys.iter().filter(|&&key| !lent(reader, view, key).is_empty()));
    }
    Ok(outcome)
}

fn compare_fields(
    server: &mut Server,
    view: &mut View,
    reader: &MirrorReader<MappedWords>,
    keys: &[u64],
    fields: &[Fields],
    mut pass: Option<&mut Pass>,
) -> RedisResult<Outcome> {
    let mut outcome = Outcome::default();
    let mut lend: BTreeMap<(PublisherId, u8), Vec<u64>> = BTreeMap::new();
    let mut back: BTreeMap<(PublisherId, u8), Vec<u64>> = BTreeMap::new();
    let (mut wanted, mut stale) = (Vec::new(), Vec::new());
    for (key, fields) in keys.iter().zip(fields) {
        let Some(fields) = fields else { continue };
        wanted.clear();
        stale.clear();
        for field in fields {
            let Some(entry) = Entry::read(field) else { continue };
            let pod = entry.pod_identifier.as_ref();
            let member = view.member(pod);
            let own = member.filter(|member| !member.is_deaf);
            let tier = view.tier(entry.tier());
            let holds = |(slot, tier)| reader.holds(slot, tier, *key);
            let is_true =
                !entry.speculative && own.map(|own| own.slot).zip(tier).is_some_and(holds);
            if let Some(pass) = pass.as_deref_mut() {
                let is_doubted = own.is_some() && entry.is_plain() && pass.doubted.contains(pod);
                if (is_doubted || pass.clearing.contains(pod)) && !is_true {
                    stale.push(field.as_slice());
                    continue;
                }
                if let Some(own) = own.filter(|_| is_true && entry.is_plain()) {
                    *pass.found.entry(own.slot).or_default() += 1;
                }
            }
            let deaf = member.filter(|member| member.is_deaf && !entry.speculative);
            if let Some(deaf) = deaf
                && let Some(tier) = tier.or_else(|| view.learn_tier(entry.tier()))
            {
                wanted.push((deaf.slot, tier));
            }
        }
        if !stale.is_empty() {
            let mut command = cmd("HDEL");
            command.arg(*key).arg(&stale);
            server.add(&command)?;
            outcome.removed += stale.len() as u64;
        }
        if !view.deaf().is_empty() {
            let have = lent(reader, view, *key);
            let id = |slot| view.deaf().get(slot).copied();
            wanted.sort_unstable();
            wanted.dedup();
            for place in wanted.iter().filter(|place| !have.contains(place)) {
                if let Some(id) = id(&place.0) {
                    lend.entry((id, place.1)).or_default().push(*key);
                }
            }
            for place in have.iter().filter(|place| !wanted.contains(place)) {
                if let Some(id) = id(&place.0) {
                    back.entry((id, place.1)).or_default().push(*key);
                }
            }
        }
    }
    server.flush()?;
    for ((id, tier), keys) in back {
        view.take_back(id, tier, &keys);
    }
    for ((id, tier), keys) in lend {
        outcome.no_room += view.lend(id, tier, &keys) as u64;
    }
    Ok(outcome)
}

/// Who of the deaf pods holds a key, and in which tier.
fn lent(reader: &MirrorReader<MappedWords>, view: &View, key: u64) -> Vec<(u16, u8)> {
    let mut holders = Vec::new();
    reader.runs(&[key], |run| {
        run.for_each(|slot, tier| {
            if view.deaf().contains_key(&slot) {
                holders.push((slot, tier));
            }
        });
        ControlFlow::Break(())
    });
    holders
}
