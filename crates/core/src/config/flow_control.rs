//! Flow control: limits and policies of the admission queues, checked.
//!
//! Only meaningful with the `flowControl` gate on. Without it the section is decoded and ignored,
//! apart from the saturation detector.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plugin::Part;

use super::assembly::Assembly;
use super::document::{BandSpec, FlowControlSpec};
use super::error::Fault;
use super::quantity::{GoDuration, Quantity};

/// Policies that need no declaration.
const FAIRNESS: &str = "global-strict-fairness-policy";
const ORDERING: &str = "fcfs-ordering-policy";
const USAGE_LIMIT: &str = "static-usage-limit-policy";
const DETECTOR: &str = "utilization-detector";

const BAND_BYTES: u64 = 1_000_000_000;
const BAND_REQUESTS: u64 = 5_000;
const TTL: Duration = Duration::from_secs(60);

/// One priority band.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    /// Priority; without meaning in a template.
    pub priority: i32,
    /// Bytes of queued requests.
    pub max_bytes: u64,
    /// Queued requests.
    pub max_requests: u64,
    /// Instance name of the fairness policy.
    pub fairness_policy: String,
    /// Instance name of the ordering policy.
    pub ordering_policy: String,
}

/// Flow control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowControl {
    /// Bytes of queued requests over all bands; `None` = unlimited.
    pub max_bytes: Option<u64>,
    /// Queued requests over all bands; `None` = unlimited.
    pub max_requests: Option<u64>,
    /// How long a request may wait while the pool has endpoints; `None` = forever.
    pub default_request_ttl: Option<Duration>,
    /// How long a request may wait while the pool is empty; `None` = forever.
    pub no_endpoint_request_ttl: Option<Duration>,
    /// Template for priorities that are not listed.
    pub default_band: Band,
    /// Template for negative priorities that are not listed.
    pub default_negative_band: Band,
    /// Listed bands, in the order of the file.
    pub bands: Vec<Band>,
    /// Instance name of the usage-limit policy.
    pub usage_limit_policy: String,
    /// Instance name of the saturation detector.
    pub saturation_detector: String,
    /// Whether running requests of negative priority may be ended.
    pub enable_eviction: bool,
}

impl FlowControlSpec {
    /// Whether anything is set that counts only with the gate on. (Eviction alone does not.)
    pub(crate) fn has_gated_settings(&self) -> bool {
        self.max_bytes.is_some()
            || self.max_requests.is_some()
            || self.default_request_ttl.is_some()
            || self.no_endpoint_request_ttl.is_some()
            || self.default_priority_band.is_some()
            || self.default_negative_priority_band.is_some()
            || !self.priority_bands.is_empty()
            || !self.usage_limit_policy_plugin_ref.is_empty()
    }
}

/// Checks the reference to the saturation detector, with the gate on or off.
pub(crate) fn check_detector(spec: &FlowControlSpec, assembly: &Assembly<'_>) -> Result<(), Fault> {
    let name = spec.saturation_detector.as_ref().map_or("", |d| &d.plugin_ref);
    if name.is_empty() {
        return Ok(());
    }
    let path = "flowControl.saturationDetector.pluginRef";
    match assembly.find(name) {
        Some((_, plugin)) if plugin.roles.plays(Part::SaturationDetector) => Ok(()),
        Some(_) => {
            let text = format!("plugin '{name}' is not a saturation detector (SaturationDetector)");
            Err(Fault::at(path, text))
        }
        None if name == DETECTOR => Ok(()),
        None => {
            let text = format!("saturation detector references undefined plugin '{name}'");
            Err(Fault::at(path, text).hint(assembly.nearest(name)))
        }
    }
}

/// Makes the policies and the detector that stand for those that the section leaves out, where
/// their types are registered.
pub(crate) fn inject_defaults(assembly: &mut Assembly<'_>) -> Result<(), Fault> {
    for name in [FAIRNESS, ORDERING, USAGE_LIMIT, DETECTOR] {
        assembly.find_or_inject(name)?;
    }
    Ok(())
}

