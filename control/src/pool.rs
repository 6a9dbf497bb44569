//! The pool as it is published: members, their slots, their rows.
//!
//! Owns the segment's writer. Order is what keeps readers right at every moment: a slot's row is
//! zero before the topology names the slot, and a slot is retired only after a topology without it
//! is out; it is reused once every live proxy has accepted such a topology and holds no claim.
//!
//! A restarted control plane finds slots, rows and topology in the segment and goes on with them:
//! the same endpoint at the same address keeps its slot, and a proxy notices nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use inlane_core::endpoint::Slot;
use inlane_core::snapshot::{
    ConfigDocument, MetricsRow, Pool, ROW_WORDS, Topology, TopologyEndpoint,
};
use inlane_engine::{EngineSample, LoraSample};
use inlane_segment::{
    Document, Error, LedgerSet, MAX_SLOTS, Opened, Shape, SlotGeneration, SlotId, SlotState,
    Writer, boottime_ns,
};

use crate::adapters::Adapters;
use crate::discovery::Member;

/// The pool and its segment.
pub(crate) struct PublishedPool {
    writer: Writer,
    ledgers: LedgerSet,
    pool: Pool,
    members: BTreeMap<String, Tracked>,
    /// Endpoint id by slot index.
    by_slot: HashMap<u32, String>,
    /// Slots of members that have gone, until a topology without them is out.
    leaving: Vec<SlotId>,
    /// Slots that no topology names since the generation beside them.
    retired: Vec<(SlotId, u64)>,
    adapters: Adapters,
    topology: Published,
    config: Published,
    counters: PoolCounters,
}

/// A published document.
#[derive(Debug, Default)]
struct Published {
    generation: u64,
    bytes: Vec<u8>,
}

/// Counts of things that should not happen often.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PoolCounters {
    /// Adapter names that found no bit.
    pub(crate) adapters_left_out: u64,
    /// Members that found no slot.
    pub(crate) members_left_out: u64,
    /// Scrapes that came back for an endpoint that has gone.
    pub(crate) late_scrapes: u64,
}

/// One member with its place and numbers.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) member: Member,
    pub(crate) slot: SlotId,
    pub(crate) row: MetricsRow,
    lora: LoraSample,
    /// Why the last scrape failed; `None` when it did not.
    pub(crate) error: Option<String>,
    /// Names of configured metrics that the last page lacked.
    pub(crate) missing: u32,
}

impl Tracked {
    /// How long ago the last useful scrape was; `None` before the first.
    pub(crate) fn age(&self, now_ms: u64) -> Option<Duration> {
        let at = self.row.scraped_at_ms;
        (at != 0).then(|| Duration::from_millis(now_ms.saturating_sub(at)))
    }
}

impl PublishedPool {
    /// Opens the segment and takes over what is in it.
    pub(crate) fn open(dir: &Path, slots: u32, pool: Pool) -> Result<(Self, Opened), Error> {
        let shape = Shape { slots, row_words: ROW_WORDS as u32, ..Shape::default() };
        let (writer, opened) = Writer::open_or_create(dir, shape)?;
        let ledgers = LedgerSet::open(dir)?;
        let mut this = Self {
            topology: published(&writer, Document::Topology),
            config: published(&writer, Document::Config),
            writer,
            ledgers,
            pool,
            members: BTreeMap::new(),
            by_slot: HashMap::new(),
            leaving: Vec::new(),
            retired: Vec::new(),
            adapters: Adapters::default(),
            counters: PoolCounters::default(),
        };
        this.recover();
        Ok((this, opened))
    }

    /// Takes over members whose slot is live in the generation that the topology names; what is
    /// live beside them is retired.
    fn recover(&mut self) {
        let topology: Topology = serde_json::from_slice(&self.topology.bytes).unwrap_or_default();
        let mut slots: HashMap<SlotId, SlotState> = self.writer.slots().collect();
        for endpoint in topology.endpoints {
            let generation = u16::try_from(endpoint.slot_generation).ok();
            let generation = generation.and_then(SlotGeneration::new).unwrap_or_default();
            let slot = SlotId { index: endpoint.slot, generation };
            let Ok(address) = endpoint.address.parse() else { continue };
            let twice = self.members.contains_key(&endpoint.id());
            if twice || slots.get(&slot) != Some(&SlotState::Live) {
                continue;
            }
            slots.remove(&slot);
            let member = Member {
                namespace: endpoint.namespace,
                name: endpoint.name,
                pod_name: endpoint.pod_name,
                address,
                port: endpoint.port,
                rank: endpoint.rank,
                labels: endpoint.labels,
            };
            let mut words = [0; ROW_WORDS];
            self.writer.row(slot.index, &mut words);
            self.track(member, slot, MetricsRow::from_words(&words));
        }
        for (slot, state) in slots {
            match state {
                SlotState::Live => self.retire(slot),
                SlotState::Retired => self.retired.push((slot, self.topology.generation)),
                SlotState::Free => {}
            }
        }
        self.adapters = Adapters::new(topology.adapters);
    }

