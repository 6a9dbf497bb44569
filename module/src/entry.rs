//! Where Envoy's configuration becomes filters and clusters.

use std::sync::{Arc, OnceLock};

use envoy_proxy_dynamic_modules_rust_sdk::{
    ClusterConfig, EnvoyClusterMetrics, EnvoyHttpFilterExt, HttpFilterConfig, envoy_log_error,
    is_validation_mode,
};
use inlane_core::registry::Registry;

use crate::admin::AdminConfig;
use crate::cluster::PodsConfig;
use crate::runtime::{MakeRegistry, Runtime};
use crate::scheduler::SchedulerConfig;
use crate::settings::Settings;

static REGISTRY: OnceLock<MakeRegistry> = OnceLock::new();

/// Sets what configurations may name. The first call counts.
pub fn set_registry(registry: MakeRegistry) -> bool {
    REGISTRY.get_or_init(|| registry);
    true
}

fn registry() -> Registry {
    REGISTRY.get().map_or_else(Registry::new, |make| make())
}

/// Makes a configuration of the filter `name`.
pub fn http_filter<EC, EHF: EnvoyHttpFilterExt>(
    _envoy: &mut EC,
    name: &str,
    config: &[u8],
) -> Option<Box<dyn HttpFilterConfig<EHF>>> {
    if !["scheduler", "admin"].contains(&name) {
        envoy_log_error!("inlane: there is no filter '{name}' (scheduler, admin)");
        return None;
    }
    let (settings, runtime) = attach(name, config)?;
    if name == "admin" {
        return Some(Box::new(AdminConfig::new(runtime)));
    }
    if let Some(runtime) = &runtime {
        runtime.configure(&settings);
    }
    Some(Box::new(SchedulerConfig::new(settings, runtime)))
}

/// Makes a configuration of the cluster `pods`.
pub fn pods_cluster(
    name: &str,
    config: &[u8],
    _metrics: Arc<dyn EnvoyClusterMetrics>,
) -> Option<Box<dyn ClusterConfig>> {
    if name != "pods" {
        envoy_log_error!("inlane: there is no cluster '{name}' (pods)");
        return None;
    }
    let (_, runtime) = attach(name, config)?;
    Some(Box::new(PodsConfig::new(runtime)))
}

/// Reads the settings and joins the runtime; `envoy --mode validate` starts none.
fn attach(name: &str, config: &[u8]) -> Option<(Settings, Option<Arc<Runtime>>)> {
    let settings = match Settings::parse(config) {
        Ok(settings) => settings,
        Err(error) => {
            envoy_log_error!("inlane: {name}: {error}");
            return None;
        }
    };
    if validating() {
        return Some((settings, None));
    }
    match Runtime::get(&settings, registry) {
        Ok(runtime) => Some((settings, Some(runtime))),
        Err(error) => {
            envoy_log_error!("inlane: {name}: {error}");
            None
        }
    }
}

#[allow(unsafe_code, reason = "an SDK call that is for the main thread only")]
fn validating() -> bool {
    // SAFETY: configurations are made on the main thread, and only they ask.
    unsafe { is_validation_mode() }
}
