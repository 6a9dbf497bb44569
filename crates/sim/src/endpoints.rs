//! The discovery file: a list of the running pods, for schedulers that find their endpoints in a file.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::Serialize;

use crate::cluster::Cluster;

/// Writes the endpoints of `cluster` to `path`, each with `labels`. The file appears whole or not at all: it is
/// written beside its place and renamed.
pub fn write(
    path: &Path,
    cluster: &Cluster,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> io::Result<()> {
    let endpoints = cluster.pods.iter().map(|pod| Endpoint {
        name: pod.name(),
        namespace,
        address: pod.address().ip().to_string(),
        port: pod.address().port().to_string(),
        labels,
    });
    let list = List { endpoints: endpoints.collect() };
    let text = serde_yaml::to_string(&list).map_err(io::Error::other)?;
    let mut beside = path.to_owned().into_os_string();
    beside.push(format!(".{}.tmp", std::process::id()));
    fs::write(&beside, text)?;
    fs::rename(&beside, path).inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
    })
}

#[derive(Serialize)]
struct List<'a> {
    endpoints: Vec<Endpoint<'a>>,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    name: &'a str,
    namespace: &'a str,
    address: String,
    /// A string: readers refuse a number.
    port: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}
