//! What two engines said and were asked, written as `fixtures/vllm` has it: the runner of recordings
//! then checks events, hashes, tokens and scores of what has just happened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::engine::Engine;
use super::holdings::Prompt;
use super::script::Step;

/// What one engine was asked.
#[derive(Debug, Default)]
pub struct Asked {
    steps: Vec<String>,
    prompts: Vec<Value>,
}

impl Asked {
    /// Notes a request and its answer.
    pub fn note(&mut self, id: &str, step: &Step, prompts: &[Prompt], answer: &Value) {
        let response = json!({"status": 200, "json": answer});
        // The body stays as it was sent.
        self.steps.push(format!(
            r#"{{"id":{},"request":{{"method":"POST","path":{},"body":{}}},"response":{response}}}"#,
            json!(id),
            json!(step.path),
            step.body.replace('\n', " "),
        ));
        if let [Prompt { model, salt, tokens }] = prompts {
            self.prompts.push(json!({"id": id, "model": model, "salt": salt, "tokens": tokens}));
        }
    }
}

/// Writes the recordings of all engines below `dir`.
///
/// # Errors
/// File errors, an engine that gives no replay.
pub fn write(dir: &Path, engines: &[Engine], asked: &[Asked]) -> io::Result<()> {
    copy(&super::model(), &dir.join("model"))?;
    for (engine, asked) in engines.iter().zip(asked) {
        let run = dir.join("runs").join(engine.setup.name);
        fs::create_dir_all(run.join("metrics"))?;
        let setup = &engine.setup;
        let seed = setup.seed.unwrap_or("vllm-none-hash");
        let facts = json!({
            "args": engine.arguments(), "prefix_caching_hash_algo": setup.hash,
            "pythonhashseed": setup.seed, "int_block_hashes": setup.numbers, "none_hash_seed": seed,
        });
        fs::write(run.join("run.json"), facts.to_string())?;
        fs::write(run.join("steps.jsonl"), asked.steps.join("\n") + "\n")?;
        fs::write(run.join("prompts.json"), Value::from(asked.prompts.clone()).to_string())?;
        let page = engine.client().get("/metrics")?.text();
        fs::write(run.join("metrics/99-end.txt"), page)?;
        replay(engine, &run)?;
    }
    Ok(())
}

/// Asks an engine for all of its events, by the Python of its installation.
fn replay(engine: &Engine, run: &Path) -> io::Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/vllm/replay.py");
    let python = engine.program().parent().map_or_else(PathBuf::default, |bin| bin.join("python"));
    let status = Command::new(python).arg(script).arg(engine.replays()).arg(run).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{script}: {status}"))),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)?.flatten() {
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
