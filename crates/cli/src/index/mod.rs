//! `inlane index`: what the index of cached blocks holds.
//!
//! Reads the segment as a proxy does and asks nobody, except to empty the index, which its writer, the
//! control plane, has to do.

mod contents;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use self::contents::{Contents, Question};
use crate::paint::Paint;

/// Arguments of `inlane index`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the shared-memory segment
    #[arg(long, value_name = "DIR", default_value = "/dev/shm/inlane", global = true)]
    segment_dir: PathBuf,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the keys of the blocks that an endpoint holds
    Dump {
        /// The endpoint, `namespace/name`
        endpoint: String,
        /// List at most so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// Show who holds how much of a prompt, block by block
    Holders {
        /// File with the prompt's token ids, a JSON array; `-` reads standard input
        #[arg(long, value_name = "FILE", required_unless_present = "keys")]
        tokens: Option<PathBuf>,
        /// Model, as the topics of the engines name it, or LoRA adapter
        #[arg(long, value_name = "NAME", requires = "tokens", default_value = "")]
        model: String,
        /// The request's cache_salt
        #[arg(long, value_name = "TEXT", requires = "tokens")]
        salt: Option<String>,
        /// Keys of blocks instead, front to back: decimal, or hexadecimal after 0x
        #[arg(long, value_name = "KEY", value_delimiter = ',', conflicts_with = "tokens")]
        keys: Vec<String>,
    },
    /// Empty the index; what engines can repeat comes back
    Reset {
        /// The control plane's HTTP server
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
        control: String,
    },
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match page(args) {
        Ok(page) => {
            // Whoever closes the pipe has seen enough.
            let _ = std::io::stdout().write_all(page.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{} {error}", Paint::of_stderr().bad("error:"));
            ExitCode::FAILURE
        }
    }
}

fn page(args: &Args) -> Result<String, String> {
    let answer = match &args.command {
        Some(Command::Reset { control }) => return reset(control),
        None => summary(&Contents::open(&args.segment_dir)?),
        Some(Command::Dump { endpoint, limit }) => {
            dump(&Contents::open(&args.segment_dir)?, endpoint, *limit)?
        }
        Some(Command::Holders { tokens, model, salt, keys }) => {
            let question = match tokens {
                Some(file) => {
                    let salt = salt.as_deref();
                    Question::Tokens { tokens: &read_tokens(file)?, model, salt }
                }
                None => Question::Keys(read_keys(keys)?),
            };
            holders(&Contents::open(&args.segment_dir)?, question)?
        }
    };
    Ok(match args.json {
        true => serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n",
        false => text(&answer, Paint::of_stdout()),
    })
}

/// The parameters, and how much every endpoint holds.
fn summary(contents: &Contents) -> Value {
    let of_tier = |(tier, name): (u8, &str)| json!({"tier": name, "held": contents.held_in(tier)});
    json!({
        "parameters": contents.parameters(),
        "tiers": contents.tiers().map(of_tier).collect::<Vec<_>>(),
        "endpoints": contents
            .endpoints()
            .map(|(id, slot)| json!({"endpoint": id, "held": contents.held_by(slot)}))
            .collect::<Vec<_>>(),
    })
}

fn dump(contents: &Contents, endpoint: &str, limit: usize) -> Result<Value, String> {
    let slot = contents.slot_of(endpoint)?;
    let mut blocks = contents.blocks_of(slot)?;
    let held = blocks.len();
    blocks.truncate(limit);
    let block = |(tier, key): (u8, u64)| json!({"key": hex(key), "tier": contents.tier(tier)});
    let listed: Vec<_> = blocks.into_iter().map(block).collect();
    Ok(json!({"endpoint": endpoint, "held": held, "blocks": listed}))
}

fn holders(contents: &Contents, question: Question<'_>) -> Result<Value, String> {
    let keys = contents.keys(question)?;
    let runs = contents.runs(&keys).into_iter().map(|run| {
        let names = run.holders.iter().map(|&(slot, tier)| {
            json!({"endpoint": contents.name_of(slot), "tier": contents.tier(tier)})
        });
        let key = keys.get(run.at).copied().map(hex);
        json!({"block": run.at, "blocks": run.blocks, "key": key, "holders": names.collect::<Vec<_>>()})
    });
    let runs: Vec<_> = runs.collect();
    let prefixes = contents.prefixes(&keys).into_iter().map(|(slot, tier, blocks)| {
        json!({
            "endpoint": contents.name_of(slot), "tier": contents.tier(tier), "blocks": blocks,
        })
    });
    Ok(json!({"blocks": keys.len(), "prefixes": prefixes.collect::<Vec<_>>(), "runs": runs}))
}

fn reset(control: &str) -> Result<String, String> {
    let url = format!("{}/debug/kv/reset", control.trim_end_matches('/'));
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build();
    let answer = ureq::Agent::new_with_config(config).post(&url).send_empty();
    let mut answer = answer.map_err(|e| format!("{url}: {e}"))?;
    let text = answer.body_mut().read_to_string().map_err(|e| format!("{url}: {e}"))?;
    if answer.status().is_success() { Ok(text) } else { Err(format!("{url}: {}", text.trim())) }
}

fn read_tokens(file: &Path) -> Result<Vec<u32>, String> {
    let name = file.display();
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(file),
    };
    let text = text.map_err(|e| format!("{name}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("{name}: expected an array of token ids: {e}"))
}

fn read_keys(texts: &[String]) -> Result<Vec<u64>, String> {
    let read = |text: &String| {
        let key = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        key.map_err(|_| format!("--keys: expected a number of 64 bits, found {text:?}"))
    };
    texts.iter().map(read).collect()
}

fn hex(key: u64) -> String {
    format!("{key:#018x}")
}

/// The answer for people: scalars first, then lists as tables.
fn text(answer: &Value, paint: Paint) -> String {
    let mut out = String::new();
    for (name, value) in answer.as_object().into_iter().flatten() {
        match value {
            Value::Array(rows) => {
                let _ = writeln!(out, "\n{} ({})", paint.heading(name), rows.len());
                for row in rows {
                    let cells = row.as_object().into_iter().flatten();
                    let cells: Vec<_> = cells.map(|(name, cell)| cell_text(name, cell)).collect();
                    let _ = writeln!(out, "  {}", cells.join("  "));
                }
            }
            other => {
                let _ = writeln!(out, "{}", cell_text(name, other));
            }
        }
    }
    out
}

fn cell_text(name: &str, cell: &Value) -> String {
    match cell {
        Value::String(text) => format!("{name} {text}"),
        Value::Array(list) => {
            let one = |value: &Value| {
                let parts = value.as_object().into_iter().flat_map(|o| o.values());
                parts.filter_map(Value::as_str).collect::<Vec<_>>().join(":")
            };
            format!("{name} {}", list.iter().map(one).collect::<Vec<_>>().join(" "))
        }
        other => format!("{name} {other}"),
    }
}

#[cfg(test)]
mod tests;
