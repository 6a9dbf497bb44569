//! What the kernel says of this process's threads and memory.

use std::collections::HashMap;
use std::fs;

/// CPU time of every thread, in nanoseconds, by its number.
pub fn cpu() -> HashMap<u32, u64> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            let times = fs::read_to_string(path.join("schedstat")).ok()?;
            Some((number, times.split(' ').next()?.parse().ok()?))
        })
        .collect()
}

/// CPU time of the thread that used most of it since `before`, without the thread `except`.
pub fn busiest(before: &HashMap<u32, u64>, except: u32) -> u64 {
    let used = cpu().into_iter().filter(|&(thread, _)| thread != except);
    used.map(|(thread, now)| now - before.get(&thread).copied().unwrap_or(0)).max().unwrap_or(0)
}

/// This thread's number.
pub fn this() -> u32 {
    let link = fs::read_link("/proc/thread-self").expect("Linux");
    let number = link.file_name().and_then(|name| name.to_str()?.parse().ok());
    number.expect("a number")
}

/// Bytes of this process that are in memory, files aside.
pub fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.expect("a size") * 1024
}

/// Load average of the last minute.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").expect("Linux");
    load.split(' ').next().unwrap_or_default().to_owned()
}
