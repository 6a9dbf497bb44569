//! Time, allocations and instructions of every operation, one table.
//!
//! Without arguments it measures all operations, each in a process of its own: once as it is, for
//! time and allocations, and twice under callgrind, with N and with 2 N calls, whose difference is N
//! calls without the setting up. Time is the median of several batches. Instructions do not depend
//! on how busy the machine is, which makes them the gate; they vary by about a percent, because
//! hash tables are seeded at random.
//!
//! ```text
//! inlane-bench-counted [--only TEXT] [--tsv FILE] [--no-valgrind]
//! inlane-bench-counted run NAME CALLS      does an operation CALLS times
//! ```
#![forbid(unsafe_code)]

use std::alloc::System;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use inlane_bench::{Fallible, ops};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Time of one batch.
const BATCH: Duration = Duration::from_millis(5);
/// Batches, whose median counts.
const BATCHES: usize = 21;

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    command: Option<Task>,
    /// Only operations whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the rows to this file too, tab separated.
    #[arg(long)]
    tsv: Option<PathBuf>,
    /// Leave the instructions out.
    #[arg(long)]
    no_valgrind: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Does an operation so many times.
    Run { name: String, calls: u64 },
    /// Times an operation: prints ns and allocations of one call, and calls of one batch.
    Time { name: String },
}

struct Timed {
    ns: f64,
    allocations: f64,
    calls: u64,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let outcome = match &flags.command {
        Some(Task::Run { name, calls }) => start(name).map(|mut run| repeat(&mut run, *calls)),
        Some(Task::Time { name }) => start(name).map(|mut run| {
            let timed = time(&mut run);
            println!("{} {} {}", timed.ns, timed.allocations, timed.calls);
        }),
        None => table(&flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inlane-bench-counted: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(name: &str) -> Fallible<ops::Run> {
    ops::find(name).ok_or_else(|| format!("no operation '{name}'"))?.start()
}

fn repeat(run: &mut ops::Run, calls: u64) {
    for _ in 0..calls {
        run();
    }
}

fn time(run: &mut ops::Run) -> Timed {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        repeat(run, calls);
        if start.elapsed() >= BATCH {
            break;
        }
        calls *= 2;
    }
    let region = Region::new(ALLOCATOR);
    let mut batches: Vec<f64> = std::iter::repeat_with(|| {
        let start = Instant::now();
        repeat(run, calls);
        start.elapsed().as_nanos() as f64 / calls as f64
    })
    .take(BATCHES)
    .collect();
    let change = region.change();
    // The vector of batches is the only allocation that is not the operation's.
    let allocations = (change.allocations + change.reallocations).saturating_sub(1) as f64;
    batches.sort_by(f64::total_cmp);
    let ns = batches[BATCHES / 2];
    Timed { ns, allocations: allocations / (calls * BATCHES as u64) as f64, calls }
}

fn table(flags: &Flags) -> Fallible<()> {
    let mut tsv = String::from("operation\tns\tinstructions\tallocations\tGB/s\tlimit_ns\n");
    println!(
        "{:40} {:>12} {:>14} {:>8} {:>7} {:>11}  verdict",
        "operation", "ns", "instructions", "allocs", "GB/s", "limit ns"
    );
    for operation in ops::all().iter().filter(|o| o.name.contains(&flags.only)) {
        let timed = timed(&operation.name)?;
        let instructions = match flags.no_valgrind {
            true => None,
            false => Some(instructions(&operation.name, timed.calls)?),
        };
        let rate = (operation.bytes > 0).then(|| operation.bytes as f64 / timed.ns);
        let mut verdict = String::new();
        if let Some(limit) = operation.limit_ns {
            verdict.push_str(if timed.ns <= limit { "within" } else { "OVER" });
        }
        if operation.no_allocation && timed.allocations > 0.0 {
            verdict.push_str(" ALLOCATES");
        }
        println!(
            "{:40} {:>12.1} {:>14} {:>8.2} {:>7} {:>11}  {verdict}",
            operation.name,
            timed.ns,
            optional(instructions, 1),
            timed.allocations,
            optional(rate, 2),
            optional(operation.limit_ns, 0),
        );
        writeln!(
            tsv,
            "{}\t{}\t{}\t{}\t{}\t{}",
            operation.name,
            timed.ns,
            optional(instructions, 1),
            timed.allocations,
            optional(rate, 3),
            optional(operation.limit_ns, 0),
        )?;
    }
    if let Some(path) = &flags.tsv {
        std::fs::write(path, tsv)?;
    }
    Ok(())
}

fn optional(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

/// Times an operation in a process of its own, so that none inherits another's heap.
fn timed(name: &str) -> Fallible<Timed> {
    let output = Command::new(std::env::current_exe()?).args(["time", name]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut fields = text.split_whitespace();
    let mut next = || {
        let complaint = || format!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        fields.next().ok_or_else(complaint)
    };
    let (ns, allocations, calls) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    Ok(Timed { ns, allocations, calls })
}

/// Instructions of one call.
fn instructions(name: &str, calls: u64) -> Fallible<f64> {
    let (once, twice) = (callgrind(name, calls)?, callgrind(name, calls * 2)?);
    Ok((twice - once) / calls as f64)
}

/// Instructions of a process that does an operation `calls` times.
fn callgrind(name: &str, calls: u64) -> Fallible<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", name, &calls.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}; run `scripts/deps.sh bench`"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected : ")?.1.parse().ok());
    Ok(collected.ok_or_else(|| format!("{name} under valgrind: {log}"))?)
}
