//! `p2p-source-producer`: names a peer from which the computing endpoint can pull cached blocks.

use std::sync::Arc;

use inlane_core::columns::{CachedTiers, Col, Columns, PrefixMatch};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, DataProducer, PostChoice, Producing, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use inlane_core::state::{CycleData, CycleState, StateSlot};
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use super::disagg::or_default;
use crate::{PREFILL_PROFILE, approx_prefix_cache_producer};

/// The type `p2p-source-producer`.
pub const TYPE: PluginType = PluginType::new("p2p-source-producer", build).alpha();

/// Names the peer to the orchestrator.
pub const HEADER: &str = "x-kv-cache-source-host-port";

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Instance that publishes matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Tokens that the peer must have beyond those of the computing endpoint.
    min_cached_token_delta: i64,
    /// Name of the prefill profile; empty = `prefill`.
    prefill_profile_name: String,
    /// Whether request ids are hashed so that similar ones spread, unlike in the reference.
    mix_request_ids: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            min_cached_token_delta: 1,
            prefill_profile_name: String::new(),
            mix_request_ids: false,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let delta = parameters.min_cached_token_delta;
    let min_delta = u64::try_from(delta).ok().filter(|&delta| delta > 0).ok_or_else(|| {
        let text = format!("minCachedTokenDelta must be >= 1, found {delta}");
        BuildError::field("minCachedTokenDelta", text)
    })?;
    let producer = &parameters.prefix_match_info_producer_name;
    let default = approx_prefix_cache_producer::TYPE.name;
    build.use_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
    let plugin = Arc::new(P2pSource {
        matches: build.require(producer, default),
        tiers: build.optional(producer, default),
        chosen: build.cycle_state(),
        min_delta,
        prefill: or_default(parameters.prefill_profile_name, PREFILL_PROFILE),
        mix: parameters.mix_request_ids,
    });
    Ok(Roles::default().producer(plugin.clone()).post_choice(plugin))
}

/// `t` = tokens that an endpoint can hand out: its blocks in host memory where tiers are known, all
/// its cached blocks otherwise. Of the endpoints with `t > 0` and `t + block >= max t` one is drawn
/// with weight `1 / (1 + waiting)`, at the position `hash(request id) / 2^32` of the sum, in the
/// order of endpoints. It is named when it is not the computing endpoint itself and
/// `t - tokens cached there >= minCachedTokenDelta` (llm-d-router `p2p-source-producer`).
#[derive(Debug)]
struct P2pSource {
    matches: Col<PrefixMatch>,
    tiers: Col<CachedTiers>,
    chosen: StateSlot<Chosen>,
    min_delta: u64,
    prefill: String,
    mix: bool,
}

/// The peer of the running request and the tokens that it has to offer.
#[derive(Debug, Default)]
struct Chosen(Option<(EndpointIx, u64)>);

impl CycleData for Chosen {
    fn clear(&mut self) {
        self.0 = None;
    }
}

fn tokens(blocks: u32, found: &PrefixMatch) -> u64 {
    u64::from(blocks) * u64::from(found.block_size_tokens)
}

impl P2pSource {
    /// Tokens that `endpoint` can hand out, and its block size.
    fn offer(&self, columns: &Columns, endpoint: EndpointIx) -> Option<(u64, u64)> {
        let at = endpoint as usize;
        let found = columns.get(self.matches).get(at).copied().flatten()?;
        let tiers = columns.get(self.tiers).get(at).copied().flatten();
        let blocks = tiers.map_or(found.cached_blocks, |tiers| tiers.cpu);
        Some((tokens(blocks, &found), u64::from(found.block_size_tokens)))
    }

