//! Accepting connections, and ending them in all the ways a server can.
//!
//! One task per pod accepts connections and executes [`Command`]s; one task per connection speaks HTTP. The accept
//! task owns the listener and all connection tasks, so that killing a pod is one place: when a kill is
//! acknowledged, nothing listens any more and every connection has been reset.

mod socket;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{AbortHandle, Id, JoinSet},
};

use self::socket::SharedStream;
use crate::{http, pod::Pod};

/// What the accept task can be told. Each is acknowledged when done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Look at the tunables again: listen or stop listening.
    Apply(oneshot::Sender<io::Result<()>>),
    /// Stop listening and reset every connection.
    Kill(oneshot::Sender<io::Result<()>>),
    /// Undo a kill, with an empty cache and all counters at zero.
    Revive(oneshot::Sender<io::Result<()>>),
}

/// What a request handler knows of its connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    stream: Arc<TcpStream>,
    spared: Arc<AtomicBool>,
}

impl Connection {
    /// Makes the end of this connection a reset instead of an orderly close. What is not yet sent is lost.
    pub(crate) fn reset_on_close(&self) {
        // If the peer has already gone there is nothing left to reset.
        let _ = self.stream.set_zero_linger();
    }

    /// Excepts this connection from a kill: it carries the answer to the request for it.
    pub(crate) fn spare(&self) {
        self.spared.store(true, Ordering::Relaxed);
    }
}

/// Serves a pod until its command channel is closed.
pub(crate) async fn serve(
    pod: Arc<Pod>,
    listener: TcpListener,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut server = Server {
        pod,
        listener: Some(listener),
        alive: true,
        tasks: JoinSet::new(),
        connections: HashMap::new(),
    };
    // A start with the fault set closes the listener, which cannot fail.
    let _ = server.apply().await;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => server.execute(command).await,
                None => return,
            },
            Some(stream) = accept(server.listener.as_ref()) => server.connect(stream),
            Some(ended) = server.tasks.join_next_with_id() => server.forget(&ended),
        }
    }
}

struct Server {
    pod: Arc<Pod>,
    listener: Option<TcpListener>,
    alive: bool,
    tasks: JoinSet<()>,
    connections: HashMap<Id, Entry>,
}

struct Entry {
    stream: Weak<TcpStream>,
    spared: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Server {
    async fn execute(&mut self, command: Command) {
        // An acknowledgement that nobody waits for is lost.
        match command {
            Command::Apply(done) => {
                let _ = done.send(self.apply().await);
            }
            Command::Kill(done) => {
                self.kill().await;
                let _ = done.send(Ok(()));
            }
            Command::Revive(done) => {
                let _ = done.send(self.revive().await);
            }
        }
    }

    /// Opens or closes the listener as it should be.
    async fn apply(&mut self) -> io::Result<()> {
        if !self.alive || self.pod.tunables().fault_refuse_connections {
            self.listener = None;
        } else if self.listener.is_none() {
            self.listener = Some(TcpListener::bind(self.pod.address).await?);
        }
        Ok(())
    }

    async fn revive(&mut self) -> io::Result<()> {
        if !self.alive {
            self.pod.restart()?;
            self.alive = true;
        }
        self.apply().await
    }

    async fn kill(&mut self) {
        self.alive = false;
        self.listener = None;
        self.pod.silence();
        let mut left = 0;
        for entry in self.connections.values() {
            if entry.spared.load(Ordering::Relaxed) {
                left += 1;
                continue;
            }
            if let Some(stream) = entry.stream.upgrade() {
                // See `Connection::reset_on_close`.
                let _ = stream.set_zero_linger();
            }
            entry.task.abort();
        }
        while self.tasks.len() > left {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            self.forget(&ended);
        }
    }

    fn connect(&mut self, stream: TcpStream) {
        if self.pod.tunables().fault_reset_connections {
            // See `Connection::reset_on_close`.
            let _ = stream.set_zero_linger();
            return;
        }
        // Streams of tokens are small writes that must not wait for each other.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let spared = Arc::new(AtomicBool::new(false));
        let connection = Connection { stream: Arc::clone(&stream), spared: Arc::clone(&spared) };
        let weak = Arc::downgrade(&stream);
        let pod = Arc::clone(&self.pod);
        let task = self.tasks.spawn(async move {
            let service = service_fn(move |request| {
                http::handle(Arc::clone(&pod), connection.clone(), request)
            });
            let io = TokioIo::new(SharedStream(stream));
            // Errors are the client's or injected ones: there is nobody to tell.
            let _ = http1::Builder::new().serve_connection(io, service).await;
        });
        self.connections.insert(task.id(), Entry { stream: weak, spared, task });
    }

    fn forget(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.connections.remove(&id);
    }
}

/// The next connection; never while there is no listener.
async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    let Some(listener) = listener else { return std::future::pending().await };
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(_) => {
            // Out of file descriptors, most likely: try again when some may have been closed.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            None
        }
    }
}
