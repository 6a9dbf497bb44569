//! The order of data producers.
//!
//! A producer comes after those whose data it requires, and, where that can be had, after those
//! whose data it merely uses. What the data leave open follows the order of instances, so that
//! the same file always gives the same order.

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::PluginIx;
use crate::registry::DataKey;

use super::assembly::Assembly;
use super::error::Fault;

/// The producers of an assembly, in the order in which they run.
pub(crate) fn order(assembly: &Assembly<'_>) -> Result<Vec<PluginIx>, Fault> {
    let mut producers_of: BTreeMap<&DataKey, PluginIx> = BTreeMap::new();
    for (plugin, instance) in assembly.iter() {
        for key in &instance.data.produces {
            producers_of.insert(key, plugin);
        }
    }
    let producer_ixs = |keys: &[DataKey], consumer: PluginIx| -> BTreeSet<PluginIx> {
        let found = keys.iter().filter_map(|key| producers_of.get(key).copied());
        found.filter(|&p| p != consumer).collect()
    };
    // Every instance is a node: a cycle through consumers is a mistake, too.
    let needs: Vec<BTreeSet<PluginIx>> =
        assembly.iter().map(|(ix, p)| producer_ixs(&p.data.requires, ix)).collect();
    let wishes: Vec<BTreeSet<PluginIx>> =
        assembly.iter().map(|(ix, p)| producer_ixs(&p.data.uses, ix)).collect();

    let mut left: BTreeSet<PluginIx> = assembly.iter().map(|(ix, _)| ix).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let waits =
            |on: &[BTreeSet<PluginIx>], ix: PluginIx| !on[usize::from(ix)].is_disjoint(&left);
        let ready = || left.iter().copied().filter(|&ix| !waits(&needs, ix));
        let next = ready().find(|&ix| !waits(&wishes, ix)).or_else(|| ready().next());
        let Some(next) = next else { return Err(cycle(assembly, &needs, &left)) };
        left.remove(&next);
        if assembly.plugins[usize::from(next)].roles.producer.is_some() {
            order.push(next);
        }
    }
    Ok(order)
}

/// Names one cycle among the instances that are left, each of which needs another one of them.
fn cycle(
    assembly: &Assembly<'_>,
    needs: &[BTreeSet<PluginIx>],
    left: &BTreeSet<PluginIx>,
) -> Fault {
    let mut path: Vec<PluginIx> = left.iter().take(1).copied().collect();
    while let Some(next) =
        path.last().and_then(|&ix| needs[usize::from(ix)].intersection(left).next().copied())
    {
        if let Some(start) = path.iter().position(|&ix| ix == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    let names: Vec<&str> =
        path.iter().map(|&ix| assembly.plugins[usize::from(ix)].name.as_str()).collect();
    Fault::at(
        "plugins",
        format!("data dependency cycle: {} (each needs the next)", names.join(" -> ")),
    )
}
