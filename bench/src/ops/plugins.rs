//! Every registered plugin alone, in each role that a decision or its preparation calls.
//!
//! A type is here as soon as it is registered. Columns are filled beforehand; what is timed is the
//! plugin's own part, without the cycle around it.

use super::Operation;
use crate::Fallible;
use crate::alone::{self, Alone};

/// Pool sizes.
const POOLS: [u32; 3] = [10, 100, 1_000];

pub(super) fn operations() -> Fallible<Vec<Operation>> {
    let registry = inlane_plugins::registry();
    let mut operations = Vec::new();
    for (name, role) in alone::roles(&registry)? {
        for pods in POOLS {
            let label = format!("plugin/{name}/{}/{pods}", role.name());
            let operation = Operation::new(label, move || {
                let mut plugin = Alone::new(&inlane_plugins::registry(), name, pods)?;
                plugin.run(role, 0)?;
                let mut seed = 0;
                Ok(Box::new(move || {
                    seed += 1;
                    let outcome = plugin.run(role, seed);
                    assert!(outcome.is_ok(), "{name}: {outcome:?}");
                }))
            });
            operations.push(if alone::may_allocate(name, role) {
                operation
            } else {
                operation.without_allocation()
            });
        }
    }
    Ok(operations)
}
