//! Precise prefix routing at work: chats over four pods whose caches are small, through three gateways.
//!
//! The same conversations go to the pods in turns, then by what each gateway remembers of its own
//! decisions (approximate), then by what the pods tell of their caches (precise). A conversation's
//! turns come to any gateway, as a balancer in front of several proxies has it, and halfway one pod is
//! started anew. Hit rates are the pods' own counters.

mod talks;

use std::io;
use std::time::Duration;

use serde_json::json;

use super::print::Printer;
use crate::lab::{Binaries, Bootstrap, Client, Lab, Plan, Process, paths, process};
use talks::{Seen, Shape, Way};

const APPROXIMATE: &str = include_str!("approximate.yaml");
const PRECISE: &str = include_str!("precise.yaml");

/// What is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Pods
    #[arg(long, default_value_t = Self::default().pods, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub pods: u8,
    /// Blocks in the cache of each pod, of 16 tokens
    #[arg(long, default_value_t = Self::default().blocks)]
    pub blocks: u32,
    /// Gateways: Envoys in front of the same pods, beside one control plane
    #[arg(long, default_value_t = Self::default().gateways, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub gateways: u8,
    /// Leave all pods running; otherwise the first one is started anew after half of the turns
    #[arg(long)]
    pub steady: bool,
    /// Different system prompts
    #[arg(long, default_value_t = Self::default().tenants)]
    pub tenants: usize,
    /// Conversations
    #[arg(long, default_value_t = Self::default().talks)]
    pub talks: usize,
    /// Turns of each conversation
    #[arg(long, default_value_t = Self::default().turns)]
    pub turns: usize,
    /// Start of all randomness
    #[arg(long, default_value_t = Self::default().seed)]
    pub seed: u64,
}

impl Default for Settings {
    /// As without arguments.
    fn default() -> Self {
        let (pods, blocks, gateways, steady) = (4, 400, 3, false);
        Self { pods, blocks, gateways, steady, tenants: 4, talks: 32, turns: 6, seed: 1 }
    }
}

/// How one way of choosing pods went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Requests answered.
    pub requests: usize,
    /// Share of the prompt tokens that the pods found in their caches, by their own counters.
    pub hit_rate: f64,
    /// The same, by the `usage` of the answers.
    pub told: f64,
    /// Time to the first token: median.
    pub ttft_p50: Duration,
    /// Time to the first token: 90th percentile.
    pub ttft_p90: Duration,
    /// Requests by pod, the least and the most.
    pub spread: (usize, usize),
}

/// The pods, and gateways with a scheduler in front of them.
#[derive(Debug)]
pub struct Run {
    // Dropped first: what uses the pods ends before them.
    others: Vec<Lab>,
    /// The first gateway, and the control plane of all.
    lab: Lab,
    _pods: Process,
    pods: Vec<Client>,
    settings: Settings,
    /// Ports of the pods' cache events, and of their replays.
    ports: [u16; 2],
    config: &'static str,
}

