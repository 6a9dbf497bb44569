//! Where the server is, as configurations say it.

use std::fmt;

use inlane_plugins::precise::parameters;
use redis::{ConnectionInfo, IntoConnectionInfo, RedisError};
use thiserror::Error;

/// What is meant where nothing is said.
const DEFAULT: &str = "redis://127.0.0.1:6379";

/// A server that can be connected to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    url: String,
    /// Without a user and password.
    shown: String,
}

/// Why an address is of no use.
#[derive(Debug, Error)]
pub(crate) enum AddressError {
    #[error("indexerConfig.kvBlockIndexConfig.redisConfig.address: {0}")]
    Refused(String),
    #[error(
        "indexerConfig.kvBlockIndexConfig.redisConfig.address: {0}: expected redis://, valkey://, \
         unix:// or HOST:PORT"
    )]
    Invalid(#[source] RedisError),
}

impl Address {
    /// Reads an address: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, the same with `valkey://`
    /// or without a scheme, or `unix://PATH[?db=DATABASE]`. Nothing at all is
    /// `redis://127.0.0.1:6379`.
    ///
    /// # Errors
    /// What is none of these, and what wants TLS: what `inlane check` says, too.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let parameters = parameters::Redis { address: text.to_owned() };
        parameters.check().map_err(AddressError::Refused)?;
        let has_scheme = ["redis://", "valkey://", "unix://"].iter().any(|s| text.starts_with(s));
        let url = match text {
            "" => DEFAULT.to_owned(),
            _ if has_scheme => text.to_owned(),
            _ => format!("redis://{text}"),
        };
        let info = url.as_str().into_connection_info().map_err(AddressError::Invalid)?;
        let database = info.redis_settings().db();
        let mut shown = info.addr().to_string();
        if database != 0 {
            shown.push_str(&format!(", database {database}"));
        }
        Ok(Self { url, shown })
    }

    /// How to connect.
    pub(super) fn info(&self) -> Result<ConnectionInfo, RedisError> {
        self.url.as_str().into_connection_info()
    }

    /// For logs and pages: nothing secret.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_the_go_scheduler_are_understood() {
        for (text, shown) in [
            ("", "127.0.0.1:6379"),
            ("r:1", "r:1"),
            ("r", "r:6379"),
            ("redis://r:1/3", "r:1, database 3"),
            ("valkey://r:1", "r:1"),
            ("redis://[fd00::1]:7", "fd00::1:7"),
            ("[fd00::1]", "fd00::1:6379"),
            ("redis://r/", "r:6379"),
            ("redis://r:/2?protocol=resp3", "r:6379, database 2"),
            ("redis://user:p%40ss@r:1", "r:1"),
            ("redis://:secret@r", "r:6379"),
            ("unix:///run/r.sock?user=a&pass=b&db=3", "/run/r.sock, database 3"),
            ("unix:///run/r.sock", "/run/r.sock"),
            ("unix:///run/r.sock?db=2", "/run/r.sock, database 2"),
        ] {
            assert_eq!(Address::parse(text).unwrap().shown(), shown, "{text}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let address = Address::parse("redis://user:secret@r:1").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
        assert_eq!(address.info().unwrap().redis_settings().password(), Some("secret"));
        let address = Address::parse("unix:///run/r.sock?user=a&pass=secret").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
        assert_eq!(address.info().unwrap().redis_settings().username(), Some("a"));
        // Nor where they are wrong.
        let error = Address::parse("redis://user:secret@r:port").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn what_cannot_be_reached_is_refused_by_the_name_of_its_field() {
        for text in [
            "rediss://r:1",
            "valkeys://r:1",
            "http://r:1",
            "redis+unix:///r",
            "redis://r:1/x",
            "redis://",
            "redis://user:secret@",
            "redis://:7",
            "redis://r:port",
            "r:70000",
            "redis://[fd00::1",
            "redis://[::]:7",
            "redis://0.0.0.0",
            "a host",
            "unix://run/r.sock",
            "unix:///run/r.sock?db=x",
        ] {
            let refused = parameters::Redis { address: text.to_owned() }.check();
            assert!(refused.is_err(), "{text} passes a check");
            let error = Address::parse(text).unwrap_err().to_string();
            let field = "indexerConfig.kvBlockIndexConfig.redisConfig.address: ";
            assert!(error.starts_with(field), "{text}: {error}");
            assert!(error.contains("expected redis://"), "{error}");
        }
    }
}
