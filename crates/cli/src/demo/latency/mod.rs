//! Latency prediction at work: a pool of two kinds of pods that nothing but observation tells apart.
//!
//! First the scheduler learns. Then the profile that uses what it learned and one that balances load
//! take turns on the same arrivals, and both are held against what the clients asked for.

mod arrivals;

use std::io;
use std::time::Duration;

use serde_json::json;

use super::print::Printer;
use crate::lab::{Client, Lab, Plan};
pub use arrivals::{SLOS, Served, Slo};

/// The profile that predicts.
pub const PREDICTED: &str = include_str!("predicted.yaml");
/// The profile that it is compared with.
pub const LOAD: &str = include_str!("load.yaml");

/// Requests whose errors the control plane's averages are of.
const SCORED: usize = 500;

/// What is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Fast pods, and as many slow ones
    #[arg(long, default_value_t = 3)]
    pub pods: usize,
    /// How much slower the slow ones are
    #[arg(long, default_value_t = 2.5)]
    pub slow: f64,
    /// Requests to learn from
    #[arg(long, default_value_t = 2_000)]
    pub learn: usize,
    /// Requests of each turn
    #[arg(long, default_value_t = 500)]
    pub requests: usize,
    /// Turns of each profile
    #[arg(long, default_value_t = 3)]
    pub turns: usize,
    /// Requests per second
    #[arg(long, default_value_t = 60.0)]
    pub rate: f64,
    /// Start of all randomness
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// How well one latency is predicted, by the control plane's metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// `ttft` or `tpot`.
    pub target: &'static str,
    /// Predictions compared with an observation.
    pub scored: f64,
    /// Mean absolute percentage error over the last 500, as a share.
    pub mape: f64,
    /// Share of the last 500 observations at or below the quantile predicted.
    pub coverage: f64,
    /// The error of one number for all of the last 500 requests, as the client saw them: of the one
    /// that has the least error, chosen afterwards. What is known of pods and requests shows in how
    /// far `mape` is below it, on busy machines too.
    pub constant: f64,
}

/// One profile's requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// All turns.
    pub served: Vec<Served>,
    /// Share of attained requests, by turn.
    pub by_turn: Vec<f64>,
}

impl Outcome {
    fn add(&mut self, served: Vec<Served>) {
        self.by_turn.push(attained(served.iter()));
        self.served.extend(served);
    }

    /// Share of the requests that met both targets.
    pub fn attained(&self) -> f64 {
        attained(self.served.iter())
    }

    /// The same of one kind of client.
    pub fn attained_of(&self, slo: usize) -> f64 {
        attained(self.served.iter().filter(|served| served.slo == slo))
    }

    fn share_on(&self, slo: usize, pods: &[String]) -> f64 {
        share(self.served.iter().filter(|s| s.slo == slo), |s| pods.contains(&s.pod))
    }

    fn ttft(&self, quantile: f64) -> Duration {
        let mut all: Vec<Duration> = self.served.iter().map(|served| served.ttft).collect();
        all.sort_unstable();
        let last = all.len().saturating_sub(1);
        all.get((last as f64 * quantile) as usize).copied().unwrap_or_default()
    }
}

fn attained<'a>(served: impl Iterator<Item = &'a Served>) -> f64 {
    share(served, Served::is_attained)
}

fn share<'a>(served: impl Iterator<Item = &'a Served>, holds: impl Fn(&Served) -> bool) -> f64 {
    let (held, all) =
        served.fold((0_u32, 0_u32), |(held, all), s| (held + u32::from(holds(s)), all + 1));
    f64::from(held) / f64::from(all.max(1))
}

/// Least mean absolute percentage error, as a share, that one number has for all of `values`. It is
/// their median when each weighs as much as its inverse, which is what it counts for in that error.
fn error_of_best_constant(mut values: Vec<f64>) -> f64 {
    values.retain(|value| *value > 0.0);
    values.sort_unstable_by(f64::total_cmp);
    let half = values.iter().map(|value| 1.0 / value).sum::<f64>() / 2.0;
    let mut below = 0.0;
    let best = values.iter().copied().find(|value| {
        below += 1.0 / value;
        below >= half
    });
    let off = |best: f64| values.iter().map(|value| (best - value).abs() / value).sum::<f64>();
    best.map_or(0.0, off) / values.len().max(1) as f64
}

