//! `inflight-load-producer`: what is in flight on each endpoint, and what this request would add.
//!
//! The bookings themselves live in the proxy's ledger. This plugin reads them into a column,
//! projects the request's own cost per endpoint, and asks for the booking once the choice is
//! made; the ledger does the releasing.

use std::sync::Arc;

use inlane_core::columns::{Col, Columns, InFlight, PrefixMatch, UncachedTokens};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, TokenRelease};
use inlane_core::plugin::{Cycle, DataProducer, PostChoice, Producing, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::request::Request;
use inlane_core::state::CycleState;
use serde::Deserialize;

use crate::{PREFILL_PROFILE, approx_prefix_cache_producer, token_producer};

/// The type `inflight-load-producer`.
///
/// It is the default producer of the in-flight load only: what needs the projected cost of a
/// request must name it explicitly, as in the reference.
pub const TYPE: PluginType =
    PluginType::new("inflight-load-producer", build).default_producer_of(&["InFlightLoadDataKey"]);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Whether the projection counts output tokens; they are then held until the stream ends.
    add_estimated_output_tokens: bool,
    /// Output tokens per input token.
    output_ratio: f64,
    /// Upper bound of the projected output tokens; absent = none.
    max_estimated_output_tokens: Option<i64>,
    /// Instance that publishes prefix matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Whether replicas of the picker add up their counts. Accepted: one ledger serves the whole
    /// proxy here, and other proxies' bookings are the control plane's matter.
    #[serde(rename = "syncCrossReplicaState")]
    _sync_cross_replica_state: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            add_estimated_output_tokens: false,
            output_ratio: 1.5,
            max_estimated_output_tokens: None,
            prefix_match_info_producer_name: String::new(),
            _sync_cross_replica_state: true,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let ratio = parameters.output_ratio;
    if !(ratio >= 0.0 && ratio.is_finite()) {
        let message = format!("expected a number that is not negative, found {ratio}");
        return Err(BuildError::field("outputRatio", message));
    }
    let max_output = match parameters.max_estimated_output_tokens.map(u64::try_from) {
        None => u64::MAX,
        Some(Ok(max)) => max,
        Some(Err(_)) => {
            let message = "expected a number that is not negative";
            return Err(BuildError::field("maxEstimatedOutputTokens", message));
        }
    };
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let plugin = Arc::new(InflightLoadProducer {
        prefix: build.optional(
            &parameters.prefix_match_info_producer_name,
            approx_prefix_cache_producer::TYPE.name,
        ),
        load: build.produce(),
        uncached: build.produce(),
        output: parameters.add_estimated_output_tokens.then_some((ratio, max_output)),
    });
    Ok(Roles::default().producer(plugin.clone()).post_choice(plugin))
}

/// Projected cost `t` of a request on an endpoint (llm-d-router `inflight-load-producer`):
///
/// ```text
/// indexed = total blocks * block size     hit = matching blocks * block size
/// t = max(0, indexed - hit) + max(0, input - indexed)     without a match: t = input
/// t += min(round(input * outputRatio), the request's max_tokens, maxEstimatedOutputTokens)
/// ```
///
/// the last line only with `addEstimatedOutputTokens`. Whole blocks are counted, so `t` may exceed
/// the input: 100 tokens in blocks of 64 without a hit cost 128.
#[derive(Debug)]
struct InflightLoadProducer {
    prefix: Col<PrefixMatch>,
    load: Col<InFlight>,
    uncached: Col<UncachedTokens>,
    /// Output tokens per input token and their bound, when they are projected.
    output: Option<(f64, u64)>,
}

impl InflightLoadProducer {
    fn output_tokens(&self, request: &Request<'_>, input: u64) -> u64 {
        self.output.map_or(0, |(ratio, max)| {
            let estimate = (input as f64 * ratio).round() as u64;
            estimate.min(request.max_output_tokens.unwrap_or(u64::MAX)).min(max)
        })
    }
}

