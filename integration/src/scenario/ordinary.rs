//! Bootstraps in which Envoy has the pool's hosts from elsewhere than Inlane's cluster.

use inlane_cli::lab::Lab;
use inlane_cli::lab::bootstrap::walk;
use serde_yaml::{Mapping, Value};

/// Hosts known beforehand, under a policy of Envoy's own.
pub fn round_robin(document: &mut Value, lab: &Lab) {
    replace_cluster(document, lab, "lb_policy: ROUND_ROBIN");
}

/// Hosts known beforehand, under the `override_host` policy, which reads the request header.
pub fn by_header(document: &mut Value, lab: &Lab) {
    override_host(document, lab, "header: x-gateway-destination-endpoint");
}

/// The same, reading dynamic metadata.
pub fn by_metadata(document: &mut Value, lab: &Lab) {
    let source = "metadata: {key: envoy.lb, path: [{key: x-gateway-destination-endpoint}]}";
    override_host(document, lab, source);
}

fn override_host(document: &mut Value, lab: &Lab, source: &str) {
    let types = "type.googleapis.com/envoy.extensions.load_balancing_policies";
    let policy = format!(
        "load_balancing_policy:
  policies:
  - typed_extension_config:
      name: envoy.load_balancing_policies.override_host
      typed_config:
        \"@type\": {types}.override_host.v3.OverrideHost
        override_host_sources: [{{{source}}}]
        fallback_policy:
          policies:
          - typed_extension_config:
              name: envoy.load_balancing_policies.round_robin
              typed_config: {{\"@type\": {types}.round_robin.v3.RoundRobin}}
"
    );
    replace_cluster(document, lab, &policy);
}

/// Puts a static cluster of the lab's pods in the place of Inlane's.
fn replace_cluster(document: &mut Value, lab: &Lab, policy: &str) {
    let hosts: String = lab.pods.iter().map(|pod| host(pod.port)).collect();
    let text = format!(
        "name: pods\ntype: STATIC\nconnect_timeout: 1s\nload_assignment:
  cluster_name: pods
  endpoints:
  - lb_endpoints:
{hosts}{policy}
"
    );
    let cluster: Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}:\n{text}"));
    walk(document, &|map: &mut Mapping| {
        if let Some(clusters) = map.get_mut("clusters") {
            *clusters = Value::Sequence(vec![cluster.clone()]);
        }
    });
}

fn host(port: u16) -> String {
    let address = format!("{{address: 127.0.0.1, port_value: {port}}}");
    format!("    - endpoint: {{address: {{socket_address: {address}}}}}\n")
}
