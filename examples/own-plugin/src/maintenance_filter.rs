//! `maintenance-filter`: drops endpoints whose label says that they are being worked on.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `maintenance-filter`.
pub const TYPE: PluginType = PluginType::new("maintenance-filter", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The label; its value `true` drops the endpoint.
    label: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { label: "example.com/maintenance".into() }
    }
}

fn build(_: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { label } = params.decode()?;
    if label.is_empty() {
        return Err(BuildError::field("label", "expected the name of a label, found nothing"));
    }
    Ok(Roles::default().filter(Arc::new(MaintenanceFilter { label })))
}

struct MaintenanceFilter {
    label: String,
}

impl Filter for MaintenanceFilter {
    /// Labels change with the topology only, so this filter is run once for each and costs requests
    /// nothing.
    fn is_static(&self) -> bool {
        true
    }

    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| match cx.endpoints[ix].label(&self.label) {
            Some("true") => Err("in maintenance"),
            _ => Ok(()),
        });
        Ok(())
    }
}
