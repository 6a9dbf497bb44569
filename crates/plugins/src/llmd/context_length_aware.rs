//! `context-length-aware`: sends prompts to endpoints that are meant for their length.

use std::any::Any;
use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet};
use inlane_core::plugin::{Candidates, Category, Cycle, Filter, PerTopology, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use serde::Deserialize;

use crate::token_producer;

/// The type `context-length-aware`.
pub const TYPE: PluginType = PluginType::new("context-length-aware", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Pod label with the range, `min-max` in tokens.
    label: String,
    /// Whether endpoints that are meant for other lengths are dropped.
    enable_filtering: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { label: "llm-d.ai/context-length-range".into(), enable_filtering: false }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { label, enable_filtering } = params.decode()?;
    if label.is_empty() {
        return Err(BuildError::field("label", "expected the name of a pod label"));
    }
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let instance = build.instance();
    let plugin = Arc::new(ContextLengthAware { instance, label, enable_filtering });
    Ok(Roles::default().per_topology(plugin.clone()).filter(plugin.clone()).scorer(plugin))
}

/// What a pod label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant {
    /// For these lengths, both included.
    Between(i64, i64),
    /// Something that is no range.
    Malformed,
    /// For any length: there is no label.
    Whatever,
}

impl Meant {
    fn of(value: Option<&str>) -> Self {
        let Some(value) = value else { return Self::Whatever };
        let mut parts = value.split('-').map(|part| part.trim().parse::<i64>());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(min)), Some(Ok(max)), None) if min <= max => Self::Between(min, max),
            _ => Self::Malformed,
        }
    }

    /// Score for a prompt of `tokens`.
    fn score(self, tokens: i64) -> f64 {
        let (min, max) = match self {
            Self::Whatever => return 0.5,
            Self::Malformed => return 0.0,
            Self::Between(min, max) => (min, max),
        };
        if tokens < min || tokens > max {
            let away = if tokens < min { min - tokens } else { tokens - max };
            return 0.3 / (1.0 + away as f64 / 1_000.0);
        }
        // Neither difference can overflow: labels have no sign, so all are at least 0.
        let width = (max - min) as f64;
        if width == 0.0 {
            return 1.0;
        }
        let specific = 1.0 / (1.0 + width / 10_000.0);
        let room = (max - tokens) as f64 / width;
        0.3 + (0.7 * specific + 0.3 * room) * 0.7
    }
}

/// With `L` the tokens of all prompts (0 when they are not known) and the label `min-max`
/// (llm-d-router `context-length-aware`):
///
/// ```text
/// width = max - min     ws = 1 / (1 + width / 10000)     ps = (max - L) / width
/// score = 0.3 + 0.7 * (0.7 * ws + 0.3 * ps)    in the range, 1 when width = 0
///         0.3 / (1 + d / 1000)                 d tokens outside
///         0.5                                  without a label
///         0                                    with a label that is no range
/// ```
///
/// The filter, when enabled, keeps endpoints without a label and those whose range has `L`.
#[derive(Debug)]
struct ContextLengthAware {
    instance: PluginIx,
    label: String,
    enable_filtering: bool,
}

/// What each endpoint is meant for.
struct Ranges(Vec<Meant>);

impl ContextLengthAware {
    fn ranges<'a>(&self, cx: &Cycle<'a>) -> Result<&'a Ranges, PluginError> {
        let settled = cx.settled.get(self.instance);
        settled.ok_or_else(|| PluginError::new("the labels of the pool have not been read"))
    }
}

impl Ranges {
    fn of(&self, ix: EndpointIx) -> Meant {
        self.0.get(ix as usize).copied().unwrap_or(Meant::Whatever)
    }
}

fn tokens(cx: &Cycle<'_>) -> i64 {
    i64::try_from(cx.request.token_count()).unwrap_or(i64::MAX)
}

impl PerTopology for ContextLengthAware {
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync> {
        let meant = |endpoint: &Endpoint| Meant::of(endpoint.label(&self.label));
        Box::new(Ranges(endpoints.as_slice().iter().map(meant).collect()))
    }
}

