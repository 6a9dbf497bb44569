//! Where the server is, as configurations say it.

use std::fmt;

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
    #[error(
        "indexerConfig.kvBlockIndexConfig.redisConfig.address: {scheme}:// is not supported, this \
         build speaks to Redis without TLS: expected redis://, valkey://, unix:// or HOST:PORT"
    )]
    Encrypted { scheme: &'static str },
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
    /// What is none of these, and what wants TLS.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        for (prefix, scheme) in [("rediss://", "rediss"), ("valkeys://", "valkeys")] {
            if text.starts_with(prefix) {
                return Err(AddressError::Encrypted { scheme });
            }
        }
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
    }

    #[test]
    fn what_cannot_be_reached_is_refused_by_the_name_of_its_field() {
        for text in ["rediss://r:1", "valkeys://r:1", "http://r:1", "redis://r:1/x", "redis://"] {
            let error = Address::parse(text).unwrap_err().to_string();
            let field = "indexerConfig.kvBlockIndexConfig.redisConfig.address: ";
            assert!(error.starts_with(field), "{text}: {error}");
            assert!(error.contains("expected redis://"), "{error}");
        }
    }
}
