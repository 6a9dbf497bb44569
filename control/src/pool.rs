//! The pool as it is published: members, their slots, their rows.
//!
//! Owns the segment's writer. Order is what keeps readers right at every moment: a slot's row is
//! zero before the topology names the slot, and a slot is retired only after a topology without it
//! is out; it is reused once every live proxy has accepted such a topology and holds no claim.
//!
//! A restarted control plane finds slots, rows and topology in the segment and goes on with them:
//! the same endpoint at the same address keeps its slot, and a proxy notices nothing.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use inlane_core::endpoint::{Endpoint, Slot};
use inlane_core::snapshot::{
    ConfigDocument, IndexDocument, MAX_SCALARS, MetricsRow, Pool, ROW_WORDS, ScalarKey, Topology,
    TopologyEndpoint,
};
use inlane_engine::LoraSample;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::MirrorSpec;
use inlane_segment::{
    Document, Error, LedgerSet, MAX_SLOTS, Opened, Shape, SlotGeneration, SlotId, SlotState,
    Writer, boottime_ns,
};

use crate::adapters::Adapters;
use crate::discovery::Member;
use crate::kv::{self, Mover};

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
    scalars: Vec<ScalarKey>,
    topology: Published,
    config: Published,
    counters: PoolCounters,
    /// Bytes that the index may take, and who keeps it while there is one.
    index: (u64, Option<Mover>),
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
    /// Models that the engine says it serves.
    served: Vec<String>,
    /// Why a page could not be had the last time, with the position of its source.
    error: Option<(u16, String)>,
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
            scalars: Vec::new(),
            counters: PoolCounters::default(),
            index: (0, None),
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
                metrics: None,
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
        self.scalars = topology.scalars;
        self.scalars.truncate(MAX_SCALARS);
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
        let served = Vec::new();
        let tracked = Tracked { member, slot, row, lora, served, error: None, missing: 0 };
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

    /// Publishes the latency models.
    pub(crate) fn set_model(&mut self, model: &[u8]) -> Result<u64, Error> {
        self.publish(Document::Model, model)
    }

    /// Publishes with what parameters the keys of the index are made.
    pub(crate) fn set_index(&mut self, index: &IndexDocument) -> Result<u64, Error> {
        let bytes = serde_json::to_vec(index).unwrap_or_default();
        self.publish(Document::Index, &bytes)
    }

    /// The parameters that the segment held or holds.
    pub(crate) fn found_index(&self) -> Option<IndexDocument> {
        serde_json::from_slice(&self.writer.document(Document::Index)?.bytes).ok()
    }

    /// Room for an index of at most `bytes`, private state included. What is there is kept if it has
    /// that size.
    ///
    /// # Errors
    /// The segment cannot grow.
    pub(crate) fn make_index(&mut self, bytes: u64) -> Result<(MappedWords, MirrorSpec), Error> {
        self.index.0 = bytes;
        let shape = self.writer.shape();
        let spec = self.index_spec(shape.slots);
        let table_words = spec.words().unwrap_or(0) as u64;
        if table_words > shape.table_words {
            self.grow(Shape { table_words, ..shape })?;
        }
        Ok((self.writer.table(), spec))
    }

    /// Who keeps the index, and so has to know when it moves.
    pub(crate) fn set_mover(&mut self, mover: Option<Mover>) {
        self.index.1 = mover;
    }

    /// The size of an index for so many slots.
    fn index_spec(&self, slots: u32) -> MirrorSpec {
        let bytes = usize::try_from(self.index.0).unwrap_or(usize::MAX);
        MirrorSpec::within(slots as usize, bytes)
    }

    /// The configuration that the segment held or holds.
    pub(crate) fn found_config(&self) -> Option<ConfigDocument> {
        serde_json::from_slice(&self.config.bytes).ok()
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
            scalars: self.scalars.clone(),
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

    fn grow(&mut self, mut shape: Shape) -> Result<(), Error> {
        if let (_, Some(mover)) = &mut self.index {
            mover.park();
            // More slots take more words.
            let spec = self.index_spec(shape.slots);
            shape.table_words = shape.table_words.max(spec.words().unwrap_or(0) as u64);
        }
        let grown = self.writer.grow(shape);
        let (slots, words) = (self.writer.shape().slots, self.writer.table());
        let spec = self.index_spec(slots);
        if let (_, Some(mover)) = &mut self.index
            && let Err(error) = mover.resume(words, spec)
        {
            tracing::error!(error = %error, "the index of cached blocks is lost");
        }
        let allocation = grown?;
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

    /// The members as those who follow their KV-cache events see them.
    pub(crate) fn kv_endpoints(&self) -> impl Iterator<Item = kv::Endpoint> {
        self.members.values().map(|tracked| kv::Endpoint {
            id: tracked.member.id(),
            address: tracked.member.address,
            port: tracked.member.port,
            rank: tracked.member.rank,
            slot: tracked.slot.index,
        })
    }

    /// Names of the LoRA adapters, by bit.
    pub(crate) fn adapter_names(&self) -> &[String] {
        self.adapters.names()
    }

    /// Names of the custom metrics, by position in a row.
    pub(crate) fn scalars(&self) -> &[ScalarKey] {
        &self.scalars
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

    /// The endpoint as a proxy sees it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let (member, address) = (&self.member, self.member.address.to_string());
        Endpoint {
            id: member.id(),
            namespace: member.namespace.clone(),
            name: member.name.clone(),
            pod_name: member.pod_name.clone(),
            host_port: Endpoint::join_host_port(&address, member.port),
            address,
            port: member.port,
            rank: member.rank,
            labels: member.labels.clone(),
            slot: self.core_slot(),
        }
    }

    /// Why the last scrape failed; `None` when it did not.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_ref().map(|(_, error)| error.as_str())
    }

    /// Where requests go.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.member.address, self.member.port)
    }

    /// Where metrics are asked for.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.member.metrics.unwrap_or_else(|| self.address())
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
