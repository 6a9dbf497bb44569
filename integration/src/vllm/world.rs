//! Engines, proxy and control plane, and what became of every request.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inlane_cli::lab::{Client, Lab, Pod};
use inlane_text::tokens::{Model, PromptApi};
use serde_json::Value;

use super::answer::Read;
use super::engine::{self, Engine};
use super::holdings::{Holdings, Prompt};
use super::recording::{self, Asked};
use super::script::Step;
use super::table::{HEAD, Row, findable};
use crate::fixtures::{self, tokens};
use crate::scenario::{Scenario, pods};

/// The header that names the pod which is to serve a request.
pub const PIN: &str = "x-pod";

/// The scorer whose scores say what a decision found.
const SCORER: &str = "prefix-cache-scorer";

/// Longest wait for events that are on their way.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an engine has to have cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// What was predicted.
    Equal,
    /// At least that: events did not arrive.
    More,
    /// Nothing, whatever was predicted.
    Nothing,
}

/// See the [module](self).
#[derive(Debug)]
pub struct World {
    /// Proxy and control plane. Ends before the engines do.
    pub lab: Scenario,
    /// The engines.
    pub engines: Vec<Engine>,
    /// Requests so far.
    pub rows: Vec<Row>,
    /// What was not as it should be.
    pub failures: Vec<String>,
    /// Prompts whose tokens were compared.
    pub compared: usize,
    asked: Vec<Asked>,
    model: Result<Model, String>,
    templates: PathBuf,
}

impl World {
    /// Engines that run, and a lab that has not begun.
    pub fn new(mut lab: Lab, engines: Vec<Engine>) -> Self {
        for engine in &engines {
            let (name, port) = (engine.setup.name.to_owned(), engine.port);
            lab.pods.push(Pod { name, port, process: None, labels: Default::default() });
        }
        let templates = super::model().join("..");
        let asked = engines.iter().map(|_| Asked::default()).collect();
        Self {
            lab: Scenario::of(lab),
            engines,
            rows: Vec::new(),
            failures: Vec::new(),
            compared: 0,
            asked,
            model: tokens::load(&templates),
            templates,
        }
    }

    /// Notes what is not as it should be.
    pub fn complain(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("    ! {what}");
        self.failures.push(what);
    }

    /// Says what comes, and how the table reads.
    pub fn begin(&self, what: &str) {
        println!("\n{what}\n{HEAD}");
    }

    /// Compares our tokens of a request with those of an engine's own answer to it.
    ///
    /// # Errors
    /// No answer of the engine.
    pub fn compare_directly(&mut self, engine: usize, step: &Step) -> io::Result<()> {
        let answer = self.engines[engine].post(&step.path, &step.body)?;
        self.compare(step, &step.path, &answer);
        Ok(())
    }

    /// Whether the answer shows tokens, which were compared then.
    fn compare(&mut self, step: &Step, path: &str, answer: &Value) -> bool {
        let template = step.field("chat_template");
        let templated = template.as_str().map(|text| tokens::templated(&self.templates, text));
        let model = templated.as_ref().unwrap_or(&self.model);
        let outcome = tokens::check_answer(model, path, &step.without_template(), answer);
        self.compared += usize::from(outcome.is_some());
        if let Some(Err(error)) = &outcome {
            self.complain(format!("{}: tokens: {error}", step.name));
        }
        outcome.is_some()
    }

    /// What we make of a request's prompts.
    ///
    /// # Errors
    /// A request without prompts.
    pub fn prompts(&self, step: &Step) -> io::Result<Vec<Prompt>> {
        let text = |field: &str| step.field(field).as_str().unwrap_or(super::MODEL).to_owned();
        let salt = step.field("cache_salt").as_str().unwrap_or_default().to_owned();
        let api = PromptApi::of_path(&step.path).ok_or_else(|| other("no prompt"))?;
        let model = self.model.as_ref().map_err(other)?;
        let made = model.tokenize_at(api, step.body.as_bytes(), 0).map_err(other)?;
        let prompts = made.prompts.into_iter();
        let prompt = |tokens| Prompt { model: text("model"), salt: salt.clone(), tokens };
        Ok(prompts.map(prompt).collect())
    }

