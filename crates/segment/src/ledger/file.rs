//! The ledger file: its layout, and the file that a process owns for its life.
//!
//! ```text
//! line 0    magic, layout version, length in words, capacity in slots, instance, 0, 0, checksum
//! line 1    accepted generation of the configuration, of the topology
//! then      a document: the refused configuration's generation (8 bytes) and the reason (text)
//! then      the claims: four counters, each on its line, and one word per slot
//! ```
//!
//! The file belongs to its process for life: see [`owned`].

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::claims::{Claim, ClaimError, ClaimWords, Counters};
use super::word::Observed;
use crate::dir::{Directory, Owner};
use crate::document::{DocumentRegion, Reading};
use crate::error::{Error, expect, refused};
use crate::layout::{LINE, MAX_SLOTS, checksum};
use crate::mapped::MappedWords;
use crate::owned::{self, Owned};
use crate::slot::SlotGeneration;
use crate::words::{Words, WordsMut};

/// The layout of ledgers that this build writes and reads.
pub const LEDGER_VERSION: u16 = 1;

/// Longest reason for a refused configuration, in bytes; a longer one is cut.
pub const MAX_REASON: usize = 4096;

const MAGIC: u64 = u64::from_le_bytes(*b"INLNledg");
const HEADER: usize = LINE;
const AT_CONFIG: usize = HEADER;
const AT_TOPOLOGY: usize = HEADER + 1;
const AT_REFUSAL: usize = 2 * LINE;
const REFUSAL_BYTES: usize = 8 + MAX_REASON;

/// A configuration that a process would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The generation of the configuration. Look at the accepted one too: a later configuration may
    /// have been accepted since.
    pub generation: u64,
    /// The reason.
    pub reason: String,
}

/// A ledger's words: what owner and readers of the file share.
#[derive(Clone, Debug)]
pub(super) struct LedgerWords<W> {
    words: W,
    pub(super) claims: ClaimWords<W>,
}

impl<W: Words + Clone> LedgerWords<W> {
    /// Validates a ledger.
    pub(super) fn open(words: W, path: &Path) -> Result<Self, Error> {
        let mut header = [0; HEADER];
        if words.len() < len(1) {
            let expected = format!("at least {}", len(1));
            return Err(refused(path, "length in words", words.len(), expected));
        }
        words.load_run(0, &mut header);
        expect(path, "magic", header[0], MAGIC)?;
        expect(path, "layout version", header[1], LEDGER_VERSION.into())?;
        expect(path, "header checksum", header[HEADER - 1], checksum(&header))?;
        expect(path, "length in words", header[2], words.len() as u64)?;
        if !(1..=MAX_SLOTS.into()).contains(&header[3]) {
            return Err(refused(path, "capacity", header[3], format!("1 to {MAX_SLOTS}")));
        }
        // At most `MAX_SLOTS`, as was just checked.
        let capacity = header[3] as usize;
        expect(path, "length in words", words.len(), len(capacity))?;
        Ok(Self::over(words, capacity))
    }

    pub(super) fn over(words: W, capacity: usize) -> Self {
        Self { claims: ClaimWords::new(words.clone(), claims_at(), capacity), words }
    }

    pub(super) fn accepted_config(&self) -> u64 {
        self.words.load(AT_CONFIG, Ordering::Acquire)
    }

    pub(super) fn accepted_topology(&self) -> u64 {
        self.words.load(AT_TOPOLOGY, Ordering::Acquire)
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        let Reading::Whole { bytes, .. } = refusal_region().read(&self.words) else { return None };
        let (generation, reason) = bytes.split_first_chunk::<8>()?;
        Some(Refusal {
            generation: u64::from_le_bytes(*generation),
            reason: String::from_utf8_lossy(reason).into_owned(),
        })
    }
}

impl<W: WordsMut> LedgerWords<W> {
    fn accept_config(&self, generation: u64) {
        self.words.store(AT_CONFIG, generation, Ordering::Release);
    }

    /// Release, so that who sees the generation also sees the claims that were made before it.
    pub(super) fn accept_topology(&self, generation: u64) {
        self.words.store(AT_TOPOLOGY, generation, Ordering::Release);
    }
}

/// This process's claims, in a file that it holds locked.
///
/// Shared by all workers by reference. Nobody else writes it. When the process ends, however it ends,
/// the lock is gone and with it every claim.
#[derive(Debug)]
pub struct Ledger {
    ledger: LedgerWords<MappedWords>,
    dir: Directory,
    name: String,
    // The refusal has a single-writer protocol.
    reporting: Mutex<()>,
    // Held for its lock.
    _lock: File,
}

impl Ledger {
    /// Creates this process's ledger with room for `capacity` slots in the directory of a writer.
    ///
    /// The capacity is for life, so choose that of the largest pool to come; a slot costs 8 bytes.
    pub fn create(dir: impl AsRef<Path>, capacity: u32) -> Result<Self, Error> {
        if !(1..=MAX_SLOTS).contains(&capacity) {
            return Err(Error::Shape {
                field: "ledger capacity",
                expected: format!("1 to {MAX_SLOTS}"),
                found: capacity.into(),
            });
        }
        let dir = Directory::open(dir.as_ref(), Owner::Effective)?;
        let len = len(capacity as usize);
        let Owned { file, words, name } =
            owned::create(&dir, "ledger", "led", len, |words, id| {
                write_header(words, capacity, id);
            })?;
        Ok(Self {
            ledger: LedgerWords::over(words, capacity as usize),
            dir,
            name,
            reporting: Mutex::new(()),
            _lock: file,
        })
    }

