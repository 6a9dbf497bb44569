//! The command line.

mod foreign;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use inlane_core::config::from_environment;
use tracing::Level;

use crate::config::Source;
use crate::kv::Ask;
use crate::{duration, logs, size};

/// Discovers model servers, scrapes them and publishes what an Inlane proxy decides on.
#[derive(Debug, Parser)]
#[command(name = "inlane-control", version)]
pub(crate) struct Args {
    /// Directory of the shared-memory segment; the proxy must see the same one.
    #[arg(long, default_value = "/dev/shm/inlane", value_name = "DIR")]
    pub(crate) segment_dir: PathBuf,

    /// EndpointPickerConfig to publish and follow; without, the environment variables of the first
    /// release, where set, and the built-in default else.
    #[arg(long, value_name = "FILE", conflicts_with = "config_text")]
    config_file: Option<OsString>,

    /// EndpointPickerConfig given inline.
    #[arg(long, value_name = "YAML")]
    config_text: Option<String>,

    /// Endpoints file to follow, in place of the discovery that the configuration names.
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoints_file: Option<PathBuf>,

    /// Directory for what survives a restart, the latency models: on a disk if they should survive
    /// the machine's too. The segment's own without.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Name of the pool.
    #[arg(long, default_value = "epp", value_name = "NAME")]
    pub(crate) pool_name: String,

    /// Namespace of the pool; $NAMESPACE, then "default", without.
    #[arg(long, default_value = "", value_name = "NAME")]
    pool_namespace: String,

    /// Send requests to any healthy endpoint when no decision can be made, rather than refuse them.
    #[arg(long)]
    pub(crate) fail_open: bool,

    /// Endpoints that the segment has room for at first; it grows when there are more.
    #[arg(long, default_value_t = 1024, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(inlane_segment::MAX_SLOTS)))]
    pub(crate) max_endpoints: u32,

    /// Memory for the index of cached blocks, most of it in the segment, where the configuration has a
    /// precise prefix producer; at its bound the index takes no new blocks. A size such as 64MiB; 0:
    /// no index.
    #[arg(long, default_value = "64MiB", value_name = "SIZE", value_parser = size::parse)]
    pub(crate) index_bytes: u64,

    /// How long an engine may publish no KV-cache event, nor answer when asked, before its blocks are
    /// forgotten.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) kv_silence_ttl: Duration,

    /// When pods are asked where they publish KV-cache events (GET /kv_event_sources): when nothing
    /// comes from where they are expected to (auto), when they are discovered (always), or never.
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    pub(crate) kv_event_sources: Ask,

    /// Interval between two scrapes of an endpoint, at least 50ms.
    #[arg(long, default_value = "50ms", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) refresh_metrics_interval: Duration,

    /// Interval to which scraping slows down at most when it takes too much CPU time.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) max_refresh_metrics_interval: Duration,

    /// CPU time per second, in cores, above which scraping slows down.
    #[arg(long, default_value_t = 0.5, value_name = "CORES", value_parser = cores)]
    pub(crate) scrape_cpu_limit: f64,

    /// Interval at which the pool's average gauges are computed.
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) refresh_prometheus_metrics_interval: Duration,

    /// How old numbers may be to count in the pool's average gauges.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) metrics_staleness_threshold: Duration,

    /// Address of the HTTP server for metrics, health and debugging.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Port of the HTTP server, on all addresses, in place of --listen.
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    metrics_port: Option<u16>,

    /// Allow plugins of Alpha stability.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true")]
    pub(crate) allow_experimental_plugins: bool,

    /// Log level: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", alias = "zap-log-level")]
    log_level: Option<Level>,

    /// Verbosity: 2 and 3 are info, 4 is debug, 5 trace.
    #[arg(short, long, default_value_t = 2, value_name = "N", allow_negative_numbers = true)]
    v: i64,
}

impl Args {
    /// Reads the command line. Flags of the Go scheduler that have no meaning here are taken out
    /// and returned, for a warning.
    ///
    /// # Errors
    /// Help, version or misuse, for clap to print and exit with.
    pub(crate) fn parse_from(
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, Vec<String>), clap::Error> {
        let sorted = foreign::take_out(args.into_iter().collect())
            .map_err(|text| clap::Error::raw(clap::error::ErrorKind::InvalidValue, text))?;
        let args = Self::try_parse_from(sorted.ours)?;
        Ok((args, sorted.ignored))
    }

