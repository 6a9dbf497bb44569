//! The `inlane` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Inlane: the inference scheduler that lives inside Envoy.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the scheduler at work: simulators, control plane and a real Envoy on this machine
    Demo(inlane_cli::demo::Args),
    /// Validate a configuration and show what it amounts to
    Check(inlane_cli::check::Args),
    /// Print a configuration of any accepted form in today's form
    Convert(inlane_cli::convert::Args),
    /// Show why a request went where it went
    Explain(inlane_cli::explain::Args),
    /// Show what the index of cached blocks holds, or empty it
    Index(inlane_cli::index::Args),
    /// Make recorded decisions again, with their own configuration or another one
    Replay(inlane_cli::replay::Args),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Demo(args) => inlane_cli::demo::run(&args),
        Command::Check(args) => inlane_cli::check::run(&args, &inlane_plugins::registry()),
        Command::Convert(args) => inlane_cli::convert::run(&args, &inlane_plugins::registry()),
        Command::Explain(args) => inlane_cli::explain::run(&args, &inlane_plugins::registry()),
        Command::Index(args) => inlane_cli::index::run(&args),
        Command::Replay(args) => inlane_cli::replay::run(&args, &inlane_plugins::registry()),
    }
}
