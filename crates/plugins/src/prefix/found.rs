//! Where a plugin that is not told otherwise finds out what endpoints hold of a prompt.

use inlane_core::columns::{Col, Columns, PrefixMatch};
use inlane_core::endpoint::EndpointIx;
use inlane_core::registry::Build;

use crate::approx_prefix_cache_producer;
use crate::precise::{producer, scorer};

/// The matches of one producer, or of several of which the first with an answer counts.
///
/// The reference reads the producer with the default name here, even where only another one is
/// configured. This reads the producers that are configured: the default one alone where it is
/// listed, otherwise the precise ones, then approximate ones of other names. The default one is made
/// where no approximate one is listed, for requests of which precise ones know nothing.
#[derive(Debug)]
pub(crate) struct Found(Vec<Col<PrefixMatch>>);

impl Found {
    /// The producer of that name; empty = those that are configured.
    pub(crate) fn of(build: &mut Build<'_>, name: &str) -> Self {
        let default = approx_prefix_cache_producer::TYPE.name;
        if !name.is_empty() {
            return Self(vec![build.require(name, default)]);
        }
        let approximate = build.declared(default);
        if approximate.contains(&default) {
            return Self(vec![build.require("", default)]);
        }
        let mut precise: Vec<String> =
            build.declared(producer::TYPE.name).into_iter().map(str::to_owned).collect();
        if precise.is_empty() {
            let older = build.declared(scorer::TYPE.name);
            precise.extend(older.into_iter().map(scorer::producer_of));
        }
        let mut found: Vec<_> = precise.iter().map(|name| build.optional(name, default)).collect();
        found.extend(approximate.iter().map(|name| build.require(name, default)));
        if approximate.is_empty() {
            found.push(build.require("", default));
        }
        Self(found)
    }

    /// What is known of an endpoint.
    pub(crate) fn at(&self, columns: &Columns, endpoint: EndpointIx) -> Option<PrefixMatch> {
        let at = |col: &Col<PrefixMatch>| *columns.get(*col).get(endpoint as usize)?;
        self.0.iter().find_map(at)
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::config::load;
    use inlane_core::registry::KeptState;
    use inlane_core::snapshot::ConfigDocument;

    /// The producers whose matches the decider and the filter read.
    fn read(plugins: &str) -> Vec<String> {
        let text = format!(
            "{{apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugins: [{{type: \
             prefix-based-pd-decider}}, {{type: prefix-cache-affinity-filter}}, {plugins}]}}"
        );
        let document = ConfigDocument { text, ..ConfigDocument::default() };
        let config = load(&document, &crate::registry(), &KeptState::default()).unwrap();
        let of = |name: &str| -> Vec<String> {
            let plugin = config.plugins.iter().find(|plugin| plugin.name == name).unwrap();
            let keys = plugin.data.uses.iter().chain(&plugin.data.requires);
            let matches = keys.filter(|key| key.name == "PrefixCacheMatchInfoDataKey");
            matches.map(|key| key.producer.clone()).collect()
        };
        let found = of("prefix-based-pd-decider");
        assert_eq!(found, of("prefix-cache-affinity-filter"));
        let names: Vec<&str> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        assert!(found.iter().all(|name| names.contains(&name.as_str())), "{found:?} {names:?}");
        found
    }

    #[test]
    fn the_producers_that_are_configured_are_read() {
        let default = "approx-prefix-cache-producer";
        assert_eq!(read(""), [default]);
        for (plugins, names) in [
            ("{type: approx-prefix-cache-producer}", vec![default]),
            ("{type: approx-prefix-cache-producer, name: mine}", vec!["mine"]),
            (
                "{type: precise-prefix-cache-producer}",
                vec!["precise-prefix-cache-producer", default],
            ),
            (
                "{type: precise-prefix-cache-producer, name: p}, \
                 {type: approx-prefix-cache-producer, name: a}",
                vec!["p", "a"],
            ),
            (
                "{type: precise-prefix-cache-producer}, {type: approx-prefix-cache-producer}",
                vec![default],
            ),
            ("{type: precise-prefix-cache-scorer, name: old}", vec!["old-producer", default]),
        ] {
            assert_eq!(read(plugins), names, "{plugins}");
        }
    }
}