    /// Makes the pool consist of `members` and publishes it where that is a change.
    pub(crate) fn set_members(&mut self, members: Vec<Member>) -> Result<(), Error> {
        let mut known = std::mem::take(&mut self.members);
        self.by_slot.clear();
        for member in members {
            // Another address is another server: its numbers and claims start anew.
            let same = |known: &Tracked| {
                known.member.address == member.address && known.member.port == member.port
            };
            match known.remove(&member.id()) {
                Some(tracked) if same(&tracked) => {
                    self.by_slot.insert(tracked.slot.index, member.id());
                    self.members.insert(member.id(), Tracked { member, ..tracked });
                    continue;
                }
                Some(moved) => self.leaving.push(moved.slot),
                None => {}
            }
            match self.assign() {
                Some(slot) => self.track(member, slot, MetricsRow::default()),
                None => {
                    self.counters.members_left_out += 1;
                    tracing::error!(endpoint = member.id(), "no slot is left for the endpoint");
                }
            }
        }
        self.leaving.extend(known.into_values().map(|tracked| tracked.slot));
        self.publish_topology()?;
        // A failure above leaves them to the next change: until then a topology names them.
        for slot in std::mem::take(&mut self.leaving) {
            self.retire(slot);
        }
        Ok(())
    }

    /// A slot, in a larger segment if need be.
    fn assign(&mut self) -> Option<SlotId> {
        if let Some(slot) = self.writer.assign_slot() {
            return Some(slot);
        }
        let shape = self.writer.shape();
        if shape.slots >= MAX_SLOTS {
            return None;
        }
        let slots = shape.slots.saturating_mul(2).min(MAX_SLOTS);
        match self.grow(Shape { slots, ..shape }) {
            Ok(()) => self.writer.assign_slot(),
            Err(error) => {
                tracing::error!(error = %error, slots, "the segment cannot grow");
                None
            }
        }
    }

    fn track(&mut self, member: Member, slot: SlotId, row: MetricsRow) {
        self.by_slot.insert(slot.index, member.id());
        let lora = LoraSample::default();
        let tracked = Tracked { member, slot, row, lora, error: None, missing: 0 };
        self.members.insert(tracked.member.id(), tracked);
    }

    fn retire(&mut self, slot: SlotId) {
        if self.writer.retire_slot(slot) {
            self.retired.push((slot, self.topology.generation));
        }
    }

    /// Frees retired slots that no proxy can still use, and looks for new and dead proxies.
    pub(crate) fn reclaim(&mut self) -> Result<(), Error> {
        self.ledgers.refresh()?;
        let accepted = self.ledgers.accepted_topology();
        let Self { writer, ledgers, retired, .. } = self;
        retired.retain(|&(slot, since)| {
            let unknown = accepted.is_none_or(|accepted| accepted >= since);
            !(unknown && ledgers.is_idle(slot.index) && writer.free_slot(slot))
        });
        Ok(())
    }

    /// Publishes the configuration; returns its generation. The same one is not published again.
    pub(crate) fn set_config(&mut self, config: &ConfigDocument) -> Result<u64, Error> {
        let bytes = serde_json::to_vec(config).unwrap_or_default();
        if bytes != self.config.bytes || self.config.generation == 0 {
            let generation = self.publish(Document::Config, &bytes)?;
            self.config = Published { generation, bytes };
        }
        Ok(self.config.generation)
    }

    /// The configuration that the segment held or holds.
    pub(crate) fn found_config(&self) -> Option<ConfigDocument> {
        serde_json::from_slice(&self.config.bytes).ok()
    }

    /// Applies a page that was read.
    pub(crate) fn apply(&mut self, slot: Slot, sample: &EngineSample) -> Result<(), Error> {
        let Some(id) = self.by_slot.get(&slot.index) else {
            self.counters.late_scrapes += 1;
            return Ok(());
        };
        let Some(tracked) = self.members.get_mut(id).filter(|t| slot_of(t.slot) == slot) else {
            self.counters.late_scrapes += 1;
            return Ok(());
        };
        tracked.error = None;
        tracked.missing = sample.missing.len();
        if !sample.is_useful() {
            return Ok(());
        }
        let row = &mut tracked.row;
        let update = |value: &mut u32, new: Option<u32>| *value = new.unwrap_or(*value);
        update(&mut row.waiting, sample.waiting);
        update(&mut row.running, sample.running);
        update(&mut row.cache_block_size, sample.cache_block_size);
        update(&mut row.cache_num_blocks, sample.cache_num_blocks);
        row.kv_usage = sample.kv_usage.unwrap_or(row.kv_usage);
        row.scraped_at_ms = now_ms();
        row.scrapes += 1;
        let lora = sample.lora.as_ref().filter(|&lora| *lora != tracked.lora).cloned();
        let row = *row;
        match lora {
            Some(lora) => {
                let id = id.clone();
                self.apply_lora(&id, lora)
            }
            None => {
                self.writer.publish_row(slot.index, &row.to_words());
                Ok(())
            }
        }
    }

