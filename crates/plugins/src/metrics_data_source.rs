//! `metrics-data-source`: where an endpoint's metrics page is, and how often to read it.
//!
//! The reading is the control plane's work; here are the parameters it goes by.

use std::time::Duration;

use inlane_core::config::GoDuration;
use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `metrics-data-source`.
pub const TYPE: PluginType = PluginType::new("metrics-data-source", |_, params| {
    Parameters::read(params).map(|_| Roles::default().part(Part::DataSource))
});

/// How to reach the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// All parameters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// How to reach the page.
    pub scheme: Scheme,
    /// Path of the page.
    pub path: String,
    /// Port to ask instead of the serving port.
    pub port: Option<u16>,
    /// Whether the server's certificate is not checked.
    pub insecure_skip_verify: bool,
    /// Authorities that servers are checked against; empty = the system's.
    pub ca_cert_path: String,
    /// Certificate to show; empty = none. Needs `clientKeyPath`.
    pub client_cert_path: String,
    /// Key of that certificate.
    pub client_key_path: String,
    /// How often to read; empty = every tick.
    interval: String,
    #[serde(skip)]
    parsed_interval: Option<Duration>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            scheme: Scheme::default(),
            path: "/metrics".into(),
            port: None,
            insecure_skip_verify: true,
            ca_cert_path: String::new(),
            client_cert_path: String::new(),
            client_key_path: String::new(),
            interval: String::new(),
            parsed_interval: None,
        }
    }
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let mut read: Self = params.decode()?;
        if read.port == Some(0) {
            return Err(BuildError::field("port", "expected 1 to 65535, found 0"));
        }
        if !read.path.starts_with('/')
            || read.path.contains(|c: char| c.is_ascii_control() || c == ' ')
        {
            let message = format!("expected an absolute URL path, found {:?}", read.path);
            return Err(BuildError::field("path", message));
        }
        if read.client_cert_path.is_empty() != read.client_key_path.is_empty() {
            return Err(BuildError::field(
                "clientCertPath",
                "clientCertPath and clientKeyPath must be given together",
            ));
        }
        if !read.interval.is_empty() {
            let interval = GoDuration::parse(&read.interval).filter(|i| !i.negative);
            let Some(GoDuration { length, .. }) = interval else {
                let message =
                    format!("expected a duration such as 250ms, found {:?}", read.interval);
                return Err(BuildError::field("interval", message));
            };
            read.parsed_interval = (!length.is_zero()).then_some(length);
        }
        Ok(read)
    }

    /// How often to read; `None` = every tick.
    pub fn interval(&self) -> Option<Duration> {
        self.parsed_interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Parameters, BuildError> {
        Parameters::read(&Params::new(Some(serde_yaml::from_str(yaml).unwrap())))
    }

    #[test]
    fn defaults() {
        let parameters = Parameters::read(&Params::default()).unwrap();
        assert_eq!(parameters.path, "/metrics");
        assert_eq!(parameters.scheme, Scheme::Http);
        assert!(parameters.insecure_skip_verify && parameters.port.is_none());
        assert_eq!(parameters.interval(), None);
    }

    #[test]
    fn values_are_read() {
        let parameters = read("{scheme: https, path: /m, port: 9400, interval: 250ms}").unwrap();
        assert_eq!(parameters.scheme, Scheme::Https);
        assert_eq!(parameters.port, Some(9_400));
        assert_eq!(parameters.interval(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn errors_name_the_field() {
        for (yaml, field) in [
            ("{port: 0}", Some("port")),
            ("{port: 65536}", Some("port")),
            ("{scheme: ftp}", Some("scheme")),
            ("{path: metrics}", Some("path")),
            ("{path: \"/m\\r\\nx: y\"}", Some("path")),
            ("{interval: soon}", Some("interval")),
            ("{interval: -1s}", Some("interval")),
            ("{clientKeyPath: /k}", Some("clientCertPath")),
            ("{url: x}", Some("url")),
        ] {
            assert_eq!(read(yaml).expect_err(yaml).field.as_deref(), field, "{yaml}");
        }
    }
}
