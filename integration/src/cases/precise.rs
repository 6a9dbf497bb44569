//! Cases about the tier-weighted longest prefix, from an index given as data.
//!
//! The index maps block keys to the pods that hold the block and in which tier; the keys of the
//! prompt come in order. A pod that does not hold the first block is not in the answer.

use std::collections::{BTreeMap, BTreeSet};

use inlane_core::registry::Registry;
use inlane_plugins::precise::score::{TierWeights, Walk};
use serde_json::Value;

use super::check::{self, Checks};
use super::schema::Case;

/// Who holds a block: pod and tier.
type Holders = Vec<(String, String)>;

pub(super) fn precise_score(case: &Case, _: &Registry, checks: &mut Checks) -> Result<(), String> {
    let entries = case.index.as_object().ok_or("the case has no index")?;
    let mut index: BTreeMap<String, Holders> = BTreeMap::new();
    for (key, holders) in entries {
        let holders = holders.as_array().ok_or_else(|| format!("index.{key} is no list"))?;
        let holders = holders.iter().map(holder).collect::<Option<Holders>>();
        let holders = holders.ok_or_else(|| format!("index.{key}: expected [pod, tier] pairs"))?;
        index.insert(key.clone(), holders);
    }
    let pods: BTreeSet<&str> = index.values().flatten().map(|(pod, _)| pod.as_str()).collect();
    let pods: Vec<&str> = pods.into_iter().collect();
    let weights = weights(case)?;

    let mut walk = Walk::default();
    walk.begin(pods.len());
    for key in &case.keys {
        let holders = index.get(&name(key)).into_iter().flatten();
        walk.block(holders.map(|(pod, tier)| {
            // Every pod of the index is in the list that was made of it.
            let ix = pods.binary_search(&pod.as_str()).unwrap_or_default();
            (ix, weights.tier(tier))
        }));
    }
    let standings = || pods.iter().zip(walk.standings()).filter(|(_, s)| s.blocks() > 0);
    let of = |number: fn(f64, u32) -> f64| -> BTreeMap<String, f64> {
        standings().map(|(pod, s)| ((*pod).to_owned(), number(s.score(), s.blocks()))).collect()
    };
    let expect = &case.expect;
    let tolerance = check::tolerance(expect);
    let scores = of(|score, _| score);
    let numbers: [(&str, &BTreeMap<String, f64>, f64); 3] = [
        ("scores", &scores, tolerance),
        ("match_blocks", &of(|score, _| score.trunc()), 0.0),
        ("cached_blocks", &of(|_, blocks| blocks.into()), 0.0),
    ];
    for (what, found, tolerance) in numbers {
        // Absence may be written as 0.
        let mut expected = expect[what].clone();
        if let Some(listed) = expected.as_object_mut() {
            listed.retain(|pod, value| found.contains_key(pod) || value.as_f64() != Some(0.0));
        }
        checks.numbers(what, &expected, found, tolerance);
    }
    let listed = expect["scores"].as_object();
    for (pod, score) in scores {
        if listed.is_some_and(|listed| !listed.contains_key(&pod)) {
            checks.problem(format!("scores.{pod}: expected nothing, got {score}"));
        }
    }
    Ok(())
}

fn holder(entry: &Value) -> Option<(String, String)> {
    match entry {
        Value::Array(pair) => {
            Some((name(pair.first()?), pair.get(1).map(name).unwrap_or_default()))
        }
        Value::Object(fields) => {
            Some((name(fields.get("pod")?), fields.get("tier").map(name).unwrap_or_default()))
        }
        _ => None,
    }
}

/// A key or a name, which may be written as a number.
fn name(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Weights as an object or as the list of `kvCacheBackendConfigs`, in the case itself or among the
/// parameters of its plugin; nowhere = the default ones.
fn weights(case: &Case) -> Result<TierWeights, String> {
    let parameters = case.plugin.as_ref().and_then(|plugin| plugin.parameters.as_ref());
    let configured = parameters.map(|p| &p["indexerConfig"]["kvCacheBackendConfigs"]);
    let places = [Some(&case.weights), Some(&case.backends), configured];
    let given = places.into_iter().flatten().find(|weights| !weights.is_null());
    let number = |tier: &str, weight: &Value| {
        let weight = weight.as_f64().ok_or_else(|| format!("weights.{tier}: expected a number"))?;
        Ok::<_, String>((tier.to_owned(), weight))
    };
    match given {
        None => Ok(TierWeights::default()),
        Some(Value::Object(weights)) => {
            let weights = weights.iter().map(|(tier, weight)| number(tier, weight));
            Ok(TierWeights::new(weights.collect::<Result<Vec<_>, _>>()?))
        }
        Some(Value::Array(list)) => {
            let weights = list.iter().map(|entry| number(&name(&entry["name"]), &entry["weight"]));
            Ok(TierWeights::new(weights.collect::<Result<Vec<_>, _>>()?))
        }
        Some(other) => Err(format!("weights: expected an object or a list, found {other}")),
    }
}
