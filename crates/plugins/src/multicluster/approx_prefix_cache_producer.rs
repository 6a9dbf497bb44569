//! `multicluster-approx-prefix-cache-producer`: [`approx_prefix_cache_producer`] under a name of
//! its own.

use inlane_core::registry::PluginType;

use crate::approx_prefix_cache_producer;

/// The type `multicluster-approx-prefix-cache-producer`. Nothing makes one by default.
pub const TYPE: PluginType = PluginType::new(
    "multicluster-approx-prefix-cache-producer",
    approx_prefix_cache_producer::TYPE.build,
)
.alpha();

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;
    use inlane_core::request::{Prompt, Request};

    use crate::prefix::PrefixIndex;
    use crate::testing::{Idle, World};

    const NAME: &str = "multicluster-approx-prefix-cache-producer";

    #[test]
    fn learns_and_publishes_under_its_own_name() {
        let mut world = World::new(2);
        let producer = world.build(NAME, "").unwrap();
        let ids: Vec<u32> = (0..200).collect();
        let prompts = [Prompt::Tokens(&ids)];
        let request = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        world.produce(&producer, &request, &Idle).unwrap();
        let effects = world.choose(&producer, &request, &[("default", 1)]);
        world.apply(&producer, &request, &effects);
        world.kept.all::<PrefixIndex>()[0].1.drain();
        world.produce(&producer, &request, &Idle).unwrap();
        let column = world.column::<PrefixMatch>(NAME);
        let matches = world.columns.get(column).iter().map(|m| m.unwrap().match_blocks);
        assert_eq!(matches.collect::<Vec<_>>(), [0, 4]);
    }
}
