//! The lab: simulators, control plane and Envoy as processes of one machine.
//!
//! Everything listens on loopback, on ports that were free a moment ago, keeps its files in one
//! directory and is ended by pid when the lab is dropped.

pub mod bootstrap;
pub mod http;
pub mod paths;
pub mod process;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use bootstrap::Bootstrap;
pub use http::{Answer, Client};
pub use paths::Binaries;
pub use process::Process;

/// One simulated pod.
#[derive(Debug)]
pub struct Pod {
    /// Its name in the endpoints file and in the answers' `x-inference-pod` header.
    pub name: String,
    /// Serving port on 127.0.0.1.
    pub port: u16,
    /// The process, while it runs.
    pub process: Option<Process>,
    /// Labels in the endpoints file.
    pub labels: BTreeMap<String, String>,
}

/// What a lab consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Number of pods to start with.
    pub pods: usize,
    /// Extra arguments of every simulator.
    pub pod_args: Vec<String>,
    /// The scheduler's configuration; `{endpoints}` stands for the path of the endpoints file.
    /// Empty: the control plane is given none, only the endpoints file.
    pub config: String,
    /// Extra arguments of the control plane.
    pub control_args: Vec<String>,
    /// Extra environment variables of the control plane.
    pub control_env: Vec<(String, String)>,
    /// Envoy's version.
    pub envoy: String,
    /// Envoy's worker threads.
    pub concurrency: u32,
    /// How the shipped bootstrap is changed.
    pub bootstrap: Bootstrap,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            pods: 3,
            pod_args: Vec::new(),
            config: String::new(),
            control_args: Vec::new(),
            control_env: Vec::new(),
            envoy: "1.40.0".into(),
            concurrency: 2,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    /// What was asked for.
    pub plan: Plan,
    /// Directory of configuration files and logs.
    pub dir: PathBuf,
    /// Directory of the shared-memory segment.
    pub segment_dir: PathBuf,
    /// The pods, running or not.
    pub pods: Vec<Pod>,
    /// The control plane, while it runs.
    pub control: Option<Process>,
    /// Envoy, while it runs.
    pub envoy: Option<Process>,
    /// Port of the inference listener.
    pub port: u16,
    /// Port of Inlane's own pages.
    pub admin_port: u16,
    /// Port of Envoy's admin interface.
    pub envoy_admin_port: u16,
    /// Port of the control plane's own pages.
    pub control_port: u16,
    binaries: Binaries,
    pods_made: usize,
}

impl Lab {
    /// Starts everything and waits until the scheduler is ready.
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub fn start(plan: Plan) -> io::Result<Self> {
        let mut lab = Self::prepare(plan)?;
        for _ in 0..lab.plan.pods {
            lab.add_pod()?;
        }
        lab.begin()?;
        Ok(lab)
    }

    /// Starts control plane and Envoy for the pods that there are, and waits until the scheduler is
    /// ready.
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub fn begin(&mut self) -> io::Result<()> {
        self.write_endpoints()?;
        self.start_control()?;
        self.start_envoy()?;
        self.wait_ready(Duration::from_secs(20))
    }

    /// Makes the directories and chooses the ports; starts nothing.
    ///
    /// # Errors
    /// Directories that cannot be made, binaries that are missing.
    pub fn prepare(plan: Plan) -> io::Result<Self> {
        let binaries = Binaries::find(&plan.envoy)?;
        Self::prepare_with(plan, binaries)
    }

