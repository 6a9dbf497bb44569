//! `cases FILE...`: runs acceptance cases and prints what fails.
//!
//! `-v` also prints what was skipped, and why. Exit status: 0 all right, 1 some case failed, 2 a
//! file cannot be read.

use std::process::ExitCode;

use inlane_integration::cases::{self, Outcome, Report};

fn main() -> ExitCode {
    let (flags, files): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let verbose = flags.iter().any(|flag| flag == "-v");
    if files.is_empty() || flags.iter().any(|flag| flag != "-v") {
        eprintln!("usage: cases [-v] FILE...");
        return ExitCode::from(2);
    }
    let registry = inlane_plugins::registry();
    let mut report = Report::default();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| e.to_string());
        match text.and_then(|text| cases::run(&text, &registry)) {
            Ok(outcomes) => report.extend(outcomes),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    if verbose {
        for (id, outcome) in &report.outcomes {
            if let Outcome::Skipped(reason) = outcome {
                println!("SKIPPED {id}: {reason}");
            }
        }
    }
    println!("{report}");
    ExitCode::from(u8::from(report.counts().1 > 0))
}