    /// Tokens that the index holds of a request at an endpoint.
    ///
    /// # Errors
    /// No index, no prompt.
    pub fn held(&self, pod: &str, step: &Step) -> io::Result<u64> {
        let index = Holdings::open(&self.lab.segment_dir)?;
        Ok(self.prompts(step)?.iter().map(|prompt| index.tokens(pod, prompt)).sum())
    }

    /// Sends a request through the proxy, to the pod named or to whom it chooses, compares what
    /// everybody says of it, and waits until the index has what the engine stored.
    ///
    /// # Errors
    /// No answer, no decision.
    pub fn ask(&mut self, step: &Step, pin: Option<&str>, expect: Expect) -> io::Result<String> {
        let prompts = self.prompts(step)?;
        let index = Holdings::open(&self.lab.segment_dir)?;
        // Read now: what is open shows what comes too.
        let at = |pod: &str| prompts.iter().map(|p| index.tokens(pod, p)).collect::<Vec<u64>>();
        let parts: BTreeMap<String, Vec<u64>> =
            self.lab.pods.iter().map(|pod| (pod.name.clone(), at(&pod.name))).collect();
        let held = |pod: &str| parts.get(pod).into_iter().flatten().sum::<u64>();

        let before = self.hits()?;
        let id = format!("{}#{}", step.name, self.rows.len());
        let mut headers = vec![("x-request-id", id.as_str())];
        headers.extend(pin.map(|pod| (PIN, pod)));
        let answer = self.lab.client().post(&step.path, &headers, step.body.as_bytes())?;
        if answer.status != 200 {
            return Err(other(format!("{id}: {}: {}", answer.status, answer.text())));
        }
        let decision = self.lab.decision(&id)?;
        let pod = pods::chosen(&decision).to_owned();
        let read = Read::of(&answer);
        let engine = self.engines.iter().position(|engine| engine.setup.name == pod);
        let engine = engine.ok_or_else(|| other(format!("{id} went to {pod:?}")))?;

        if !self.compare(step, &step.path, &read.json) {
            // The answer does not show its prompt: the engine is asked for it.
            let rendered = format!("{}/render", step.path);
            match self.engines[engine].post(&rendered, &step.body) {
                Ok(answer) => _ = self.compare(step, &rendered, &answer),
                Err(error) => self.complain(format!("{id}: not compared: {error}")),
            }
        }
        self.asked[engine].note(&id, step, &prompts, &read.json);
        let block = index.block();
        let blocks: u64 = prompts.iter().map(|p| p.tokens.len() as u64 / block).sum();
        let score = |pod: &str| pods::score(&decision, SCORER, pod).unwrap_or(0.0);
        let decided = |pod: &str| (score(pod) * blocks as f64).round() as u64 * block;
        let prompt = prompts.iter().map(|p| p.tokens.len() as u64).sum();
        let own = u64::from(self.engines[engine].setup.block);
        let mut row = Row {
            name: step.name.clone(),
            prompt,
            held: held(&pod),
            decided: decided(&pod),
            expected: findable(decided(&pod), prompt, own),
            cached: read.cached,
            remark: String::new(),
            pod: pod.clone(),
        };
        if prompts.len() > 1 {
            let parts = parts.get(&pod).into_iter().flatten().zip(&prompts);
            let parts = parts.map(|(held, p)| findable(*held, p.tokens.len() as u64, own));
            row.expected = parts.sum();
            row.cached = self.counted_hits(engine, &before, row.expected)?;
        }
        let wrong = match expect {
            Expect::Equal => row.cached != row.expected,
            Expect::More => row.cached < row.expected,
            Expect::Nothing => row.cached != 0,
        };
        let candidates = parts.keys().filter(|pod| pods::score(&decision, SCORER, pod).is_some());
        let best = candidates.map(|pod| held(pod)).max().unwrap_or(0);
        let mut remarks = Vec::new();
        if wrong {
            remarks.push("ENGINE DIFFERS".to_owned());
        }
        if row.decided != row.held {
            remarks.push("DECISION DIFFERS FROM INDEX".to_owned());
        }
        if pin.is_none() && row.held != best {
            remarks.push(format!("ANOTHER HOLDS {best}"));
        }
        if decision["step"] != "full" || decision["prompt_tokens"] != prompt {
            let (step, tokens) = (&decision["step"], &decision["prompt_tokens"]);
            remarks.push(format!("DECIDED IN STEP {step} ON {tokens} TOKENS"));
        }
        row.remark = remarks.join(", ");
        println!("{row}");
        if !remarks.is_empty() {
            self.failures.push(row.to_string());
        }
        self.rows.push(row);
        if expect != Expect::More {
            self.settle(&pod, own, &prompts, &read.generated, &id)?;
        }
        Ok(pod)
    }

