//! `precise-prefix-cache-scorer`: the older all-in-one form of the precise producer and a
//! `prefix-cache-scorer`.

use inlane_core::plugin::Roles;
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde_yaml::{Mapping, Value};

use super::parameters::Parameters;
use super::producer;
use crate::prefix_cache_scorer;

/// The type `precise-prefix-cache-scorer`.
pub const TYPE: PluginType = PluginType::new("precise-prefix-cache-scorer", build);

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    build.warn("deprecated, use a precise-prefix-cache-producer and a prefix-cache-scorer");
    let producer = match build.declared(producer::TYPE.name)[..] {
        [] => {
            let parameters: Parameters = params.decode()?;
            parameters.check(build, true)?;
            let name = producer_of(build.name());
            build.create_producer(producer::TYPE.name, name.clone(), for_producer(params));
            name
        }
        [only] => only.to_owned(),
        ref several => {
            return Err(BuildError::new(format!(
                "expected one precise-prefix-cache-producer at most, found {}",
                several.join(", ")
            )));
        }
    };
    let name = Value::from("prefixMatchInfoProducerName");
    let scorer = Mapping::from_iter([(name, Value::from(producer))]);
    (prefix_cache_scorer::TYPE.build)(build, &Params::new(Some(Value::Mapping(scorer))))
}

/// Name of the producer that the scorer of that name makes.
pub(crate) fn producer_of(name: &str) -> String {
    format!("{name}-producer")
}

/// The parameters without the one that only the scorer takes.
fn for_producer(params: &Params) -> Params {
    let mut value = params.raw().cloned();
    let indexer = value.as_mut().and_then(|value| value.get_mut("indexerConfig"));
    if let Some(indexer) = indexer.and_then(Value::as_mapping_mut) {
        indexer.remove("tokenizersPoolConfig");
    }
    Params::new(value)
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;
    use inlane_core::config::{ConfigError, LoadedConfig, load};
    use inlane_core::registry::KeptState;
    use inlane_core::snapshot::ConfigDocument;

    use crate::testing::World;

    const NAME: &str = "precise-prefix-cache-scorer";

    fn configuration(plugins: &str) -> Result<LoadedConfig, ConfigError> {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}"
        );
        let document = ConfigDocument { text, ..Default::default() };
        load(&document, &crate::registry(), &KeptState::default())
    }

    #[test]
    fn alone_it_brings_its_producer() {
        let mut world = World::new(2);
        let parameters = "{indexerConfig: {tokenizersPoolConfig: {workersCount: 5}}, \
                           speculativeIndexing: true}";
        let scorer = world.build(NAME, parameters).unwrap();
        let [new] = &scorer.data.creates[..] else { panic!("one producer") };
        assert_eq!(new.name, "precise-prefix-cache-scorer-producer");
        let built = world.build(new.type_name, "{}").unwrap();
        assert!(built.roles.producer.is_some());
        let column = world.column::<PrefixMatch>(&new.name);
        let found = PrefixMatch { match_blocks: 2, total_blocks: 4, ..Default::default() };
        world.columns.get_mut(column)[1] = Some(found);
        assert_eq!(world.score(&scorer), [0.0, 0.5]);
        assert!(configuration(&format!("- {{type: {NAME}, parameters: {parameters}}}")).is_ok());
    }

    #[test]
    fn a_producer_that_is_there_is_read() {
        let producer = "- {type: precise-prefix-cache-producer, name: mine}";
        let scorer = format!("- {{type: {NAME}, parameters: {{nonsense: 1}}}}");
        assert!(configuration(&format!("{scorer}\n{producer}")).is_ok());
        let second = "- {type: precise-prefix-cache-producer, name: other}";
        let error = configuration(&format!("{producer}\n{second}\n{scorer}")).unwrap_err();
        assert!(error.to_string().contains("found mine, other"), "{error}");
    }

    #[test]
    fn parameters_are_checked_here() {
        let mut world = World::new(0);
        for parameters in ["{nonsense: 1}", "{speculativeTTL: x}", "{indexerConfig: {a: 1}}"] {
            assert!(world.build(NAME, parameters).is_err(), "{parameters}");
        }
    }
}
