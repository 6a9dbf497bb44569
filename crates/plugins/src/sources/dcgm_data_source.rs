//! `dcgm-data-source`: where the exporter of NVIDIA's data centre GPU manager has its page.

use inlane_core::registry::PluginType;
use serde_yaml::Value;

use super::page;

/// The type `dcgm-data-source`: port 9400, once per second.
pub const TYPE: PluginType = PluginType::new("dcgm-data-source", |_, params| {
    page(params, &[("port", Value::from(9_400)), ("interval", Value::from("1s"))])
})
.alpha();

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn defaults_and_parameters() {
        let mut world = World::new(0);
        let scraper = world.build("dcgm-data-source", "").unwrap().roles.scraper.unwrap();
        assert_eq!((scraper.path(), scraper.port()), ("/metrics", Some(9_400)));
        let scraper = world
            .build("dcgm-data-source", "{port: 9401, path: /x}")
            .unwrap()
            .roles
            .scraper
            .unwrap();
        assert_eq!((scraper.path(), scraper.port()), ("/x", Some(9_401)));
        assert!(world.build("dcgm-data-source", "{port: 0}").is_err());
    }
}
