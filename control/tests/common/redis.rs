//! A Redis of a test's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::redis::{Client, Connection};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// A server at a Unix socket. It keeps nothing.
pub(crate) struct Server {
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut server = Self { directory: TempDir::new().unwrap(), child: None };
        server.restart("");
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn connect(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Ends it, without its having time for anything.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it anew, with more lines in its configuration.
    pub(crate) fn restart(&mut self, more: &str) {
        self.kill();
        let (directory, socket) = (self.directory.path(), self.socket());
        let config = format!(
            "port 0\nsave \"\"\nappendonly no\ndir \"{}\"\nunixsocket \"{}\"\n{more}\n",
            directory.display(),
            socket.display()
        );
        let path = directory.join("config");
        std::fs::write(&path, config).unwrap();
        // Another server of the kind by its name, such as `valkey-server`.
        let program = std::env::var("INLANE_TEST_REDIS").unwrap_or("redis-server".into());
        let child = Command::new(program).arg(path).stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server is installed by scripts/deps.sh test"));
        let client = Client::open(self.url()).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while client.get_connection().is_err() {
            assert!(Instant::now() < end, "Redis does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has it stand still.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
