//! A proxy in miniature: a loaded configuration, a pool, and the owner of the prefix indexes.

pub(crate) mod alone;

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::columns::InFlight;
use inlane_core::config::load;
use inlane_core::cycle::{Ask, Scratch};
use inlane_core::endpoint::{Endpoint, EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::LoadSource;
use inlane_core::registry::KeptState;
use inlane_core::request::Request;
use inlane_core::snapshot::ConfigDocument;
use inlane_plugins::prefix::PrefixIndex;

pub(crate) struct Proxy {
    pub(crate) plan: Plan,
    pub(crate) scratch: Scratch,
    kept: KeptState,
}

/// No bookings anywhere.
pub(crate) struct Idle;

impl LoadSource for Idle {
    fn in_flight(&self, _slot: Slot) -> InFlight {
        InFlight::default()
    }
}

impl Proxy {
    #[allow(dead_code, reason = "not every test is about pods without roles")]
    pub(crate) fn new(config: &str, pods: u32) -> Self {
        Self::with_roles(config, &vec![None; pods as usize])
    }

    /// With pods of these roles.
    pub(crate) fn with_roles(config: &str, roles: &[Option<&str>]) -> Self {
        let kept = KeptState::default();
        let text = config.to_owned();
        let allow_experimental_plugins = true;
        let document = ConfigDocument { text, allow_experimental_plugins, ..Default::default() };
        let config = load(&document, &inlane_plugins::registry(), &kept).expect("loads");
        let labels = |role: Option<&str>| -> BTreeMap<String, String> {
            role.map(|role| ("llm-d.ai/role".to_owned(), role.to_owned())).into_iter().collect()
        };
        let endpoint = |(slot, role): (u32, &Option<&str>)| Endpoint {
            id: format!("default/pod-{slot:05}"),
            namespace: "default".into(),
            name: format!("pod-{slot:05}"),
            pod_name: format!("pod-{slot:05}"),
            address: "10.0.0.1".into(),
            port: 8000,
            host_port: "10.0.0.1:8000".into(),
            rank: 0,
            labels: labels(*role),
            slot: Slot { index: slot, generation: 3 },
        };
        let endpoints = EndpointSet::new(1, (0..).zip(roles).map(endpoint).collect());
        let plan = Plan::new(Arc::new(config), Arc::new(endpoints));
        let scratch = Scratch::new(&plan);
        Self { plan, scratch, kept }
    }

    /// Serves a request up to the booking; returns the destination.
    #[allow(dead_code, reason = "not every test serves whole requests")]
    pub(crate) fn serve(&mut self, request: &Request<'_>, seed: u64) -> u32 {
        let Self { plan, scratch, .. } = self;
        plan.begin(scratch);
        plan.produce(&Ask::new(request, &Idle, 1), scratch);
        let target = plan.decide(request, 1, seed, scratch).expect("a destination");
        plan.apply_records(request, 1, seed, scratch);
        target
    }

    /// What the owner thread does.
    #[allow(dead_code, reason = "not every test serves whole requests")]
    pub(crate) fn drain(&self) {
        for index in self.indexes() {
            index.drain();
        }
    }

    /// What a plugin keeps from request to request, when there is one of that kind.
    #[allow(dead_code, reason = "not every test looks inside")]
    pub(crate) fn kept<T: std::any::Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.kept.all::<T>().pop().map(|(_, state)| state)
    }

    #[allow(dead_code, reason = "not every test looks inside")]
    pub(crate) fn indexes(&self) -> Vec<Arc<PrefixIndex>> {
        self.kept.all::<PrefixIndex>().into_iter().map(|(_, index)| index).collect()
    }
}
