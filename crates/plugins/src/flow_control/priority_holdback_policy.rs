//! `priority-holdback-policy`: keeps part of the pool back for higher priorities.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `priority-holdback-policy`.
pub const TYPE: PluginType = PluginType::new("priority-holdback-policy", |_, params| {
    Parameters::read(params).map(|_| Roles::default().part(Part::UsageLimitPolicy))
})
.alpha();

/// How ceilings fall from the highest priority to the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// In a straight line.
    #[default]
    Linear,
}

/// What the ceilings fall over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// The bands' ranks.
    #[default]
    Rank,
    /// The values of the priorities.
    Value,
}

/// All parameters.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    min_ceiling: Option<f64>,
    max_ceiling: Option<f64>,
    /// How ceilings fall.
    pub shape: Shape,
    /// What they fall over.
    pub domain: Domain,
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let read: Self = params.decode()?;
        let Some(min) = read.min_ceiling else {
            return Err(BuildError::field("minCeiling", "must be given, expected 0 to below 1"));
        };
        if !(0.0..1.0).contains(&min) {
            let message = format!("expected 0 to below 1, found {min}");
            return Err(BuildError::field("minCeiling", message));
        }
        let max = read.max_ceiling();
        if !(max > min && max <= 1.0) {
            let message = format!("expected above minCeiling ({min}) and at most 1, found {max}");
            return Err(BuildError::field("maxCeiling", message));
        }
        Ok(read)
    }

    /// Ceiling of the lowest priority.
    pub fn min_ceiling(&self) -> f64 {
        self.min_ceiling.unwrap_or_default()
    }

    /// Ceiling of the highest priority.
    pub fn max_ceiling(&self) -> f64 {
        self.max_ceiling.unwrap_or(1.0)
    }

    /// The ceiling of each band; `priorities` falls from the highest one on. One band has the
    /// highest ceiling. By rank `c_i = max - i * (max - min) / (N - 1)`, by value
    /// `c_i = min + (p_i - p_min) / (p_max - p_min) * (max - min)` (llm-d-router
    /// `priority-holdback-policy`).
    pub fn ceilings(&self, priorities: &[i32]) -> Vec<f64> {
        let (min, max) = (self.min_ceiling(), self.max_ceiling());
        let (Some(&first), Some(&last)) = (priorities.first(), priorities.last()) else {
            return Vec::new();
        };
        let steps = priorities.len().saturating_sub(1) as f64;
        let span = f64::from(first) - f64::from(last);
        let ceiling = |(rank, &priority): (usize, &i32)| match self.domain {
            Domain::Rank if steps > 0.0 => max - rank as f64 * (max - min) / steps,
            Domain::Value if span > 0.0 => {
                min + (f64::from(priority) - f64::from(last)) / span * (max - min)
            }
            _ => max,
        };
        priorities.iter().enumerate().map(ceiling).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Parameters, BuildError> {
        Parameters::read(&Params::new(Some(serde_yaml::from_str(yaml).unwrap())))
    }

    fn close(ceilings: &[f64], expected: &[f64]) {
        assert_eq!(ceilings.len(), expected.len());
        assert!(ceilings.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{ceilings:?}");
    }

    #[test]
    fn ceilings_fall_by_rank_or_by_value() {
        let bands = [10, 0, -5];
        close(&read("{minCeiling: 0.4}").unwrap().ceilings(&bands), &[1.0, 0.7, 0.4]);
        let by_value = read("{minCeiling: 0.4, maxCeiling: 1.0, domain: value}").unwrap();
        close(&by_value.ceilings(&bands), &[1.0, 0.6, 0.4]);
        close(&by_value.ceilings(&[i32::MAX, i32::MIN]), &[1.0, 0.4]);
        close(&read("{minCeiling: 0, maxCeiling: 0.9}").unwrap().ceilings(&[3]), &[0.9]);
        assert!(by_value.ceilings(&[]).is_empty());
    }

    #[test]
    fn errors_name_the_field() {
        for (yaml, field) in [
            ("{}", "minCeiling"),
            ("{minCeiling: 1.0}", "minCeiling"),
            ("{minCeiling: -0.1}", "minCeiling"),
            ("{minCeiling: .nan}", "minCeiling"),
            ("{minCeiling: 0.5, maxCeiling: 0.5}", "maxCeiling"),
            ("{minCeiling: 0.5, maxCeiling: 1.1}", "maxCeiling"),
            ("{minCeiling: 0.5, shape: cubic}", "shape"),
            ("{minCeiling: 0.5, domain: name}", "domain"),
            ("{minCeiling: 0.5, ceiling: 1}", "ceiling"),
        ] {
            assert_eq!(read(yaml).expect_err(yaml).field.as_deref(), Some(field), "{yaml}");
        }
        assert!(Parameters::read(&Params::default()).is_err());
    }
}
