//! Where the programs are.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

/// The programs of a lab.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `inlane-control`.
    pub control: PathBuf,
    /// `inlane-sim`.
    pub sim: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// Directory of `libinlane.so`.
    pub modules: PathBuf,
}

impl Binaries {
    /// Finds the programs: Inlane's own in `INLANE_BIN_DIR`, beside the running program or in
    /// `target/release`; Envoy in `INLANE_ENVOY_DIR` or `.local/envoy`, as `make deps` puts it.
    ///
    /// # Errors
    /// What is missing, and the command that makes it.
    pub fn find(envoy_version: &str) -> io::Result<Self> {
        let root = root();
        let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        let own = env::var_os("INLANE_BIN_DIR").map(PathBuf::from);
        let places: Vec<PathBuf> =
            own.into_iter().chain(beside).chain([root.join("target/release")]).collect();
        let complete = |dir: &&PathBuf| {
            ["libinlane.so", "inlane-control", "inlane-sim"].iter().all(|f| dir.join(f).is_file())
        };
        let bin = places.iter().find(complete).ok_or_else(|| {
            missing("libinlane.so, inlane-control and inlane-sim are not built: run `make build`")
        })?;
        Self::of(bin, envoy_version)
    }

    /// Inlane's own programs in `dir`, Envoy as in [`find`](Self::find).
    ///
    /// # Errors
    /// An Envoy that is missing, and the command that fetches it.
    pub fn of(dir: &Path, envoy_version: &str) -> io::Result<Self> {
        let root = root();
        let envoys = env::var_os("INLANE_ENVOY_DIR")
            .map_or_else(|| root.join(".local/envoy"), PathBuf::from);
        let envoy = envoys.join(envoy_version).join("envoy");
        if !envoy.is_file() {
            return Err(missing(&format!("Envoy {envoy_version} is missing: run `make deps`")));
        }
        Ok(Self {
            control: dir.join("inlane-control"),
            sim: dir.join("inlane-sim"),
            envoy,
            modules: dir.to_owned(),
        })
    }
}

/// The checkout: the nearest directory upwards from here that has the shipped bootstrap.
pub fn root() -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.ancestors()
        .find(|dir| dir.join("envoy/bootstrap.yaml").is_file())
        .map_or(built, Path::to_owned)
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}
