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
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Demo(args) => inlane_cli::demo::run(&args),
    }
}