impl Filter for ContextLengthAware {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        if !self.enable_filtering {
            return Ok(());
        }
        let (ranges, tokens) = (self.ranges(cx)?, tokens(cx));
        candidates.retain(|ix| match ranges.of(ix) {
            Meant::Whatever => Ok(()),
            Meant::Malformed => Err("the label is no range of lengths"),
            Meant::Between(min, max) if (min..=max).contains(&tokens) => Ok(()),
            Meant::Between(..) => Err("meant for prompts of another length"),
        });
        Ok(())
    }
}

impl Scorer for ContextLengthAware {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (ranges, tokens) = (self.ranges(cx)?, tokens(cx));
        for (&ix, out) in candidates.iter().zip(out) {
            *out = ranges.of(ix).score(tokens);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::{Prompt, Request};

    use super::Meant;
    use crate::testing::{Built, World};

    const LABEL: &str = "llm-d.ai/context-length-range";

    fn world(parameters: &str) -> (World, Built) {
        let mut world = World::labelled(&[
            &[(LABEL, "0-2048")],
            &[(LABEL, "2048-8192")],
            &[],
            &[(LABEL, "abc")],
            &[(LABEL, "1000-1000")],
        ]);
        let plugin = world.build("context-length-aware", parameters).unwrap();
        (world, plugin)
    }

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
        }
    }

    #[test]
    fn shorter_ranges_and_more_room_score_higher() {
        let (world, plugin) = world("");
        let ids = vec![0; 1_000];
        let prompts = [Prompt::Tokens(&ids)];
        let request = Request { prompts: &prompts, ..Default::default() };
        let expected = [0.814_168, 0.3 / 2.048, 0.5, 0.0, 1.0];
        close(&world.score_for(&plugin, &request), &expected);
    }

    #[test]
    fn the_tokens_of_all_prompts_count() {
        let (world, plugin) = world("");
        let ids = vec![0; 1_500];
        let prompts = [Prompt::Tokens(&ids), Prompt::Tokens(&ids)];
        let request = Request { prompts: &prompts, ..Default::default() };
        let expected = [0.153_689, 0.780_979, 0.5, 0.0, 0.1];
        close(&world.score_for(&plugin, &request), &expected);
    }

    #[test]
    fn an_unknown_length_is_0() {
        let (world, plugin) = world("");
        close(&world.score(&plugin), &[0.916_707, 0.098_425, 0.5, 0.0, 0.15]);
    }

    #[test]
    fn filters_only_when_told_to() {
        let (world, plugin) = world("");
        assert_eq!(world.filter(&plugin), [0, 1, 2, 3, 4]);
        let (world, plugin) = self::world("{enableFiltering: true}");
        assert_eq!(world.filter(&plugin), [0, 2]);
        let ids = vec![0; 2_048];
        let prompts = [Prompt::Tokens(&ids)];
        let request = Request { prompts: &prompts, ..Default::default() };
        assert_eq!(world.filter_for(&plugin, &request), [0, 1, 2]);
    }

    #[test]
    fn ranges_are_read_like_the_reference_reads_them() {
        assert_eq!(Meant::of(Some(" 1 - 2 ")), Meant::Between(1, 2));
        for malformed in ["", "5", "2-1", "1-2-3", "-1-2", "1.5-2", "1-", "a-b"] {
            assert_eq!(Meant::of(Some(malformed)), Meant::Malformed, "{malformed}");
        }
        let wide = Meant::of(Some("0-9223372036854775807"));
        assert!((0.0..=1.0).contains(&wide.score(0)));
        assert!((0.0..=1.0).contains(&wide.score(i64::MAX)));
    }

    #[test]
    fn a_label_is_required() {
        let mut world = World::new(0);
        let error = world.build("context-length-aware", "{label: ''}").err().unwrap();
        assert_eq!(error.field.as_deref(), Some("label"));
        let built = world.build("context-length-aware", "{label: x}").unwrap();
        assert_eq!(built.data.requires[0].to_string(), "TokenizedPrompt/token-producer");
    }
}