    fn choose(&self, cx: &Producing<'_>, columns: &Columns) -> Option<(EndpointIx, u64)> {
        let offers = || {
            let offer = |&ix| Some((ix, self.offer(columns, ix)?));
            cx.candidates.iter().filter_map(offer).filter(|(_, (tokens, _))| *tokens > 0)
        };
        let most = offers().map(|(_, (tokens, _))| tokens).max()?;
        let band = || {
            let near = offers().filter(move |(_, (tokens, block))| tokens + block >= most);
            near.map(|(ix, (tokens, _))| {
                let waiting = columns.metrics.waiting.get(ix as usize).copied().unwrap_or(0);
                (ix, tokens, 1.0 / (1.0 + f64::from(waiting)))
            })
        };
        let sum: f64 = band().map(|(_, _, weight)| weight).sum();
        let position = f64::from(self.hash(cx.request.id)) / 4_294_967_296.0 * sum;
        let mut passed = 0.0;
        let drawn = band().find(|(_, _, weight)| {
            passed += weight;
            position < passed
        });
        // Rounding may put the position beyond the last sum.
        drawn.or_else(|| band().next_back()).map(|(ix, tokens, _)| (ix, tokens))
    }

    fn hash(&self, id: &str) -> u32 {
        if self.mix { (xxh64(id.as_bytes(), 0) >> 32) as u32 } else { fnv1a(id) }
    }
}

/// 32-bit FNV-1a.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl DataProducer for P2pSource {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let chosen = state.get_mut(self.chosen);
        let chosen = chosen.ok_or_else(|| PluginError::new("state of another configuration"))?;
        chosen.0 = self.choose(cx, columns);
        Ok(())
    }
}

impl PostChoice for P2pSource {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        let prefill = decision.profile(&self.prefill).and_then(|run| run.targets.first().copied());
        let source = || {
            let computing = prefill.or_else(|| decision.target())?;
            let (peer, offered) = cx.state.get(self.chosen)?.0?;
            let (peer, own) = (cx.endpoints.get(peer)?, cx.endpoints.get(computing)?);
            let cached = cx.columns.get(self.matches).get(computing as usize).copied().flatten();
            let cached = cached.map_or(0, |found| tokens(found.cached_blocks, &found));
            let worth = offered >= cached.saturating_add(self.min_delta);
            (worth && peer.host_port != own.host_port).then(|| peer.host_port.clone())
        };
        effects.push(Effect::RequestHeader { name: HEADER.into(), value: source() });
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{CachedTiers, PrefixMatch};
    use inlane_core::effect::Effect;
    use inlane_core::request::Request;

    use super::fnv1a;
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "p2p-source-producer";
    const APPROX: &str = "approx-prefix-cache-producer";

    fn world(cached: &[u32], parameters: &str) -> (World, Built) {
        let mut world = World::new(cached.len());
        for ix in 0..cached.len() {
            world.relocate(ix as u32, 8_000 + ix as u16);
        }
        let built = world.build(NAME, parameters).unwrap();
        let column = world.column::<PrefixMatch>(APPROX);
        for (cell, &blocks) in world.columns.get_mut(column).iter_mut().zip(cached) {
            *cell = Some(PrefixMatch {
                match_blocks: blocks,
                total_blocks: 20,
                block_size_tokens: 16,
                cached_blocks: blocks,
            });
        }
        (world, built)
    }