impl Run {
    /// Starts all parts.
    ///
    /// # Errors
    /// A part that does not start.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let model = paths::root().join("fixtures/vllm/model");
        let [port, events, replays] = process::free_ports();
        let plan = Plan {
            pods: 0,
            config: APPROXIMATE.into(),
            bootstrap: Bootstrap {
                settings: format!("tokenizers: {{map: {{random: {}}}}}\n", model.display()),
                ..Bootstrap::default()
            },
            ..Plan::default()
        };
        let binaries = Binaries::find(&plan.envoy)?;
        let mut lab = Lab::prepare_with(plan, binaries.clone())?;
        // Pods have addresses of their own, as in a cluster: events come from one port of each.
        let publish = json!({
            "enable_kv_cache_events": true, "endpoint": format!("tcp://*:{events}"),
            "replay_endpoint": format!("tcp://*:{replays}"),
        });
        let (endpoints, blocks) = (lab.endpoints_file(), settings.blocks.to_string());
        let arguments = [
            "--pods",
            &settings.pods.to_string(),
            "--port",
            &port.to_string(),
            "--write-endpoints",
            &endpoints.to_string_lossy(),
            "--endpoint-label",
            "llm-d.ai/role=decode",
            "--tokenizer",
            &model.to_string_lossy(),
            "--kv-events-config",
            &publish.to_string(),
            "--kv-cache-size",
            &blocks,
            "--block-size=16",
            "--max-num-seqs=16",
            "--prefill-time-per-token=100us",
            "--inter-token-latency=2ms",
            "--seed",
            &settings.seed.to_string(),
        ];
        let mut running = Process::spawn(&binaries.sim, &arguments, &[], &lab.log("pods"))?;
        running.wait_for("the simulator", Duration::from_secs(20), || endpoints.is_file())?;
        lab.start_control()?;
        lab.start_envoy()?;
        let others: io::Result<Vec<Lab>> =
            (1..settings.gateways).map(|_| lab.add_gateway()).collect();
        let others = others?;
        let count = usize::from(settings.pods);
        for gateway in others.iter().chain([&lab]) {
            gateway.wait_until("the module to serve the pool", Duration::from_secs(20), || {
                gateway.pool().is_ok_and(|pool| {
                    pool["endpoints"].as_array().is_some_and(|have| {
                        have.len() == count && have.iter().all(|e| e["scrapes"].as_u64() > Some(0))
                    })
                })
            })?;
        }
        let address = |n: u8| format!("127.0.0.{}", u32::from(n) + 1);
        let pods = (0..settings.pods).map(|n| Client::at(&address(n), port)).collect();
        let ports = [events, replays];
        Ok(Self { others, lab, _pods: running, pods, settings, ports, config: APPROXIMATE })
    }

    /// Has the pods serve the conversations by all three ways.
    ///
    /// # Errors
    /// A configuration that is not taken, a request without an answer.
    pub fn compare(&mut self) -> io::Result<[Outcome; 3]> {
        let turns = self.play("round robin", Self::pods)?;
        self.configure(APPROXIMATE)?;
        let approximate = self.play("approximate", Self::gateways)?;
        self.configure(PRECISE)?;
        let precise = self.play("precise", Self::gateways)?;
        Ok([turns, approximate, precise])
    }

    fn labs(&self) -> impl Iterator<Item = &Lab> {
        [&self.lab].into_iter().chain(&self.others)
    }

    fn gateways(&self) -> Way {
        Way(self.labs().map(Lab::client).collect())
    }

    fn pods(&self) -> Way {
        Way(self.pods.clone())
    }

    /// All turns of all conversations, from empty caches on.
    fn play(&mut self, name: &'static str, way: impl Fn(&Self) -> Way) -> io::Result<Outcome> {
        self.forget()?;
        let Settings { tenants, talks, turns, seed, steady, .. } = self.settings;
        let shape = Shape { tenants, talks, system: 160, question: 16 };
        let mut talks = talks::begin(shape, seed);
        let (mut hits, mut queries) = (0.0, 0.0);
        let mut base = self.counted()?;
        let mut seen = Seen::default();
        for turn in 0..turns {
            if turn > 0 && turn == turns / 2 && !steady {
                let now = self.counted()?;
                (hits, queries) = (hits + now.0 - base.0, queries + now.1 - base.1);
                self.restart_a_pod()?;
                // Its counters begin anew.
                base = self.counted()?;
            }
            let seed = seed.wrapping_add(turn as u64);
            let tag = format!("{name}-{turn}");
            talks::turn(&way(self), &tag, shape.question, seed, &mut talks, &mut seen)?;
        }
        let now = self.counted()?;
        (hits, queries) = (hits + now.0 - base.0, queries + now.1 - base.1);
        let served = |n: usize| seen.pods.values().nth(n).copied();
        let loads = (0..self.pods.len()).map(|n| served(n).unwrap_or(0));
        Ok(Outcome {
            name,
            requests: seen.ttft.len(),
            hit_rate: hits / queries.max(1.0),
            told: seen.cached as f64 / (seen.prompt as f64).max(1.0),
            ttft_p50: seen.quantile(0.5),
            ttft_p90: seen.quantile(0.9),
            spread: (loads.clone().min().unwrap_or(0), loads.max().unwrap_or(0)),
        })
    }

    /// The first pod ends and is there again, with an empty cache.
    fn restart_a_pod(&mut self) -> io::Result<()> {
        let Some(pod) = self.pods.first_mut() else { return Ok(()) };
        pod.post("/admin/kill?for=50ms", &[], b"")?;
        // No connection outlives it.
        *pod = pod.anew();
        let is_there = || pod.get("/health").is_ok_and(|answer| answer.status == 200);
        self.lab.wait_until("the pod to be there again", Duration::from_secs(5), is_there)
    }

    /// Empties the pods' caches, and what the scheduler remembers.
    fn forget(&self) -> io::Result<()> {
        for gateway in self.labs() {
            gateway.admin().post("/debug/prefix/reset", &[], b"")?;
        }
        for pod in &self.pods {
            let answer = pod.post("/reset_prefix_cache", &[], b"")?;
            if answer.text() != r#"{"success":true}"# {
                return Err(io::Error::other(format!("a cache is in use: {}", answer.text())));
            }
            // An engine tells that its cache is empty with the next step only.
            let short = json!({"model": "random", "prompt": [1], "max_tokens": 1}).to_string();
            pod.post("/v1/completions", &[], short.as_bytes())?;
        }
        // What the pods have told arrives.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }

    /// The pods' counters of prompt tokens found in the cache, and looked for.
    fn counted(&self) -> io::Result<(f64, f64)> {
        let mut sums = (0.0, 0.0);
        for pod in &self.pods {
            let page = pod.get("/metrics")?.text();
            let value = |name: &str| {
                let line = page.lines().find(|line| line.starts_with(name));
                let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
                value.ok_or_else(|| io::Error::other(format!("{name} is not in {page}")))
            };
            sums.0 += value("vllm:prefix_cache_hits_total{")?;
            sums.1 += value("vllm:prefix_cache_queries_total{")?;
        }
        Ok(sums)
    }

    /// Puts a configuration into force; the same one is there already.
    fn configure(&mut self, config: &'static str) -> io::Result<()> {
        if std::mem::replace(&mut self.config, config) == config {
            return Ok(());
        }
        let generation = |lab: &Lab| lab.pool().ok()?["config_generation"].as_u64();
        let before: Vec<_> = self.labs().map(generation).collect();
        let [events, replays] = self.ports.map(|port| port.to_string());
        let config = config.replace("{events}", &events).replace("{replays}", &replays);
        self.lab.write_config(&config)?;
        for (gateway, before) in self.labs().zip(before) {
            gateway.wait_until("the configuration", Duration::from_secs(10), || {
                generation(gateway).is_some_and(|now| Some(now) != before)
            })?;
        }
        // Sockets connect.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }
}

