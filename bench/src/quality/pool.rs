//! The engines and the clock.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use inlane_core::endpoint::EndpointIx;
use inlane_sim::config::duration::GoDuration;
use inlane_sim::config::tunables::{Calculator, LoadFactor, Tunables};
use inlane_sim::engine::hash::Chain;
use inlane_sim::engine::job::{End, Finish, Job, Listener};
use inlane_sim::engine::{Engine, Limits};
use inlane_sim::text::reply::Reply;

use super::router::{Booked, Router, Scraped};
use super::workload::{Arrivals, Asked};
use super::{Outcome, Policy, SCRAPE, Scenario, Workload};
use crate::Fallible;

/// Cache blocks of 16 tokens: about 65,000 tokens per pod.
const BLOCKS: u32 = 4_096;
const BLOCK_SIZE: usize = 16;
/// Requests that a pod runs at once.
const RUNNING: usize = 16;

/// 100 µs per prompt token, 15 ms per answer token, twice that when the pod is full.
fn tunables() -> Fallible<Tunables> {
    Ok(Tunables {
        latency_calculator: Calculator::PerToken,
        prefill_overhead: GoDuration(Duration::from_millis(5)),
        prefill_time_per_token: GoDuration(Duration::from_micros(100)),
        inter_token_latency: GoDuration(Duration::from_millis(15)),
        time_factor_under_load: LoadFactor::try_from(2.0)?,
        ..Tunables::default()
    })
}

/// What an engine has said since it was asked last.
type Outbox = Rc<RefCell<Vec<(u64, Said)>>>;

enum Said {
    Token,
    End(End),
}

struct Voice {
    id: u64,
    outbox: Outbox,
}

impl Listener for Voice {
    fn released(&self, _tokens: usize) {
        self.outbox.borrow_mut().push((self.id, Said::Token));
    }

    fn finished(&self, end: End) {
        self.outbox.borrow_mut().push((self.id, Said::End(end)));
    }
}

/// A request on its way.
struct Flight {
    asked: Asked,
    reply: Arc<Reply>,
    pod: EndpointIx,
    booked: Booked,
    first_token: Option<Duration>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Scrape,
    Engine(EndpointIx),
    FollowUp(u64),
    Arrival,
}

/// A run, see [`Scenario`].
pub(super) struct Pool {
    scenario: Scenario,
    router: Router,
    engines: Vec<Engine<Voice>>,
    /// When each engine is called next.
    due: Vec<Option<Duration>>,
    outbox: Outbox,
    arrivals: Arrivals,
    arriving: Option<Asked>,
    /// Turns that wait for their time.
    follow_ups: HashMap<u64, Asked>,
    flights: HashMap<u64, Flight>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    next_id: u64,
    replies: Rng,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    first_tokens: Vec<f64>,
    totals: Vec<f64>,
    prompt_tokens: usize,
    cached_tokens: usize,
    fullest: f64,
    mean: f64,
}

impl Pool {
    pub(super) fn new(scenario: &Scenario, policy: &Policy) -> Fallible<Self> {
        let limits = Limits {
            running: RUNNING,
            waiting: usize::MAX,
            adapters: 1,
            block_size: BLOCK_SIZE,
            blocks: Some(BLOCKS),
            model_len: 32_768,
            events: false,
        };
        let &Scenario { workload, pods, seed, .. } = scenario;
        let tunables = tunables()?;
        let engines = (0..pods).map(|pod| Engine::new(limits, tunables.clone(), pod.into()));
        Ok(Self {
            scenario: *scenario,
            router: Router::new(policy, pods, seed)?,
            engines: engines.collect(),
            due: vec![None; pods as usize],
            outbox: Outbox::default(),
            arrivals: Arrivals::new(workload, pods, seed),
            arriving: None,
            follow_ups: HashMap::new(),
            flights: HashMap::new(),
            events: BinaryHeap::new(),
            next_id: 0,
            replies: Rng::with_seed(seed ^ 0x5eed),
            tally: Tally::default(),
        })
    }

    /// Runs until the last request that arrived in time is answered.
    pub(super) fn run(mut self) -> Fallible<Outcome> {
        let origin = Instant::now();
        self.events.push(Reverse((Duration::ZERO, Event::Scrape)));
        self.expect_arrival();
        while let Some(Reverse((now, event))) = self.events.pop() {
            match event {
                Event::Scrape => self.scrape(now),
                Event::Arrival => {
                    let asked = self.arriving.take().ok_or("nobody arrives")?;
                    self.send(asked, origin)?;
                    self.expect_arrival();
                }
                Event::FollowUp(id) => {
                    let asked = self.follow_ups.remove(&id).ok_or("no such turn")?;
                    self.send(asked, origin)?;
                }
                Event::Engine(pod) if self.due[pod as usize] == Some(now) => {
                    self.drive(pod, now, origin);
                }
                Event::Engine(_) => {}
            }
        }
        Ok(self.tally.outcome())
    }

