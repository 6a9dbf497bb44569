//! How long plugins take.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::cycle::ExtensionPoint;
use inlane_core::exposition::{Exposition, Histogram};
use inlane_plugins::precise;
use parking_lot::Mutex;

use super::buckets::FAST;
use super::make::old;

/// Of so many decisions of a worker one is timed: reading the clock around every plugin would cost
/// more than most plugins.
pub const TIMED_EVERY: u32 = 64;

/// Nanoseconds in a second: the unit of the sums.
const SCALE: f64 = 1e9;

/// One histogram per plugin instance and extension point.
#[derive(Debug, Default)]
pub struct PluginTimes {
    series: Mutex<BTreeMap<Key, Arc<Histogram>>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    point: &'static str,
    plugin_type: String,
    name: String,
}

impl PluginTimes {
    /// The histogram of an instance, in seconds. Takes a lock: workers keep it.
    pub fn of(&self, point: ExtensionPoint, plugin_type: &str, name: &str) -> Arc<Histogram> {
        let (plugin_type, name) = (plugin_type.to_owned(), name.to_owned());
        let key = Key { point: point.as_str(), plugin_type, name };
        let mut series = self.series.lock();
        Arc::clone(series.entry(key).or_insert_with(|| Arc::new(Histogram::new(FAST, SCALE))))
    }

    /// Adds the families to a page.
    pub(super) fn collect(&self, page: &mut Exposition) {
        let text =
            format!("Duration of plugin calls in seconds, of one in {TIMED_EVERY} decisions.");
        let deprecated = old("plugin_duration_seconds", &text);
        let current = format!("[ALPHA] {text}");
        for (name, help) in [
            ("llm_d_epp_plugin_duration_seconds", &current),
            ("inference_extension_plugin_duration_seconds", &deprecated),
        ] {
            for (key, times) in self.series.lock().iter() {
                let labels = [
                    ("extension_point", key.point),
                    ("plugin_type", &key.plugin_type),
                    ("plugin_name", &key.name),
                ];
                page.histogram(name, help, &labels, times.snapshot());
            }
        }
    }

    /// Adds the lookups of the precise producers, under the names that the reference has for them.
    pub(super) fn collect_lookups(&self, page: &mut Exposition) {
        let current = "llm_d_epp_kv_cache_index_lookup_latency_seconds";
        let text = format!("Lookups in the index in seconds, of one in {TIMED_EVERY} decisions.");
        let deprecated = format!("[ALPHA] [Deprecated: Use {current}] {text}");
        let of_producers = |key: &&Key| {
            let types = [precise::producer::TYPE.name, precise::scorer::TYPE.name];
            types.contains(&key.plugin_type.as_str())
                && key.point == ExtensionPoint::DataProducer.as_str()
        };
        let series = self.series.lock();
        for (_, times) in series.iter().filter(|(key, _)| of_producers(key)) {
            let help = format!("[ALPHA] {text}");
            page.histogram(current, &help, &[], times.snapshot());
            let old = "kvcache_index_lookup_latency_seconds";
            page.histogram(old, &deprecated, &[], times.snapshot());
        }
    }

    /// Adds the instances that are called at `point` to a page, by type under the label `label`.
    pub(super) fn collect_types(
        &self,
        point: ExtensionPoint,
        (name, help): (&str, &str),
        label: &str,
        page: &mut Exposition,
    ) {
        for (key, times) in self.series.lock().iter().filter(|(key, _)| key.point == point.as_str())
        {
            page.histogram(name, help, &[(label, &key.plugin_type)], times.snapshot());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_kept_apart_and_types_add_up() {
        let times = PluginTimes::default();
        for (name, seconds) in [("a", 0.0001), ("b", 0.003), ("b", 1.0)] {
            times.of(ExtensionPoint::Scorer, "queue-scorer", name).observe(seconds);
        }
        times.of(ExtensionPoint::Filter, "decode-filter", "d").observe(0.01);
        let mut page = Exposition::default();
        times.collect(&mut page);
        let family = ("epp_scorer_duration_seconds", "Scorers.");
        times.collect_types(ExtensionPoint::Scorer, family, "scorer", &mut page);
        let text = page.render();
        let labels = "extension_point=\"Scorer\",plugin_type=\"queue-scorer\"";
        for line in [
            "# HELP llm_d_epp_plugin_duration_seconds [ALPHA] Duration of plugin calls in seconds, of one in 64 decisions.",
            "# HELP inference_extension_plugin_duration_seconds [ALPHA] [Deprecated: Use llm_d_epp_plugin_duration_seconds] ",
            &format!(
                "llm_d_epp_plugin_duration_seconds_bucket{{{labels},plugin_name=\"a\",le=\"0.0001\"}} 1"
            ),
            &format!(
                "inference_extension_plugin_duration_seconds_count{{{labels},plugin_name=\"b\"}} 2"
            ),
            "epp_scorer_duration_seconds_count{scorer=\"queue-scorer\"} 3",
            "epp_scorer_duration_seconds_bucket{scorer=\"queue-scorer\",le=\"0.005\"} 2",
        ] {
            assert!(text.contains(line), "missing {line}\n{text}");
        }
        assert!(!text.contains("scorer=\"decode-filter\""), "{text}");
    }
}
