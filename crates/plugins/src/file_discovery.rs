//! `file-discovery`: the pool's members come from a file instead of Kubernetes.
//!
//! The reading is the control plane's work; here are the parameters it goes by.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `file-discovery`.
pub const TYPE: PluginType = PluginType::new("file-discovery", |_, params| {
    Parameters::read(params).map(|_| Roles::default().part(Part::Discovery))
});

/// All parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// The endpoints file; required.
    pub path: String,
    /// Whether changes of the file are followed.
    pub watch_file: bool,
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let read: Self = params.decode()?;
        if read.path.is_empty() {
            return Err(BuildError::field("path", "must be the path of the endpoints file"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_required() {
        let read = |yaml| Parameters::read(&Params::new(Some(serde_yaml::from_str(yaml).unwrap())));
        let expected = Parameters { path: "/e.yaml".into(), watch_file: true };
        assert_eq!(read("{path: /e.yaml, watchFile: true}"), Ok(expected));
        assert!(!read("{path: e.yaml}").unwrap().watch_file);
        assert_eq!(read("{watchFile: true}").unwrap_err().field.as_deref(), Some("path"));
        assert!(Parameters::read(&Params::default()).is_err());
        assert!(read("{path: e.yaml, watch: true}").is_err());
    }
}
