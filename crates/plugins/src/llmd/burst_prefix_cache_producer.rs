//! `burst-prefix-cache-producer`: requests that arrive together and share a prompt go together.

use std::collections::HashMap;
use std::sync::Arc;

use inlane_core::columns::{Col, Columns, Metrics, PrefixMatch};
use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::{EndpointIx, Slot};
use inlane_core::plugin::{DataProducer, Producing, Roles, Ticket};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, TOKENIZED_PROMPT, metric_keys,
};
use inlane_core::request::{BlockUnit, Request};
use inlane_core::state::CycleState;
use serde::Deserialize;

use super::burst::{Balance, Batch, Entry, Rules, Windows, assign};
use crate::prefix::hash;
use crate::token_producer;

/// The type `burst-prefix-cache-producer`.
pub const TYPE: PluginType = PluginType::new("burst-prefix-cache-producer", build).alpha();

/// Blocks that count when tokens are not bounded.
const DEFAULT_BLOCKS: i64 = 2_048;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// How long a window stays open, 1 to 10000 ms.
    window_duration_ms: i64,
    /// Requests with the same prompt per endpoint; -1 = all.
    max_per_replica: i64,
    /// Tokens per block.
    block_size_tokens: i64,
    /// Tokens of a prompt that count; 0 = 2048 blocks.
    max_prefix_tokens_to_match: i64,
    /// Leading blocks that different prompts must share to be placed together; 0 = they are not.
    min_colocate_blocks: i64,
    /// Requests per window; -1 = any number.
    max_batch_size: i64,
    /// What is spread evenly: `requests` or `tokens`.
    balance_by: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            window_duration_ms: 100,
            max_per_replica: -1,
            block_size_tokens: 64,
            max_prefix_tokens_to_match: 0,
            min_colocate_blocks: 0,
            max_batch_size: 1_000,
            balance_by: "requests".into(),
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let plugin = Burst {
        window_ms: within("windowDurationMs", parameters.window_duration_ms, 1..=10_000)?,
        most: limit("maxBatchSize", parameters.max_batch_size)?.unwrap_or(usize::MAX),
        block: within("blockSizeTokens", parameters.block_size_tokens, 1..=i64::from(u32::MAX))?,
        limit: parameters.blocks()?,
        rules: Rules {
            per_replica: limit("maxPerReplica", parameters.max_per_replica)?,
            min_shared: within("minColocateBlocks", parameters.min_colocate_blocks, 0..=i64::MAX)?,
            balance: parameters.balance()?,
        },
        windows: build.kept_state(&format!("{parameters:?}"), Windows::default),
        instance: build.instance(),
        column: build.produce(),
    };
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    build.use_key(metric_keys::RUNNING, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().producer(Arc::new(plugin)))
}

impl Parameters {
    /// Blocks of a prompt that count.
    fn blocks(&self) -> Result<usize, BuildError> {
        let (tokens, block) = (self.max_prefix_tokens_to_match, self.block_size_tokens);
        let blocks = match tokens {
            0 => DEFAULT_BLOCKS,
            tokens if tokens >= block => tokens / block.max(1),
            _ => {
                let text =
                    format!("must be 0 or at least blockSizeTokens ({block}), found {tokens}");
                return Err(BuildError::field("maxPrefixTokensToMatch", text));
            }
        };
        Ok(usize::try_from(blocks).unwrap_or(usize::MAX))
    }

    fn balance(&self) -> Result<Balance, BuildError> {
        match self.balance_by.as_str() {
            "requests" => Ok(Balance::Requests),
            "tokens" => Ok(Balance::Tokens),
            other => {
                let text = format!("must be \"requests\" or \"tokens\", found {other:?}");
                Err(BuildError::field("balanceBy", text))
            }
        }
    }
}

fn within<T: TryFrom<i64>>(
    field: &str,
    value: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Result<T, BuildError> {
    let checked = Some(value).filter(|value| range.contains(value));
    checked.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
        let (least, most) = range.into_inner();
        let bound = if most > 1 << 31 { "or more".into() } else { format!("to {most}") };
        BuildError::field(field, format!("must be {least} {bound}, found {value}"))
    })
}

