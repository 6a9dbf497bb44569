//! `fixtures DIR [--all]`: checks recordings of a real engine and prints, file by file, what passed,
//! and the first few of what did not, or all of it.
//!
//! Exit status: 0 all right, 1 something failed, 2 there is nothing to check.

use std::path::Path;
use std::process::ExitCode;

use inlane_integration::fixtures;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (dir, all) = match args.as_slice() {
        [dir] => (dir, false),
        [dir, all] if all == "--all" => (dir, true),
        _ => {
            eprintln!("usage: fixtures DIR [--all]");
            return ExitCode::from(2);
        }
    };
    let dir = Path::new(dir);
    let tallies = fixtures::check(dir);
    for tally in tallies.iter().filter(|tally| tally.passed + tally.failures.len() > 0) {
        if all { println!("{tally:#}") } else { println!("{tally}") }
    }
    for name in fixtures::absent(dir) {
        println!("{name:<52} absent, not checked");
    }
    let passed: usize = tallies.iter().map(|tally| tally.passed).sum();
    let failed: usize = tallies.iter().map(|tally| tally.failures.len()).sum();
    println!("\n{passed} passed, {failed} failed");
    if passed + failed == 0 {
        eprintln!("{}: no recordings there", dir.display());
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(failed > 0))
}
