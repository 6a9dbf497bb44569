//! `inlane-control` with the plugins of this repository. A crate with plugins of its own has a
//! main like this one, with its own registry.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    inlane_control::run(inlane_plugins::registry())
}
