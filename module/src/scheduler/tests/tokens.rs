//! Prompts that reach plugins as tokens.

use super::super::testing::Stream;
use super::BODY;
use crate::testing::{PROBED, Shown, World, registry, script, settings};

fn world() -> World {
    World::with(settings(), registry, PROBED, 2)
}

/// The prompts of the request with this body, as plugins see them.
fn shown(world: &World, body: &str) -> Vec<Shown> {
    script(|script| script.prompts.clear());
    Stream::sent(world, body);
    script(|script| script.prompts.pop().unwrap())
}

#[test]
fn prompts_that_come_as_ids_reach_plugins_as_ids() {
    let world = world();
    let ids = shown(&world, r#"{"model":"m","prompt":[5,6,70000],"max_tokens":3}"#);
    assert_eq!(ids, [Shown::Tokens(vec![5, 6, 70_000])]);
    assert_eq!(shown(&world, BODY), [Shown::Blocks(0)], "nobody asks for blocks");
}