/// A number of at least 1; -1 = no limit.
fn limit(field: &str, value: i64) -> Result<Option<usize>, BuildError> {
    match value {
        -1 => Ok(None),
        1.. => Ok(Some(usize::try_from(value).unwrap_or(usize::MAX))),
        _ => Err(BuildError::field(field, format!("must be -1 or at least 1, found {value}"))),
    }
}

/// Every request waits until its window has closed; then all of the window are placed at once (see
/// [`super::burst`]). A request that was placed matches all its blocks on its endpoint and none
/// elsewhere.
#[derive(Debug)]
struct Burst {
    window_ms: u64,
    most: usize,
    block: u32,
    limit: usize,
    rules: Rules,
    windows: Arc<Windows>,
    instance: PluginIx,
    column: Col<PrefixMatch>,
}

impl Burst {
    fn unit(&self) -> BlockUnit {
        BlockUnit::Tokens(self.block)
    }

    fn blocks(&self, request: &Request<'_>) -> Vec<u64> {
        let seed = hash::seed(request.target_model, request.cache_salt);
        let mut blocks = Vec::new();
        for prompt in request.packed() {
            hash::chain_prompt(seed, prompt, self.unit(), self.limit, &mut blocks);
        }
        blocks
    }

    /// Places the requests of a window on those of its endpoints that are still there.
    fn place(&self, cx: &Producing<'_>, metrics: &Metrics, batch: &Batch) -> Vec<Option<Slot>> {
        let known: HashMap<Slot, usize> =
            cx.endpoints.slots().iter().zip(0..).map(|(slot, ix)| (*slot, ix)).collect();
        let mut there: Vec<usize> =
            batch.replicas.iter().filter_map(|slot| known.get(slot).copied()).collect();
        there.sort_unstable();
        let running = |ix: &usize| metrics.running.get(*ix).copied().unwrap_or(0);
        let running: Vec<u32> = there.iter().map(running).collect();
        let placed = assign(&batch.entries, self.rules, &running).into_iter();
        placed.map(|at| cx.endpoints.slots().get(*there.get(at?)?).copied()).collect()
    }
}

impl DataProducer for Burst {
    fn has_window(&self) -> bool {
        true
    }

