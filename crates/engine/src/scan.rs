//! The scanner: runs a [`Plan`] over a page that arrives in pieces.
//!
//! Lines are cut with `memchr`. A line that a piece's end cuts in two is kept until the rest comes,
//! up to [`MAX_LINE`] bytes; all others are looked at where they lie. The result does not depend on
//! where the pieces were cut.
//!
//! Of several series that match a spec the one with the greatest explicit timestamp counts, the
//! first among equals; series are not summed, but for the counters of the prefix cache, which tell of
//! all that the server computes, whatever engine and model behind it. Of LoRA series the one with the greatest value
//! counts. Only gauges and counters have a value; a series of another or of no declared type reads
//! as 0.

use std::sync::Arc;

use crate::line::{Series, skip_blanks};
use crate::plan::Plan;
use crate::sample::{EngineSample, Field, LoraSample, MAX_CUSTOM};

/// The longest line that is read, in bytes; longer ones are skipped.
pub const MAX_LINE: usize = 64 * 1024;

/// Buffers that grew beyond this for one odd page are given back after it.
const KEEP_CARRY: usize = 4 * 1024;

/// Scans a complete page.
pub fn scan(plan: &Arc<Plan>, page: &[u8]) -> EngineSample {
    let mut scanner = Scanner::new(Arc::clone(plan));
    scanner.feed(page);
    scanner.finish();
    scanner.sample
}

/// Reads pages of one engine, one after the other; keeps its buffers in between.
#[derive(Debug)]
pub struct Scanner {
    plan: Arc<Plan>,
    /// The beginning of a line whose end has not arrived.
    carry: Vec<u8>,
    /// The line at hand is too long: skip to its end.
    skipping: bool,
    /// The page is complete; the next piece begins another.
    finished: bool,
    /// Per family: whether its declared type has a plain value.
    readable: Vec<bool>,
    /// Per target: the best series so far.
    picks: Vec<Option<Pick>>,
    sample: EngineSample,
}

/// What is kept of the best series of a target.
#[derive(Debug, Clone, Copy)]
struct Pick {
    value: f64,
    timestamp: i64,
    /// For [`Field::CacheInfo`]: whether every label that is there parsed.
    clean: bool,
}

impl Scanner {
    /// A scanner for pages of the plan's engine.
    pub fn new(plan: Arc<Plan>) -> Self {
        let customs = plan.targets().iter().filter(|t| matches!(t.field, Field::Custom(_))).count();
        Self {
            carry: Vec::new(),
            skipping: false,
            finished: false,
            readable: vec![false; plan.families()],
            picks: vec![None; plan.targets().len()],
            sample: EngineSample {
                custom: vec![None; customs.min(MAX_CUSTOM)],
                ..EngineSample::default()
            },
            plan,
        }
    }

    /// The plan that this scanner runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Forgets the page at hand.
    pub fn reset(&mut self) {
        self.carry.clear();
        self.carry.shrink_to(KEEP_CARRY);
        self.skipping = false;
        self.finished = false;
        self.readable.fill(false);
        self.picks.fill(None);
        self.sample.clear();
    }

    /// Takes the next piece of the page. After [`finish`](Self::finish) it begins a new page.
    pub fn feed(&mut self, piece: &[u8]) {
        if self.finished {
            self.reset();
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            let line = &piece[start..end];
            start = end + 1;
            if self.skipping {
                self.skipping = false;
            } else if self.carry.is_empty() {
                self.line(line);
            } else {
                self.keep(line);
                // The line ends here, so there is nothing to skip even if it was too long.
                if !std::mem::take(&mut self.skipping) {
                    self.take_carry();
                }
            }
        }
        if start < piece.len() && !self.skipping {
            self.keep(&piece[start..]);
        }
    }

    /// Ends the page: the values found, valid until the next call.
    pub fn finish(&mut self) -> &EngineSample {
        if !self.finished {
            self.take_carry();
            self.finished = true;
            self.settle();
        }
        &self.sample
    }

    /// Adds to the cut line, giving up on it when it becomes too long.
    fn keep(&mut self, part: &[u8]) {
        let room = (MAX_LINE + 1).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
        if self.carry.len() > MAX_LINE {
            self.take_carry();
            self.skipping = true;
        }
    }

    /// Reads the cut line, now complete or given up.
    fn take_carry(&mut self) {
        let mut carry = std::mem::take(&mut self.carry);
        self.line(&carry);
        carry.clear();
        self.carry = carry;
    }

    #[inline]
    fn line(&mut self, line: &[u8]) {
        let too_long = line.len() > MAX_LINE;
        let line = match line.first() {
            Some(b' ' | b'\t') => skip_blanks(line),
            Some(_) => line,
            None => return,
        };
        if line.first() == Some(&b'#') {
            if !too_long {
                self.comment(&line[1..]);
            }
        } else if let Some((family, rest)) = self.plan.find(line) {
            match Series::parse(rest) {
                Some(series) if !too_long => self.series(family, &series),
                _ => self.sample.malformed_lines = self.sample.malformed_lines.saturating_add(1),
            }
        }
    }

