//! Whole requests through Envoy, with and without the scheduler: the comparison.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use inlane_bench::bodies::SIZES;
use inlane_bench::load::cells::{self, Length, Row};
use inlane_bench::load::pods::{self, Page, Pods};
use inlane_bench::load::proxies::{Proxies, Proxy};
use inlane_bench::load::wrk::Script;
use inlane_bench::load::{report, standing};

/// Pods behind the proxies.
const PODS: usize = 8;

/// Measures what the scheduler adds to a plain Envoy, and what the control plane costs.
#[derive(Parser)]
#[command(name = "inlane-bench-macro")]
struct Flags {
    #[command(subcommand)]
    command: Option<Task>,
    /// Times that every cell is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of a cell, s.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Directory for raw rows and the summary.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Task {
    /// Be the pods (the benchmark starts this itself).
    Pods {
        count: usize,
        #[arg(long)]
        real_page: bool,
    },
    /// Measure memory and scraping only.
    Standing,
    /// Start pods and proxies for a profiler, print where they are, and wait for the end of input.
    Hold,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let outcome = match flags.command {
        Some(Task::Pods { count, real_page }) => {
            pods::serve(count, if real_page { Page::Real } else { Page::Small })
        }
        Some(Task::Standing) => without_requests().map(|text| print!("{text}")),
        Some(Task::Hold) => hold(),
        None => everything(&flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inlane-bench-macro: {error}");
            ExitCode::FAILURE
        }
    }
}

fn everything(flags: &Flags) -> io::Result<()> {
    let length = Length { rounds: flags.rounds.max(1), seconds: flags.seconds.max(1) };
    let (rows, memory) = {
        let pods = Pods::start(PODS, Page::Small)?;
        let proxies = Proxies::start(&pods.ports)?;
        let rows = cells::run(&proxies, length, tell)?;
        (rows, standing::table(&standing::memory(&proxies)?))
    };
    let summary = format!(
        "{}\n{}\n{memory}{}",
        report::cells(&rows),
        report::comparison(&rows),
        without_requests()?
    );
    print!("{summary}");
    if let Some(out) = &flags.out {
        fs::create_dir_all(out)?;
        fs::write(out.join("macro.tsv"), cells::tsv(&rows))?;
        fs::write(out.join("macro.txt"), summary)?;
    }
    Ok(())
}

fn hold() -> io::Result<()> {
    let pods = Pods::start(PODS, Page::Small)?;
    let proxies = Proxies::start(&pods.ports)?;
    println!("control plane: pid {}; pods: pid {}", proxies.control_pid(), pods.pid());
    for proxy in Proxy::ALL {
        let (pid, port) = (proxies.envoy_pid(proxy), proxies.port(proxy));
        println!("{}: pid {pid}, http://127.0.0.1:{port}", proxy.name());
    }
    for (name, len) in SIZES {
        let script = Script::write(proxies.dir(), name, len)?;
        println!("wrk -t1 -c16 -d10s -s {}", script.path().display());
    }
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn without_requests() -> io::Result<String> {
    let mut figures = standing::many_pods(1_000)?;
    figures.extend(standing::scraping(100, Duration::from_secs(8))?);
    Ok(standing::table(&figures))
}

/// A sign of life, and of trouble.
fn tell(row: &Row) {
    let (prompt, _) = SIZES[row.size];
    eprintln!(
        "{prompt:6} {:?} {:12} {:>8.0} rps {:>8.4} CPU-s/1k  p50 {:.3} ms  idle {:.2}{}",
        row.load,
        row.proxy.name(),
        row.rate(),
        row.envoy_cpu,
        row.seen.p50_ms,
        row.idle,
        if row.seen.errors > 0 { format!("  {} ERRORS", row.seen.errors) } else { String::new() },
    );
}
