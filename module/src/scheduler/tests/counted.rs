//! What decisions leave in the metrics.

use super::{BODY, Stream};
use crate::settings::Settings;
use crate::testing::{LEAST_BOOKED, PROBED, World, registry, script, settings};

const STICKY: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}]
";

/// The value of a sample that starts with `start`.
fn value(page: &str, start: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(start));
    line.and_then(|rest| rest.rsplit(' ').next()).and_then(|value| value.parse().ok())
}

#[test]
fn plugins_of_one_in_64_decisions_are_timed() {
    let world = World::with(settings(), registry, LEAST_BOOKED, 2);
    let timed = |point: &str, plugin: &str| {
        let name = "llm_d_epp_plugin_duration_seconds_count";
        let labels = format!(
            "extension_point=\"{point}\",plugin_type=\"{plugin}\",plugin_name=\"{plugin}\""
        );
        value(&world.metrics(), &format!("{name}{{{labels}}}")).unwrap_or(0.0)
    };
    for (decisions, expected) in [(64, 1.0), (1, 2.0)] {
        for _ in 0..decisions {
            drop(Stream::sent(&world, BODY));
        }
        assert_eq!(timed("Scorer", "least-booked"), expected);
        assert_eq!(timed("Picker", "max-score-picker"), expected);
        assert_eq!(timed("DataProducer", "inflight-load-producer"), expected);
        assert_eq!(timed("ProcessProfilesResults", "single-profile-handler"), expected);
    }
    assert_eq!(timed("Filter", "least-booked"), 0.0);
}

#[test]
fn requests_are_counted_under_the_flow_that_plugins_gave_them() {
    let world = World::with(settings(), registry, PROBED, 1);
    script(|script| {
        script.pre_call = Some(|_, facts| {
            facts.priority = Some(3);
            facts.fairness_id = Some("team-a".into());
            Ok(())
        });
    });
    drop(Stream::sent(&world, BODY));
    let counted = r#"llm_d_epp_request_total{fairness_id="team-a",model_name="m",priority="3","#;
    assert_eq!(value(&world.metrics(), counted), Some(1.0), "{}", world.metrics());
}

#[test]
fn cache_hits_are_decisions_for_an_endpoint_with_the_prompt() {
    for legacy in [true, false] {
        let settings = Settings { legacy_metric_names: legacy, ..settings() };
        let world = World::with(settings, registry, STICKY, 2);
        for _ in 0..3 {
            drop(Stream::sent(&world, BODY));
            world.runtime.prefixes().iter().for_each(|(_, index)| {
                index.drain();
            });
        }
        let page = world.metrics();
        assert_eq!(value(&page, "epp_cache_hits_total"), legacy.then_some(2.0), "{page}");
        let scored = "epp_scorer_duration_seconds_count{scorer=\"prefix-cache-scorer\"}";
        assert_eq!(value(&page, scored), legacy.then_some(1.0), "{page}");
        assert_eq!(page.contains("\nepp_"), legacy);
    }
}
