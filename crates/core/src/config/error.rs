//! Why a configuration does not load.

use std::fmt;

use thiserror::Error;

/// A place in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The first thing that is wrong with a configuration.
///
/// Prints as `<source>:<line>:<column>: <path>: <message>; did you mean '<hint>'?`, without the
/// parts that are not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigError {
    /// Where the text came from; empty = built-in.
    pub source_name: String,
    /// Where in the text.
    pub location: Option<Location>,
    /// The field, as in `plugins[2].parameters.blockSize`; empty = the document.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
    /// A name that exists and is close to the one that does not.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = Some(self.source_name.clone()).filter(|s| !s.is_empty());
        let place = match (source, self.location) {
            (Some(source), Some(location)) => Some(format!("{source}:{location}")),
            (Some(source), None) => Some(source),
            (None, Some(location)) => Some(format!("line {location}")),
            (None, None) => None,
        };
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; did you mean '{hint}'?"),
            None => Ok(()),
        }
    }
}

/// An error at a path, before it is known where in the text that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}
