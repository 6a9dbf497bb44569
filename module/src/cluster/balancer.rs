//! The load balancer: which host an attempt of a stream goes to.
//!
//! Envoy asks exactly once per attempt, on the stream's own worker. The first attempt goes to the
//! head of the ranking; each later one to the next endpoint that has a host and was not tried, and
//! the claim moves with it. A stream without a record (another path, or no decision under
//! `FailOpen`) goes to an endpoint drawn at random.

use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{
    ClusterLb, ClusterLbContext, EnvoyAsyncHostSelectionComplete, HostSelectionResult,
};

use super::hosts::HostPtr;
use crate::runtime::{PodsHosts, Runtime};
use crate::scheduler::{STREAM_TOKEN, TOKEN_STATE, claim};
use crate::stream::{Record, Token};
use crate::worker::{self, Worker};

/// The balancer of one worker. Keeps nothing: on Envoy 1.38 it is made anew with every host change.
pub(super) struct Balancer {
    attached: Option<(Arc<Runtime>, Arc<PodsHosts>)>,
}

impl Balancer {
    /// A balancer over `hosts`; without them there is never a host.
    pub(super) fn new(attached: Option<(Arc<Runtime>, Arc<PodsHosts>)>) -> Self {
        Self { attached }
    }

    fn select(&self, context: Option<&dyn ClusterLbContext>) -> HostSelectionResult {
        self.choose(context).map_or(HostSelectionResult::NoHost, HostSelectionResult::Selected)
    }

    fn choose(&self, context: Option<&dyn ClusterLbContext>) -> Option<HostPtr> {
        let (runtime, hosts) = self.attached.as_ref()?;
        let token = context.and_then(token);
        worker::with(runtime, |worker| match token {
            Some(token) => worker.records.get_mut(token).and_then(|r| next(runtime, hosts, r)),
            None => any(runtime, hosts, worker),
        })
        .flatten()
    }
}

impl ClusterLb for Balancer {
    fn choose_host(
        &mut self,
        context: Option<&dyn ClusterLbContext>,
        _async_completion: Box<dyn EnvoyAsyncHostSelectionComplete>,
    ) -> HostSelectionResult {
        self.select(context)
    }

    fn choose_host_now(
        &mut self,
        context: Option<&dyn ClusterLbContext>,
    ) -> Option<HostSelectionResult> {
        Some(self.select(context))
    }
}

/// The stream's token: from filter state, which no client can forge, or from the private header,
/// which the filter overwrites or removes on every request.
fn token(context: &dyn ClusterLbContext) -> Option<Token> {
    if let Some(state) = context.get_filter_state_bytes(TOKEN_STATE) {
        return Token::decode(state.as_slice());
    }
    let (header, _) = context.get_downstream_header(STREAM_TOKEN, 0)?;
    Token::decode(header.as_slice())
}

/// The host of a stream's next attempt; moves the claim.
fn next(runtime: &Runtime, hosts: &PodsHosts, record: &mut Record) -> Option<HostPtr> {
    let served = Arc::clone(&record.served);
    let serving = served.serving()?;
    record.attempts += 1;
    if record.attempts > 1 {
        runtime.metrics.retries.inc();
    }
    while let Some(&endpoint) = record.ranking.get(record.tried) {
        record.tried += 1;
        let Some(host) = hosts.table.get(serving.endpoints()[endpoint].slot) else { continue };
        if record.current != Some(endpoint) {
            // The next pod may work where the last one failed: a booking that fails is no reason
            // to keep the request from it.
            let moved = claim(serving, endpoint, record.tokens, None).ok();
            if let Some(old) = std::mem::replace(&mut record.claim, moved) {
                serving.ledger.release(old);
            }
            record.current = Some(endpoint);
        }
        return Some(host);
    }
    None
}

/// Some endpoint's host, each with the same probability.
fn any(runtime: &Runtime, hosts: &PodsHosts, worker: &mut Worker) -> Option<HostPtr> {
    let served = runtime.served();
    let endpoints = match served.serving() {
        Some(serving) => serving.endpoints(),
        None => return hosts.table.any(worker.seed()),
    };
    let count = endpoints.len();
    let first = (worker.seed() % count.max(1) as u64) as usize;
    let at = |n: usize| (first + n) % count;
    (0..count).find_map(|n| hosts.table.get(endpoints.as_slice()[at(n)].slot))
}