/// What has come out.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// After learning.
    pub accuracy: Vec<Accuracy>,
    /// Of [`PREDICTED`].
    pub predicted: Outcome,
    /// Of [`LOAD`].
    pub load: Outcome,
    /// Names of the fast pods.
    pub fast: Vec<String>,
}

/// A pool of two kinds of pods, learning.
#[derive(Debug)]
pub struct Run {
    lab: Lab,
    settings: Settings,
    sent: u64,
    config: &'static str,
}

impl Run {
    /// Starts all parts.
    ///
    /// # Errors
    /// A part that does not start.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let pods = settings.pods.max(1);
        let plan = Plan {
            pods: 2 * pods,
            config: PREDICTED.into(),
            pod_args: [
                "--prefill-overhead=40ms",
                "--prefill-time-per-token=100us",
                "--prefill-time-std-dev=4ms",
                "--inter-token-latency=6ms",
                "--inter-token-latency-std-dev=1ms",
                "--time-factor-under-load=2",
                "--max-num-seqs=24",
            ]
            .map(String::from)
            .into(),
            ..Plan::default()
        };
        let lab = Lab::start(plan)?;
        let slow = json!({ "time-factor": settings.slow }).to_string();
        for pod in lab.pods.iter().skip(pods) {
            let answer = Client::new(pod.port).post("/admin/config", &[], slow.as_bytes())?;
            if answer.status != 200 {
                return Err(io::Error::other(format!("{}: {}", pod.name, answer.text())));
            }
        }
        Ok(Self { lab, settings, sent: 0, config: PREDICTED })
    }

    /// The parts.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Names of the fast pods.
    pub fn fast(&self) -> Vec<String> {
        self.lab.pods.iter().take(self.settings.pods).map(|pod| pod.name.clone()).collect()
    }

    /// Sends `count` requests to learn from; says how well latencies are predicted then.
    ///
    /// # Errors
    /// A request without an answer, metrics that cannot be had.
    pub fn learn(&mut self, count: usize) -> io::Result<Vec<Accuracy>> {
        self.sent += 1;
        let seed = self.settings.seed.wrapping_add(self.sent << 32);
        let arrivals = arrivals::draw(count, self.settings.rate, seed);
        let tag = format!("learn{}", self.sent);
        let served = arrivals::send(&self.lab.client(), &tag, &arrivals)?;
        // The last observations are on their way.
        std::thread::sleep(Duration::from_secs(2));
        self.accuracy(&served)
    }

    fn accuracy(&self, served: &[Served]) -> io::Result<Vec<Accuracy>> {
        type Latency = fn(&Served) -> Duration;
        let page = Client::new(self.lab.control_port).get("/metrics")?.text();
        let latest = &served[served.len().saturating_sub(SCORED)..];
        let targets: [(_, Latency); 2] =
            [("ttft", |served| served.ttft), ("tpot", |served| served.tpot)];
        targets
            .map(|(target, latency)| {
                let latencies = latest.iter().map(|served| latency(served).as_secs_f64());
                let constant = error_of_best_constant(latencies.collect());
                let value = |name: &str| {
                    let series = format!("inlane_control_latency_{name}{{target=\"{target}\"}} ");
                    let line = page.lines().find_map(|line| line.strip_prefix(&series));
                    let value = line.and_then(|value| value.parse().ok());
                    value.ok_or_else(|| io::Error::other(format!("{series}is not in {page}")))
                };
                let (scored, mape) = (value("scored_total")?, value("mape")?);
                Ok(Accuracy { target, scored, mape, coverage: value("coverage")?, constant })
            })
            .into_iter()
            .collect()
    }

    /// Has both profiles serve the same arrivals, in turns.
    ///
    /// # Errors
    /// A configuration that is not taken, a request without an answer.
    pub fn take_turns(&mut self) -> io::Result<(Outcome, Outcome)> {
        let (mut predicted, mut load) = (Outcome::default(), Outcome::default());
        for turn in 0..self.settings.turns {
            let seed = self.settings.seed.wrapping_add(turn as u64);
            let arrivals = arrivals::draw(self.settings.requests, self.settings.rate, seed);
            for (name, config, outcome) in
                [("load", LOAD, &mut load), ("predicted", PREDICTED, &mut predicted)]
            {
                self.configure(config)?;
                let tag = format!("{name}{turn}");
                outcome.add(arrivals::send(&self.lab.client(), &tag, &arrivals)?);
            }
        }
        Ok((predicted, load))
    }

    /// Puts a configuration into force; the same one is there already.
    fn configure(&mut self, config: &'static str) -> io::Result<()> {
        if std::mem::replace(&mut self.config, config) == config {
            return Ok(());
        }
        let generation = |lab: &Lab| lab.pool().ok()?["config_generation"].as_u64();
        let before = generation(&self.lab);
        self.lab.write_config(config)?;
        self.lab.wait_until("the configuration", Duration::from_secs(10), || {
            generation(&self.lab).is_some_and(|now| Some(now) != before)
        })
    }
}

