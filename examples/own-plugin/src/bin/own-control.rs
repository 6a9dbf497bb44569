//! The control plane with plugins of one's own. Same flags as `inlane-control`.

use std::process::ExitCode;

fn main() -> ExitCode {
    inlane_control::run(own_plugin::registry())
}