/// Input tokens that the endpoint's cache does not cover, in whole blocks.
fn uncached_input(input: u64, found: Option<PrefixMatch>) -> u64 {
    match found {
        Some(found) if found.block_size_tokens > 0 => {
            let block = u64::from(found.block_size_tokens);
            let indexed = u64::from(found.total_blocks) * block;
            let hit = u64::from(found.match_blocks) * block;
            indexed.saturating_sub(hit).saturating_add(input.saturating_sub(indexed))
        }
        _ => input,
    }
}

impl DataProducer for InflightLoadProducer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let input = cx.request.token_count();
        let output = self.output_tokens(cx.request, input);
        for &ix in cx.candidates {
            let found = columns.get(self.prefix).get(ix as usize).copied().flatten();
            let tokens = uncached_input(input, found).saturating_add(output);
            if let Some(cell) = columns.get_mut(self.uncached).get_mut(ix as usize) {
                *cell = Some(UncachedTokens(i64::try_from(tokens).unwrap_or(i64::MAX)));
            }
        }
        let (slots, load) = (cx.endpoints.slots(), columns.get_mut(self.load));
        for &ix in cx.candidates {
            let ix = ix as usize;
            if let (Some(&slot), Some(cell)) = (slots.get(ix), load.get_mut(ix)) {
                *cell = Some(cx.load.in_flight(slot));
            }
        }
        Ok(())
    }
}

