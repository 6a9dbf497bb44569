//! What costs without requests: memory, and the scraping of many pods.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use inlane_core::snapshot::{MetricsRow, ROW_WORDS};
use inlane_segment::SnapshotReader;

use super::pods::{Page, Pods};
use super::proxies::{Proxies, Proxy, WORKERS, control_plane};
use super::usage::{Span, anonymous_bytes, anonymous_in_mappings_of};

/// How long a fresh control plane is left alone before it is measured.
const SETTLE: Duration = Duration::from_secs(3);

/// A figure without rounds.
#[derive(Debug, Clone)]
pub struct Standing {
    /// What it is, with its unit.
    pub name: String,
    /// How much.
    pub value: f64,
    /// The most that it should be.
    pub limit: Option<f64>,
}

fn standing(name: impl Into<String>, value: f64, limit: Option<f64>) -> Standing {
    Standing { name: name.into(), value, limit }
}

const MB: f64 = 1e6;
/// Mappings are whole pages.
const PAGE: u64 = 4_096;

/// Memory of the running proxies, after their load.
///
/// # Errors
/// A process that is gone.
pub fn memory(proxies: &Proxies) -> io::Result<Vec<Standing>> {
    let envoy = |proxy| anonymous_bytes(proxies.envoy_pid(proxy)).map(|bytes| bytes as f64);
    let plain = f64::midpoint(envoy(Proxy::Plain)?, envoy(Proxy::PlainAgain)?);
    let apart = (envoy(Proxy::Plain)? - envoy(Proxy::PlainAgain)?).abs();
    let workers = f64::from(WORKERS);
    let index = index_bytes(proxies)? as f64;
    let module = (envoy(Proxy::Inlane)? - plain - index) / workers;
    let control = anonymous_bytes(proxies.control_pid())? as f64;
    Ok(vec![
        standing("control plane, anonymous memory, 8 pods (MB)", control / MB, Some(15.0)),
        standing("module, anonymous memory per worker (MB)", module / MB, Some(2.0)),
        standing("prefix index, memory touched of its budget, apart (MB)", index / MB, None),
        standing("plain Envoys differ by, per worker (MB)", apart / workers / MB, None),
    ])
}

/// What the prefix indexes have touched of their budgets.
fn index_bytes(proxies: &Proxies) -> io::Result<u64> {
    let pool = proxies.pool()?;
    let budgets = pool["prefix_indexes"].as_array().into_iter().flatten();
    let budgets = budgets.filter_map(|index| index["budget_bytes"].as_u64());
    let sizes: BTreeSet<u64> = budgets.map(|bytes| bytes.next_multiple_of(PAGE)).collect();
    let pid = proxies.envoy_pid(Proxy::Inlane);
    sizes.into_iter().map(|size| anonymous_in_mappings_of(pid, size)).sum()
}

/// Memory of a control plane with `count` pods.
///
/// # Errors
/// What did not start.
pub fn many_pods(count: usize) -> io::Result<Vec<Standing>> {
    let pods = Pods::start(count, Page::Real)?;
    let lab = control_plane(&pods.ports, &[])?;
    sleep(SETTLE);
    let pid = lab.control.as_ref().map_or(0, |process| process.pid());
    let bytes = anonymous_bytes(pid)? as f64;
    let reached = scrapes(&lab.segment_dir, count)?.into_iter().filter(|&n| n > 0).count();
    let name = format!("control plane, anonymous memory, {count} pods (MB)");
    Ok(vec![
        standing(name, bytes / MB, Some(40.0)),
        standing("  pods scraped by then", reached as f64, None),
    ])
}

/// CPU time of a control plane that scrapes `count` pods with real pages every 50 ms.
///
/// # Errors
/// What did not start.
pub fn scraping(count: usize, length: Duration) -> io::Result<Vec<Standing>> {
    let pods = Pods::start(count, Page::Real)?;
    let lab = control_plane(&pods.ports, &[])?;
    sleep(SETTLE);
    let pid = lab.control.as_ref().map_or(0, |process| process.pid());
    let (before, span) = (scrapes(&lab.segment_dir, count)?, Span::begin(&[pid, pods.pid()])?);
    sleep(length);
    let (spent, after) = (span.end()?, scrapes(&lab.segment_dir, count)?);
    let (before, after): (u64, u64) = (before.iter().sum(), after.iter().sum());
    let done = after.saturating_sub(before) as f64;
    let cores = spent.cpu[0] / spent.seconds;
    Ok(vec![
        standing(format!("scraping {count} pods, control plane (cores)"), cores, Some(0.2)),
        standing("  scrapes per second", done / spent.seconds, None),
        standing("  CPU per scrape (µs)", spent.cpu[0] / done.max(1.0) * 1e6, None),
        standing("  the pods' own CPU (cores)", spent.cpu[1] / spent.seconds, None),
        standing("  idle share of the machine", spent.idle, None),
    ])
}

/// Scrapes of each pod that the segment knows of.
fn scrapes(segment: &Path, pods: usize) -> io::Result<Vec<u64>> {
    let reader = SnapshotReader::open(segment).map_err(io::Error::other)?;
    let slots = reader.snapshot().shape().slots.min(pods as u32);
    let row = |slot| {
        let mut words = [0; ROW_WORDS];
        let read = reader.snapshot().row(slot, &mut words);
        if read { MetricsRow::from_words(&words).scrapes } else { 0 }
    };
    Ok((0..slots).map(row).collect())
}

/// The figures as a table.
pub fn table(figures: &[Standing]) -> String {
    let line = |figure: &Standing| {
        let verdict = match figure.limit {
            Some(limit) if figure.value <= limit => format!("limit {limit}  within"),
            Some(limit) => format!("limit {limit}  OVER"),
            None => String::new(),
        };
        format!("{:54} {:>10.3}  {verdict}\n", figure.name, figure.value)
    };
    figures.iter().map(line).collect()
}
