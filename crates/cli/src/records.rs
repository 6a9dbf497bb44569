//! Reading records of decisions, from a file or standard input.

use std::path::Path;

use inlane_core::record::Line;

/// The lines of a record.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, String> {
    let (source, text) = crate::check::read(path)?;
    parse(&source, &text)
}

/// Parses a record; errors name source and line.
pub(crate) fn parse(source: &str, text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let parsed = lines.map(|(line, number)| {
        serde_json::from_str(line).map_err(|error| {
            let expected = "expected a line of /debug/records";
            format!("{source}:{number}: {expected}: {error}")
        })
    });
    parsed.collect()
}
