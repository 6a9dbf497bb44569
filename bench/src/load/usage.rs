//! The kernel's accounts: CPU time of a process's threads, its own memory, how idle the machine was.

use std::fs;
use std::io;
use std::time::Instant;

/// CPU time of all threads of a process so far, ns. Threads that have ended are not in it.
///
/// # Errors
/// A process that is gone.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// Anonymous resident memory of a process, bytes: what is its own and in no file.
///
/// # Errors
/// A process that is gone.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("smaps_rollup without Anonymous"))
}

/// What a process has touched of its anonymous mappings that are exactly `size` bytes long, bytes.
///
/// # Errors
/// A process that is gone.
pub fn anonymous_in_mappings_of(pid: u32, size: u64) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut matches, mut total) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let range = first.split_once('-').and_then(|(from, to)| {
            let address = |text| u64::from_str_radix(text, 16).ok();
            address(to)?.checked_sub(address(from)?)
        });
        if let Some(length) = range {
            matches = length == size && words.count() == 4;
        } else if matches && first == "Anonymous:" {
            let kib = words.next().and_then(|kib| kib.parse::<u64>().ok());
            total += kib.unwrap_or(0) << 10;
        }
    }
    Ok(total)
}

/// Load average of the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// The machine's CPU time so far: idle and all, in ticks.
#[derive(Debug, Clone, Copy)]
struct Machine {
    idle: u64,
    all: u64,
}

impl Machine {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<u64> = fields.take(8).flat_map(str::parse).collect();
        let idle = ticks.get(3).copied().unwrap_or(0) + ticks.get(4).copied().unwrap_or(0);
        Self { idle, all: ticks.iter().sum() }
    }
}

/// Accounts over a span of time.
#[derive(Debug)]
pub struct Span {
    started: Instant,
    machine: Machine,
    processes: Vec<(u32, u64)>,
}

/// What a span came to.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Wall clock, s.
    pub seconds: f64,
    /// Idle share of the machine.
    pub idle: f64,
    /// CPU time per process in the order asked for, s.
    pub cpu: Vec<f64>,
}

impl Span {
    /// Begins a span over these processes.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn begin(pids: &[u32]) -> io::Result<Self> {
        let processes = pids.iter().map(|&pid| Ok((pid, cpu_ns(pid)?)));
        let processes = processes.collect::<io::Result<_>>()?;
        Ok(Self { started: Instant::now(), machine: Machine::now(), processes })
    }

    /// Ends it.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn end(self) -> io::Result<Spent> {
        let seconds = self.started.elapsed().as_secs_f64();
        let machine = Machine::now();
        let all = machine.all.saturating_sub(self.machine.all).max(1);
        let idle = machine.idle.saturating_sub(self.machine.idle) as f64 / all as f64;
        let cpu = self.processes.iter();
        let cpu = cpu.map(|&(pid, before)| Ok(cpu_ns(pid)?.saturating_sub(before) as f64 * 1e-9));
        Ok(Spent { seconds, idle, cpu: cpu.collect::<io::Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_show_up_in_the_accounts() {
        let span = Span::begin(&[std::process::id()]).unwrap();
        let before = anonymous_bytes(std::process::id()).unwrap();
        let start = Instant::now();
        let mut memory = vec![0u8; 32 << 20];
        while start.elapsed().as_millis() < 50 {
            memory.iter_mut().step_by(4_096).for_each(|byte| *byte = byte.wrapping_add(1));
        }
        let after = anonymous_bytes(std::process::id()).unwrap();
        let spent = span.end().unwrap();
        assert!(std::hint::black_box(memory)[0] > 0);
        assert!(after >= before + (24 << 20), "{before} {after}");
        let words = inlane_segment::mapped::MappedWords::anonymous(1 << 20).unwrap();
        inlane_segment::words::WordsMut::store(&words, 5, 1, std::sync::atomic::Ordering::Relaxed);
        let touched = anonymous_in_mappings_of(std::process::id(), 8 << 20).unwrap();
        assert!((1..(8 << 20)).contains(&touched), "{touched}");
        assert!(spent.cpu[0] > 0.001 && spent.seconds >= 0.05, "{spent:?}");
    }
}
