//! A decision in words and numbers: who was dropped by which filter, who scored what, who won.
//!
//! The form that pages, logs and the command line show. Made when somebody asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, ProfileIx, ProfileRun, Rejection};
use crate::endpoint::EndpointIx;
use crate::plan::Plan;
use crate::record::exact;

/// What a decision did and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// Why there was no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The chosen endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Name of the profile that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_profile: Option<String>,
    /// What screeners dropped before any profile ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub screened: Vec<Dropped>,
    /// Profiles that ran, in the order of the configuration.
    pub profiles: Vec<ProfileExplanation>,
}

/// What one profile did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileExplanation {
    /// Name.
    pub name: String,
    /// Whether it ended without a target.
    pub failed: bool,
    /// Scorers, in order.
    pub scorers: Vec<WeightedName>,
    /// The picker.
    pub picker: String,
    /// Endpoints that passed the filters.
    pub endpoints: Vec<Scored>,
    /// Endpoints that did not.
    pub rejected: Vec<Dropped>,
    /// The picker's choice, best first.
    pub picked: Vec<String>,
    /// Where retries go, in order.
    pub ranking: Vec<String>,
    /// Plugins that failed and were ignored.
    pub plugin_errors: Vec<PluginFailure>,
}

/// A scorer and its weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightedName {
    /// Name of the instance.
    pub name: String,
    /// Its weight.
    pub weight: f64,
}

/// The scores of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scored {
    /// The endpoint.
    pub endpoint: String,
    /// Raw score by scorer; null = not scored.
    pub scores: BTreeMap<String, Option<f64>>,
    /// The weighted sum.
    #[serde(with = "exact")]
    pub total: f64,
}

/// An endpoint that was dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// The endpoint.
    pub endpoint: String,
    /// The filter or screener.
    pub filter: String,
    /// Its reason.
    pub reason: String,
}

/// A plugin that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginFailure {
    /// Name of the instance.
    pub plugin: String,
    /// What went wrong.
    pub error: String,
}

impl Explanation {
    /// Explains a decision that was made on `plan`; `error` is empty when it has a destination.
    pub fn of(plan: &Plan, decision: &Decision, error: &str) -> Self {
        let target = decision.target().filter(|_| error.is_empty());
        let target = target.and_then(|ix| plan.endpoints().get(ix));
        let screener = |rejection: &Rejection| {
            let screeners = &plan.config().screeners;
            screeners.get(usize::from(rejection.filter)).copied()
        };
        let runs = decision.profiles.iter().zip(0..).filter(|(run, _)| run.ran);
        Self {
            error: Some(error.to_owned()).filter(|error| !error.is_empty()),
            endpoint: target.map(|target| target.id.clone()),
            destination: target.map(|target| match decision.port {
                Some(port) => crate::endpoint::Endpoint::join_host_port(&target.address, port),
                None => target.host_port.clone(),
            }),
            primary_profile: target.and(decision.primary_run()).map(|run| run.name.clone()),
            screened: decision.screened.iter().map(|r| dropped(plan, r, screener(r))).collect(),
            profiles: runs.filter_map(|(run, ix)| profile(plan, ix, run)).collect(),
        }
    }
}

fn dropped(plan: &Plan, rejection: &Rejection, by: Option<crate::effect::PluginIx>) -> Dropped {
    Dropped {
        endpoint: id(plan, rejection.endpoint),
        filter: by.map(|plugin| plan.plugin_name(plugin).to_owned()).unwrap_or_default(),
        reason: rejection.reason.to_owned(),
    }
}

fn id(plan: &Plan, ix: EndpointIx) -> String {
    plan.endpoints().get(ix).map(|e| e.id.clone()).unwrap_or_default()
}

fn profile(plan: &Plan, ix: ProfileIx, run: &ProfileRun) -> Option<ProfileExplanation> {
    let profile = plan.config().profiles.get(usize::from(ix))?;
    let scorers: Vec<WeightedName> = profile
        .scorers
        .iter()
        .map(|s| WeightedName { name: plan.plugin_name(s.plugin).to_owned(), weight: s.weight })
        .collect();
    let endpoints = run.candidates.iter().zip(&run.totals).enumerate().map(|(row, (ix, total))| {
        let scores = scorers.iter().zip(&run.scores).map(|(scorer, scores)| {
            let score = scores.get(row).copied().filter(|score| score.is_finite());
            (scorer.name.clone(), score)
        });
        Scored { endpoint: id(plan, *ix), scores: scores.collect(), total: *total }
    });
    let statics = plan.static_rejections(ix).iter();
    let rejected = statics.chain(&run.rejections).map(|rejection| {
        dropped(plan, rejection, profile.filters.get(usize::from(rejection.filter)).copied())
    });
    let ids = |list: &[EndpointIx]| list.iter().map(|ix| id(plan, *ix)).collect();
    Some(ProfileExplanation {
        name: run.name.clone(),
        failed: run.failed,
        endpoints: endpoints.collect(),
        rejected: rejected.collect(),
        picked: ids(&run.targets),
        ranking: ids(&run.ranking),
        plugin_errors: run
            .errors
            .iter()
            .map(|(plugin, error)| PluginFailure {
                plugin: plan.plugin_name(*plugin).to_owned(),
                error: error.to_string(),
            })
            .collect(),
        picker: plan.plugin_name(profile.picker).to_owned(),
        scorers,
    })
}
