//! How good the choices of the pool-aware plugins are, against common profiles: one table per
//! workload and pool size, in virtual time. The same seed gives the same tables everywhere.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use inlane_bench::Fallible;
use inlane_bench::quality::{Outcome, POLICIES, Policy, Scenario, Workload, table};

#[derive(Parser)]
#[command(name = "inlane-bench-quality")]
struct Flags {
    /// Pods, by scenario.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 512])]
    pods: Vec<u32>,
    /// Virtual seconds of arrivals; by default 600, in large pools less.
    #[arg(long)]
    seconds: Option<u64>,
    /// Virtual seconds at the beginning that are not counted; by default 60, in large pools less.
    #[arg(long)]
    warm_up: Option<u64>,
    /// Seed of arrivals, prompts and choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only policies whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the tables to this file too.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inlane-bench-quality: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Fallible<()> {
    let mut report = String::new();
    for &pods in &flags.pods {
        for workload in Workload::ALL {
            // As many requests in a large pool as the machine does in a minute or so.
            let seconds = flags.seconds.unwrap_or((20_480 / u64::from(pods.max(1))).clamp(40, 600));
            let length = Duration::from_secs(seconds);
            let warm_up = flags.warm_up.unwrap_or((seconds * 3 / 8).min(60));
            let warm_up = Duration::from_secs(warm_up).min(length);
            let scenario = Scenario { workload, pods, length, warm_up, seed: flags.seed };
            let text = table(&scenario, &all(&scenario, &flags.only)?);
            println!("{text}");
            report.push_str(&text);
            report.push('\n');
        }
    }
    if let Some(path) = &flags.out {
        fs::write(path, report)?;
    }
    Ok(())
}

/// The outcomes of every policy; each run has a thread to itself while there are cores.
fn all(scenario: &Scenario, only: &str) -> Fallible<Vec<(&'static str, Outcome)>> {
    let policies: Vec<&Policy> = POLICIES.iter().filter(|p| p.name.contains(only)).collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut rows = Vec::new();
    for policies in policies.chunks(cores) {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let run = |policy: &Policy| scenario.run(policy).map_err(|error| error.to_string());
            let runs: Vec<_> = policies.iter().map(|p| scope.spawn(move || run(p))).collect();
            runs.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for (policy, outcome) in policies.iter().zip(outcomes) {
            let outcome = outcome.map_err(|_| format!("{}: panicked", policy.name))?;
            rows.push((policy.name, outcome.map_err(|e| format!("{}: {e}", policy.name))?));
        }
    }
    Ok(rows)
}
