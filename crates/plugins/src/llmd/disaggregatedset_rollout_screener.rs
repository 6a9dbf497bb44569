//! `disaggregatedset-rollout-screener`: keeps a request on one revision while a set is rolled out.
//!
//! Prefill and decode pods of different revisions must not serve one request together. The screener
//! runs before every profile, so no profile can mix them.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet};
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{
    AfterResponse, Candidates, Collector, PerTopology, Producing, Responding, Roles, Screener,
};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::labels::check_key;
use crate::selector::Selector;

/// The type `disaggregatedset-rollout-screener`.
pub const TYPE: PluginType = PluginType::new("disaggregatedset-rollout-screener", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    scope: Scope,
    header_selectors: Vec<HeaderSelector>,
    revision_gating: Option<Gating>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Scope {
    /// Which pods count for a revision.
    label_selector: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct HeaderSelector {
    name: String,
    header_name: String,
    label_key: String,
    mode: Option<SelectorMode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SelectorMode {
    /// The label is told, scorers may prefer it.
    Prefer,
    /// Only endpoints with the label that the header names.
    Strict,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Gating {
    mode: Option<Mode>,
    require_roles: RequiredRoles,
    revision_label_key: String,
    role_label_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Disabled,
    MaxRole,
    Sum,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RequiredRoles {
    values: Vec<String>,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    if parameters.scope.label_selector.trim().is_empty() {
        return Err(BuildError::field("scope.labelSelector", "must be a label selector"));
    }
    let scope = Selector::parse(&parameters.scope.label_selector)
        .map_err(|e| BuildError::field("scope.labelSelector", e))?;
    let selectors = selectors(parameters.header_selectors)?;
    let Some(gating) = parameters.revision_gating else {
        return Err(BuildError::field("revisionGating", "must be given"));
    };
    let Some(mode) = gating.mode else {
        let message = "must be given, expected sum, max-role or disabled";
        return Err(BuildError::field("revisionGating.mode", message));
    };
    let or = |key: String, default: &str| if key.is_empty() { default.to_owned() } else { key };
    let revision_key = or(gating.revision_label_key, "disaggregatedset.x-k8s.io/revision");
    let role_key = or(gating.role_label_key, "disaggregatedset.x-k8s.io/role");
    for (field, key) in [("revisionLabelKey", &revision_key), ("roleLabelKey", &role_key)] {
        check_key(key).map_err(|e| BuildError::field(format!("revisionGating.{field}"), e))?;
    }
    let roles = gating.require_roles.values;
    let distinct: BTreeSet<&String> = roles.iter().collect();
    if distinct.len() != roles.len()
        || roles.iter().any(String::is_empty)
        || (roles.is_empty() && mode != Mode::Disabled)
    {
        let message = "expected the names of one or more roles, each once";
        return Err(BuildError::field("revisionGating.requireRoles.values", message));
    }
    let screener = Arc::new(RolloutScreener {
        instance: build.instance(),
        name: build.name().to_owned(),
        scope,
        no_match: selectors.iter().map(|_| AtomicU64::new(0)).collect(),
        selectors,
        mode,
        revision_key,
        role_key,
        roles,
        shares: Mutex::default(),
    });
    Ok(Roles::default()
        .per_topology(Arc::<RolloutScreener>::clone(&screener))
        .screener(Arc::<RolloutScreener>::clone(&screener))
        .after_response(Arc::<RolloutScreener>::clone(&screener))
        .collector(screener))
}

fn selectors(given: Vec<HeaderSelector>) -> Result<Vec<HeaderLabel>, BuildError> {
    let mut names = BTreeSet::new();
    let mut selectors = Vec::with_capacity(given.len());
    for (selector, i) in given.into_iter().zip(0..) {
        let field = |name: &str| format!("headerSelectors[{i}].{name}");
        let HeaderSelector { name, header_name, label_key, mode } = selector;
        if name.is_empty() || !names.insert(name.clone()) {
            return Err(BuildError::field(field("name"), "expected a name that no other has"));
        }
        let header = header_name.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if header.is_empty() || !header.bytes().all(is_token) {
            let message = format!("expected the name of a header, found {header_name:?}");
            return Err(BuildError::field(field("headerName"), message));
        }
        check_key(&label_key).map_err(|e| BuildError::field(field("labelKey"), e))?;
        let Some(mode) = mode else {
            let message = "must be given, expected strict or prefer";
            return Err(BuildError::field(field("mode"), message));
        };
        selectors.push(HeaderLabel {
            name,
            header,
            label_key,
            strict: mode == SelectorMode::Strict,
        });
    }
    Ok(selectors)
}

/// A header that carries the value of a label.
#[derive(Debug)]
struct HeaderLabel {
    name: String,
    header: String,
    label_key: String,
    strict: bool,
}

/// Drops the endpoints of revisions that lack a ready pod in a required role. Without a strict
/// header for the revision, one of the revisions left is drawn with a probability proportional to
/// its weight; strict headers keep endpoints whose label has their value. Every selector's label is
/// told in the response.
///
/// Weight of a revision: with `sum` its ready pods over the required roles, with `max-role` its
/// ready pods of the role that has most of them over all complete revisions, the first of equals
/// (llm-d-router `disaggregatedset-rollout-screener`).
#[derive(Debug)]
struct RolloutScreener {
    instance: PluginIx,
    name: String,
    scope: Selector,
    selectors: Vec<HeaderLabel>,
    /// Per selector: strict headers that nobody matched.
    no_match: Vec<AtomicU64>,
    mode: Mode,
    revision_key: String,
    role_key: String,
    roles: Vec<String>,
    /// Share of each revision in the latest topology, for the metrics page.
    shares: Mutex<Vec<(String, f64)>>,
}

/// The values of one label: which there are, and which an endpoint has.
#[derive(Debug, Default)]
struct Values {
    known: Vec<String>,
    of: Vec<Option<u32>>,
}

impl Values {
    fn of_label(endpoints: &EndpointSet, key: &str) -> Self {
        let mut places: BTreeMap<&str, u32> = BTreeMap::new();
        let mut known = Vec::new();
        let place = |endpoint| {
            let value = Endpoint::label(endpoint, key)?;
            Some(*places.entry(value).or_insert_with(|| {
                known.push(value.to_owned());
                (known.len() - 1) as u32
            }))
        };
        let of = endpoints.as_slice().iter().map(place).collect();
        Self { known, of }
    }

    fn get(&self, endpoint: EndpointIx) -> Option<u32> {
        self.of.get(endpoint as usize).copied().flatten()
    }

    fn find(&self, value: &str) -> Option<u32> {
        let at = self.known.iter().position(|known| known == value)?;
        u32::try_from(at).ok()
    }
}

/// What a topology says.
#[derive(Debug)]
struct Rollout {
    revisions: Values,
    /// Per revision; 0 = incomplete.
    weights: Vec<f64>,
    /// Per selector.
    labels: Vec<Values>,
}

impl PerTopology for RolloutScreener {
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync> {
        let revisions = Values::of_label(endpoints, &self.revision_key);
        let weights = self.weights(endpoints, &revisions);
        let total: f64 = weights.iter().sum();
        let share = |weight: f64| if total > 0.0 { weight / total } else { 0.0 };
        let shares = revisions.known.iter().cloned().zip(weights.iter().map(|&w| share(w)));
        *self.shares.lock().unwrap_or_else(PoisonError::into_inner) = shares.collect();
        let labels =
            self.selectors.iter().map(|s| Values::of_label(endpoints, &s.label_key)).collect();
        Box::new(Rollout { revisions, weights, labels })
    }
}

impl RolloutScreener {
    /// The weight of each revision. A pod that serves on several ports counts once.
    fn weights(&self, endpoints: &EndpointSet, revisions: &Values) -> Vec<f64> {
        let mut pods: Vec<Vec<BTreeSet<(&str, &str)>>> =
            vec![vec![BTreeSet::new(); self.roles.len()]; revisions.known.len()];
        for (endpoint, revision) in endpoints.as_slice().iter().zip(&revisions.of) {
            let role = endpoint.label(&self.role_key);
            let role = self.roles.iter().position(|name| Some(name.as_str()) == role);
            if let (Some(revision), Some(role)) = (revision, role)
                && self.scope.matches(endpoint)
            {
                pods[*revision as usize][role].insert((&endpoint.namespace, &endpoint.pod_name));
            }
        }
        fn complete<T>(roles: &[BTreeSet<T>]) -> bool {
            roles.iter().all(|pods| !pods.is_empty())
        }
        let total = |role: usize| -> usize {
            pods.iter().filter(|roles| complete(roles)).map(|roles| roles[role].len()).sum()
        };
        // The last of equal maxima wins, so the first role has to come last.
        let dominant = (0..self.roles.len()).rev().max_by_key(|&role| total(role)).unwrap_or(0);
        let weight = |roles: &Vec<BTreeSet<(&str, &str)>>| match self.mode {
            _ if !complete(roles) => 0,
            Mode::Disabled => 0,
            Mode::MaxRole => roles.get(dominant).map_or(0, BTreeSet::len),
            Mode::Sum => roles.iter().map(BTreeSet::len).sum(),
        };
        pods.iter().map(|roles| weight(roles) as f64).collect()
    }

    /// Draws one of the revisions that candidates have, by weight.
    fn draw(
        &self,
        cx: &Producing<'_>,
        rollout: &Rollout,
        candidates: &[EndpointIx],
    ) -> Option<u32> {
        let mut weights = vec![0.0; rollout.weights.len()];
        for revision in candidates.iter().filter_map(|&ix| rollout.revisions.get(ix)) {
            let at = revision as usize;
            if let (Some(weight), Some(known)) = (weights.get_mut(at), rollout.weights.get(at)) {
                *weight = *known;
            }
        }
        let mut left = cx.rng(u64::from(self.instance)).unit() * weights.iter().sum::<f64>();
        let mut last = None;
        for (&weight, revision) in weights.iter().zip(0..) {
            if weight > 0.0 {
                last = Some(revision);
                left -= weight;
                if left < 0.0 {
                    break;
                }
            }
        }
        last
    }
}

impl Screener for RolloutScreener {
    fn screen(
        &self,
        cx: &Producing<'_>,
        candidates: &mut Candidates<'_>,
    ) -> Result<(), PluginError> {
        let Some(rollout) = cx.settled.get::<Rollout>(self.instance) else {
            return Err(PluginError::Failed("revisions are not known".into()));
        };
        let gated = self.mode != Mode::Disabled;
        if gated {
            let weight = |revision: u32| rollout.weights.get(revision as usize).copied();
            candidates.retain(|ix| match rollout.revisions.get(ix).and_then(weight) {
                Some(weight) if weight > 0.0 => Ok(()),
                _ => Err("the revision lacks a required role"),
            });
        }
        let mut revision_is_given = false;
        let selectors = self.selectors.iter().zip(&rollout.labels).zip(&self.no_match);
        for ((selector, labels), no_match) in selectors.filter(|((s, _), _)| s.strict) {
            let Some(value) = cx.request.headers.get(&selector.header).filter(|v| !v.is_empty())
            else {
                continue;
            };
            revision_is_given |= selector.label_key == self.revision_key;
            let wanted = labels.find(value);
            candidates.retain(|ix| match (labels.get(ix), wanted) {
                (Some(label), Some(wanted)) if label == wanted => Ok(()),
                _ => Err("the label is not what the header asks for"),
            });
            if candidates.as_slice().is_empty() {
                no_match.fetch_add(1, Relaxed);
            }
        }
        if gated && !revision_is_given {
            let drawn = self.draw(cx, rollout, candidates.as_slice());
            candidates.retain(|ix| match rollout.revisions.get(ix) {
                Some(revision) if Some(revision) == drawn => Ok(()),
                _ => Err("another revision was drawn"),
            });
        }
        Ok(())
    }
}

impl AfterResponse for RolloutScreener {
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        let Some(endpoint) = cx.endpoint else { return };
        for selector in &self.selectors {
            if let Some(value) = endpoint.label(&selector.label_key) {
                headers.push((selector.header.clone(), value.to_owned()));
            }
        }
    }
}

impl Collector for RolloutScreener {
    fn collect(&self, page: &mut Exposition) {
        let (plugin_type, plugin_name) =
            (("plugin_type", TYPE.name), ("plugin_name", self.name.as_str()));
        for (selector, count) in self.selectors.iter().zip(&self.no_match) {
            if selector.strict {
                page.counter(
                    "llm_d_epp_disaggregatedset_strict_header_no_match_total",
                    "Requests whose strict header no endpoint matched.",
                    &[plugin_type, plugin_name, ("selector", &selector.name)],
                    count.load(Relaxed) as f64,
                );
            }
        }
        let mode = match self.mode {
            Mode::Disabled => return,
            Mode::MaxRole => "max-role",
            Mode::Sum => "sum",
        };
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        for (revision, share) in shares.iter() {
            page.gauge(
                "llm_d_epp_disaggregatedset_revision_gating_share",
                "Share of requests without a strict header that a revision gets.",
                &[plugin_type, plugin_name, ("mode", mode), ("revision", revision)],
                *share,
            );
        }
    }
}

#[cfg(test)]
#[path = "disaggregatedset_rollout_screener_tests.rs"]
mod tests;
