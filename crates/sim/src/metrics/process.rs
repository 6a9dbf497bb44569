//! Facts about the process, from `/proc`; all zero where there is none.
//!
//! Reading them costs some tens of microseconds, so that a reading is kept for a second and shared by all pods.

use std::{
    fs,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// One reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// CPU time, user and system, in seconds.
    pub cpu: f64,
    /// Limit of open files.
    pub max_files: f64,
    /// Open files.
    pub open_files: f64,
    /// Resident memory, in bytes.
    pub resident: f64,
    /// Start, as Unix time in seconds.
    pub start: f64,
    /// Virtual memory, in bytes.
    pub virtual_size: f64,
}

impl Process {
    /// A reading at most a second old.
    pub fn now() -> Self {
        static LAST: Mutex<Option<(Instant, Process)>> = Mutex::new(None);
        let mut last = LAST.lock();
        if let Some((at, reading)) = *last
            && at.elapsed() < Duration::from_secs(1)
        {
            return reading;
        }
        let reading = Self::read().unwrap_or_default();
        *last = Some((Instant::now(), reading));
        reading
    }

    fn read() -> Option<Self> {
        // Linux reports these times in ticks of 10 ms to user space, whatever its own clock does.
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses, which may contain anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<f64> =
            fields.split(' ').map(|f| f.trim().parse().unwrap_or_default()).collect();
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot =
            boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse::<f64>().ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident = resident.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let max_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        Some(Self {
            cpu: (fields.get(11)? + fields.get(12)?) / TICKS,
            max_files: max_files.split_whitespace().next()?.parse().unwrap_or(f64::INFINITY),
            open_files: fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            resident,
            start: boot + fields.get(19)? / TICKS,
            virtual_size: *fields.get(20)?,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn readings_are_plausible() {
        let process = Process::read().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(process.start > 1e9 && process.start <= now.as_secs_f64() + 1.0);
        assert!(process.resident > 1e5 && process.resident <= process.virtual_size);
        assert!(process.open_files >= 3.0 && process.open_files <= process.max_files);
    }
}
