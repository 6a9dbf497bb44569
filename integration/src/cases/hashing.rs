//! Cases about prompts: block hashes and estimated tokens.

use inlane_core::registry::{Params, Registry};
use inlane_plugins::prefix::hash;
use inlane_plugins::token_producer;
use serde_json::{Value, json};

use super::bench::Bench;
use super::check::Checks;
use super::request;
use super::schema::{Case, PromptSpec};

pub(super) fn block_hashes(case: &Case, _: &Registry, checks: &mut Checks) -> Result<(), String> {
    let request = &case.request;
    let whole = |list: &Value| !list.as_array().is_some_and(Vec::is_empty);
    let seed = hash::seed(&request.target_model, &request.cache_salt);
    let hashes = request.prompts.iter().map(|prompt| {
        let (mut hashes, block) = (Vec::new(), case.block_size_tokens);
        let ids = if block > 0 { prompt.ids() } else { Vec::new() };
        hash::chain_tokens(seed, &ids, block, case.max_blocks, &mut hashes);
        Value::from_iter(hashes.iter().map(|hash| format!("{hash:016x}")))
    });
    // A prompt without hashes leaves no trace at the reference.
    let expected = case.expect["hashes"].as_array().into_iter().flatten();
    let expected = Value::from_iter(expected.filter(|list| whole(list)).cloned());
    checks.equal("hashes", &expected, &Value::from_iter(hashes.filter(whole)));
    Ok(())
}

pub(super) fn tokenize(
    case: &Case,
    registry: &Registry,
    checks: &mut Checks,
) -> Result<(), String> {
    let spec = case.plugin()?;
    Bench::new(registry).build(spec)?;
    let parameters = spec.parameters.as_ref().map(serde_yaml::to_value).transpose();
    let parameters = Params::new(parameters.map_err(|e| e.to_string())?);
    let prompts = match request::scan(&case.request, &token_producer::estimate_of(&parameters)) {
        // A request that no parser would let pass has no tokens.
        Err(_) if case.expect["token_count"] == 0 => Vec::new(),
        prompts => prompts?,
    };
    let ids: Vec<Vec<u32>> = prompts.iter().map(PromptSpec::ids).collect();
    let count: usize = ids.iter().map(Vec::len).sum();
    if let Some(expected) = case.expect.get("token_count") {
        checks.equal("token_count", expected, &json!(count));
    }
    let Some(expected) = case.expect["prompts"].as_array() else { return Ok(()) };
    if expected.len() != prompts.len() {
        checks.problem(format!("prompts: expected {}, got {}", expected.len(), prompts.len()));
    }
    for (((expected, prompt), ids), i) in expected.iter().zip(&prompts).zip(&ids).zip(0..) {
        if let Some(expected) = expected.get("first_tokens") {
            let wanted = expected.as_array().map_or(0, Vec::len).max(8.min(ids.len()));
            let first: Vec<u32> = ids.iter().copied().take(wanted).collect();
            checks.equal(&format!("prompts[{i}].first_tokens"), expected, &json!(first));
        }
        let features = prompt.mm_features.iter().map(|feature| {
            json!({
                "modality": feature.modality,
                "hash": feature.hash,
                "offset": feature.offset,
                "length": feature.length,
            })
        });
        let none = json!([]);
        let expected = expected.get("mm_features").filter(|f| !f.is_null()).unwrap_or(&none);
        checks.equal(&format!("prompts[{i}].mm_features"), expected, &Value::from_iter(features));
    }
    Ok(())
}
