//! The scheduler's side: a compiled configuration, what was scraped last, and the bookings.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::columns::InFlight;
use inlane_core::config::load;
use inlane_core::cycle::{Ask, Scratch};
use inlane_core::effect::{Effect, TokenRelease};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::LoadSource;
use inlane_core::registry::KeptState;
use inlane_core::request::{Prompt, Request};
use inlane_core::snapshot::ConfigDocument;
use inlane_plugins::prefix::PrefixIndex;

use super::Policy;
use crate::Fallible;

/// Engine metrics of one pod.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scraped {
    pub(super) waiting: u32,
    pub(super) running: u32,
    pub(super) kv_usage: f64,
    pub(super) block_size: u32,
    pub(super) blocks: u32,
}

/// A booking, until it is given back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Booked {
    tokens_until_first: u64,
    tokens_until_end: u64,
    requests: u32,
}

/// See the [module](self).
pub(super) struct Router {
    plan: Plan,
    scratch: Scratch,
    kept: KeptState,
    indexes: Vec<Arc<PrefixIndex>>,
    bookings: Bookings,
    /// What the scheduler believes of the engines.
    pub(super) scraped: Vec<Scraped>,
    seed: u64,
}

struct Bookings(Vec<InFlight>);

impl LoadSource for Bookings {
    fn in_flight(&self, slot: Slot) -> InFlight {
        self.0.get(slot.index as usize).copied().unwrap_or_default()
    }
}

impl Router {
    pub(super) fn new(policy: &Policy, pods: u32, seed: u64) -> Fallible<Self> {
        let kept = KeptState::default();
        let document = ConfigDocument { text: policy.configuration(), ..Default::default() };
        let config = load(&document, &inlane_plugins::registry(), &kept)?;
        let endpoints = EndpointSet::new(1, (0..pods).map(endpoint).collect());
        let plan = Plan::new(Arc::new(config), Arc::new(endpoints));
        let scratch = Scratch::new(&plan);
        let bookings = Bookings(vec![InFlight::default(); pods as usize]);
        let scraped = vec![Scraped::default(); pods as usize];
        let indexes = Vec::new();
        Ok(Self { plan, scratch, kept, indexes, bookings, scraped, seed })
    }

    /// Chooses a pod, books the request there and records the choice.
    pub(super) fn route(
        &mut self,
        id: u64,
        prompt: &[u32],
        max_output: u64,
        now_ms: u64,
    ) -> Fallible<(EndpointIx, Booked)> {
        let Self { plan, scratch, bookings, scraped, seed, .. } = self;
        let prompts = [Prompt::Tokens(prompt)];
        let request = Request {
            id: "simulated",
            model: "m",
            target_model: "m",
            prompts: &prompts,
            max_output_tokens: Some(max_output),
            ..Request::default()
        };
        plan.begin(scratch);
        let metrics = &mut scratch.columns.metrics;
        for (ix, row) in scraped.iter().enumerate() {
            metrics.waiting[ix] = row.waiting;
            metrics.running[ix] = row.running;
            metrics.kv_usage[ix] = row.kv_usage;
            metrics.cache_block_size[ix] = row.block_size;
            metrics.cache_num_blocks[ix] = row.blocks;
        }
        let seed = inlane_core::rng::Rng::new(*seed ^ id).next_u64();
        plan.produce(&Ask { seed, ..Ask::new(&request, bookings, now_ms) }, scratch);
        let target = plan.decide(&request, now_ms, seed, scratch)?;
        let mut booked = Booked::default();
        for effect in &scratch.effects {
            let &Effect::Claim { endpoint, tokens, release, .. } = effect else { continue };
            if endpoint != target {
                continue;
            }
            booked.requests += 1;
            match release {
                TokenRelease::FirstByte => booked.tokens_until_first += tokens,
                TokenRelease::End => booked.tokens_until_end += tokens,
            }
        }
        let load = &mut bookings.0[target as usize];
        load.requests += booked.requests;
        load.tokens += booked.tokens_until_first + booked.tokens_until_end;
        plan.apply_records(&request, now_ms, seed, scratch);
        if self.indexes.is_empty() {
            let indexes = self.kept.all::<PrefixIndex>();
            self.indexes = indexes.into_iter().map(|(_, index)| index).collect();
        }
        for index in &self.indexes {
            index.drain();
        }
        Ok((target, booked))
    }

    /// The first token has come.
    pub(super) fn first_token(&mut self, pod: EndpointIx, booked: &mut Booked) {
        self.bookings.0[pod as usize].tokens -= std::mem::take(&mut booked.tokens_until_first);
    }

    /// The last token has come.
    pub(super) fn end(&mut self, pod: EndpointIx, mut booked: Booked) {
        self.first_token(pod, &mut booked);
        let load = &mut self.bookings.0[pod as usize];
        load.requests -= booked.requests;
        load.tokens -= booked.tokens_until_end;
    }
}

fn endpoint(slot: u32) -> Endpoint {
    let address = format!("10.0.{}.{}", slot / 256, slot % 256);
    Endpoint {
        id: format!("default/pod-{slot:05}"),
        namespace: "default".into(),
        name: format!("pod-{slot:05}"),
        pod_name: format!("pod-{slot:05}"),
        host_port: Endpoint::join_host_port(&address, 8000),
        address,
        port: 8000,
        rank: 0,
        labels: BTreeMap::new(),
        slot: Slot { index: slot, generation: 1 },
    }
}
