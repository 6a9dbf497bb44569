//! `prefix-based-pd-decider`: a prompt is computed elsewhere when enough of it is not cached.

use std::sync::Arc;

use inlane_core::columns::PrefixMatch;
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Decider, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::request::{BlockUnit, Prompt, Request};
use serde::Deserialize;

use crate::prefix::found::Found;
use crate::token_producer;

/// The type `prefix-based-pd-decider`.
pub const TYPE: PluginType = PluginType::new("prefix-based-pd-decider", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Tokens that must not be cached; 0 = never elsewhere.
    non_cached_tokens: i64,
    /// Tokens that a prompt must have; 0 = any number.
    prompt_tokens: i64,
    /// Bytes that must not be cached, in place of `nonCachedTokens`.
    prompt_bytes_threshold: Option<i64>,
    /// Instance that publishes matches; empty = those that are configured.
    prefix_match_info_producer_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let size = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| {
            let text = "parameter of prefix disaggregation decider cannot be negative";
            BuildError::field(field, format!("{field} {text}, found {value}"))
        })
    };
    let prompt_tokens = size("promptTokens", parameters.prompt_tokens)?;
    let non_cached = size("nonCachedTokens", parameters.non_cached_tokens)?;
    let least = match parameters.prompt_bytes_threshold {
        None => Least::Tokens(non_cached),
        Some(_) if non_cached > 0 => {
            let text = "cannot be combined with nonCachedTokens";
            return Err(BuildError::field("promptBytesThreshold", text));
        }
        Some(bytes) => Least::Bytes(size("promptBytesThreshold", bytes)?),
    };
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let found = Found::of(build, &parameters.prefix_match_info_producer_name);
    Ok(Roles::default().decider(Arc::new(PrefixBased { prompt_tokens, least, found })))
}

/// How much of a prompt must not be cached.
#[derive(Debug, Clone, Copy)]
enum Least {
    Tokens(u64),
    Bytes(u64),
}

/// With `n` the prompt's tokens and `c` those cached at the decode target (contiguous, unweighted):
/// yes iff `nonCachedTokens > 0`, `n >= promptTokens` and `n - c >= nonCachedTokens` (llm-d-router
/// `prefix-based-pd-decider`). With `promptBytesThreshold` instead: yes iff `bytes of the prompt -
/// bytes of its whole blocks that are cached >= promptBytesThreshold` (what llm-d's inference
/// scheduler 0.1 meant by `PD_PROMPT_LEN_THRESHOLD`).
#[derive(Debug)]
struct PrefixBased {
    prompt_tokens: u64,
    least: Least,
    found: Found,
}

/// Bytes of text in a block of a match.
fn block_bytes(request: &Request<'_>, found: PrefixMatch) -> u64 {
    let in_bytes = |prompt: &Prompt<'_>| match prompt {
        Prompt::Blocks { unit: BlockUnit::Bytes(bytes), .. } => Some(u64::from(*bytes)),
        _ => None,
    };
    let counted = request.packed().iter().find_map(in_bytes);
    counted.unwrap_or_else(|| 4 * u64::from(found.block_size_tokens))
}