    /// Applies changed LoRA state: the table of names goes out before a row that uses it.
    fn apply_lora(&mut self, id: &str, lora: LoraSample) -> Result<(), Error> {
        let Self { members, adapters, counters, .. } = self;
        let others = members
            .iter()
            .filter(|(other, _)| other.as_str() != id)
            .fold(0, |bits, (_, t)| bits | t.row.active_models | t.row.waiting_models);
        let active = adapters.set(lora.active(), || others);
        let waiting = adapters.set(lora.waiting(), || others | active.set);
        counters.adapters_left_out += u64::from(active.left_out + waiting.left_out);
        let Some(tracked) = members.get_mut(id) else { return Ok(()) };
        tracked.row.active_models = active.set;
        tracked.row.waiting_models = waiting.set;
        tracked.row.max_active_models = lora.max_adapters.unwrap_or(tracked.row.max_active_models);
        tracked.lora = lora;
        let (slot, words) = (tracked.slot.index, tracked.row.to_words());
        if active.table_changed || waiting.table_changed {
            self.publish_topology()?;
        }
        self.writer.publish_row(slot, &words);
        Ok(())
    }

    /// Notes that a page could not be had.
    pub(crate) fn note_failure(&mut self, slot: Slot, error: String) {
        let tracked = self.by_slot.get(&slot.index).and_then(|id| self.members.get_mut(id));
        if let Some(tracked) = tracked.filter(|t| slot_of(t.slot) == slot) {
            tracked.error = Some(error);
        }
    }

    /// Says that the control plane is alive.
    pub(crate) fn beat(&mut self) {
        self.writer.beat();
    }

    fn publish_topology(&mut self) -> Result<(), Error> {
        let endpoints = self.members.values().map(|tracked| {
            let member = &tracked.member;
            TopologyEndpoint {
                namespace: member.namespace.clone(),
                name: member.name.clone(),
                pod_name: member.pod_name.clone(),
                address: member.address.to_string(),
                port: member.port,
                rank: member.rank,
                labels: member.labels.clone(),
                slot: tracked.slot.index,
                slot_generation: tracked.slot.generation.number().into(),
            }
        });
        let topology = Topology {
            pool: self.pool.clone(),
            endpoints: endpoints.collect(),
            adapters: self.adapters.names().to_vec(),
            scalars: Vec::new(),
        };
        // Strings and integers in structs: there is nothing that JSON could not express.
        let bytes = serde_json::to_vec(&topology).unwrap_or_default();
        if bytes != self.topology.bytes || self.topology.generation == 0 {
            let generation = self.publish(Document::Topology, &bytes)?;
            self.topology = Published { generation, bytes };
        }
        Ok(())
    }

    /// Publishes a document, in a larger segment if need be.
    fn publish(&mut self, kind: Document, bytes: &[u8]) -> Result<u64, Error> {
        match self.writer.publish_document(kind, bytes) {
            Err(Error::DocumentTooLarge { .. }) => {
                let mut shape = self.writer.shape();
                for (capacity, of) in shape.documents.iter_mut().zip(Document::ALL) {
                    if of == kind {
                        *capacity = (bytes.len() as u64).next_power_of_two();
                    }
                }
                self.grow(shape)?;
                self.writer.publish_document(kind, bytes)
            }
            result => result,
        }
    }

    fn grow(&mut self, shape: Shape) -> Result<(), Error> {
        let allocation = self.writer.grow(shape)?;
        tracing::info!(
            slots = shape.slots,
            required_bytes = allocation.required,
            free_bytes = allocation.free,
            "segment grew"
        );
        Ok(())
    }

    /// The members, ordered by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Tracked> {
        self.members.values()
    }

    /// Names of the LoRA adapters, by bit.
    pub(crate) fn adapter_names(&self) -> &[String] {
        self.adapters.names()
    }

    /// The pool's name and namespace.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Generation of the topology in force; 0 before the first.
    pub(crate) fn topology_generation(&self) -> u64 {
        self.topology.generation
    }

    /// Generation of the configuration in force; 0 before the first.
    pub(crate) fn config_generation(&self) -> u64 {
        self.config.generation
    }

    /// Slots that wait for their last claims.
    pub(crate) fn retired_slots(&self) -> usize {
        self.retired.len()
    }

    /// The live proxies.
    pub(crate) fn ledgers(&self) -> &LedgerSet {
        &self.ledgers
    }

    /// The counters.
    pub(crate) fn counters(&self) -> PoolCounters {
        self.counters
    }

    /// Bytes of the segment's data file.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.writer.shape().bytes().unwrap_or(0)
    }
}

impl Tracked {
    /// The slot as the core names it.
    pub(crate) fn core_slot(&self) -> Slot {
        slot_of(self.slot)
    }

    /// Where requests go.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.member.address, self.member.port)
    }
}

/// The clock of rows: milliseconds since boot, suspension included.
pub(crate) fn now_ms() -> u64 {
    boottime_ns() / 1_000_000
}

fn slot_of(id: SlotId) -> Slot {
    Slot { index: id.index, generation: id.generation.number().into() }
}

fn published(writer: &Writer, kind: Document) -> Published {
    let document = writer.document(kind);
    document
        .map_or_else(Published::default, |d| Published { generation: d.generation, bytes: d.bytes })
}

#[cfg(test)]
mod tests;
