//! Load without pause, by `wrk`: every connection sends its next request when it has its answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bodies::{self, BODIES};

/// The bodies of one size on disk, and the script that sends them in turn.
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
}

/// What `wrk` saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Requests answered.
    pub requests: u64,
    /// Time that it measured, s.
    pub seconds: f64,
    /// Connection errors, timeouts and answers of 400 and more.
    pub errors: u64,
    /// Median latency, ms.
    pub p50_ms: f64,
    /// 99th percentile, ms.
    pub p99_ms: f64,
}

const LUA: &str = r#"
local requests, next = {}, 0
function init(args)
  for i = 0, @COUNT@ - 1 do
    local file = io.open("@DIR@/" .. i .. ".json", "rb")
    requests[i] = wrk.format("POST", "/v1/completions",
      {["content-type"] = "application/json"}, file:read("*a"))
    file:close()
  end
end
function request()
  next = (next + 1) % @COUNT@
  return requests[next]
end
function done(summary, latency)
  local e = summary.errors
  print(string.format("SEEN %d %d %d %f %f", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"#;

impl Script {
    /// Writes bodies of `len` bytes of prompt, and the script, under `dir`.
    ///
    /// # Errors
    /// File errors.
    pub fn write(dir: &Path, name: &str, len: usize) -> io::Result<Self> {
        let bodies = dir.join(name);
        fs::create_dir_all(&bodies)?;
        for index in 0..BODIES {
            fs::write(bodies.join(format!("{index}.json")), bodies::completion(index, len))?;
        }
        let path = bodies.join("load.lua");
        let script = LUA.replace("@COUNT@", &BODIES.to_string());
        fs::write(&path, script.replace("@DIR@", &bodies.to_string_lossy()))?;
        Ok(Self { path })
    }

    /// The script.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads `port` over `connections` for `seconds`.
    ///
    /// # Errors
    /// No `wrk`, or one that fails.
    pub fn run(&self, port: u16, connections: usize, seconds: u64) -> io::Result<Seen> {
        let output = Command::new("wrk")
            .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
            .arg(&self.path)
            .arg(format!("http://127.0.0.1:{port}"))
            .output()
            .map_err(|e| io::Error::other(format!("wrk: {e}; run `scripts/deps.sh bench`")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        seen(&text).ok_or_else(|| {
            io::Error::other(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))
        })
    }
}

fn seen(text: &str) -> Option<Seen> {
    let line = text.lines().find_map(|line| line.strip_prefix("SEEN "))?;
    let mut fields = line.split(' ');
    Some(Seen {
        requests: fields.next()?.parse().ok()?,
        seconds: fields.next()?.parse::<f64>().ok()? * 1e-6,
        errors: fields.next()?.parse().ok()?,
        p50_ms: fields.next()?.parse().ok()?,
        p99_ms: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_line_is_read() {
        let seen = seen("Running\nSEEN 1200 3000000 2 0.512000 4.250000\n").unwrap();
        assert_eq!((seen.requests, seen.errors), (1_200, 2));
        assert!((seen.seconds - 3.0).abs() < 1e-9 && (seen.p99_ms - 4.25).abs() < 1e-9);
        assert!(super::seen("unable to connect").is_none());
    }
}
