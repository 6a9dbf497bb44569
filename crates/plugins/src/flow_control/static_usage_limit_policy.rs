//! `static-usage-limit-policy`: every priority may fill the pool to the same level.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `static-usage-limit-policy`.
pub const TYPE: PluginType = PluginType::new("static-usage-limit-policy", |_, params| {
    Parameters::read(params).map(|_| Roles::default().part(Part::UsageLimitPolicy))
});

/// All parameters.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// Saturation at which dispatch stops, the same for all priorities.
    pub threshold: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { threshold: 1.0 }
    }
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let read: Self = params.decode()?;
        if !(read.threshold.is_finite() && read.threshold >= 0.0) {
            let message = format!("expected a number from 0 on, found {}", read.threshold);
            return Err(BuildError::field("threshold", message));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_checked() {
        let read = |yaml| Parameters::read(&Params::new(Some(serde_yaml::from_str(yaml).unwrap())));
        assert_eq!(Parameters::read(&Params::default()), Ok(Parameters { threshold: 1.0 }));
        assert_eq!(read("{threshold: 0.8}"), Ok(Parameters { threshold: 0.8 }));
        for yaml in ["{threshold: -0.1}", "{threshold: .nan}", "{threshold: .inf}", "{limit: 1}"] {
            assert!(read(yaml).is_err(), "{yaml}");
        }
    }
}