    /// The port of the peer that is named for a request with these results.
    fn source(
        world: &mut World,
        built: &Built,
        id: &str,
        results: &[(&str, u32)],
    ) -> Option<String> {
        let request = Request { id, ..Request::default() };
        world.produce(built, &request, &Idle).unwrap();
        let effects = world.choose(built, &request, results);
        let [Effect::RequestHeader { name, value }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(name, "x-kv-cache-source-host-port");
        value.as_ref().map(|value| value.strip_prefix("10.0.0.1:").unwrap().to_owned())
    }

    #[test]
    fn the_peer_must_have_enough_more() {
        let (mut w, built) = world(&[10, 4], "");
        assert_eq!(source(&mut w, &built, "r", &[("default", 1)]).as_deref(), Some("8000"));
        assert_eq!(source(&mut w, &built, "r", &[("default", 0)]), None);
        let (mut w, built) = world(&[10, 4], "{minCachedTokenDelta: 96}");
        assert_eq!(source(&mut w, &built, "r", &[("default", 1)]).as_deref(), Some("8000"));
        let (mut w, built) = world(&[10, 4], "{minCachedTokenDelta: 97}");
        assert_eq!(source(&mut w, &built, "r", &[("default", 1)]), None);
        let (mut w, built) = world(&[0, 0], "");
        assert_eq!(source(&mut w, &built, "r", &[("default", 1)]), None);
    }

    #[test]
    fn prefill_is_what_computes() {
        let (mut w, built) = world(&[10, 10, 0], "");
        let results = [("decode", 0), ("prefill", 2)];
        assert!(source(&mut w, &built, "r", &results).is_some());
        assert_eq!(source(&mut w, &built, "r", &[("decode", 2), ("prefill", 0)]), None);
        let (mut w, built) = world(&[10, 0], "{prefillProfileName: p}");
        assert_eq!(source(&mut w, &built, "r", &[("decode", 0), ("prefill", 1)]), None);
        assert!(source(&mut w, &built, "r", &[("decode", 0), ("p", 1)]).is_some());
    }

    #[test]
    fn only_host_memory_counts_where_tiers_are_known() {
        let (mut w, built) = world(&[6, 3, 0], "");
        let tiers = w.column::<CachedTiers>(APPROX);
        w.columns.get_mut(tiers)[0] = Some(CachedTiers { gpu: 6, ..Default::default() });
        w.columns.get_mut(tiers)[1] = Some(CachedTiers { gpu: 3, cpu: 3, ..Default::default() });
        assert_eq!(source(&mut w, &built, "r", &[("default", 2)]).as_deref(), Some("8001"));
        // All tiers count at the endpoint that computes: 48 - 96 tokens.
        assert_eq!(source(&mut w, &built, "r", &[("default", 0)]), None);
    }

    #[test]
    fn the_draw_follows_the_request_id_and_the_queues() {
        assert_eq!(fnv1a(""), 0x811c_9dc5);
        assert_eq!(fnv1a("a"), 0xe40c_292c);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
        for parameters in ["", "{mixRequestIds: true}"] {
            // a has a block less than b and is in the band, c has two less and is not.
            let (mut w, built) = world(&[9, 10, 8, 0], parameters);
            w.columns.metrics.waiting[1] = 3;
            let mut counts = [0u32; 2];
            let mut state = 1u64;
            for _ in 0..4_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let id = format!("{state:016x}-{state:08x}");
                let port = source(&mut w, &built, &id, &[("default", 3)]).unwrap();
                assert_eq!(source(&mut w, &built, &id, &[("default", 3)]).as_ref(), Some(&port));
                counts[usize::from(port == "8001")] += 1;
            }
            // Weights 1 and 1/4.
            let share = f64::from(counts[0]) / 4_000.0;
            assert!((share - 0.8).abs() < 0.05, "{parameters}: {share}");
        }
    }

    #[test]
    fn similar_ids_spread_when_mixed() {
        let ids: Vec<String> = (0..40).map(|n| format!("request-{n:02}")).collect();
        let spread = |parameters: &str| {
            let (mut w, built) = world(&[10, 10, 10, 10, 0], parameters);
            let ports = ids.iter().map(|id| source(&mut w, &built, id, &[("default", 4)]));
            ports.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(spread("{mixRequestIds: true}"), 4);
    }

    #[test]
    fn a_delta_below_one_is_an_error() {
        let mut world = World::new(0);
        for value in [0, -1] {
            let parameters = format!("{{minCachedTokenDelta: {value}}}");
            let error = world.build(NAME, &parameters).err().unwrap();
            assert_eq!(error.field.as_deref(), Some("minCachedTokenDelta"));
        }
    }
}
