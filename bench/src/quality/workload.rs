//! What is asked: arrivals and prompts, from a seed.

use std::time::Duration;

use fastrand::Rng;

/// Tokens of a shared beginning: a system prompt, a template.
const SHARED: usize = 1_024;
/// Time between bursts.
const BURST: Duration = Duration::from_secs(4);
/// A burst arrives within this time.
const WITHIN: Duration = Duration::from_millis(20);

/// A kind of traffic. Rates are per pod, so that a larger pool is as busy as a small one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Conversations of 2 to 8 turns under one of `max(16, pods / 4)` system prompts. Each turn sends
    /// all that was said before; the next follows some seconds after the answer.
    Chat,
    /// Prompts that share nothing, 512 to 1,535 tokens.
    Random,
    /// Every 4 s six requests per pod within 20 ms, in groups of 2 per pod that share 1,024 of 1,280
    /// tokens, over random prompts.
    Burst,
}

/// A request that is about to be made.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) at: Duration,
    pub(super) prompt: Vec<u32>,
    /// Tokens of the answer.
    pub(super) answer: usize,
    /// Further turns of the conversation.
    pub(super) turns: u32,
}

/// A stream of requests that come by themselves.
pub(super) struct Arrivals {
    workload: Workload,
    pods: u32,
    rng: Rng,
    shared: Vec<Vec<u32>>,
    now: Duration,
    /// Of the burst that is arriving: what is left of it.
    burst: Vec<Asked>,
    next_burst: Duration,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Random, Self::Burst];

    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Random => "random",
            Self::Burst => "burst",
        }
    }

    /// Requests, or conversations, per pod and second that come by themselves.
    fn rate(self) -> f64 {
        match self {
            Self::Chat => 1.3,
            Self::Random => 6.0,
            Self::Burst => 2.5,
        }
    }

    /// The next turn of a conversation after an answer that ended at `now`.
    pub(super) fn follow_up(asked: &Asked, answer: &[u32], now: Duration) -> Option<Asked> {
        let turns = asked.turns.checked_sub(1)?;
        // From the conversation itself, so that it goes on alike wherever it was served.
        let last = asked.prompt.last().copied().unwrap_or_default();
        let mut rng = Rng::with_seed(u64::from(last) << 32 | u64::from(turns));
        let mut prompt = asked.prompt.clone();
        prompt.extend_from_slice(answer);
        prompt.extend(tokens(&mut rng, 40..200));
        let at = now + exponential(&mut rng, 0.2);
        Some(Asked { at, prompt, answer: rng.usize(32..128), turns })
    }
}

impl Arrivals {
    pub(super) fn new(workload: Workload, pods: u32, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let groups = (pods / 4).max(16);
        let shared = (0..groups).map(|_| tokens(&mut rng, SHARED..SHARED + 1)).collect();
        let (now, burst, next_burst) = (Duration::ZERO, Vec::new(), BURST);
        Self { workload, pods, rng, shared, now, burst, next_burst }
    }

    fn by_itself(&mut self) -> Asked {
        let rng = &mut self.rng;
        match self.workload {
            Workload::Chat => {
                let mut prompt = self.shared[rng.usize(..self.shared.len())].clone();
                prompt.extend(tokens(rng, 40..200));
                let (answer, turns) = (rng.usize(32..128), rng.u32(1..8));
                Asked { at: self.now, prompt, answer, turns }
            }
            Workload::Random | Workload::Burst => {
                let prompt = tokens(rng, 512..1_536);
                Asked { at: self.now, prompt, answer: rng.usize(32..128), turns: 0 }
            }
        }
    }

    /// Several groups, each with a beginning that nobody has seen before.
    fn begin_burst(&mut self) {
        let rng = &mut self.rng;
        let start = self.next_burst;
        for _ in 0..3 {
            let shared = tokens(rng, SHARED..SHARED + 1);
            for _ in 0..2 * self.pods {
                let mut prompt = shared.clone();
                prompt.extend(tokens(rng, 256..257));
                let at = start + WITHIN.mul_f64(rng.f64());
                self.burst.push(Asked { at, prompt, answer: rng.usize(32..128), turns: 0 });
            }
        }
        // The earliest is taken first, from the end.
        self.burst.sort_by_key(|asked| std::cmp::Reverse(asked.at));
        self.next_burst += BURST;
    }
}

impl Iterator for Arrivals {
    type Item = Asked;

    fn next(&mut self) -> Option<Asked> {
        if let Some(asked) = self.burst.pop() {
            self.now = asked.at;
            return Some(asked);
        }
        let rate = self.workload.rate() * f64::from(self.pods);
        let next = self.now + exponential(&mut self.rng, rate);
        if self.workload == Workload::Burst && next >= self.next_burst {
            self.begin_burst();
            return self.next();
        }
        self.now = next;
        Some(self.by_itself())
    }
}

fn tokens(rng: &mut Rng, count: std::ops::Range<usize>) -> Vec<u32> {
    let count = rng.usize(count);
    (0..count).map(|_| rng.u32(..)).collect()
}

/// A time between events that come `rate` times a second on average.
fn exponential(rng: &mut Rng, rate: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / rate)
}
