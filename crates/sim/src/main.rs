//! `inlane-sim`: a vLLM server without a model.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap, error::Error, num::NonZeroUsize, path::PathBuf, process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser};
use inlane_sim::{
    Cluster, Config,
    cluster::{Layout, Spread},
    config::tunables::LoadFactor,
    endpoints,
};
use tokio::signal::unix::{SignalKind, signal};

/// Simulates a vLLM server: its API, queue, block cache and metrics, without a model and without a GPU.
///
/// Without any flag it serves the model `random` on http://127.0.0.1:8000. Try:
///
///   curl http://127.0.0.1:8000/v1/completions -d '{"model":"random","prompt":"Hello","max_tokens":20}'
#[derive(Parser)]
#[command(name = "inlane-sim", version, verbatim_doc_comment)]
struct Flags {
    #[command(flatten)]
    config: Config,

    /// Run so many independent pods in this process.
    #[arg(long, default_value = "1", help_heading = CLUSTER)]
    pods: NonZeroUsize,
    /// Whether pods differ by address (127.0.0.1, 127.0.0.2, …) or by port.
    #[arg(long, value_enum, default_value_t = Spread::Addresses, help_heading = CLUSTER)]
    pods_on: Spread,
    /// Threads to run the pods on; each pod stays on one.
    #[arg(long, default_value = "1", help_heading = CLUSTER)]
    threads: NonZeroUsize,
    /// Slow pods down: a factor per pod (≥ 1), from the start again after the last, for example
    /// 1,1,2.5.
    #[arg(long, value_name = "FACTORS", value_delimiter = ',', help_heading = CLUSTER,
          value_parser = time_factor)]
    pod_time_factors: Vec<LoadFactor>,
    /// Write the pods to this discovery file.
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    write_endpoints: Option<PathBuf>,
    /// A label for the pods in the discovery file; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, help_heading = CLUSTER)]
    endpoint_label: Vec<(String, String)>,

    #[command(flatten)]
    ignored: Ignored,
}

/// Flags of vLLM and of other simulators that change nothing here, so that their command lines work.
#[derive(Args)]
struct Ignored {
    #[arg(long = "ec-transfer-config", hide = true)]
    _ec_transfer_config: Option<String>,
    #[arg(long = "enable-prefix-caching", hide = true)]
    _enable_prefix_caching: bool,
    #[arg(long = "enforce-eager", hide = true)]
    _enforce_eager: bool,
    #[arg(long = "event-batch-size", hide = true)]
    _event_batch_size: Option<u32>,
    #[arg(long = "force-dummy-tokenizer", hide = true)]
    _force_dummy_tokenizer: bool,
    #[arg(long = "max-cpu-loras", hide = true)]
    _max_cpu_loras: Option<u32>,
    #[arg(long = "mm-processor-kwargs", hide = true)]
    _mm_processor_kwargs: Option<String>,
    #[arg(long = "tensor-parallel-size", hide = true)]
    _tensor_parallel_size: Option<u32>,
    #[arg(long = "use-vllm-map-event-format", hide = true)]
    _use_vllm_map_event_format: bool,
    #[arg(long = "v", hide = true)]
    _verbosity: Option<u8>,
}

const CLUSTER: &str = "Cluster";

/// How long running requests may take after a request to end.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inlane-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Box<dyn Error>> {
    let namespace = flags.config.pod_namespace.clone();
    let model = flags.config.model.clone();
    let layout = Layout { pods: flags.pods, spread: flags.pods_on, threads: flags.threads };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anybody can know that there is something to end.
    let (mut end, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let cluster = Cluster::start_with(flags.config, layout)?;
    for (pod, &factor) in cluster.pods.iter().zip(flags.pod_time_factors.iter().cycle()) {
        pod.configure(|tunables| tunables.time_factor = factor)?;
    }
    if let Some(path) = &flags.write_endpoints {
        let labels: BTreeMap<_, _> = flags.endpoint_label.into_iter().collect();
        endpoints::write(path, &cluster, &namespace, &labels)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    for pod in &cluster.pods {
        println!("{} serves {model} on http://{}", pod.name(), pod.address());
    }
    runtime.block_on(async move {
        tokio::select! {
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A second signal ends the process at once.
        tokio::spawn(async move {
            tokio::select! {
                _ = end.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(130);
        });
        let drained = tokio::task::spawn_blocking(move || cluster.shutdown(GRACE)).await?;
        if !drained {
            eprintln!("inlane-sim: requests were still running after {} s", GRACE.as_secs());
        }
        Ok(())
    })
}

fn time_factor(text: &str) -> Result<LoadFactor, String> {
    let value = text.parse::<f64>().map_err(|error| error.to_string())?;
    LoadFactor::try_from(value).map_err(str::to_owned)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