impl Decider for PrefixBased {
    fn decide(&self, cx: &Cycle<'_>, decode: Option<EndpointIx>) -> Result<bool, PluginError> {
        let Some(decode) = decode else { return Ok(false) };
        let tokens = cx.request.token_count();
        if tokens < self.prompt_tokens {
            return Ok(false);
        }
        match self.least {
            Least::Tokens(0) => Ok(false),
            Least::Tokens(least) if tokens < least => Ok(false),
            Least::Tokens(least) => {
                let Some(found) = self.found.at(cx.columns, decode) else { return Ok(false) };
                let cached = u64::from(found.cached_blocks) * u64::from(found.block_size_tokens);
                Ok(tokens.saturating_sub(cached) >= least)
            }
            Least::Bytes(least) => {
                let bytes = cx.request.prompt_bytes;
                let found = self.found.at(cx.columns, decode).unwrap_or_default();
                let block = block_bytes(cx.request, found);
                // The first release knew whole blocks only.
                let whole = bytes.checked_div(block).unwrap_or(0);
                let cached = u64::from(found.cached_blocks).min(whole) * block;
                Ok(bytes.saturating_sub(cached) >= least)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;
    use inlane_core::request::{Prompt, Request};

    use crate::testing::World;

    const APPROX: &str = "approx-prefix-cache-producer";

    fn found(cached: u32, total: u32, block: u32) -> Option<PrefixMatch> {
        Some(PrefixMatch {
            match_blocks: 0,
            total_blocks: total,
            block_size_tokens: block,
            cached_blocks: cached,
        })
    }

    fn says(parameters: &str, tokens: u32, bytes: u64, found: Option<PrefixMatch>) -> bool {
        let mut world = World::new(2);
        let built = world.build("prefix-based-pd-decider", parameters).unwrap();
        let column = world.column::<PrefixMatch>(APPROX);
        world.columns.get_mut(column)[1] = found;
        let ids: Vec<u32> = (0..tokens).collect();
        let prompts = [Prompt::Tokens(&ids)];
        let request = Request { prompts: &prompts, prompt_bytes: bytes, ..Request::default() };
        let decider = built.roles.decider.as_ref().unwrap();
        assert_eq!(decider.decide(&world.cycle(&request), None), Ok(false));
        decider.decide(&world.cycle(&request), Some(1)).unwrap()
    }

    #[test]
    fn equality_disaggregates() {
        let rule = "{nonCachedTokens: 128}";
        assert!(says(rule, 512, 0, found(4, 8, 64)));
        assert!(says(rule, 512, 0, found(6, 8, 64)));
        assert!(!says(rule, 512, 0, found(7, 8, 64)));
        assert!(says("{nonCachedTokens: 16}", 160, 0, found(9, 10, 16)));
        assert!(!says("{nonCachedTokens: 16}", 159, 0, found(9, 10, 16)));
    }

    #[test]
    fn short_prompts_stay() {
        assert!(!says("{nonCachedTokens: 16}", 15, 0, found(0, 1, 16)));
        let rule = "{nonCachedTokens: 1, promptTokens: 100}";
        assert!(!says(rule, 99, 0, found(0, 1, 16)));
        assert!(says(rule, 100, 0, found(0, 1, 16)));
    }

    #[test]
    fn zero_disables_and_nothing_known_means_no() {
        assert!(!says("", 512, 0, found(0, 8, 64)));
        assert!(!says("{promptTokens: 1}", 512, 0, found(0, 8, 64)));
        assert!(!says("{nonCachedTokens: 10}", 512, 0, None));
    }

    #[test]
    fn more_cached_than_there_is_stays() {
        assert!(!says("{nonCachedTokens: 1}", 100, 0, found(2, 2, 64)));
    }

    #[test]
    fn bytes_are_exact() {
        let rule = "{promptBytesThreshold: 100}";
        assert!(!says(rule, 25, 99, found(0, 1, 64)));
        assert!(says(rule, 25, 100, found(0, 1, 64)));
        assert!(says(rule, 665, 2_660, found(10, 11, 64)));
        assert!(!says(rule, 665, 2_659, found(10, 11, 64)));
        // A shorter last block is never cached.
        assert!(says(rule, 89, 356, found(2, 2, 64)));
        assert!(!says(rule, 89, 355, found(2, 2, 64)));
        assert!(says(rule, 25, 100, None));
        assert!(says("{promptBytesThreshold: 0}", 0, 0, None));
    }

    #[test]
    fn another_producer_can_be_named() {
        let mut world = World::new(1);
        let parameters = "{nonCachedTokens: 1, prefixMatchInfoProducerName: mine}";
        let built = world.build("prefix-based-pd-decider", parameters).unwrap();
        assert_eq!(built.data.requires[1].to_string(), "PrefixCacheMatchInfoDataKey/mine");
        let built = world.build("prefix-based-pd-decider", "").unwrap();
        assert_eq!(built.data.requires[1].producer, APPROX);
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{nonCachedTokens: -1}", "nonCachedTokens"),
            ("{promptTokens: -1}", "promptTokens"),
            ("{promptBytesThreshold: -1}", "promptBytesThreshold"),
            ("{promptBytesThreshold: 1, nonCachedTokens: 1}", "promptBytesThreshold"),
            ("{tokens: 1}", "tokens"),
        ] {
            let error = world.build("prefix-based-pd-decider", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
    }
}
