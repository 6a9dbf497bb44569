//! The mirror beside the indices of other routers: `inlane-bench-peers --out DIR`.
//!
//! Each measurement is a process of its own; indices take turns within a round, so that whatever else
//! the machine does meets all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{Parser, Subcommand};
use inlane_bench_peers::fleet::Mix;
#[cfg(feature = "dynamo")]
use inlane_bench_peers::peers::Crtc;
use inlane_bench_peers::peers::{Chain, Ours};
use inlane_bench_peers::report::{self, Row};
use inlane_bench_peers::{cells, threads};

const OURS: &str = "ours";
const CHAIN: &str = "kv-index";
const DYNAMO: &str = "dynamo";
const FLEETS: [&str; 4] = ["10x200x128", "100x100x128", "1000x20x128", "100x4x6250"];
const LOOKUPS: [&str; 7] = [
    "10x200x128",
    "100x100x128",
    "1000x20x128",
    "10000x4x128",
    "10x4x6250",
    "100x4x6250",
    "1000x1x6250",
];
/// `kv-index` takes no more endpoints.
const MOST_PODS: usize = 1_024;

#[derive(Parser)]
struct Args {
    /// Processes per index, fleet and kind of measurement.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What to measure: ingest, memory, lookup.
    #[arg(long, value_delimiter = ',', default_value = "ingest,memory,lookup")]
    only: Vec<String>,
    /// Fleets to measure, as PODSxCHAINSxDEPTH, in place of the usual ones.
    #[arg(long, value_delimiter = ',')]
    fleets: Vec<String>,
    /// Where to put `peers.txt` and `peers.tsv`.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    cell: Option<Cell>,
}

#[derive(Subcommand)]
enum Cell {
    /// One process of a run: block operations per second.
    Ingest { peer: String, mix: Mix },
    /// One process of a run: time of lookups beside `rate` block operations per second.
    Lookup {
        peer: String,
        mix: Mix,
        #[arg(long, default_value_t = 250_000)]
        rate: usize,
        #[arg(long, default_value_t = 300)]
        millis: u64,
    },
}

fn main() {
    let args = Args::parse();
    match &args.cell {
        None => run(&args),
        Some(Cell::Ingest { peer, mix }) => print!("{}", ingest(peer, *mix).0),
        Some(Cell::Lookup { peer, mix, rate, millis }) => {
            let series = Duration::from_millis(*millis);
            print!("{}", lookup(peer, *mix, *rate, series).0);
        }
    }
}

fn ingest(peer: &str, mix: Mix) -> cells::Rows {
    match peer {
        OURS => cells::ingest::<Ours>(mix),
        CHAIN => cells::ingest::<Chain>(mix),
        #[cfg(feature = "dynamo")]
        DYNAMO => cells::ingest::<Crtc>(mix),
        _ => panic!("unknown peer `{peer}`"),
    }
}

fn lookup(peer: &str, mix: Mix, rate: usize, series: Duration) -> cells::Rows {
    match peer {
        OURS => cells::lookup::<Ours>(mix, rate, series),
        CHAIN => cells::lookup::<Chain>(mix, rate, series),
        #[cfg(feature = "dynamo")]
        DYNAMO => cells::lookup::<Crtc>(mix, rate, series),
        _ => panic!("unknown peer `{peer}`"),
    }
}

fn peers() -> &'static [&'static str] {
    if cfg!(feature = "dynamo") { &[OURS, CHAIN, DYNAMO] } else { &[OURS, CHAIN] }
}

fn run(args: &Args) {
    let me = std::env::current_exe().expect("a path");
    let memory = me.with_file_name("inlane-bench-peers-memory");
    let mut rows: Vec<Row> = Vec::new();
    let before = threads::load();
    for kind in ["ingest", "memory", "lookup"] {
        if !args.only.iter().any(|only| only == kind) {
            continue;
        }
        let usual: &[&str] = if kind == "lookup" { &LOOKUPS } else { &FLEETS };
        let fleets: Vec<&str> = match args.fleets.is_empty() {
            true => usual.to_vec(),
            false => args.fleets.iter().map(String::as_str).collect(),
        };
        // Bytes do not vary with what else the machine does.
        let rounds = if kind == "memory" { 1 } else { args.rounds };
        for (round, mix) in
            (0..rounds).flat_map(|round| fleets.iter().map(move |&mix| (round, mix)))
        {
            let pods = mix.parse::<Mix>().expect("a mix").pods;
            for turn in 0..peers().len() {
                let peer = peers()[(turn + round) % peers().len()];
                if pods > MOST_PODS && peer == CHAIN {
                    continue;
                }
                let text = match (kind, peer) {
                    ("memory", OURS) => {
                        let room = output(&memory, &["room", mix]);
                        let room: Vec<_> = room.split_whitespace().collect();
                        output(&memory, &[&[peer, mix], &room[..]].concat())
                    }
                    ("memory", _) => output(&memory, &[peer, mix]),
                    _ => output(&me, &[kind, peer, mix]),
                };
                rows.extend(report::read(&text, (kind, peer, mix, round)));
                eprintln!("{kind} {mix} {peer} round {round} (load {})", threads::load());
                write(args, &rows, &before);
            }
        }
    }
    print!("{}", report::table(&rows, peers()));
}

/// After each cell, so that a run that is cut short leaves what it has measured.
fn write(args: &Args, rows: &[Row], load: &str) {
    let Some(out) = &args.out else { return };
    fs::create_dir_all(out).expect("a directory");
    let table = report::table(rows, peers());
    let foot = format!("\nload average {load} before, {} after\n", threads::load());
    fs::write(out.join("peers.txt"), table + &foot).expect("a file");
    fs::write(out.join("peers.tsv"), report::tsv(rows)).expect("a file");
}

fn output(program: &Path, args: &[&str]) -> String {
    let run = Command::new(program).args(args).stderr(Stdio::inherit()).output();
    let run = run.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(run.status.success(), "{} {}: {}", program.display(), args.join(" "), run.status);
    String::from_utf8(run.stdout).expect("text")
}
