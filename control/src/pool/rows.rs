//! What scrapes find, on its way into rows.
//!
//! A page is named by the slot that it was fetched for and the position of its source in the
//! configuration: what comes back for a former tenant of the slot is dropped.

use std::collections::BTreeSet;

use inlane_core::endpoint::Slot;
use inlane_core::plugin::Findings;
use inlane_core::snapshot::{CacheCounters, MAX_SCALARS, ScalarKey};
use inlane_engine::{EngineSample, LoraSample};
use inlane_segment::Error;

use super::{PublishedPool, Tracked, now_ms, slot_of};

/// Slot and position of the source.
pub(crate) type PageId = (Slot, u16);

impl PublishedPool {
    /// Makes rows carry these custom metrics. One that they carry already keeps its place.
    ///
    /// A place gets its new name in the topology after its values are gone from all rows, so a
    /// proxy takes no number for another's.
    pub(crate) fn set_scalars(&mut self, wanted: &[ScalarKey]) -> Result<(), Error> {
        let mut keys = std::mem::take(&mut self.scalars);
        keys.resize_with(MAX_SCALARS, ScalarKey::default);
        let mut cleared = Vec::new();
        for (key, place) in keys.iter_mut().zip(0..) {
            if !key.name.is_empty() && !wanted.contains(key) {
                *key = ScalarKey::default();
                cleared.push(place);
            }
        }
        for key in wanted {
            if !keys.contains(key)
                && let Some(free) = keys.iter_mut().find(|key| key.name.is_empty())
            {
                free.clone_from(key);
            }
        }
        while keys.last().is_some_and(|key| key.name.is_empty()) {
            keys.pop();
        }
        self.scalars = keys;
        if !cleared.is_empty() {
            for tracked in self.members.values_mut() {
                for &place in &cleared {
                    place_of(&mut tracked.row.scalars, place, f64::NAN);
                }
                self.writer.publish_row(tracked.slot.index, &tracked.row.to_words());
            }
        }
        self.publish_topology()
    }

    /// The member that a page was fetched for. None, counted: it has gone.
    fn tenant(&mut self, (slot, _): PageId) -> Option<&mut Tracked> {
        let tracked = self.by_slot.get(&slot.index).and_then(|id| self.members.get_mut(id));
        let tracked = tracked.filter(|tracked| slot_of(tracked.slot) == slot);
        if tracked.is_none() {
            self.counters.late_scrapes += 1;
        }
        tracked
    }

    /// Applies the load numbers of a page; `places` says where custom ones go.
    pub(crate) fn apply(
        &mut self,
        page: PageId,
        sample: &EngineSample,
        places: &[Option<u8>],
    ) -> Result<(), Error> {
        let Some(tracked) = self.tenant(page) else { return Ok(()) };
        tracked.fetched(page.1);
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
        // Either alone says nothing.
        if let (Some(queries), Some(hits)) = (sample.cache_queries, sample.cache_hits) {
            row.cache = CacheCounters { queries, hits };
        }
        for (value, place) in sample.custom.iter().zip(places) {
            if let (Some(value), Some(place)) = (*value, *place) {
                place_of(&mut row.scalars, place, value);
            }
        }
        row.scraped_at_ms = now_ms();
        row.scrapes += 1;
        let lora = sample.lora.as_ref().filter(|&lora| *lora != tracked.lora).cloned();
        let (slot, words) = (tracked.slot.index, tracked.row.to_words());
        match lora {
            Some(lora) => self.apply_lora(page, lora),
            None => {
                self.writer.publish_row(slot, &words);
                Ok(())
            }
        }
    }

