//! `models-data-source`: where an engine lists the models that it serves.

use inlane_core::registry::PluginType;
use serde_yaml::Value;

use super::page;

/// The type `models-data-source`: `/v1/models`, once per second.
pub const TYPE: PluginType = PluginType::new("models-data-source", |_, params| {
    page(params, &[("path", Value::from("/v1/models")), ("interval", Value::from("1s"))])
});

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use inlane_core::plugin::{Part, Scheme};

    use crate::testing::World;

    #[test]
    fn defaults_and_parameters() {
        let mut world = World::new(0);
        let roles = world.build("models-data-source", "").unwrap().roles;
        assert!(roles.plays(Part::DataSource));
        let scraper = roles.scraper.unwrap();
        assert_eq!((scraper.path(), scraper.port()), ("/v1/models", None));
        assert_eq!(scraper.interval(), Some(Duration::from_secs(1)));
        let given = "{path: /models, scheme: https, interval: 5s}";
        let scraper = world.build("models-data-source", given).unwrap().roles.scraper.unwrap();
        assert_eq!((scraper.path(), scraper.scheme()), ("/models", Scheme::Https));
        assert_eq!(scraper.interval(), Some(Duration::from_secs(5)));
        for wrong in ["{path: models}", "{model: m}", "[a]", "{interval: often}"] {
            assert!(world.build("models-data-source", wrong).is_err(), "{wrong}");
        }
    }
}
