//! `inlane check`: is a configuration right, and what does it amount to?

pub mod report;
mod text;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use inlane_core::config::{Converted, Form, LegacyPool, LoadedConfig, convert, load};
use inlane_core::registry::{KeptState, Registry};
use inlane_core::snapshot::ConfigDocument;
use serde_json::json;

use crate::paint::Paint;
use report::Report;

/// Arguments of `inlane check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, in any accepted form; `-` reads standard input
    #[arg(value_name = "CONFIG")]
    config: PathBuf,

    /// Allow plugins of Alpha stability
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true")]
    allow_experimental_plugins: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command; `registry` has the plugin types that configurations may name.
pub fn run(args: &Args, registry: &Registry) -> ExitCode {
    let outcome = read(&args.config).and_then(|(source, text)| {
        let allow_experimental_plugins = args.allow_experimental_plugins;
        let document = ConfigDocument { source, text, allow_experimental_plugins };
        Checked::new(&document, registry)
    });
    let (page, status) = match (&outcome, args.json) {
        (Ok(checked), true) => (checked.json(), ExitCode::SUCCESS),
        (Ok(checked), false) => (checked.page(Paint::of_stdout()), ExitCode::SUCCESS),
        (Err(error), true) => {
            (format!("{}\n", json!({"ok": false, "error": error})), ExitCode::FAILURE)
        }
        (Err(error), false) => {
            eprintln!("{} {error}", Paint::of_stderr().bad("error:"));
            return ExitCode::FAILURE;
        }
    };
    // Whoever closes the pipe has seen enough.
    let _ = std::io::stdout().write_all(page.as_bytes());
    status
}

/// Reads a file, or standard input. Answers its name for messages and its text.
pub(crate) fn read(path: &Path) -> Result<(String, String), String> {
    if path == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(("standard input".into(), text)),
            Err(error) => Err(format!("failed to load config from standard input - {error}")),
        };
    }
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(format!("failed to load config from a file '{name}' - {error}")),
    }
}

/// The report of a loaded configuration.
pub(crate) fn report_of(config: &LoadedConfig, registry: &Registry) -> Report {
    let current =
        |name: &str| registry.get(name).map_or(name, |(_, plugin)| plugin.name).to_owned();
    Report::new(config, &current)
}

/// A configuration that loads.
#[derive(Debug)]
pub struct Checked {
    source: String,
    form: Form,
    report: Report,
    pool: Option<LegacyPool>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl Checked {
    /// Loads a document as a proxy would.
    ///
    /// # Errors
    /// Why it does not load.
    pub fn new(document: &ConfigDocument, registry: &Registry) -> Result<Self, String> {
        let config =
            load(document, registry, &KeptState::default()).map_err(|error| error.to_string())?;
        let Converted { form, .. } = convert(&document.source, &document.text, registry)
            .map_err(|error| error.to_string())?;
        let report = report_of(&config, registry);
        let LoadedConfig { pool, warnings, notes, .. } = config;
        Ok(Self { source: document.source.clone(), form, report, pool, warnings, notes })
    }

    /// Everything, as one JSON object.
    pub fn json(&self) -> String {
        let Self { source, form, report, pool, warnings, notes } = self;
        let pool = pool.as_ref().map(|pool| {
            let LegacyPool { name, namespace, target_model, match_labels } = pool;
            json!({
                "name": name,
                "namespace": namespace,
                "targetModel": target_model,
                "matchLabels": match_labels,
            })
        });
        let value = json!({
            "ok": true,
            "source": source,
            "form": form.name(),
            "pipeline": report,
            "pool": pool,
            "warnings": warnings,
            "notes": notes,
        });
        format!("{value:#}\n")
    }

    fn page(&self, paint: Paint) -> String {
        let mut page = text::pipeline(&self.report, paint);
        if let Some(pool) = &self.pool {
            page += &text::pool(pool, paint);
        }
        for (title, lines, mark) in
            [("warnings", &self.warnings, paint.warning("!")), ("notes", &self.notes, "-".into())]
        {
            if !lines.is_empty() {
                page += &format!("\n{}\n", paint.heading(title));
                for line in lines {
                    page += &format!("  {mark} {line}\n");
                }
            }
        }
        let count = match self.warnings.len() {
            0 => String::new(),
            1 => ", 1 warning".into(),
            n => format!(", {n} warnings"),
        };
        page + &format!("\n{} {}: {}{count}\n", paint.good("ok"), self.source, self.form.name())
    }

    /// What a person sees, without colour.
    pub fn text(&self) -> String {
        self.page(Paint::plain())
    }
}
