//! The proxies that are compared: Envoy with the scheduler, and the same Envoy without.
//!
//! The plain one has the shipped bootstrap minus our filter and listener, and a static round-robin
//! cluster of the same pods. There are two of it: their difference is what the measurement cannot
//! resolve.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use inlane_cli::lab::{Bootstrap, Client, Lab, Plan, Pod};
use serde_yaml::Value;

use crate::bodies;

/// Envoy's worker threads.
pub const WORKERS: u32 = 2;

/// The configuration of the comparison: what the peer builds when it is given none.
pub const CONFIG: &str = r#"
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {name: endpoints, type: file-discovery, parameters: {path: "{endpoints}", watchFile: true}}
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: prefix-cache-scorer}
- {type: max-score-picker}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: max-score-picker}
dataLayer:
  discovery: {pluginRef: endpoints}
"#;

/// Which proxy a cell goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proxy {
    /// Without the scheduler.
    Plain,
    /// With it.
    Inlane,
    /// Another one without.
    PlainAgain,
}

impl Proxy {
    /// All of them, in the order of their turns.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Inlane, Self::PlainAgain];

    /// Name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Inlane => "inlane",
            Self::PlainAgain => "plain-again",
        }
    }
}

/// All proxies, running, over the same pods.
#[derive(Debug)]
pub struct Proxies {
    labs: [Lab; 3],
}

impl Proxies {
    /// Starts them and the control plane, and sends a request through each.
    ///
    /// # Errors
    /// What did not start or does not answer.
    pub fn start(ports: &[u16]) -> io::Result<Self> {
        let mut inlane = control_plane(ports, &[])?;
        inlane.start_envoy()?;
        inlane.wait_ready(Duration::from_secs(20))?;
        let proxies = Self { labs: [plain(ports)?, inlane, plain(ports)?] };
        for proxy in Proxy::ALL {
            let body = bodies::completion(0, 200);
            let client = Client::new(proxies.port(proxy));
            let answer = client.post("/v1/completions", &[], body.as_bytes())?;
            if answer.status != 200 {
                let text = answer.text();
                return Err(io::Error::other(format!("{proxy:?}: {} {text}", answer.status)));
            }
        }
        Ok(proxies)
    }

    fn lab(&self, proxy: Proxy) -> &Lab {
        &self.labs[proxy as usize]
    }

    /// Where a proxy listens.
    pub fn port(&self, proxy: Proxy) -> u16 {
        self.lab(proxy).port
    }

    /// Its process.
    pub fn envoy_pid(&self, proxy: Proxy) -> u32 {
        self.lab(proxy).envoy.as_ref().map_or(0, |process| process.pid())
    }

    /// The control plane's process.
    pub fn control_pid(&self) -> u32 {
        self.lab(Proxy::Inlane).control.as_ref().map_or(0, |process| process.pid())
    }

    /// The module's page about its pool.
    ///
    /// # Errors
    /// As for a request.
    pub fn pool(&self) -> io::Result<serde_json::Value> {
        self.lab(Proxy::Inlane).pool()
    }

    /// A directory for generated files, gone with the proxies.
    pub fn dir(&self) -> &Path {
        &self.lab(Proxy::Inlane).dir
    }
}

/// A control plane over these pods, without a proxy.
///
/// # Errors
/// A control plane that does not start.
pub fn control_plane(ports: &[u16], args: &[&str]) -> io::Result<Lab> {
    let control_args = args.iter().map(|&arg| arg.to_owned()).collect();
    let plan = Plan { control_args, ..plan(None) };
    let mut lab = Lab::prepare(plan)?;
    lab.pods = pods(ports);
    lab.write_endpoints()?;
    lab.start_control()?;
    Ok(lab)
}

fn plan(edit: Option<inlane_cli::lab::bootstrap::Edit>) -> Plan {
    let bootstrap = Bootstrap { edit, ..Bootstrap::default() };
    Plan { pods: 0, config: CONFIG.into(), concurrency: WORKERS, bootstrap, ..Plan::default() }
}

fn pods(ports: &[u16]) -> Vec<Pod> {
    let labels: BTreeMap<_, _> = [("llm-d.ai/role".to_owned(), "decode".to_owned())].into();
    let pod =
        |(n, &port)| Pod { name: format!("pod-{n}"), port, process: None, labels: labels.clone() };
    ports.iter().enumerate().map(pod).collect()
}

fn plain(ports: &[u16]) -> io::Result<Lab> {
    let mut lab = Lab::prepare(plan(Some(strip)))?;
    lab.pods = pods(ports);
    lab.start_envoy()?;
    let bootstrap = fs::read_to_string(lab.dir.join("envoy.yaml"))?;
    if bootstrap.contains("dynamic_modules") {
        return Err(io::Error::other("the plain Envoy still has a part of Inlane"));
    }
    Ok(lab)
}

/// Takes everything of Inlane out of a bootstrap. What is not where it is expected stays, which
/// [`plain`] notices.
fn strip(document: &mut Value, lab: &Lab) {
    let Some(resources) = document.get_mut("static_resources") else { return };
    if let Some(Value::Sequence(listeners)) = resources.get_mut("listeners") {
        listeners.truncate(1);
        let filters = listeners
            .first_mut()
            .and_then(|listener| listener.get_mut("filter_chains")?.get_mut(0))
            .and_then(|chain| chain.get_mut("filters")?.get_mut(0)?.get_mut("typed_config"))
            .and_then(|manager| manager.get_mut("http_filters"));
        if let Some(Value::Sequence(filters)) = filters {
            filters.retain(|filter| filter["name"] == "envoy.filters.http.router");
        }
    }
    if let Some(Value::Mapping(cluster)) = resources.get_mut("clusters").and_then(|c| c.get_mut(0))
    {
        let endpoint = |pod: &Pod| {
            serde_json::json!({"endpoint": {"address": {"socket_address":
                {"address": "127.0.0.1", "port_value": pod.port}}}})
        };
        let endpoints: Vec<_> = lab.pods.iter().map(endpoint).collect();
        let assignment = serde_json::json!({
            "cluster_name": "pods", "endpoints": [{"lb_endpoints": endpoints}],
        });
        cluster.remove("cluster_type");
        cluster.insert("type".into(), "STATIC".into());
        cluster.insert("lb_policy".into(), "ROUND_ROBIN".into());
        if let Ok(assignment) = serde_yaml::to_value(assignment) {
            cluster.insert("load_assignment".into(), assignment);
        }
    }
}
