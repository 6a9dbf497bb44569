//! `inlane replay`: makes recorded decisions again, with their own configuration or another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use inlane_core::explain::Explanation;
use inlane_core::record::{Line, RecordedDecision, Replayer};
use inlane_core::registry::Registry;
use inlane_core::snapshot::ConfigDocument;

use crate::check::read;
use crate::paint::Paint;
use crate::records;

/// Differing decisions that are shown one by one.
const SHOWN: usize = 20;

/// Arguments of `inlane replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The record: what a gateway's /debug/records gives; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Decide with this configuration instead of the recorded one
    #[arg(long, value_name = "CONFIG")]
    config: Option<PathBuf>,

    /// Allow plugins of Alpha stability in that configuration
    #[arg(long, requires = "config")]
    allow_experimental_plugins: bool,
}

/// What came of a replay.
#[derive(Debug, Default)]
struct Summary {
    decisions: usize,
    /// Equal in every total, every rejection, the whole ranking.
    identical: usize,
    /// Sent to the same endpoint.
    same_endpoint: usize,
    /// Request id, endpoint before and now.
    moved: Vec<(String, String, String)>,
    /// Decisions per endpoint before and now.
    endpoints: BTreeMap<String, [usize; 2]>,
    missing: BTreeSet<String>,
}

/// Runs the command; `registry` has the plugin types that configurations may name.
pub fn run(args: &Args, registry: &Registry) -> ExitCode {
    let other = args.config.as_deref().map(read).transpose();
    let other = other.map(|config| {
        let allow_experimental_plugins = args.allow_experimental_plugins;
        config.map(|(source, text)| ConfigDocument { source, text, allow_experimental_plugins })
    });
    let summary = other.and_then(|other| {
        let lines = records::read(&args.file)?;
        replay(&lines, other, registry)
    });
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("{} {error}", Paint::of_stderr().bad("error:"));
            return ExitCode::FAILURE;
        }
    };
    let page = summary.page(args.config.is_some(), Paint::of_stdout());
    // Whoever closes the pipe has seen enough.
    let _ = std::io::stdout().write_all(page.as_bytes());
    // With its own configuration a decision must come out the same.
    match args.config.is_none() && summary.identical < summary.decisions {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn replay(
    lines: &[Line],
    other: Option<ConfigDocument>,
    registry: &Registry,
) -> Result<Summary, String> {
    let mut replayer = Replayer::new(registry, other);
    let mut summary = Summary::default();
    for line in lines {
        match line {
            Line::Setting(setting) => replayer.setting(setting).map_err(|e| e.to_string())?,
            Line::Decision(decision) => {
                let replayed = replayer.decide(decision).map_err(|e| e.to_string())?;
                summary.add(decision, &replayed.outcome);
                summary.missing.extend(replayed.missing);
            }
        }
    }
    match summary.decisions {
        0 => Err("the record has no decision".into()),
        _ => Ok(summary),
    }
}

fn endpoint(outcome: &Explanation) -> String {
    outcome.endpoint.clone().unwrap_or_else(|| "(none)".into())
}

impl Summary {
    fn add(&mut self, recorded: &RecordedDecision, now: &Explanation) {
        self.decisions += 1;
        let (before, after) = (endpoint(&recorded.outcome), endpoint(now));
        if recorded.outcome == *now {
            self.identical += 1;
        }
        if before == after {
            self.same_endpoint += 1;
        } else {
            self.moved.push((recorded.request.id.clone(), before.clone(), after.clone()));
        }
        self.endpoints.entry(before).or_default()[0] += 1;
        self.endpoints.entry(after).or_default()[1] += 1;
    }

    fn page(&self, other: bool, paint: Paint) -> String {
        let mut page = String::new();
        let Self { decisions, identical, same_endpoint, moved, missing, .. } = self;
        let verdict = format!(
            "{decisions} decisions: {identical} identical to the last bit, {same_endpoint} to the \
             same endpoint, {} to another",
            moved.len()
        );
        let fine = identical == decisions || other;
        // Writing to a string does not fail.
        let _ = writeln!(page, "{}", if fine { verdict } else { paint.bad(&verdict) });
        let absent = missing.iter().map(String::as_str).collect::<Vec<_>>();
        if other && !absent.is_empty() {
            let text = format!(
                "not in the record, taken as absent: {}; a live decision may differ",
                absent.join(", ")
            );
            let _ = writeln!(page, "{}", paint.warning(&text));
        }
        if !moved.is_empty() {
            let _ = writeln!(page, "\n{}", paint.heading("endpoint  recorded  replayed"));
            for (name, [before, after]) in &self.endpoints {
                let _ = writeln!(page, "  {name}  {before}  {after}");
            }
            let _ = writeln!(page, "\n{}", paint.heading("moved"));
            for (id, before, after) in moved.iter().take(SHOWN) {
                let _ = writeln!(page, "  {id}  {before} -> {after}");
            }
            if moved.len() > SHOWN {
                let _ = writeln!(page, "  and {} more", moved.len() - SHOWN);
            }
        }
        page
    }
}
