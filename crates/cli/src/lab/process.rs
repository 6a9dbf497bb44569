//! Child processes: started with a log file, ended by pid.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts `program`, its output appended to `log`.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn spawn(
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        log: &Path,
    ) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|e| io::Error::other(format!("{}: {e}", program.display())))?;
        Ok(Self { child: Some(child), log: log.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The process ended or took too long; the message has the end of its log.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while !ready() {
            let ended = self.has_ended();
            if ended || start.elapsed() > limit {
                let how = if ended { "ended at once" } else { "is not ready in time" };
                let log = tail(&self.log, 20);
                return Err(io::Error::other(format!("{what} {how}:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until the process has ended by itself. Answers whether it says that it succeeded.
    ///
    /// # Errors
    /// A process that goes on, with the end of its log.
    pub fn wait_for_end(&mut self, limit: Duration) -> io::Result<bool> {
        let start = Instant::now();
        while let Some(child) = &mut self.child {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if start.elapsed() > limit {
                let log = tail(&self.log, 20);
                return Err(io::Error::other(format!("did not end in {limit:?}:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// Kills the process, as `kill -9` does, and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks the process to end (SIGTERM), and kills it when it does not within `grace`.
    /// Returns whether it ended by itself.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < grace {
            if self.has_ended() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Lets the process live on after this value is gone.
    pub fn leave_running(mut self) {
        self.child = None;
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// `N` different loopback ports that were free a moment ago and are not given out again.
///
/// They lie below those that the kernel takes for outgoing connections, of which a lab makes so many
/// that one would have the port before its server starts.
///
/// # Panics
/// When the machine has no free port there.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(613) % COUNT;
    let free = (0..COUNT).find_map(|_| {
        let next = GIVEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = (FIRST + (start + next) % COUNT) as u16;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    free.unwrap_or_else(|| panic!("no free loopback port"))
}

/// A number that no other caller in this process gets.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