/// Runs all of it.
pub(super) fn play(settings: &Settings, printer: &Printer) -> io::Result<()> {
    printer.title("Inlane: scheduling by predicted latency");
    let mut run = Run::start(settings.clone())?;
    printer.note(&format!(
        "{} pods, and {} that are {} times as slow; {} requests per second; half of the clients ask \
         for {} ms to the first token and {} ms per token, half for {} and {}",
        settings.pods,
        settings.pods,
        settings.slow,
        settings.rate,
        SLOS[0].ttft.as_millis(),
        SLOS[0].tpot.as_millis(),
        SLOS[1].ttft.as_millis(),
        SLOS[1].tpot.as_millis(),
    ));
    printer.section(&format!("1. Learning from {} requests", settings.learn));
    let accuracy = run.learn(settings.learn)?;
    print_accuracy(&accuracy, printer);
    printer.section("2. The same arrivals, in turns, by prediction and by load");
    let (predicted, load) = run.take_turns()?;
    let fast = run.fast();
    let comparison = Comparison { accuracy, predicted, load, fast };
    print_attainment(&comparison, printer);
    let worst = comparison.accuracy.iter().map(|a| a.mape).fold(0.0, f64::max);
    if worst < 0.15 && comparison.predicted.attained() > comparison.load.attained() {
        printer.success("errors below 15 %, more clients content");
        Ok(())
    } else {
        Err(io::Error::other("prediction did not help here; is the machine busy otherwise?"))
    }
}

fn print_accuracy(accuracy: &[Accuracy], printer: &Printer) {
    let head =
        ["latency", "predictions", "error (MAPE)", "of the best constant", "at or below p90"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(accuracy.iter().map(|a| {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let shares = [a.mape, a.constant, a.coverage].map(percent);
        [a.target.into(), a.scored.to_string()].into_iter().chain(shares).collect()
    }));
    printer.table(&rows);
}

fn print_attainment(comparison: &Comparison, printer: &Printer) {
    let head = [
        "profile",
        "requests",
        "attained",
        "hurried",
        "patient",
        "hurried on fast",
        "p50 ttft",
        "p90 ttft",
        "by turn",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    for (name, outcome) in [
        ("queue-scorer + kv-cache-utilization-scorer", &comparison.load),
        ("*latency-scorer after its filters", &comparison.predicted),
    ] {
        let turns: Vec<String> = outcome.by_turn.iter().map(|share| percent(*share)).collect();
        rows.push(vec![
            name.into(),
            outcome.served.len().to_string(),
            percent(outcome.attained()),
            percent(outcome.attained_of(0)),
            percent(outcome.attained_of(1)),
            percent(outcome.share_on(0, &comparison.fast)),
            format!("{} ms", outcome.ttft(0.5).as_millis()),
            format!("{} ms", outcome.ttft(0.9).as_millis()),
            turns.join(" "),
        ]);
    }
    printer.table(&rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_constant_has_less_error_than_the_best() {
        let error = |guess: f64, values: &[f64]| {
            values.iter().map(|v| (guess - v).abs() / v).sum::<f64>() / values.len() as f64
        };
        let values = [6.0, 15.0, 6.5, 14.0, 7.0, 30.0];
        let best = error_of_best_constant(values.to_vec());
        let guesses = (1..400).map(|tenths| error(f64::from(tenths) / 10.0, &values));
        let least = guesses.fold(f64::INFINITY, f64::min);
        assert!((best - least).abs() < 1e-9, "{best} and {least}");
        assert_eq!(error_of_best_constant(vec![3.0; 4]), 0.0);
        assert_eq!(error_of_best_constant(vec![0.0]), 0.0, "nothing to be compared with");
    }
}