    /// Lets an extraction write what it found.
    pub(crate) fn extract(
        &mut self,
        page: PageId,
        places: &[Option<u8>],
        read: impl FnOnce(&mut Findings<'_>),
    ) -> Result<(), Error> {
        let Some(tracked) = self.tenant(page) else { return Ok(()) };
        tracked.fetched(page.1);
        let before = tracked.row;
        let mut row = before;
        let mut found = Findings::new(&mut row, places);
        read(&mut found);
        let (models, is_scrape) = found.into_parts();
        row.scrapes = before.scrapes + u64::from(is_scrape);
        row.scraped_at_ms = if is_scrape { now_ms() } else { before.scraped_at_ms };
        row.active_models = before.active_models;
        row.waiting_models = before.waiting_models;
        row.served_models = before.served_models;
        row.loaded_models = before.loaded_models;
        tracked.row = row;
        let models = models.filter(|models| *models != tracked.served);
        let slot = tracked.slot.index;
        match models {
            Some(models) => self.apply_served(page, models),
            None if row != before => {
                self.writer.publish_row(slot, &row.to_words());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Applies changed LoRA state.
    fn apply_lora(&mut self, page: PageId, lora: LoraSample) -> Result<(), Error> {
        let others = self.in_use_beside(page);
        let Some(row) = self.tenant(page).map(|tracked| tracked.row) else { return Ok(()) };
        let others = others | row.served_models;
        let active = self.adapters.set(lora.active(), || others);
        let waiting = self.adapters.set(lora.waiting(), || others | active.set);
        self.counters.adapters_left_out += u64::from(active.left_out + waiting.left_out);
        let Some(tracked) = self.tenant(page) else { return Ok(()) };
        tracked.row.active_models = active.set;
        tracked.row.waiting_models = waiting.set;
        tracked.row.loaded_models = distinct(lora.active()) + distinct(lora.waiting());
        tracked.row.max_active_models = lora.max_adapters.unwrap_or(row.max_active_models);
        tracked.lora = lora;
        self.publish_models(page, active.table_changed || waiting.table_changed)
    }

    /// Applies a changed list of models that are served.
    fn apply_served(&mut self, page: PageId, models: Vec<String>) -> Result<(), Error> {
        let others = self.in_use_beside(page);
        let Some(row) = self.tenant(page).map(|tracked| tracked.row) else { return Ok(()) };
        let others = others | row.active_models | row.waiting_models;
        let served = self.adapters.set(models.iter().map(String::as_str), || others);
        self.counters.adapters_left_out += u64::from(served.left_out);
        let Some(tracked) = self.tenant(page) else { return Ok(()) };
        tracked.row.served_models = served.set;
        tracked.served = models;
        self.publish_models(page, served.table_changed)
    }

    /// Bits of models that other endpoints have.
    fn in_use_beside(&self, (slot, _): PageId) -> u64 {
        let others = self.members.values().filter(|tracked| slot_of(tracked.slot) != slot);
        let rows = others.map(|tracked| &tracked.row);
        rows.fold(0, |bits, row| bits | row.active_models | row.waiting_models | row.served_models)
    }

    /// The table of names goes out before a row that uses it.
    fn publish_models(&mut self, page: PageId, table_changed: bool) -> Result<(), Error> {
        if table_changed {
            self.publish_topology()?;
        }
        let Some(tracked) = self.tenant(page) else { return Ok(()) };
        let (slot, words) = (tracked.slot.index, tracked.row.to_words());
        self.writer.publish_row(slot, &words);
        Ok(())
    }

    /// Notes that a page could not be had.
    pub(crate) fn note_failure(&mut self, page: PageId, error: String) {
        let tracked = self.by_slot.get(&page.0.index).and_then(|id| self.members.get_mut(id));
        if let Some(tracked) = tracked.filter(|tracked| slot_of(tracked.slot) == page.0) {
            tracked.error = Some((page.1, error));
        }
    }
}

impl Tracked {
    /// The page of the source at `position` was fetched.
    fn fetched(&mut self, position: u16) {
        self.error.take_if(|(failed, _)| *failed == position);
    }
}

fn place_of(scalars: &mut [f64; MAX_SCALARS], place: u8, value: f64) {
    if let Some(scalar) = scalars.get_mut(usize::from(place)) {
        *scalar = value;
    }
}

/// Names without repetitions.
fn distinct<'n>(names: impl Iterator<Item = &'n str>) -> u32 {
    names.collect::<BTreeSet<_>>().len().try_into().unwrap_or(u32::MAX)
}
