//! `multicluster-prefix-cache-scorer`: [`prefix_cache_scorer`] under a name of its own.

use inlane_core::registry::PluginType;

use crate::prefix_cache_scorer;

/// The type `multicluster-prefix-cache-scorer`.
pub const TYPE: PluginType =
    PluginType::new("multicluster-prefix-cache-scorer", prefix_cache_scorer::TYPE.build).alpha();

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;

    use crate::testing::World;

    #[test]
    fn scores_like_the_prefix_cache_scorer() {
        let mut world = World::new(2);
        let parameters = "{matchLengthWeight: 0.5, matchLengthScaleTokens: 512}";
        let scorer = world.build("multicluster-prefix-cache-scorer", parameters).unwrap();
        let column = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        world.columns.get_mut(column)[0] = Some(PrefixMatch {
            match_blocks: 4,
            total_blocks: 8,
            block_size_tokens: 64,
            cached_blocks: 4,
        });
        assert_eq!(world.score(&scorer), [0.375, 0.0]);
        assert!(world.build("multicluster-prefix-cache-scorer", "{nope: 1}").is_err());
    }
}
