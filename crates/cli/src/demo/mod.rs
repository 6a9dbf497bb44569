//! The demonstration: three simulated pods, a control plane and a real Envoy on this machine.
//!
//! What it prints is read from the scheduler's own pages (`/debug/decisions`, `/debug/pool`) for
//! requests that it has just sent; nothing is computed here. A step that does not show what it
//! should makes the demonstration fail.

pub mod latency;
mod load;
pub mod precise;
mod print;
mod scenes;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lab::{Lab, Plan};
use print::Printer;

/// Arguments of `inlane demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave everything running at the end and print what to try
    #[arg(long)]
    keep: bool,

    #[command(subcommand)]
    scene: Option<Scene>,
}

/// A demonstration of its own.
#[derive(Debug, clap::Subcommand)]
enum Scene {
    /// Learn the latencies of a pool of fast and slow pods, and compare with balancing its load
    Latency(latency::Settings),
    /// Chat with pods that tell what they have cached, and compare with choosing without knowing
    Precise(precise::Settings),
}

/// The scheduler's configuration, as users of the endpoint picker have it.
const CONFIG: &str = include_str!("scheduler.yaml");

/// Runs the demonstration.
pub fn run(args: &Args) -> ExitCode {
    let printer = Printer::new();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // Children see Ctrl-C too; the flag lets the current scene end and the lab clean up.
    if ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).is_err() {
        printer.note("Ctrl-C will not clean up: its handler could not be set");
    }
    let played = match &args.scene {
        Some(Scene::Latency(settings)) => latency::play(settings, &printer),
        Some(Scene::Precise(settings)) => precise::play(settings, &printer),
        None => play(args, &printer, &stop),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if stop.load(Ordering::Relaxed) => {
            printer.note("interrupted; everything has been stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            printer.failure(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn play(args: &Args, printer: &Printer, stop: &AtomicBool) -> io::Result<()> {
    printer.title("Inlane: an inference scheduler inside Envoy");
    let plan = Plan {
        config: CONFIG.into(),
        pod_args: [
            "--inter-token-latency",
            "4ms",
            "--prefill-time-per-token",
            "20us",
            "--max-num-seqs",
            "64",
        ]
        .map(String::from)
        .into(),
        ..Plan::default()
    };
    let mut lab = Lab::start(plan)?;
    scenes::introduce(&lab, printer)?;
    let scenes: [fn(&mut Lab, &Printer) -> io::Result<()>; 4] = [
        scenes::prefix_skew,
        scenes::streamed_chat,
        scenes::pod_killed,
        scenes::control_plane_killed,
    ];
    for scene in scenes {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        scene(&mut lab, printer)?;
    }
    scenes::where_requests_went(&lab, printer)?;
    if args.keep {
        scenes::what_to_try(&lab, printer);
        lab.leave_running();
        return Ok(());
    }
    drop(lab);
    if stop.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    precise::play(&precise::Settings::default(), printer)
}