    fn expect_arrival(&mut self) {
        self.arriving = self.arrivals.next().filter(|asked| asked.at < self.scenario.length);
        if let Some(asked) = &self.arriving {
            self.events.push(Reverse((asked.at, Event::Arrival)));
        }
    }

    fn send(&mut self, asked: Asked, origin: Instant) -> Fallible<()> {
        let (id, now) = (self.next_id, asked.at);
        self.next_id += 1;
        let millis = now.as_millis() as u64;
        let (pod, booked) = self.router.route(id, &asked.prompt, asked.answer as u64, millis)?;
        let reply = Arc::new(Reply::random(asked.answer, &mut self.replies));
        let job = Job {
            prompt: asked.prompt.clone(),
            reply: Arc::clone(&reply),
            finish: Finish::Stop,
            adapter: None,
            chain: Chain::default(),
            origin: Arc::default(),
            report_reused: false,
            max_tokens: None,
            choices: 1,
            remote_prefill: false,
            cache_threshold: None,
            stepwise: false,
            listener: Voice { id, outbox: Rc::clone(&self.outbox) },
        };
        self.engines[pod as usize].submit(job, origin + now)?;
        self.flights.insert(id, Flight { asked, reply, pod, booked, first_token: None });
        self.drive(pod, now, origin);
        Ok(())
    }

    fn drive(&mut self, pod: EndpointIx, now: Duration, origin: Instant) {
        let due = self.engines[pod as usize].poll(origin + now);
        let due = due.map(|due| due.duration_since(origin));
        self.due[pod as usize] = due;
        if let Some(due) = due {
            self.events.push(Reverse((due, Event::Engine(pod))));
        }
        let mut said = std::mem::take(&mut *self.outbox.borrow_mut());
        for (id, said) in said.drain(..) {
            match said {
                Said::Token => {
                    let Some(flight) = self.flights.get_mut(&id) else { continue };
                    if flight.first_token.is_none() {
                        flight.first_token = Some(now);
                        self.router.first_token(flight.pod, &mut flight.booked);
                    }
                }
                Said::End(end) => self.finish(id, &end, now),
            }
        }
        *self.outbox.borrow_mut() = said;
    }

    fn finish(&mut self, id: u64, end: &End, now: Duration) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.router.end(flight.pod, flight.booked);
        let Flight { asked, reply, first_token, .. } = flight;
        if asked.at >= self.scenario.warm_up {
            let since = |at: Duration| (at - asked.at).as_secs_f64();
            self.tally.first_tokens.push(since(first_token.unwrap_or(now)));
            self.tally.totals.push(since(now));
            self.tally.prompt_tokens += asked.prompt.len();
            self.tally.cached_tokens += end.cached;
        }
        let next = Workload::follow_up(&asked, reply.ids(), now);
        if let Some(next) = next.filter(|next| next.at < self.scenario.length) {
            self.events.push(Reverse((next.at, Event::FollowUp(id))));
            self.follow_ups.insert(id, next);
        }
    }

    /// Shows the scheduler every engine as it is now.
    fn scrape(&mut self, now: Duration) {
        let (mut fullest, mut all) = (0, 0);
        for (engine, row) in self.engines.iter().zip(&mut self.router.scraped) {
            let cache = engine.cache().map_or((0, 1), |c| (c.referenced(), c.capacity()));
            let (waiting, running) = (engine.waiting(), engine.running());
            fullest = fullest.max(waiting + running);
            all += waiting + running;
            *row = Scraped {
                waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
                running: running as u32,
                kv_usage: cache.0 as f64 / cache.1 as f64,
                block_size: BLOCK_SIZE as u32,
                blocks: BLOCKS,
            };
        }
        if now >= self.scenario.warm_up && now < self.scenario.length {
            self.tally.fullest += fullest as f64;
            self.tally.mean += all as f64 / self.engines.len() as f64;
        }
        if now < self.scenario.length {
            self.events.push(Reverse((now + SCRAPE, Event::Scrape)));
        }
    }
}

impl Tally {
    fn outcome(mut self) -> Outcome {
        self.first_tokens.sort_by(f64::total_cmp);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let requests = self.first_tokens.len();
        let p95 = requests.saturating_sub(1) * 95 / 100;
        Outcome {
            requests,
            ttft_mean: mean(&self.first_tokens),
            ttft_p95: self.first_tokens.get(p95).copied().unwrap_or_default(),
            total_mean: mean(&self.totals),
            hit_ratio: self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64,
            imbalance: self.fullest / self.mean.max(f64::MIN_POSITIVE),
        }
    }
}