    /// The same with programs of one's own choice.
    ///
    /// # Errors
    /// Directories that cannot be made.
    pub fn prepare_with(plan: Plan, binaries: Binaries) -> io::Result<Self> {
        let name = format!("inlane-{}-{}", std::process::id(), process::unique());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir)?;
        let shm = Path::new("/dev/shm");
        let segment_dir = if shm.is_dir() { shm.join(&name) } else { dir.join("segment") };
        let [port, admin_port, envoy_admin_port, control_port] = process::free_ports();
        Ok(Self {
            plan,
            dir,
            segment_dir,
            pods: Vec::new(),
            control: None,
            envoy: None,
            port,
            admin_port,
            envoy_admin_port,
            control_port,
            binaries,
            pods_made: 0,
        })
    }

    /// Starts one more pod. [`Lab::write_endpoints`] makes it known.
    ///
    /// # Errors
    /// A simulator that does not start.
    pub fn add_pod(&mut self) -> io::Result<usize> {
        let name = format!("sim-{}", self.pods_made);
        self.pods_made += 1;
        let [port] = process::free_ports();
        let process = self.start_pod_process(&name, port)?;
        let labels = [("llm-d.ai/role".to_owned(), "decode".to_owned())].into();
        self.pods.push(Pod { name, port, process: Some(process), labels });
        Ok(self.pods.len() - 1)
    }

    fn start_pod_process(&self, name: &str, port: u16) -> io::Result<Process> {
        let port_text = port.to_string();
        let mut args = vec!["--port", &port_text, "--pod-name", name, "--model", "random"];
        args.extend(self.plan.pod_args.iter().map(String::as_str));
        let mut process = Process::spawn(&self.binaries.sim, &args, &[], &self.log(name))?;
        process.wait_for("the simulator", Duration::from_secs(10), || {
            Client::new(port).get("/health").is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(process)
    }

    /// Starts a pod that was killed again, on its old port.
    ///
    /// # Errors
    /// A simulator that does not start.
    pub fn revive_pod(&mut self, index: usize) -> io::Result<()> {
        let (name, port) = (self.pods[index].name.clone(), self.pods[index].port);
        self.pods[index].process = Some(self.start_pod_process(&name, port)?);
        Ok(())
    }

    /// The endpoints file that the control plane reads.
    pub fn endpoints_file(&self) -> PathBuf {
        self.dir.join("endpoints.yaml")
    }

    /// The scheduler's configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("scheduler.yaml")
    }

    /// Writes the endpoints file from [`Lab::pods`], by rename.
    ///
    /// # Errors
    /// File errors.
    pub fn write_endpoints(&self) -> io::Result<()> {
        let endpoints: Vec<Value> = self
            .pods
            .iter()
            .map(|pod| {
                serde_json::json!({
                    "name": pod.name, "address": "127.0.0.1", "port": pod.port.to_string(),
                    "labels": pod.labels,
                })
            })
            .collect();
        let text = serde_json::json!({ "endpoints": endpoints }).to_string();
        replace(&self.endpoints_file(), &text)
    }

    /// Writes the scheduler's configuration, by rename.
    ///
    /// # Errors
    /// File errors.
    pub fn write_config(&self, config: &str) -> io::Result<()> {
        let endpoints = self.endpoints_file();
        replace(&self.config_file(), &config.replace("{endpoints}", &endpoints.to_string_lossy()))
    }

    /// Starts the control plane and waits until it has published.
    ///
    /// # Errors
    /// A control plane that does not start.
    pub fn start_control(&mut self) -> io::Result<()> {
        let mut process = self.spawn_control()?;
        let port = self.control_port;
        process.wait_for("the control plane", Duration::from_secs(10), || {
            Client::new(port).get("/readyz").is_ok_and(|answer| answer.status == 200)
        })?;
        self.control = Some(process);
        Ok(())
    }

    /// Starts a control plane and gives it to the caller, who need not let it live.
    ///
    /// # Errors
    /// File errors, a program that cannot be started.
    pub fn spawn_control(&self) -> io::Result<Process> {
        let listen = format!("127.0.0.1:{}", self.control_port);
        let segment = self.segment_dir.to_string_lossy();
        let mut args = vec!["--segment-dir", &segment, "--pool-name", "lab", "--listen", &listen];
        let (config, endpoints) = (self.config_file(), self.endpoints_file());
        let (config, endpoints) = (config.to_string_lossy(), endpoints.to_string_lossy());
        if self.plan.config.is_empty() {
            args.extend(["--endpoints-file", &endpoints]);
        } else {
            self.write_config(&self.plan.config)?;
            args.extend(["--config-file", &config]);
        }
        args.extend(self.plan.control_args.iter().map(String::as_str));
        let env = self.plan.control_env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let env: Vec<(&str, &str)> = env.collect();
        Process::spawn(&self.binaries.control, &args, &env, &self.log("control"))
    }

    /// Starts Envoy and waits until it accepts connections.
    ///
    /// # Errors
    /// An Envoy that does not start.
    pub fn start_envoy(&mut self) -> io::Result<()> {
        let concurrency = self.plan.concurrency.to_string();
        let args = [
            "--concurrency",
            &concurrency,
            "--disable-hot-restart",
            "--component-log-level",
            "dynamic_modules:info",
            "--drain-time-s",
            "1",
            "--parent-shutdown-time-s",
            "2",
        ];
        let mut process = self.spawn_envoy(&args, "envoy")?;
        let port = self.envoy_admin_port;
        process.wait_for("Envoy", Duration::from_secs(20), || {
            Client::new(port).get("/ready").is_ok_and(|answer| answer.status == 200)
        })?;
        self.envoy = Some(process);
        Ok(())
    }

    /// Starts one more Envoy on the same segment, with ports and files of its own: another gateway of
    /// the pool. It is to end before this lab.
    ///
    /// # Errors
    /// An Envoy that does not start.
    pub fn add_gateway(&self) -> io::Result<Self> {
        let mut other = Self::prepare_with(self.plan.clone(), self.binaries.clone())?;
        let own = std::mem::replace(&mut other.segment_dir, self.segment_dir.clone());
        let started = other.start_envoy();
        // The segment is not its to remove.
        other.segment_dir = own;
        started.map(|()| other)
    }

    /// Starts an Envoy that only checks its configuration (`--mode validate`); its log is that of
    /// the part `validate`.
    ///
    /// # Errors
    /// File errors, a program that cannot be started.
    pub fn spawn_validation(&self) -> io::Result<Process> {
        self.spawn_envoy(&["--mode", "validate"], "validate")
    }

    fn spawn_envoy(&self, args: &[&str], log: &str) -> io::Result<Process> {
        let bootstrap = self.dir.join("envoy.yaml");
        fs::write(&bootstrap, self.plan.bootstrap.render(self)?)?;
        let path = bootstrap.to_string_lossy();
        let args = [&["-c", &path, "--log-level", "warning"], args].concat();
        let modules = self.binaries.modules.to_string_lossy();
        let env = [("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", modules.as_ref())];
        Process::spawn(&self.binaries.envoy, &args, &env, &self.log(log))
    }

    /// Waits until the module serves the pool with all of [`Lab::pods`].
    ///
    /// # Errors
    /// A module that does not get there in time, with what it says of itself.
    pub fn wait_ready(&self, limit: Duration) -> io::Result<()> {
        let want: Vec<&str> = self.pods.iter().map(|pod| pod.name.as_str()).collect();
        self.wait_until("the module to serve the pool", limit, || {
            self.pool().is_ok_and(|pool| {
                let have = pool["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
                have.len() == want.len()
                    && have.iter().all(|e| {
                        e["scrapes"].as_u64() > Some(0)
                            && e["name"].as_str().is_some_and(|name| want.contains(&name))
                    })
            })
        })
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// The time limit, with what the module says of the pool.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > limit {
                let pool = self.pool().map_or_else(|e| e.to_string(), |pool| pool.to_string());
                let log = process::tail(&self.log("envoy"), 20);
                return Err(io::Error::other(format!(
                    "waited {limit:?} for {what}; pool: {pool}\n{log}"
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// A client of the inference listener.
    pub fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// A client of Inlane's own pages.
    pub fn admin(&self) -> Client {
        Client::new(self.admin_port)
    }

    /// `/debug/pool` of the module.
    ///
    /// # Errors
    /// Connection errors and answers that are no JSON.
    pub fn pool(&self) -> io::Result<Value> {
        self.admin().get("/debug/pool")?.json()
    }

    /// `/debug/decisions` of the module, newest first.
    ///
    /// # Errors
    /// Connection errors and answers that are no JSON.
    pub fn decisions(&self) -> io::Result<Vec<Value>> {
        let decisions = self.admin().get("/debug/decisions")?.json()?;
        match decisions["decisions"].as_array() {
            Some(decisions) => Ok(decisions.clone()),
            None => Err(io::Error::other(format!("no list of decisions: {decisions}"))),
        }
    }

    /// The decision of the request with this id, once it is recorded.
    ///
    /// # Errors
    /// A decision that does not show up within a second.
    pub fn decision(&self, request_id: &str) -> io::Result<Value> {
        for _ in 0..100 {
            let found = self.decisions()?.into_iter().find(|d| d["request_id"] == request_id);
            if let Some(found) = found {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("no decision of request {request_id}")))
    }

    /// Where a part writes its log.
    pub fn log(&self, part: &str) -> PathBuf {
        self.dir.join(format!("{part}.log"))
    }

    /// Leaves everything running and the files in place.
    pub fn leave_running(mut self) {
        for process in self.pods.iter_mut().filter_map(|pod| pod.process.take()) {
            process.leave_running();
        }
        for process in [self.control.take(), self.envoy.take()].into_iter().flatten() {
            process.leave_running();
        }
        std::mem::forget(self);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for process in [self.envoy.take(), self.control.take()].into_iter().flatten() {
            process.stop(Duration::from_secs(5));
        }
        self.pods.clear();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
        let _ = fs::remove_dir_all(&self.segment_dir);
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, text)?;
    fs::rename(part, path)
}
