//! Running pods: in this process, on threads of their own, behind handles that any thread may use.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use inlane_text::tokens::LoadError;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    config::{
        Config, InvalidConfig,
        tunables::{InvalidTunable, Tunables},
    },
    events::EventsError,
    pod::{Identity, InvalidName, Pod, PodError},
    server::{self, Command},
    text::vocabulary::Vocabulary,
};

/// Where the pods of a cluster listen and run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Number of pods.
    pub pods: NonZeroUsize,
    /// How their addresses differ.
    pub spread: Spread,
    /// Threads to run them on; each pod stays on one.
    pub threads: NonZeroUsize,
}

impl Layout {
    /// `pods` pods on consecutive addresses, all on one thread.
    pub fn new(pods: NonZeroUsize) -> Self {
        Self { pods, spread: Spread::Addresses, threads: NonZeroUsize::MIN }
    }
}

/// How the addresses of pods differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Spread {
    /// One port on consecutive addresses (all of 127.0.0.0/8 is the local host on Linux).
    Addresses,
    /// Consecutive ports of one address.
    Ports,
}

/// Pods that run until this is dropped or [shut down](Self::shutdown).
#[derive(Debug)]
pub struct Cluster {
    /// The pods, in order of their addresses.
    pub pods: Vec<PodHandle>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cluster {
    /// Starts `pods` pods (at least one) on consecutive addresses. They accept connections when this returns.
    pub fn start(config: Config, pods: usize) -> Result<Self, StartError> {
        Self::start_with(config, Layout::new(NonZeroUsize::new(pods).unwrap_or(NonZeroUsize::MIN)))
    }

    /// Starts pods as `layout` says.
    pub fn start_with(config: Config, layout: Layout) -> Result<Self, StartError> {
        config.validate()?;
        let seed = config.seed.unwrap_or_else(|| crate::pod::unix_time().as_nanos() as u64);
        let vocabulary = config.tokenizer.as_deref().map(Vocabulary::load).transpose()?;
        let vocabulary = vocabulary.map(Arc::new);
        let config = Arc::new(config);
        let (stop, stopped) = watch::channel(false);
        let threads = layout.threads.get().min(layout.pods.get());
        let mut work: Vec<Vec<Serve>> = (0..threads).map(|_| Vec::new()).collect();
        let mut handles = Vec::with_capacity(layout.pods.get());
        let ranks = config.events.data_parallel_size.max(1) as usize;
        for index in 0..layout.pods.get() * ranks {
            let (pod, rank) = (index / ranks, index % ranks);
            let (wanted, offset) =
                address(&config, layout.spread, pod, rank, ranks).ok_or(StartError::NoAddress)?;
            let listener = std::net::TcpListener::bind(wanted)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|source| StartError::Listen { address: wanted, source })?;
            let address = listener
                .local_addr()
                .map_err(|source| StartError::Listen { address: wanted, source })?;
            let name = match (&config.pod_name, layout.pods.get()) {
                (Some(name), 1) => name.clone(),
                (Some(name), _) => format!("{name}-{pod}"),
                (None, 1) => format!("sim-{}", address.port()),
                (None, _) => format!("sim-{pod}"),
            };
            let name = if rank == 0 { name } else { format!("{name}-rank-{rank}") };
            let rank = config.events.data_parallel_rank.unwrap_or(rank as u32);
            let identity = Identity { name, address, offset, rank };
            let (commands, received) = mpsc::unbounded_channel();
            let seed = seed.wrapping_add(index as u64);
            let pod = Pod::new(identity, Arc::clone(&config), vocabulary.clone(), seed, commands)?;
            let pod = Arc::new(pod);
            handles.push(PodHandle { pod: Arc::clone(&pod) });
            work[index % threads].push(Serve { pod, listener, received });
        }
        let peers: Vec<_> = handles.iter().map(|handle| Arc::downgrade(&handle.pod)).collect();
        for handle in &handles {
            // Set once, here.
            let _ = handle.pod.peers.set(peers.clone());
        }
        let mut cluster = Self { pods: handles, stop, threads: Vec::new() };
        for (index, work) in work.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let stopped = stopped.clone();
            let thread = std::thread::Builder::new()
                .name(format!("sim-{index}"))
                .spawn(move || runtime.block_on(run(work, stopped)))?;
            cluster.threads.push(thread);
        }
        Ok(cluster)
    }

    /// Refuses new requests with 503, waits up to `grace` for the running ones, and ends. Returns whether all of
    /// them were done.
    pub fn shutdown(self, grace: Duration) -> bool {
        for handle in &self.pods {
            handle.pod.draining.store(true, Ordering::Relaxed);
        }
        let deadline = Instant::now() + grace;
        let idle = || self.pods.iter().all(|handle| handle.pod.is_idle());
        while !idle() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let done = idle();
        // The last bytes of the last answers are on their way.
        std::thread::sleep(Duration::from_millis(20).min(grace));
        done
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A panic in there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// One pod of a cluster. Methods that change something block, for less than a millisecond, until it has happened.
#[derive(Clone, Debug)]
pub struct PodHandle {
    pod: Arc<Pod>,
}

impl PodHandle {
    /// Its name, as in `x-inference-pod`.
    pub fn name(&self) -> &str {
        &self.pod.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.pod.address
    }

    /// Its metrics page.
    pub fn metrics(&self) -> String {
        self.pod.metrics()
    }

    /// The value of a sample on its metrics page, by the sample's text up to the value, for example
    /// `vllm:num_requests_running{engine="0",model_name="random"}`.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let page = self.metrics();
        page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    /// The last inference requests, oldest first: `[{"path","id","status","headers"}]`.
    pub fn requests(&self) -> serde_json::Value {
        self.pod.log.to_json()
    }

    /// Present latencies and faults.
    pub fn tunables(&self) -> Tunables {
        self.pod.tunables().as_ref().clone()
    }

    /// Changes latencies and faults.
    pub fn configure(&self, change: impl FnOnce(&mut Tunables)) -> Result<(), ControlError> {
        let mut tunables = self.tunables();
        change(&mut tunables);
        tunables.validate()?;
        self.pod.set_tunables(tunables);
        self.control(Command::Apply)
    }

    /// Stops listening and resets all connections, as if the process had been killed.
    pub fn kill(&self) -> Result<(), ControlError> {
        self.control(Command::Kill)
    }

    /// Starts again after a [`kill`](Self::kill), with an empty cache and all counters at zero.
    pub fn revive(&self) -> Result<(), ControlError> {
        self.control(Command::Revive)
    }

    fn control(
        &self,
        command: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Command,
    ) -> Result<(), ControlError> {
        let (done, mut outcome) = oneshot::channel();
        self.pod.command(command(done));
        // Not `blocking_recv`, which refuses to work on a thread that runs async code, as tests do.
        loop {
            match outcome.try_recv() {
                Ok(result) => return Ok(result?),
                Err(oneshot::error::TryRecvError::Closed) => return Err(ControlError::Ended),
                Err(oneshot::error::TryRecvError::Empty) => {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        }
    }
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Cache events cannot be published.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// No thread or runtime.
    #[error("cannot start a thread: {0}")]
    Io(#[from] io::Error),
    /// An address is taken or not of this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A pod name or namespace that is no header value.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is no tokenizer where it should be.
    #[error("cannot load the tokenizer: {0}")]
    Tokenizer(#[from] LoadError),
    /// More pods than addresses or ports.
    #[error("there are not enough addresses or ports for so many pods")]
    NoAddress,
}

impl From<PodError> for StartError {
    fn from(error: PodError) -> Self {
        match error {
            PodError::Events(error) => Self::Events(error),
            PodError::Name(error) => Self::Name(error),
        }
    }
}

/// Why a pod could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Its cluster has ended.
    #[error("the pod has ended")]
    Ended,
    /// It cannot listen.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// A setting was refused.
    #[error(transparent)]
    Tunable(#[from] InvalidTunable),
}

/// What a thread needs to serve a pod.
struct Serve {
    pod: Arc<Pod>,
    listener: std::net::TcpListener,
    received: mpsc::UnboundedReceiver<Command>,
}

async fn run(work: Vec<Serve>, mut stopped: watch::Receiver<bool>) {
    for Serve { pod, listener, received } in work {
        // A listener that is already bound can only fail to be registered when the process is out of memory.
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        tokio::spawn(Arc::clone(&pod).drive());
        tokio::spawn(server::serve(pod, listener, received));
    }
    // An error means that the cluster is gone, which is the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The address of a rank of the pod at `index`, and how many ports before it belong to others of this process.
fn address(
    config: &Config,
    spread: Spread,
    index: usize,
    rank: usize,
    ranks: usize,
) -> Option<(SocketAddr, u16)> {
    let (ip, offset) = match (spread, config.address) {
        (Spread::Ports, ip) => (ip, index.checked_mul(ranks)?.checked_add(rank)?),
        (Spread::Addresses, IpAddr::V4(ip)) => {
            (IpAddr::V4(u32::from(ip).checked_add(u32::try_from(index).ok()?)?.into()), rank)
        }
        (Spread::Addresses, IpAddr::V6(ip)) => {
            (IpAddr::V6(u128::from(ip).checked_add(index as u128)?.into()), rank)
        }
    };
    let offset = u16::try_from(offset).ok()?;
    // Port 0 means any free one, for every pod.
    let step = if config.port == 0 { 0 } else { offset };
    Some((SocketAddr::new(ip, config.port.checked_add(step)?), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_are_consecutive() {
        let config = Config::default();
        let text = |spread, index| {
            address(&config, spread, index, 0, 1).map(|(address, _)| address.to_string())
        };
        assert_eq!(text(Spread::Addresses, 2).as_deref(), Some("127.0.0.3:8000"));
        assert_eq!(text(Spread::Ports, 2).as_deref(), Some("127.0.0.1:8002"));
        assert_eq!(text(Spread::Ports, 60_000), None);
        let rank = |spread| {
            let (address, offset) = address(&config, spread, 2, 1, 4).unwrap();
            (address.to_string(), offset)
        };
        assert_eq!(rank(Spread::Addresses), ("127.0.0.3:8001".to_owned(), 1));
        assert_eq!(rank(Spread::Ports), ("127.0.0.1:8009".to_owned(), 9));
    }
}