    /// Where the configuration comes from: a flag, the variables of the first release, or nobody.
    ///
    /// # Errors
    /// Both a flag and variables configure the scheduler.
    pub(crate) fn config_source(
        &self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Source, String> {
        let given = match (&self.config_file, &self.config_text) {
            (Some(path), _) if !path.is_empty() => {
                Some(("--config-file", Source::File(path.into())))
            }
            (_, Some(text)) if !text.is_empty() => {
                Some(("--config-text", Source::Text(text.clone())))
            }
            _ => None,
        };
        match (given, from_environment(variables)) {
            (None, None) => Ok(Source::BuiltIn),
            (None, Some(made)) => Ok(Source::Environment(made)),
            (Some((_, source)), None) => Ok(source),
            (Some((flag, _)), Some(made)) => Err(format!(
                "{flag} cannot be combined with the environment variables {}, which configure the \
                 scheduler as in its first release: unset them",
                made.switches.join(", ")
            )),
        }
    }

    /// Directory for what survives a restart; one that was named is made.
    ///
    /// # Errors
    /// It is not there and cannot be made.
    pub(crate) fn state_dir(&self) -> Result<&Path, String> {
        let Some(dir) = &self.state_dir else { return Ok(&self.segment_dir) };
        let made = std::fs::create_dir_all(dir);
        made.map(|()| dir.as_path()).map_err(|e| format!("--state-dir {}: {e}", dir.display()))
    }

    /// Namespace of the pool.
    pub(crate) fn namespace(&self) -> String {
        let given = Some(self.pool_namespace.clone()).filter(|n| !n.is_empty());
        given
            .or_else(|| std::env::var("NAMESPACE").ok().filter(|n| !n.is_empty()))
            .unwrap_or_else(|| "default".into())
    }

    /// Address of the HTTP server.
    pub(crate) fn http_address(&self) -> SocketAddr {
        match self.metrics_port {
            Some(port) => SocketAddr::from(([0, 0, 0, 0], port)),
            None => self.listen,
        }
    }

    /// Level of the logs.
    pub(crate) fn level(&self) -> Level {
        self.log_level.unwrap_or_else(|| logs::level_of_verbosity(self.v))
    }
}

fn cores(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(cores) if cores > 0.0 && f64::is_finite(cores) => Ok(cores),
        _ => Err("expected a number above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<(Args, Vec<String>), clap::Error> {
        let name = std::iter::once(&"inlane-control");
        Args::parse_from(name.chain(args).map(OsString::from))
    }

    fn ok(args: &[&str]) -> Args {
        parse(args).unwrap().0
    }

    fn source(args: &[&str]) -> Source {
        ok(args).config_source([]).unwrap()
    }

    #[test]
    fn defaults() {
        let args = ok(&[]);
        assert_eq!(args.config_source([]), Ok(Source::BuiltIn));
        assert_eq!(args.http_address(), "127.0.0.1:9090".parse().unwrap());
        assert_eq!(args.refresh_metrics_interval, Duration::from_millis(50));
        assert_eq!(args.level(), Level::INFO);
        assert!(!args.allow_experimental_plugins);
    }

    #[test]
    fn spellings_of_the_original() {
        let args = ok(&[
            "--metrics-port=9191",
            "--config-file",
            "/c",
            "-v=4",
            "--allow-experimental-plugins",
            "--refresh-metrics-interval=1.5s",
        ]);
        assert_eq!(args.http_address().port(), 9191);
        assert_eq!(args.config_source([]), Ok(Source::File("/c".into())));
        assert_eq!(args.level(), Level::DEBUG);
        assert!(args.allow_experimental_plugins);
        assert!(!ok(&["--allow-experimental-plugins=false"]).allow_experimental_plugins);
        assert_eq!(args.refresh_metrics_interval, Duration::from_millis(1_500));
        assert_eq!(ok(&["--v=5", "--zap-log-level=warn"]).level(), Level::WARN);
        assert_eq!(ok(&["-v", "-3"]).level(), Level::INFO);
    }

    #[test]
    fn misuse_is_refused() {
        for args in [
            &["--unheard-of"][..],
            &["--config-file=/a", "--config-text=b"],
            &["--refresh-metrics-interval=50"],
            &["--scrape-cpu-limit=0"],
            &["--max-endpoints=0"],
            &["--total-queued-requests-metric=x"],
            &["--pool-name=p", "--endpoint-selector=app=x"],
            &["--endpoint-selector", "app=x", "--pool-name", "p"],
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }

    /// The last two invalid examples of the configuration format, which are flags.
    #[test]
    fn what_the_original_refuses_is_refused_with_its_words() {
        for (args, text) in [
            (
                &["--total-queued-requests-metric=x"][..],
                "--total-queued-requests-metric: the flag is deprecated and cannot be used",
            ),
            (
                &["--pool-name=a", "--endpoint-selector=b"],
                "either pool-name or endpoint-selector must be set",
            ),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(parse(&["--pool-name=a", "--endpoint-selector="]).is_ok());
    }

    #[test]
    fn the_configuration_comes_from_one_place() {
        assert_eq!(source(&["--config-text=x"]), Source::Text("x".into()));
        assert_eq!(source(&["--config-text="]), Source::BuiltIn);
        let variables = || {
            let pairs = [("ENABLE_LOAD_AWARE_SCORER", "true"), ("HF_TOKEN", "x")];
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let found = ok(&["--config-file="]).config_source(variables());
        assert!(matches!(found, Ok(Source::Environment(_))), "{found:?}");
        let error = ok(&["--config-file=/c"]).config_source(variables()).unwrap_err();
        assert_eq!(
            error,
            "--config-file cannot be combined with the environment variables \
             ENABLE_LOAD_AWARE_SCORER, which configure the scheduler as in its first release: \
             unset them"
        );
    }

    #[test]
    fn foreign_flags_are_set_aside() {
        let (args, ignored) =
            parse(&["--grpc-port", "9002", "--secure-serving=false", "--tracing", "-v", "3"])
                .unwrap();
        assert_eq!(ignored, ["--grpc-port", "--secure-serving", "--tracing"]);
        assert_eq!(args.v, 3);
    }
}