impl PostChoice for InflightLoadProducer {
    /// One booking per profile that found a target. Without a request id there is nothing to
    /// release by, so nothing is booked.
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        if cx.request.id.is_empty() {
            return;
        }
        let costs = cx.columns.get(self.uncached);
        for run in decision.profiles.iter().filter(|run| run.ran && !run.failed) {
            let Some(&endpoint) = run.targets.first() else { continue };
            let cost = costs.get(endpoint as usize).copied().flatten();
            effects.push(Effect::Claim {
                endpoint,
                tokens: cost.map_or(0, |UncachedTokens(t)| u64::try_from(t).unwrap_or(0)),
                release: match self.output {
                    None => TokenRelease::FirstByte,
                    Some(_) => TokenRelease::End,
                },
                until_first_byte: run.name == PREFILL_PROFILE,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{InFlight, PrefixMatch, UncachedTokens};
    use inlane_core::effect::{Effect, TokenRelease};
    use inlane_core::endpoint::Slot;
    use inlane_core::plugin::LoadSource;
    use inlane_core::request::{Prompt, Request};
    use proptest::prelude::*;

    use super::uncached_input;
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "inflight-load-producer";
    const IDS: [u32; 100] = [7; 100];

    fn request() -> Request<'static> {
        Request { id: "r", prompts: &[Prompt::Tokens(&IDS)], ..Default::default() }
    }

    /// Endpoint a holds the first of two blocks of 64, b is unknown to the index, c holds nothing.
    fn world(parameters: &str) -> (World, Built) {
        let mut world = World::new(3);
        let producer = world.build(NAME, parameters).unwrap();
        let prefix = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        let found = |match_blocks| {
            let (total_blocks, block_size_tokens) = (2, 64);
            Some(PrefixMatch { match_blocks, total_blocks, block_size_tokens, cached_blocks: 0 })
        };
        world.columns.get_mut(prefix).copy_from_slice(&[found(1), None, found(0)]);
        (world, producer)
    }

    fn costs(world: &mut World, built: &Built, request: &Request<'_>) -> Vec<i64> {
        world.produce(built, request, &Idle).unwrap();
        let column = world.column::<UncachedTokens>(NAME);
        world.columns.get(column).iter().map(|cost| cost.unwrap().0).collect()
    }

    #[test]
    fn cost_is_what_the_cache_does_not_cover_in_whole_blocks() {
        let (mut world, producer) = world("");
        assert_eq!(costs(&mut world, &producer, &request()), [64, 100, 128]);
        let untokenized = Request { prompts: &[], ..request() };
        assert_eq!(costs(&mut world, &producer, &untokenized), [64, 0, 128]);
    }

    #[test]
    fn output_is_projected_on_request() {
        let costs = |parameters: &str, max_output_tokens| {
            let (mut world, producer) = world(parameters);
            costs(&mut world, &producer, &Request { max_output_tokens, ..request() })[1]
        };
        assert_eq!(costs("{addEstimatedOutputTokens: true}", None), 250);
        assert_eq!(costs("{addEstimatedOutputTokens: true}", Some(30)), 130);
        assert_eq!(costs("{addEstimatedOutputTokens: true, outputRatio: 0.014}", None), 101);
        let bounded = "{addEstimatedOutputTokens: true, maxEstimatedOutputTokens: 20}";
        assert_eq!(costs(bounded, Some(30)), 120);
        assert_eq!(costs("{outputRatio: 3}", None), 100);
    }

    #[test]
    fn load_is_read_by_slot() {
        struct BySlot;
        impl LoadSource for BySlot {
            fn in_flight(&self, slot: Slot) -> InFlight {
                InFlight { requests: slot.index, tokens: 10, word: u64::from(slot.generation) }
            }
        }
        let (mut world, producer) = world("");
        world.produce(&producer, &request(), &BySlot).unwrap();
        let column = world.column::<InFlight>(NAME);
        let expected = InFlight { requests: 2, tokens: 10, word: 1 };
        assert_eq!(world.columns.get(column)[2], Some(expected));
    }

    #[test]
    fn every_result_is_booked() {
        let (mut world, producer) = world("");
        world.produce(&producer, &request(), &Idle).unwrap();
        let release = TokenRelease::FirstByte;
        let decode = Effect::Claim { endpoint: 1, tokens: 100, release, until_first_byte: false };
        let prefill = Effect::Claim { endpoint: 0, tokens: 64, release, until_first_byte: true };
        let effects = world.choose(&producer, &request(), &[("decode", 1), ("prefill", 0)]);
        assert_eq!(effects, [decode, prefill]);

        let anonymous = Request { id: "", ..request() };
        assert_eq!(world.choose(&producer, &anonymous, &[("default", 0)]), []);
    }

    #[test]
    fn projected_output_is_held_to_the_end() {
        let (mut world, producer) = world("{addEstimatedOutputTokens: true}");
        world.produce(&producer, &request(), &Idle).unwrap();
        let effects = world.choose(&producer, &request(), &[("default", 1)]);
        assert!(matches!(
            effects[..],
            [Effect::Claim { release: TokenRelease::End, tokens: 250, .. }]
        ));
    }

    #[test]
    fn parameters_are_checked() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{outputRatio: -0.1}", Some("outputRatio")),
            ("{outputRatio: .nan}", Some("outputRatio")),
            ("{maxEstimatedOutputTokens: -1}", Some("maxEstimatedOutputTokens")),
            ("{sync: true}", Some("sync")),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), field, "{parameters}");
        }
        let built = world.build(NAME, "{syncCrossReplicaState: false}").unwrap();
        let keys: Vec<_> = built.data.produces.iter().map(|k| &*k.name).collect();
        assert_eq!(keys, ["InFlightLoadDataKey", "UncachedRequestTokensDataKey"]);
    }

    proptest! {
        #[test]
        fn a_longer_match_never_costs_more(
            input in 0..100_000u64,
            block in 1..512u32,
            matched in 0..1_000u32,
            more in 0..1_000u32,
        ) {
            let total = u32::try_from(input.div_ceil(u64::from(block))).unwrap();
            let found = |match_blocks: u32| Some(PrefixMatch {
                match_blocks: match_blocks.min(total),
                total_blocks: total,
                block_size_tokens: block,
                cached_blocks: 0,
            });
            let (less, more) = (uncached_input(input, found(matched)), uncached_input(input, found(matched + more)));
            prop_assert!(more <= less);
            prop_assert!(less < input + u64::from(block));
            prop_assert_eq!(uncached_input(input, found(u32::MAX)), 0);
        }
    }
}