/// Runs all of it.
pub(super) fn play(settings: &Settings, printer: &Printer) -> io::Result<()> {
    printer.section("Chats over pods with small caches: where is the prefix of this conversation?");
    let mut run = Run::start(settings.clone())?;
    printer.note(&format!(
        "{} conversations of {} turns with {} system prompts, through {} gateways; {} pods with {} \
         blocks of 16 tokens each{}; hit rates by the pods' own counters",
        settings.talks,
        settings.turns,
        settings.tenants,
        settings.gateways,
        settings.pods,
        settings.blocks,
        if settings.steady { "" } else { ", one of which is started anew halfway" },
    ));
    let outcomes = run.compare()?;
    let head = ["pods chosen", "requests", "hit rate", "ttft p50", "ttft p90", "requests per pod"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(outcomes.iter().map(|outcome| {
        let mark = if outcome.name == "precise" { "*" } else { " " };
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        vec![
            format!("{mark}{}", outcome.name),
            outcome.requests.to_string(),
            format!("{:.1} %", outcome.hit_rate * 100.0),
            ms(outcome.ttft_p50),
            ms(outcome.ttft_p90),
            format!("{} to {}", outcome.spread.0, outcome.spread.1),
        ]
    }));
    printer.table(&rows);
    let [turns, approximate, precise] = &outcomes;
    if precise.hit_rate <= turns.hit_rate {
        return Err(io::Error::other("knowing what is cached did not help here"));
    }
    printer.success(&format!(
        "precise finds {:+.0} points more of its prompts cached than round robin, {:+.0} than \
         approximate",
        (precise.hit_rate - turns.hit_rate) * 100.0,
        (precise.hit_rate - approximate.hit_rate) * 100.0,
    ));
    Ok(())
}
