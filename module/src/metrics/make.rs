//! Families and their twins under deprecated names, made and registered in one step.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::labels::{FLOW, MODEL, ModelLabels};

/// A histogram under its current name, and under the deprecated one where there is one.
#[derive(Debug, Clone)]
pub struct Twin {
    current: Histogram,
    deprecated: Option<Histogram>,
}

impl Twin {
    /// The one under the current name.
    pub(super) fn current(&self) -> &Histogram {
        &self.current
    }

    /// Records a value under both names.
    pub fn observe(&self, value: f64) {
        self.current.observe(value);
        if let Some(deprecated) = &self.deprecated {
            deprecated.observe(value);
        }
    }
}

/// Histograms of requests under their current name, and under the deprecated one.
pub(super) struct TwinVec {
    current: HistogramVec,
    deprecated: HistogramVec,
}

impl TwinVec {
    /// The histogram of one set of labels.
    pub(super) fn of(&self, labels: &ModelLabels, priority: &str) -> Twin {
        let (model, target) = (labels.model.as_str(), labels.target_model.as_str());
        let flow = [model, target, &labels.fairness_id, priority];
        Twin {
            current: self.current.with_label_values(&flow),
            deprecated: Some(self.deprecated.with_label_values(&[model, target])),
        }
    }
}

/// Makes families and registers them; a name that is invalid or taken is a programming error that
/// a unit test finds, and shows up at run time as a family that is not exported.
pub(super) struct Maker(pub(super) Registry);

impl Maker {
    fn keep<C: Collector + Clone + 'static>(&self, family: C) -> C {
        let registered = self.0.register(Box::new(family.clone()));
        debug_assert!(registered.is_ok(), "{registered:?}");
        family
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        Ok(self.keep(IntCounterVec::new(Opts::new(name, help), labels)?))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        Ok(self.keep(IntCounter::new(name, help)?))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        Ok(self.keep(IntGauge::new(name, help)?))
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        Ok(self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?))
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Ok(self.keep(HistogramVec::new(options, labels)?))
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Ok(self.keep(Histogram::with_opts(options)?))
    }

    /// A histogram of requests under `llm_d_epp_<name>` and `inference_objective_<deprecated>`.
    pub(super) fn twin_vec(
        &self,
        name: &str,
        deprecated: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<TwinVec> {
        let current = format!("llm_d_epp_{name}");
        let old_help = format!("[ALPHA] [Deprecated: Use {current}] {help}");
        Ok(TwinVec {
            deprecated: self.histograms(
                &format!("inference_objective_{deprecated}"),
                &old_help,
                MODEL,
                buckets,
            )?,
            current: self.histograms(&current, &format!("[ALPHA] {help}"), FLOW, buckets)?,
        })
    }

    /// A histogram without labels under `llm_d_epp_<name>` and `inference_extension_<name>`.
    pub(super) fn twin(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Twin> {
        let current = format!("llm_d_epp_{name}");
        let old_help = format!("[ALPHA] [Deprecated: Use {current}] {help}");
        Ok(Twin {
            deprecated: Some(self.histogram(
                &format!("inference_extension_{name}"),
                &old_help,
                buckets,
            )?),
            current: self.histogram(&current, &format!("[ALPHA] {help}"), buckets)?,
        })
    }
}

/// The help text of a counter or gauge under a deprecated name.
pub(super) fn old(new: &str, help: &str) -> String {
    format!("[ALPHA] [Deprecated: Use llm_d_epp_{new}] {help}")
}
