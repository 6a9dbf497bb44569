//! The plan of a run: every size and kind of load, through each proxy in turn, round after round.
//!
//! Turns begin with another proxy in every round, so that none always runs on the warmest machine.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use super::paced::{CONNECTIONS, Requests};
use super::proxies::{Proxies, Proxy};
use super::usage::{self, Span};
use super::wrk::{Script, Seen};
use crate::bodies::SIZES;

/// Connections of the loads without pause.
pub const CLOSED: [usize; 2] = [16, 64];
/// Requests offered per second below saturation, by size.
pub const RATES: [f64; 4] = [760.0, 750.0, 255.0, 100.0];

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// So many connections without pause.
    Closed(usize),
    /// Connections that think.
    Paced,
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Closed(connections) => format!("closed-{connections}"),
            Self::Paced => format!("paced-{CONNECTIONS}"),
        }
    }
}

/// One cell's result.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which round, from 0.
    pub round: usize,
    /// Index into [`SIZES`].
    pub size: usize,
    /// Kind of load.
    pub load: Load,
    /// Through which proxy.
    pub proxy: Proxy,
    /// What the client saw.
    pub seen: Seen,
    /// Envoy's CPU time per 1,000 requests, s.
    pub envoy_cpu: f64,
    /// The control plane's CPU time, cores.
    pub control_cores: f64,
    /// Idle share of the machine.
    pub idle: f64,
    /// Load average of the last minute.
    pub load_average: f64,
}

impl Row {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.seen.requests as f64 / self.seen.seconds
    }
}

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Times that every cell is measured.
    pub rounds: usize,
    /// Length of one cell, s.
    pub seconds: u64,
}

/// Runs all cells, telling of each.
///
/// # Errors
/// A proxy or a client that fails.
pub fn run(proxies: &Proxies, length: Length, mut tell: impl FnMut(&Row)) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (size, (name, len)) in SIZES.into_iter().enumerate() {
        let script = Script::write(proxies.dir(), name, len)?;
        let requests = Requests::new(len);
        for proxy in Proxy::ALL {
            script.run(proxies.port(proxy), CLOSED[0], 1)?;
        }
        let loads = CLOSED.map(Load::Closed).into_iter().chain([Load::Paced]);
        for (load, round) in loads.flat_map(|load| (0..length.rounds).map(move |r| (load, r))) {
            for turn in 0..Proxy::ALL.len() {
                let proxy = Proxy::ALL[(turn + round) % Proxy::ALL.len()];
                let port = proxies.port(proxy);
                let span = Span::begin(&[proxies.envoy_pid(proxy), proxies.control_pid()])?;
                let seen = match load {
                    Load::Closed(connections) => script.run(port, connections, length.seconds)?,
                    Load::Paced => {
                        requests.run(port, RATES[size], Duration::from_secs(length.seconds))?
                    }
                };
                let spent = span.end()?;
                let row = Row {
                    round,
                    size,
                    load,
                    proxy,
                    envoy_cpu: spent.cpu[0] / seen.requests.max(1) as f64 * 1e3,
                    control_cores: spent.cpu[1] / spent.seconds,
                    idle: spent.idle,
                    load_average: usage::load_average(),
                    seen,
                };
                tell(&row);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// The rows, tab separated, with a head.
pub fn tsv(rows: &[Row]) -> String {
    let mut text = String::from(
        "round\tprompt\tload\tproxy\trequests\tseconds\trps\terrors\tp50_ms\tp99_ms\t\
         envoy_cpu_s_per_1k\tcontrol_cores\tidle\tload_average\n",
    );
    for row in rows {
        let seen = &row.seen;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{:.3}\t{:.1}\t{}\t{:.3}\t{:.3}\t{:.5}\t{:.4}\t{:.3}\t{:.2}",
            row.round,
            SIZES[row.size].0,
            row.load.name(),
            row.proxy.name(),
            seen.requests,
            seen.seconds,
            row.rate(),
            seen.errors,
            seen.p50_ms,
            seen.p99_ms,
            row.envoy_cpu,
            row.control_cores,
            row.idle,
            row.load_average,
        );
    }
    text
}
