//! `model-filter`: keeps endpoints that serve the model which a request is for.

use std::sync::Arc;

use inlane_core::columns::Adapters;
use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

/// The type `model-filter`.
pub const TYPE: PluginType = PluginType::new("model-filter", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// What happens to an endpoint of which the models are not known, and to all of them when no
    /// endpoint has the model.
    on_missing: OnMissing,
    /// Whether everybody stays when nobody serves the model.
    fallback_on_empty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
enum OnMissing {
    /// It is dropped.
    Fail,
    /// It stays.
    #[default]
    Pass,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { on_missing, fallback_on_empty } = params.decode()?;
    build.use_key(metric_keys::ADAPTERS, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().filter(Arc::new(ModelFilter { on_missing, fallback_on_empty })))
}

/// Keeps an endpoint iff the target model is among those that it says it serves, or among the
/// adapters that run or wait there. An endpoint that said nothing of the kind, and a model that no
/// endpoint names, are `onMissing`.
#[derive(Debug)]
struct ModelFilter {
    on_missing: OnMissing,
    fallback_on_empty: bool,
}

impl Filter for ModelFilter {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let wanted = cx.endpoints.adapter_bit(cx.request.target_model);
        let missing = |reason| match self.on_missing {
            OnMissing::Fail => Err(reason),
            OnMissing::Pass => Ok(()),
        };
        let verdict = |ix: u32| {
            if wanted == 0 {
                return missing("no endpoint names the model");
            }
            let adapters = cx.columns.metrics.adapters.get(ix as usize);
            let Adapters { active, waiting, served, .. } = adapters.copied().unwrap_or_default();
            match (active | waiting | served) & wanted {
                0 if served == 0 => missing("its models are not known"),
                0 => Err("does not serve the model"),
                _ => Ok(()),
            }
        };
        if self.fallback_on_empty && candidates.as_slice().iter().all(|&ix| verdict(ix).is_err()) {
            return Ok(());
        }
        candidates.retain(verdict);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::decision::Rejection;
    use inlane_core::request::Request;

    use super::*;
    use crate::testing::World;

    /// Serves base and x; serves base and runs y; said nothing; said nothing and runs x.
    fn kept(parameters: &str, model: &str) -> Vec<u32> {
        let mut world = World::new(4);
        let names = ["base", "x", "y"].map(str::to_owned).to_vec();
        world.endpoints = std::mem::take(&mut world.endpoints).with_adapters(names);
        let with =
            |served, active, waiting| Adapters { served, active, waiting, ..Default::default() };
        world.columns.metrics.adapters =
            vec![with(0b011, 0, 0), with(0b001, 0b100, 0), with(0, 0, 0), with(0, 0, 0b010)];
        let built = world.build("model-filter", parameters).unwrap();
        let request = Request { target_model: model, ..Default::default() };
        let (mut kept, mut rejections) = (world.all(), Vec::<Rejection>::new());
        let mut candidates = Candidates::new(&mut kept, &mut rejections, 0);
        built.roles.filter.unwrap().filter(&world.cycle(&request), &mut candidates).unwrap();
        kept
    }

    #[test]
    fn endpoints_that_serve_the_model_stay() {
        assert_eq!(kept("{onMissing: Fail}", "base"), [0, 1]);
        assert_eq!(kept("{onMissing: Fail}", "x"), [0, 3]);
        assert_eq!(kept("{onMissing: Fail}", "y"), [1]);
    }

    #[test]
    fn what_is_not_known_passes_unless_it_must_not() {
        assert_eq!(kept("", "base"), [0, 1, 2, 3]);
        assert_eq!(kept("", "x"), [0, 2, 3]);
        assert_eq!(kept("", "never-heard-of"), [0, 1, 2, 3]);
        assert_eq!(kept("{onMissing: Fail}", "never-heard-of"), [0u32; 0]);
        let fallback = "{onMissing: Fail, fallbackOnEmpty: true}";
        assert_eq!(kept(fallback, "never-heard-of"), [0, 1, 2, 3]);
        assert_eq!(kept(fallback, "x"), [0, 3]);
    }

    #[test]
    fn adapters_are_declared_as_read() {
        let mut world = World::new(0);
        let built = world.build("model-filter", "").unwrap();
        assert_eq!(built.data.uses[0].name, metric_keys::ADAPTERS);
        assert!(world.build("model-filter", "{onMissing: Maybe}").is_err());
        assert!(world.build("model-filter", "{model: x}").is_err());
    }
}
