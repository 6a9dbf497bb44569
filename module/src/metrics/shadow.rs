//! Families of the shadow configuration.

use prometheus::{Histogram, IntCounter};

use super::buckets::DECISION;
use super::make::Maker;

/// Score margins; totals rarely exceed a few units.
const MARGIN: &[f64] = &[0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0];

/// What is counted about the shadow configuration.
#[derive(Debug)]
pub struct ShadowFamilies {
    /// Decisions for the same endpoint.
    pub same: IntCounter,
    /// Decisions for another one.
    pub other: IntCounter,
    /// Requests that the shadow has no endpoint for.
    pub none: IntCounter,
    /// By how much the first configuration preferred its own choice, where the two differ.
    pub live_margin: Histogram,
    /// By how much the shadow preferred its own choice, where the two differ.
    pub shadow_margin: Histogram,
    /// What the shadow costs a worker, seconds.
    pub seconds: Histogram,
}

impl ShadowFamilies {
    pub(super) fn new(m: &Maker) -> prometheus::Result<Self> {
        let decisions = m.counters(
            "inlane_shadow_decisions_total",
            "Decisions of the shadow configuration: same endpoint, other endpoint, none.",
            &["outcome"],
        )?;
        let margin = |name: &str, who: &str| {
            let help =
                format!("By how much {who} preferred its own endpoint where the two differ.");
            m.histogram(name, &help, MARGIN)
        };
        Ok(Self {
            same: decisions.with_label_values(&["same"]),
            other: decisions.with_label_values(&["other"]),
            none: decisions.with_label_values(&["none"]),
            live_margin: margin("inlane_shadow_live_margin", "the live configuration")?,
            shadow_margin: margin("inlane_shadow_margin", "the shadow configuration")?,
            seconds: m.histogram(
                "inlane_shadow_duration_seconds",
                "Time that the shadow configuration takes of a worker, per request.",
                DECISION,
            )?,
        })
    }
}
