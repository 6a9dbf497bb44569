//! The control plane: knows who is in the pool, scrapes them, and publishes what proxies decide on.
//!
//! It watches the endpoints file and the configuration (`config`,
//! `discovery`), scrapes every endpoint on its own beat (`scrape`), and is the single writer of
//! the shared-memory segment (`pool`) that the proxies on this host read. Latency models are trained
//! on a second thread (`latency`), and engines' KV-cache events are followed on two more (`kv`), each
//! while a configuration asks for it. It can stop or die at any
//! moment: proxies go on with what is published, and its successor goes on with what it finds.
//!
//! A crate with plugins of its own calls [`run`] with its own registry; nothing else is public.
#![forbid(unsafe_code)]

mod adapters;
mod app;
mod args;
mod config;
mod discovery;
mod duration;
mod exposition;
mod gauges;
mod http;
mod kv;
mod latency;
mod logs;
mod pages;
mod pool;
mod process;
mod scrape;
mod shared;
mod size;
mod watch;

use std::process::ExitCode;

use inlane_core::registry::Registry;

use crate::args::Args;

/// Runs the control plane of the command line until it is told to stop.
///
/// `registry` has the plugin types that configurations may name; it should be the proxy's.
pub fn run(registry: Registry) -> ExitCode {
    let (args, ignored) = match Args::parse_from(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to standard output, errors to standard error; a closed one is no matter.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logs::install(args.level());
    for flag in ignored {
        tracing::warn!(flag, "the flag means nothing here and is ignored");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let tasks = tokio::task::LocalSet::new();
    match tasks.block_on(&runtime, app::serve(args, registry)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "stopped");
            ExitCode::FAILURE
        }
    }
}