    /// Remembers the type of a family of interest.
    fn comment(&mut self, comment: &[u8]) {
        let Some(rest) = skip_blanks(comment).strip_prefix(b"TYPE") else {
            return;
        };
        let declared = skip_blanks(rest);
        if declared.len() == rest.len() {
            return;
        }
        if let Some((family, kind)) = self.plan.find(declared) {
            self.readable[family] =
                matches!(skip_blanks(kind).trim_ascii_end(), b"gauge" | b"counter");
        }
    }

    fn series(&mut self, family: usize, series: &Series<'_>) {
        let plan = Arc::clone(&self.plan);
        let value = if self.readable[family] { series.value } else { 0.0 };
        for &t in plan.targets_of(family) {
            let target = &plan.targets()[t];
            if target.field.is_summed() {
                if series.carries(&target.labels) && value >= 0.0 && value.is_finite() {
                    let sum = self.picks[t].map_or(value, |before| before.value + value);
                    self.picks[t] = Some(Pick { value: sum, timestamp: 0, clean: true });
                }
                continue;
            }
            let better = match self.picks[t] {
                None => true,
                Some(best) if target.field == Field::Lora => value > best.value,
                Some(best) => series.timestamp > best.timestamp,
            };
            if !better || !series.carries(&target.labels) {
                continue;
            }
            let clean = match target.field {
                Field::Lora => {
                    self.sample.lora = Some(lora(series));
                    true
                }
                Field::CacheInfo => self.cache_info(&plan, series),
                _ => true,
            };
            self.picks[t] = Some(Pick { value, timestamp: series.timestamp, clean });
        }
    }

    /// Reads the cache geometry from labels; false if one of them is not an integer.
    fn cache_info(&mut self, plan: &Plan, series: &Series<'_>) -> bool {
        let engine = plan.engine();
        let integer = |label: &str| {
            let text = series.label(label)?.decode().unwrap_or_default();
            (!text.is_empty()).then(|| text.parse().map(count))
        };
        let block_size = integer(&engine.cache_block_size_label);
        let num_blocks = integer(&engine.cache_num_blocks_label);
        // A page that has the series states its block size, if only as unknown.
        self.sample.cache_block_size = Some(match &block_size {
            Some(Ok(size)) => *size,
            _ => 0,
        });
        self.sample.cache_num_blocks = match &num_blocks {
            Some(Ok(blocks)) => Some(*blocks),
            _ => None,
        };
        !matches!(block_size, Some(Err(_))) && !matches!(num_blocks, Some(Err(_)))
    }

    /// Turns the picks into values.
    fn settle(&mut self) {
        for (target, pick) in self.plan.targets().iter().zip(&self.picks) {
            let sample = &mut self.sample;
            if target.field.is_summed() {
                let counted = pick.map(|pick| tokens(pick.value));
                match target.field {
                    Field::CacheQueries => add(&mut sample.cache_queries, counted),
                    _ => add(&mut sample.cache_hits, counted),
                }
                continue;
            }
            let Some(pick) = pick else {
                if target.field != Field::Lora {
                    sample.missing.insert(target.field);
                }
                continue;
            };
            let value = pick.value.is_finite().then_some(pick.value);
            let usable = match target.field {
                Field::Lora => true,
                Field::CacheInfo => pick.clean,
                Field::KvUsage => set(&mut sample.kv_usage, value),
                Field::Waiting => set(&mut sample.waiting, value.map(whole)),
                Field::Running => set(&mut sample.running, value.map(whole)),
                Field::CacheBlockSize => set(&mut sample.cache_block_size, value.map(whole)),
                Field::CacheNumBlocks => set(&mut sample.cache_num_blocks, value.map(whole)),
                Field::Custom(i) => match sample.custom.get_mut(usize::from(i)) {
                    Some(slot) => set(slot, value),
                    None => false,
                },
                Field::CacheQueries | Field::CacheHits => continue,
            };
            if usable {
                sample.found.insert(target.field);
            } else {
                sample.missing.insert(target.field);
            }
        }
    }
}

/// Stores a value that is there; says whether it was.
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let there = value.is_some();
    if there {
        *slot = value;
    }
    there
}

/// Adds what there is.
fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// A finite number as a count of tokens.
fn tokens(value: f64) -> u64 {
    // `as` saturates at both ends.
    value as u64
}

/// A finite number as a count: truncated toward zero, negative ones 0.
fn whole(value: f64) -> u32 {
    // `as` saturates at both ends.
    value.trunc() as u32
}

fn count(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

fn lora(series: &Series<'_>) -> LoraSample {
    let text = |name| series.label(name).and_then(|raw| raw.decode()).unwrap_or_default();
    LoraSample {
        max_adapters: text("max_lora").trim().parse().ok().map(count),
        active: text("running_lora_adapters").into_owned(),
        waiting: text("waiting_lora_adapters").into_owned(),
    }
}
