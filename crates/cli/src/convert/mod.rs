//! `inlane convert`: any accepted form of a configuration in, today's form out.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use inlane_core::config::{
    Converted, FromEnvironment, LegacyPool, convert, from_environment, load,
};
use inlane_core::registry::{KeptState, Registry};
use inlane_core::snapshot::ConfigDocument;

use crate::check::{read, report_of};
use crate::paint::Paint;

/// Arguments of `inlane convert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, in any accepted form; `-` reads standard input
    #[arg(value_name = "FILE", required_unless_present = "env")]
    file: Option<PathBuf>,

    /// Convert the environment variables of the first release
    #[arg(long, conflicts_with = "file")]
    env: bool,
}

/// A conversion that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The document in today's form.
    pub text: String,
    /// What is left out of it though it was asked for.
    pub errors: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Runs the command; `registry` has the plugin types that configurations may name.
pub fn run(args: &Args, registry: &Registry) -> ExitCode {
    let conversion = match &args.file {
        Some(path) => read(path).and_then(|(source, text)| of_text(&source, &text, registry)),
        None => of_environment(variables(), registry),
    };
    let paint = Paint::of_stderr();
    match conversion {
        Ok(Conversion { text, errors, warnings }) => {
            for error in errors {
                eprintln!("{} {error}", paint.bad("error:"));
            }
            for warning in warnings {
                eprintln!("{} {warning}", paint.warning("warning:"));
            }
            // Whoever closes the pipe has seen enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{} {error}", paint.bad("error:"));
            ExitCode::FAILURE
        }
    }
}

/// The variables of this process that are text.
fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text)
}

/// Converts a text, and makes sure that both load to the same pipeline.
///
/// # Errors
/// Why the text does not load.
pub fn of_text(source: &str, text: &str, registry: &Registry) -> Result<Conversion, String> {
    let Converted { text: new, pool, mut warnings, .. } =
        convert(source, text, registry).map_err(|error| error.to_string())?;
    let old = loaded(source, text, registry)?;
    let mut conversion = checked(&new, registry)?;
    if conversion.report != old.report {
        return Err("the converted configuration means something else; this is a bug".into());
    }
    if let Some(pool) = pool {
        conversion.text = with_pool(&pool, &conversion.text);
        warnings.push(format!("InferencePool '{}' is a comment in the result", pool.name));
    }
    warnings.append(&mut conversion.warnings);
    Ok(Conversion { text: conversion.text, errors: Vec::new(), warnings })
}

/// Converts environment variables of the first release.
///
/// # Errors
/// None of the switches is set, or the result does not load.
pub fn of_environment(
    variables: impl IntoIterator<Item = (String, String)>,
    registry: &Registry,
) -> Result<Conversion, String> {
    let Some(made) = from_environment(variables) else {
        return Err("none of the variables ENABLE_…, PREFILL_ENABLE_… or PD_ENABLED is set".into());
    };
    let FromEnvironment { text, errors, mut warnings, .. } = made;
    let mut converted = checked(&text, registry)?;
    // That the form is deprecated is no news to who converts it.
    warnings.retain(|warning| !warning.contains("inlane convert"));
    warnings.append(&mut converted.warnings);
    Ok(Conversion { text: converted.text, errors, warnings })
}

struct Loaded {
    text: String,
    report: crate::check::report::Report,
    warnings: Vec<String>,
}

fn loaded(source: &str, text: &str, registry: &Registry) -> Result<Loaded, String> {
    let document = ConfigDocument {
        source: source.to_owned(),
        text: text.to_owned(),
        allow_experimental_plugins: true,
    };
    let config =
        load(&document, registry, &KeptState::default()).map_err(|error| error.to_string())?;
    let report = report_of(&config, registry);
    Ok(Loaded { text: document.text, report, warnings: config.warnings })
}

/// Loads a result, and says what its user needs to know.
fn checked(text: &str, registry: &Registry) -> Result<Loaded, String> {
    let mut loaded = loaded("the converted configuration", text, registry)?;
    let alpha: Vec<&str> = loaded
        .report
        .plugins
        .iter()
        .filter(|plugin| plugin.experimental)
        .map(|plugin| plugin.name.as_str())
        .collect();
    if !alpha.is_empty() {
        let names = alpha.join(", ");
        loaded.warnings.push(format!("{names}: start with --allow-experimental-plugins"));
    }
    Ok(loaded)
}

/// Puts the pool before the document, as a comment: it goes to the cluster, not here.
fn with_pool(pool: &LegacyPool, text: &str) -> String {
    let mut commented = String::from("# The pool, for `kubectl apply`; check port and picker:\n");
    for line in pool.manifest().lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(commented, "#   {line}");
    }
    if !pool.target_model.is_empty() {
        let _ = writeln!(commented, "# It was meant for the model {:?}.", pool.target_model);
    }
    commented + text
}
