//! `fixtures DIR`: checks recordings of a real engine and prints, file by file, what passed.
//!
//! Exit status: 0 all right, 1 something failed, 2 there is nothing to check.

use std::path::Path;
use std::process::ExitCode;

use inlane_integration::fixtures;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir] = args.as_slice() else {
        eprintln!("usage: fixtures DIR");
        return ExitCode::from(2);
    };
    let dir = Path::new(dir);
    let tallies = fixtures::check(dir);
    tallies.iter().for_each(|tally| println!("{tally}"));
    for name in fixtures::unread(dir) {
        println!("{name:<52} not checked");
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
