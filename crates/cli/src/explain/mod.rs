//! `inlane explain`: why a request went where it went.
//!
//! Asks a running gateway for the decisions it remembers, or makes recorded ones again, and shows
//! them step by step: which filter dropped whom and why, what every scorer gave to whom, and what
//! each endpoint that lost lacks.

mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use inlane_core::explain::Explanation;
use inlane_core::record::{Line, Replayer};
use inlane_core::registry::Registry;
use serde::Deserialize;

use crate::paint::Paint;
use crate::records;

/// Arguments of `inlane explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The request's id (`x-request-id`); the last decision unless given
    #[arg(value_name = "REQUEST_ID")]
    request_id: Option<String>,

    /// Inlane's admin listener of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:19000")]
    gateway: String,

    /// Explain recorded decisions (`/debug/records`) instead; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "gateway")]
    file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A decision with what it was about.
#[derive(Debug, Clone, Default, Deserialize, serde::Serialize)]
#[serde(default)]
struct Decision {
    request_id: String,
    model: String,
    prompt_tokens: u64,
    time_unix_ms: u64,
    #[serde(flatten)]
    explanation: Explanation,
}

/// Runs the command; `registry` has the plugin types that recorded configurations may name.
pub fn run(args: &Args, registry: &Registry) -> ExitCode {
    let found = match &args.file {
        Some(file) => records::read(file).and_then(|lines| from_record(&lines, args, registry)),
        None => from_gateway(args),
    };
    let decisions = match found {
        Ok(decisions) => decisions,
        Err(error) => {
            eprintln!("{} {error}", Paint::of_stderr().bad("error:"));
            return ExitCode::FAILURE;
        }
    };
    let page = match args.json {
        true => serde_json::to_string_pretty(&decisions).unwrap_or_default() + "\n",
        false => {
            let paint = Paint::of_stdout();
            decisions.iter().map(|d| page(d, paint)).collect::<Vec<_>>().join("\n")
        }
    };
    // Whoever closes the pipe has seen enough.
    let _ = std::io::stdout().write_all(page.as_bytes());
    ExitCode::SUCCESS
}

fn page(decision: &Decision, paint: Paint) -> String {
    let Decision { request_id, model, prompt_tokens, explanation, .. } = decision;
    let title = format!("request {request_id}, model {model}, {prompt_tokens} prompt tokens");
    format!("{}\n{}", paint.heading(&title), table::explanation(explanation, paint))
}

/// The decisions of a request that the gateway remembers, or its last one.
fn from_gateway(args: &Args) -> Result<Vec<Decision>, String> {
    #[derive(Deserialize)]
    struct Page {
        decisions: Vec<Decision>,
    }
    let base = args.gateway.trim_end_matches('/');
    let query = match &args.request_id {
        Some(id) => format!("request_id={id}"),
        None => "limit=1".to_owned(),
    };
    let url = format!("{base}/debug/decisions?{query}");
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
    let agent: ureq::Agent = agent.into();
    let answer = agent.get(&url).call().map_err(|e| format!("{url}: {e}"))?;
    let text = answer.into_body().read_to_string().map_err(|e| format!("{url}: {e}"))?;
    let page: Page = serde_json::from_str(&text)
        .map_err(|e| format!("{url}: expected the page /debug/decisions: {e}"))?;
    match (page.decisions.is_empty(), &args.request_id) {
        (false, _) => Ok(page.decisions),
        (true, Some(id)) => Err(format!(
            "{base} remembers no decision for request {id} (it keeps the last ones of each worker; \
             see recordedDecisions)"
        )),
        (true, None) => Err(format!("{base} remembers no decision")),
    }
}

/// The recorded decisions of a request, or the last one, made again.
fn from_record(lines: &[Line], args: &Args, registry: &Registry) -> Result<Vec<Decision>, String> {
    let mut replayer = Replayer::new(registry, None);
    let mut found = Vec::new();
    for line in lines {
        match line {
            Line::Setting(setting) => replayer.setting(setting).map_err(|e| e.to_string())?,
            Line::Decision(decision) => {
                let wanted = args.request_id.as_ref();
                if wanted.is_some_and(|id| *id != decision.request.id) {
                    continue;
                }
                if wanted.is_none() {
                    found.clear();
                }
                let replayed = replayer.decide(decision).map_err(|e| e.to_string())?;
                found.push(Decision {
                    request_id: decision.request.id.clone(),
                    model: decision.request.model.clone(),
                    prompt_tokens: decision.request.prompts.iter().sum(),
                    time_unix_ms: decision.unix_ms,
                    explanation: replayed.outcome,
                });
            }
        }
    }
    match (found.is_empty(), &args.request_id) {
        (false, _) => Ok(found),
        (true, Some(id)) => Err(format!("the record has no decision for request {id}")),
        (true, None) => Err("the record has no decision".into()),
    }
}