    fn enroll(&self, cx: &Producing<'_>) -> Result<Option<Ticket>, PluginError> {
        let entry = Entry { blocks: self.blocks(cx.request) };
        let slots = cx.endpoints.slots();
        let replicas = cx.candidates.iter().filter_map(|&ix| slots.get(ix as usize).copied());
        let when = (cx.now_ms, self.window_ms, self.most);
        let ticket = self.windows.enroll(entry, replicas, when);
        ticket.map(Some).ok_or_else(|| PluginError::new("the window is full"))
    }

    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let ticket = cx.ticket(self.instance);
        let ticket = ticket.ok_or_else(|| PluginError::new("the request is in no window"))?;
        let metrics = &columns.metrics;
        let placed = self.windows.placed(ticket, |batch| self.place(cx, metrics, &batch));
        let total = u32::try_from(self.blocks(cx.request).len()).unwrap_or(u32::MAX);
        let column = columns.get_mut(self.column);
        for &ix in cx.candidates {
            let Some(cell) = column.get_mut(ix as usize) else { continue };
            let here = placed.is_some() && cx.endpoints.slots().get(ix as usize).copied() == placed;
            let match_blocks = if here { total } else { 0 };
            *cell = Some(PrefixMatch {
                match_blocks,
                total_blocks: total,
                block_size_tokens: self.block,
                cached_blocks: match_blocks,
            });
        }
        Ok(())
    }

    fn block_unit(&self, _metrics: &Metrics, _first: EndpointIx) -> Option<BlockUnit> {
        Some(self.unit())
    }

    fn block_limit(&self, unit: BlockUnit) -> usize {
        if unit == self.unit() { self.limit } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;
    use inlane_core::plugin::{DataProducer, Producing, Ticket};
    use inlane_core::request::{Prompt, Request};

    use crate::testing::{Built, Idle, World};

    const NAME: &str = "burst-prefix-cache-producer";

    fn enroll(world: &World, built: &Built, request: &Request<'_>) -> Option<Ticket> {
        let all = world.all();
        let cx = Producing {
            request,
            endpoints: &world.endpoints,
            candidates: &all,
            load: &Idle,
            settled: &world.settled,
            tickets: &[],
            now_ms: world.now_ms,
            seed: 1,
        };
        let producer: &dyn DataProducer = built.roles.producer.as_deref().unwrap();
        producer.enroll(&cx).ok().flatten()
    }

    /// Where requests with these prompts go that arrive 4 ms apart: (first id, tokens) each.
    fn burst(world: &mut World, parameters: &str, prompts: &[(u32, u32)]) -> String {
        let built = world.build(NAME, parameters).unwrap();
        let ids: Vec<Vec<u32>> =
            prompts.iter().map(|&(first, count)| (first..first + count).collect()).collect();
        let prompts: Vec<[Prompt<'_>; 1]> = ids.iter().map(|ids| [Prompt::Tokens(ids)]).collect();
        let request = |prompts| Request { prompts, target_model: "m", ..Request::default() };
        let mut tickets = Vec::new();
        for prompt in &prompts {
            tickets.push(enroll(world, &built, &request(prompt)));
            world.now_ms += 4;
        }
        world.now_ms += 1_000;
        let column = world.column::<PrefixMatch>(NAME);
        let mut outcome = String::new();
        for (prompt, ticket) in prompts.iter().zip(tickets) {
            world.tickets =
                ticket.map(|ticket| (world.last_instance(), ticket)).into_iter().collect();
            if world.produce(&built, &request(prompt), &Idle).is_err() {
                outcome.push('!');
                continue;
            }
            let cells = world.columns.get(column).iter().map(|cell| cell.unwrap());
            let placed: Vec<_> = cells.clone().filter(|cell| cell.match_blocks > 0).collect();
            assert!(placed.len() <= 1);
            assert!(placed.iter().all(|cell| cell.match_blocks == cell.total_blocks));
            let at = cells.clone().position(|cell| cell.match_blocks > 0);
            outcome.push(at.map_or('-', |at| char::from(b'a' + at as u8)));
        }
        outcome
    }

    #[test]
    fn the_worked_example() {
        let mut world = World::new(2);
        let prompts = [(0, 64), (0, 64), (0, 64), (0, 64), (900, 64), (900, 64)];
        assert_eq!(burst(&mut world, "{maxPerReplica: 3}", &prompts), "aaabbb");
    }

    #[test]
    fn windows_are_placed_apart() {
        let mut world = World::new(2);
        assert_eq!(burst(&mut world, "{windowDurationMs: 4}", &[(0, 64), (0, 64)]), "--");
        assert_eq!(burst(&mut world, "{windowDurationMs: 8}", &[(0, 64), (0, 64)]), "aa");
    }

    #[test]
    fn a_full_window_fails_the_request() {
        let mut world = World::new(2);
        let prompts = [(0, 64), (0, 64), (0, 64)];
        assert_eq!(burst(&mut world, "{maxBatchSize: 2}", &prompts), "aa!");
    }

    #[test]
    fn lone_and_empty_requests_go_anywhere() {
        let mut world = World::new(2);
        assert_eq!(burst(&mut world, "", &[(0, 64), (500, 64), (0, 0), (0, 0)]), "----");
        let shared = "{minColocateBlocks: 1}";
        assert_eq!(burst(&mut world, shared, &[(0, 64), (0, 100)]), "ba");
        assert_eq!(burst(&mut world, "{maxPrefixTokensToMatch: 64}", &[(0, 64), (0, 100)]), "aa");
    }

    #[test]
    fn running_requests_break_ties() {
        let mut world = World::new(3);
        world.columns.metrics.running = vec![2, 1, 1];
        assert_eq!(burst(&mut world, "", &[(0, 64), (0, 64)]), "bb");
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (field, values) in [
            ("windowDurationMs", &["0", "10001"][..]),
            ("maxPerReplica", &["0", "-2"]),
            ("blockSizeTokens", &["0", "-1"]),
            ("maxPrefixTokensToMatch", &["63", "-1"]),
            ("minColocateBlocks", &["-1"]),
            ("maxBatchSize", &["0", "-2"]),
            ("balanceBy", &["blocks", "''"]),
            ("window", &["1"]),
        ] {
            for value in values {
                let parameters = format!("{{{field}: {value}}}");
                let error = world.build(NAME, &parameters).err().expect(&parameters);
                assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
            }
        }
    }
}
