//! `multicluster-metrics-data-source`: where a cluster shows averages over its own pods.

use inlane_core::registry::PluginType;
use serde_yaml::Value;

use crate::sources::page;

/// The type `multicluster-metrics-data-source`: like `metrics-data-source`, over TLS, with the server's
/// certificate checked.
pub const TYPE: PluginType = PluginType::new("multicluster-metrics-data-source", |_, params| {
    page(params, &[("scheme", Value::from("https")), ("insecureSkipVerify", Value::from(false))])
})
.alpha();

#[cfg(test)]
mod tests {
    use inlane_core::plugin::{Part, Scheme};

    use crate::testing::World;

    #[test]
    fn tls_is_the_default() {
        let mut world = World::new(0);
        let roles = world.build("multicluster-metrics-data-source", "").unwrap().roles;
        assert!(roles.plays(Part::DataSource));
        assert_eq!(roles.scraper.unwrap().scheme(), Scheme::Https);
        let roles =
            world.build("multicluster-metrics-data-source", "{scheme: http}").unwrap().roles;
        assert_eq!(roles.scraper.unwrap().scheme(), Scheme::Http);
    }
}
