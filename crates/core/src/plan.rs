//! A plan: a configuration applied to a pool, ready for decisions.
//!
//! Made once per topology or configuration, away from the request path, and shared by all
//! workers. What does not change from request to request is settled here: the leading filters of
//! a profile that look at nothing but metadata are run once, so that a request starts from the
//! endpoints that survive them. Costs one filter pass per profile and 4 bytes per endpoint and
//! profile.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::columns::Columns;
use crate::config::LoadedConfig;
use crate::cycle::guard::isolate;
use crate::decision::{ProfileIx, Rejection};
use crate::effect::PluginIx;
use crate::endpoint::{EndpointIx, EndpointSet};
use crate::plugin::{Candidates, Cycle, Settled};
use crate::request::Request;

/// What a scorer that reads metrics gives an endpoint whose metrics are stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StaleMetrics {
    /// The mean of the scores of the endpoints with fresh metrics. An endpoint that was never
    /// scraped then looks average instead of idle. With no fresh endpoint at all nobody is scored.
    #[default]
    Mean,
    /// The score of the numbers as they are, as the reference does it.
    Trust,
}

/// One profile of a plan.
#[derive(Debug)]
pub(crate) struct ProfilePlan {
    /// How many leading filters have been run.
    pub(crate) settled: usize,
    /// Who survived them, ascending.
    pub(crate) survivors: Vec<EndpointIx>,
    /// Who did not, and why.
    pub(crate) rejections: Vec<Rejection>,
}

/// A configuration and a pool.
#[derive(Debug)]
pub struct Plan {
    pub(crate) config: Arc<LoadedConfig>,
    pub(crate) endpoints: Arc<EndpointSet>,
    pub(crate) settled: Settled,
    pub(crate) profiles: Vec<ProfilePlan>,
    pub(crate) stale_metrics: StaleMetrics,
    pub(crate) denial_status: u16,
}

/// HTTP status with which admitters turn requests away. The reference wraps every denial into an
/// internal error and answers 500.
pub const DENIAL_STATUS: u16 = 429;

impl Plan {
    /// Applies `config` to `endpoints`.
    pub fn new(config: Arc<LoadedConfig>, endpoints: Arc<EndpointSet>) -> Self {
        let mut settled = Settled::default();
        for (plugin, instance) in (0..).zip(&config.plugins) {
            let Some(role) = instance.roles.per_topology.as_deref() else { continue };
            if let Ok(value) = isolate(|| Ok(role.settle(&endpoints))) {
                settled.set(plugin, value);
            }
        }
        let profiles = (0..config.profiles.len())
            .map(|profile| settle(&config, &endpoints, &settled, profile))
            .collect();
        let stale_metrics = StaleMetrics::default();
        let denial_status = DENIAL_STATUS;
        Self { config, endpoints, settled, profiles, stale_metrics, denial_status }
    }

    /// Chooses the status with which admitters turn requests away.
    #[must_use]
    pub fn with_denial_status(mut self, status: u16) -> Self {
        self.denial_status = status;
        self
    }

    /// What plugins settled for this pool.
    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Chooses how stale metrics are scored.
    #[must_use]
    pub fn with_stale_metrics(mut self, stale_metrics: StaleMetrics) -> Self {
        self.stale_metrics = stale_metrics;
        self
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<LoadedConfig> {
        &self.config
    }

    /// The pool.
    pub fn endpoints(&self) -> &Arc<EndpointSet> {
        &self.endpoints
    }

    /// Endpoints that no request can get through this profile, and why. A decision lists only what
    /// it rejected itself.
    pub fn static_rejections(&self, profile: ProfileIx) -> &[Rejection] {
        self.profiles.get(usize::from(profile)).map_or(&[], |p| &p.rejections)
    }

    /// Name of the instance behind `plugin`, for messages.
    pub fn plugin_name(&self, plugin: PluginIx) -> &str {
        self.config.plugin(plugin).map_or("", |p| &p.name)
    }
}

/// Runs the leading static filters of a profile. A filter that fails here is left to the requests,
/// where its failures are counted.
fn settle(
    config: &LoadedConfig,
    endpoints: &EndpointSet,
    settled: &Settled,
    profile: usize,
) -> ProfilePlan {
    let mut columns = Columns::default();
    columns.reset(endpoints.len());
    let state = config.states().instantiate();
    let request = Request::default();
    let cx = Cycle {
        request: &request,
        endpoints,
        columns: &columns,
        state: &state,
        settled,
        peer: None,
        now_ms: 0,
        seed: 0,
    };
    let mut plan = ProfilePlan {
        settled: 0,
        survivors: (0..).take(endpoints.len()).collect(),
        rejections: Vec::new(),
    };
    for (&plugin, position) in config.profiles[profile].filters.iter().zip(0..) {
        let filter = config.plugin(plugin).and_then(|p| p.roles.filter.as_ref());
        let Some(filter) = filter.filter(|f| f.is_static()) else { break };
        let (mut kept, mut rejections) = (plan.survivors.clone(), Vec::new());
        let mut candidates = Candidates::new(&mut kept, &mut rejections, position);
        if isolate(|| filter.filter(&cx, &mut candidates)).is_err() {
            break;
        }
        plan.settled += 1;
        plan.survivors = kept;
        plan.rejections.append(&mut rejections);
    }
    plan
}