    /// What this process holds on `slot`: the word to score, and to claim against.
    ///
    /// A slot that does not exist is observed as never assigned.
    #[inline]
    pub fn observe(&self, slot: u32) -> Observed {
        self.ledger.claims.observe(slot)
    }

    /// Claims one request of `tokens` on `slot`, provided that its word is still the one `observed`.
    #[inline]
    pub fn try_claim(
        &self,
        slot: u32,
        generation: SlotGeneration,
        observed: Observed,
        tokens: u32,
    ) -> Result<Claim, ClaimError> {
        self.ledger.claims.try_claim(slot, generation, observed, tokens)
    }

    /// Claims one request of `tokens` on `slot` whatever its load: for callers that do not score it.
    ///
    /// A conflict is reported after many attempts, each of which another worker won.
    pub fn claim_any(
        &self,
        slot: u32,
        generation: SlotGeneration,
        tokens: u32,
    ) -> Result<Claim, ClaimError> {
        self.ledger.claims.claim_any(slot, generation, tokens)
    }

    /// Gives a claim back; `false`, counted, where its slot is in another assignment or empty, which
    /// only a bug or foreign writes can cause.
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // Consuming the claim is what makes this happen once.
    pub fn release(&self, claim: Claim) -> bool {
        self.ledger.claims.release(&claim)
    }

    /// Gives a claim's tokens back and keeps its request: at the first piece of the answer, when the
    /// prompt has been processed.
    #[inline]
    pub fn release_tokens(&self, claim: &mut Claim) -> bool {
        self.ledger.claims.release_tokens(claim)
    }

    /// Moves a claim to another slot with `tokens`, as for a retry: the new one is claimed as by
    /// [`claim_any`](Self::claim_any) and only then is the old one released.
    ///
    /// On an error the old claim is handed back and still holds.
    pub fn move_claim(
        &self,
        claim: Claim,
        slot: u32,
        generation: SlotGeneration,
        tokens: u32,
    ) -> Result<Claim, (Claim, ClaimError)> {
        match self.claim_any(slot, generation, tokens) {
            Ok(new) => {
                self.release(claim);
                Ok(new)
            }
            Err(e) => Err((claim, e)),
        }
    }

    /// Puts `slot` into a new assignment: done for every endpoint when a topology is taken.
    ///
    /// Refused as stale while requests of another assignment are in flight. A control plane that
    /// frees slots as [`Writer::free_slot`](crate::Writer::free_slot) demands does not let that happen
    /// to a process that it could see; to one that appeared meanwhile it can, and passes.
    pub fn adopt(&self, slot: u32, generation: SlotGeneration) -> Result<(), ClaimError> {
        self.ledger.claims.adopt(slot, generation)
    }

    /// Reports the generation of the configuration that this process now works with.
    pub fn accept_config(&self, generation: u64) {
        self.ledger.accept_config(generation);
    }

    /// Reports the generation of the topology that *every* worker of this process now works with:
    /// from here on no claim is made on an endpoint that the topology does not have.
    pub fn accept_topology(&self, generation: u64) {
        self.ledger.accept_topology(generation);
    }

    /// Reports that the configuration of this generation was refused, and why. Takes a lock: for a
    /// watcher thread, not for workers.
    pub fn refuse_config(&self, generation: u64, reason: &str) {
        let mut text = generation.to_le_bytes().to_vec();
        text.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON)]);
        // The lock guards no data of its own, so a panic elsewhere cannot have left it broken.
        let _reporting = self.reporting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        refusal_region().publish(&self.ledger.words, &text);
    }

    /// Totals since the ledger was created.
    pub fn counters(&self) -> Counters {
        self.ledger.claims.counters()
    }

    /// How many slots it has room for.
    pub fn capacity(&self) -> u32 {
        // At most `MAX_SLOTS`.
        self.ledger.claims.slots() as u32
    }

    /// The name of its file in the directory.
    pub fn file_name(&self) -> &str {
        &self.name
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // A file that stays behind is removed by whoever looks next and finds it unlocked.
        let _ = self.dir.remove(&self.name);
    }
}

fn refusal_region() -> DocumentRegion {
    DocumentRegion::new(AT_REFUSAL, REFUSAL_BYTES)
}

fn claims_at() -> usize {
    AT_REFUSAL + DocumentRegion::words(REFUSAL_BYTES)
}

/// The length in words of a ledger for `capacity` slots.
pub(super) fn len(capacity: usize) -> usize {
    (claims_at() + ClaimWords::<()>::words(capacity)).next_multiple_of(LINE)
}

fn write_header(words: &impl WordsMut, capacity: u32, instance: u64) {
    let mut header = [0; HEADER];
    header[0] = MAGIC;
    header[1] = LEDGER_VERSION.into();
    header[2] = len(capacity as usize) as u64;
    header[3] = capacity.into();
    header[4] = instance;
    header[HEADER - 1] = checksum(&header);
    words.store_run(0, &header);
}