    /// Tokens that each engine has found in its cache so far, by its own counter.
    ///
    /// # Errors
    /// No connection.
    pub fn hits(&self) -> io::Result<Vec<u64>> {
        let hits = |engine: &Engine| Ok(engine.metric("vllm:prefix_cache_hits_total")? as u64);
        self.engines.iter().map(hits).collect()
    }

    /// What an engine found since `before`: of a request with several prompts its answer names what
    /// it found of one. Its counter may come a little later than its answer.
    fn counted_hits(&self, engine: usize, before: &[u64], expected: u64) -> io::Result<u64> {
        let start = Instant::now();
        loop {
            let found = self.hits()?[engine] - before[engine];
            if found >= expected || start.elapsed() > PATIENCE {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the index holds what the engine has stored for a request: all whole blocks of
    /// the prompt and of the answer but for its last token, which no step has computed. What was
    /// evicted for it is gone then, since it is told before.
    fn settle(
        &mut self,
        pod: &str,
        own: u64,
        prompts: &[Prompt],
        generated: &[Vec<u32>],
        id: &str,
    ) -> io::Result<()> {
        let start = Instant::now();
        for (n, prompt) in prompts.iter().enumerate() {
            let mut all = prompt.clone();
            if let Some((_, computed)) = generated.get(n).and_then(|ids| ids.split_last()) {
                all.tokens.extend(computed);
            }
            let index = Holdings::open(&self.lab.segment_dir)?;
            let stored = all.tokens.len() as u64 / own * own / index.block() * index.block();
            while Holdings::open(&self.lab.segment_dir)?.tokens(pod, &all) < stored {
                if start.elapsed() > PATIENCE {
                    let held = Holdings::open(&self.lab.segment_dir)?.tokens(pod, &all);
                    let page = self.control("/debug/kv")?;
                    self.complain(format!(
                        "{id}: {pod} stored {stored} tokens, the index has {held}: {page}"
                    ));
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Writes down what happened so far and has the runner of recordings check it.
    ///
    /// # Errors
    /// File errors, an engine that gives no replay.
    pub fn check_recordings(&mut self, dir: &Path) -> io::Result<()> {
        recording::write(dir, &self.engines, &self.asked)?;
        println!();
        for tally in fixtures::check(dir).iter().filter(|t| t.passed + t.failures.len() > 0) {
            println!("{tally}");
            self.failures.extend(tally.failures.iter().map(|e| format!("{}: {e}", tally.name)));
        }
        Ok(())
    }

    /// A page of the control plane.
    ///
    /// # Errors
    /// No connection.
    pub fn control(&self, path: &str) -> io::Result<String> {
        Ok(Client::new(self.lab.control_port).get(path)?.text())
    }

    /// The sum of a metric of the control plane.
    ///
    /// # Errors
    /// No connection.
    pub fn counted(&self, name: &str) -> io::Result<f64> {
        Ok(engine::sum(&self.control("/metrics")?, name))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn other(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}