/// Checks the section and applies its defaults.
pub(crate) fn resolve(
    spec: &FlowControlSpec,
    assembly: &Assembly<'_>,
) -> Result<FlowControl, Fault> {
    let policies = Policies { assembly };
    let default_band = spec.default_priority_band.clone().unwrap_or_default();
    let negative = spec.default_negative_priority_band.as_ref();
    let mut seen = BTreeSet::new();
    let mut bands = Vec::new();
    for (band, i) in spec.priority_bands.iter().zip(0..) {
        let path = format!("flowControl.priorityBands[{i}]");
        if !seen.insert(band.priority) {
            let text = format!("duplicate priority level {}", band.priority);
            return Err(Fault::at(format!("{path}.priority"), text));
        }
        bands.push(policies.band(band, &path)?);
    }
    let default_ttl = ttl(spec.default_request_ttl, "DefaultRequestTTL", "defaultRequestTTL")?;
    let empty_ttl =
        ttl(spec.no_endpoint_request_ttl, "NoEndpointRequestTTL", "noEndpointRequestTTL")?;
    let limit = |value, name| limit(value, &format!("flowControl.{name}"), name);
    let expiry = |ttl: Duration| Some(ttl).filter(|t| !t.is_zero());
    Ok(FlowControl {
        max_bytes: limit(spec.max_bytes, "maxBytes")?,
        max_requests: limit(spec.max_requests, "maxRequests")?,
        default_request_ttl: expiry(default_ttl.unwrap_or(TTL)),
        no_endpoint_request_ttl: expiry(empty_ttl.or(default_ttl).unwrap_or(TTL)),
        default_band: policies.band(&default_band, "flowControl.defaultPriorityBand")?,
        default_negative_band: policies
            .band(negative.unwrap_or(&default_band), "flowControl.defaultNegativePriorityBand")?,
        bands,
        usage_limit_policy: policies.named(
            &spec.usage_limit_policy_plugin_ref,
            USAGE_LIMIT,
            (Part::UsageLimitPolicy, "UsageLimitPolicy"),
            "flowControl.usageLimitPolicyPluginRef",
        )?,
        saturation_detector: spec
            .saturation_detector
            .as_ref()
            .map(|d| d.plugin_ref.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| DETECTOR.to_owned()),
        enable_eviction: spec.enable_eviction,
    })
}

/// A limit: absent and 0 = none.
fn limit(value: Option<Quantity>, path: &str, name: &str) -> Result<Option<u64>, Fault> {
    let Some(Quantity(value)) = value else { return Ok(None) };
    u64::try_from(value)
        .map(|v| Some(v).filter(|&v| v > 0))
        .map_err(|_| Fault::at(path, format!("{name} must be non-negative, got {value}")))
}

fn ttl(value: Option<GoDuration>, name: &str, field: &str) -> Result<Option<Duration>, Fault> {
    match value {
        Some(GoDuration { negative: true, length }) => {
            let text = format!("{name} cannot be negative, but got -{length:?}");
            Err(Fault::at(format!("flowControl.{field}"), text))
        }
        other => Ok(other.map(|d| d.length)),
    }
}

struct Policies<'a> {
    assembly: &'a Assembly<'a>,
}

impl Policies<'_> {
    fn band(&self, spec: &BandSpec, path: &str) -> Result<Band, Fault> {
        let limit = |value, name| limit(value, &format!("{path}.{name}"), name);
        Ok(Band {
            priority: spec.priority,
            max_bytes: limit(spec.max_bytes, "maxBytes")?.unwrap_or(BAND_BYTES),
            max_requests: limit(spec.max_requests, "maxRequests")?.unwrap_or(BAND_REQUESTS),
            fairness_policy: self.named(
                &spec.fairness_policy_ref,
                FAIRNESS,
                (Part::FairnessPolicy, "FairnessPolicy"),
                &format!("{path}.fairnessPolicyRef"),
            )?,
            ordering_policy: self.named(
                &spec.ordering_policy_ref,
                ORDERING,
                (Part::OrderingPolicy, "OrderingPolicy"),
                &format!("{path}.orderingPolicyRef"),
            )?,
        })
    }

    /// Checks that `name` (or the default) is a plugin that plays the part.
    fn named(
        &self,
        name: &str,
        default: &str,
        (part, kind): (Part, &str),
        path: &str,
    ) -> Result<String, Fault> {
        let name = if name.is_empty() { default } else { name };
        match self.assembly.find(name) {
            Some((_, plugin)) if plugin.roles.plays(part) => Ok(name.to_owned()),
            Some(_) => Err(Fault::at(path, format!("plugin \"{name}\" does not implement {kind}"))),
            None if name == default => Ok(name.to_owned()),
            None => {
                let fault = Fault::at(path, format!("plugin \"{name}\" not found"));
                Err(fault.hint(self.assembly.nearest(name)))
            }
        }
    }
}
