//! Jobs end exactly once, whatever becomes of them.
#![cfg(feature = "prompts")]

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use inlane_text::tokens::{
    Full, Job, Model, Outcome, Pool, PoolSize, PromptApi, PromptError, TokenCache,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    let load = || {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vllm/model");
        Arc::new(Model::load("tiny", &dir, Arc::new(TokenCache::new(1 << 20))).expect("a model"))
    };
    Arc::clone(MODEL.get_or_init(load))
}

fn pool(threads: usize, queue: usize) -> Pool {
    Pool::new(PoolSize { threads, queue, ..PoolSize::default() }).expect("threads")
}

fn job(body: &str, done: impl FnOnce(Outcome) + Send + 'static) -> Job {
    Job {
        model: model(),
        api: PromptApi::Completions,
        body: body.as_bytes().to_vec(),
        deadline: Instant::now() + PATIENCE,
        done: Box::new(done),
    }
}

/// A body of more than 64 KiB.
fn large() -> String {
    format!(r#"{{"prompt":[1],"pad":"{}"}}"#, "x".repeat(70_000))
}

/// Keeps a thread busy until the sender is dropped; the receiver says that it is.
fn block(pool: &Pool, body: &str) -> (Sender<()>, Receiver<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (busy, is_busy) = mpsc::channel();
    let done = move |_| {
        busy.send(()).expect("a receiver");
        let _ = released.recv();
    };
    pool.submit(job(body, done)).expect("room");
    (release, is_busy)
}

#[test]
fn every_job_has_its_own_outcome() {
    let pool = pool(2, 256);
    let (sender, outcomes) = mpsc::channel();
    for index in 0..200_u32 {
        let sender = sender.clone();
        let done = move |outcome: Outcome| drop(sender.send((index, outcome.result)));
        pool.submit(job(&format!(r#"{{"prompt":[{index}]}}"#), done)).expect("room");
    }
    drop(sender);
    let mut seen: Vec<u32> = outcomes
        .iter()
        .map(|(index, result)| {
            assert_eq!(result.expect("tokens").prompts, [vec![index]]);
            index
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..200));
    let counters = pool.counters();
    assert_eq!(counters.buckets().iter().sum::<u64>(), 200);
    assert_eq!((counters.queued(), counters.refused()), (0, 0));
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let pool = pool(1, 2);
    let (release, busy) = block(&pool, r#"{"prompt":"x"}"#);
    busy.recv_timeout(PATIENCE).expect("a busy thread");
    for _ in 0..2 {
        pool.submit(job("{}", |_| {})).expect("room");
    }
    let Full(back) = *pool.submit(job("{\"prompt\":[7]}", |_| {})).expect_err("no room");
    assert_eq!(back.body, b"{\"prompt\":[7]}");
    assert_eq!((pool.counters().refused(), pool.counters().queued()), (1, 2));
    drop(release);
}

#[test]
fn the_bytes_that_wait_are_bounded() {
    let size = PoolSize { threads: 1, queue: 100, bytes: 100 };
    let pool = Pool::new(size).expect("threads");
    let (release, busy) = block(&pool, r#"{"prompt":"x"}"#);
    busy.recv_timeout(PATIENCE).expect("a busy thread");
    pool.submit(job(&"x".repeat(60), |_| {})).expect("room");
    assert!(pool.submit(job(&"x".repeat(60), |_| {})).is_err());
    pool.submit(job(&"x".repeat(30), |_| {})).expect("room");
    drop(release);
}

#[test]
fn a_job_past_its_deadline_is_not_worked_on() {
    let pool = pool(1, 8);
    let (sender, outcomes) = mpsc::channel();
    let done = move |outcome: Outcome| drop(sender.send(outcome.result));
    let late = Job { deadline: Instant::now(), ..job(r#"{"prompt":"x"}"#, done) };
    pool.submit(late).expect("room");
    assert_eq!(outcomes.recv_timeout(PATIENCE), Ok(Err(PromptError::Late)));
    let failures: Vec<_> = pool.counters().failures().filter(|(_, count)| *count > 0).collect();
    assert_eq!(failures, [("late", 1)]);
    assert_eq!(pool.counters().bytes(), 0);
}

#[test]
fn a_caller_that_panics_ends_no_thread() {
    let pool = pool(1, 8);
    pool.submit(job(r#"{"prompt":"x"}"#, |_| panic!("a caller's defect"))).expect("room");
    let (sender, outcomes) = mpsc::channel();
    let done = move |outcome: Outcome| sender.send(outcome.result.is_ok()).expect("a receiver");
    pool.submit(job(r#"{"prompt":"x"}"#, done)).expect("room");
    assert_eq!(outcomes.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn large_bodies_leave_a_thread_to_small_ones() {
    let pool = pool(2, 8);
    let (release, busy) = block(&pool, &large());
    busy.recv_timeout(PATIENCE).expect("a busy thread");
    let (sender, outcomes) = mpsc::channel();
    let second = sender.clone();
    pool.submit(job(&large(), move |_| second.send("large").expect("a receiver"))).expect("room");
    for _ in 0..3 {
        let sender = sender.clone();
        pool.submit(job(r#"{"prompt":"x"}"#, move |_| sender.send("small").expect("a receiver")))
            .expect("room");
    }
    for _ in 0..3 {
        assert_eq!(outcomes.recv_timeout(PATIENCE), Ok("small"));
    }
    assert!(outcomes.try_recv().is_err());
    drop(release);
    assert_eq!(outcomes.recv_timeout(PATIENCE), Ok("large"));
}

#[test]
fn jobs_that_still_wait_when_the_pool_ends_are_told() {
    let pool = pool(1, 8);
    let (release, busy) = block(&pool, r#"{"prompt":"x"}"#);
    busy.recv_timeout(PATIENCE).expect("a busy thread");
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..3 {
        let sender = sender.clone();
        let done = move |outcome: Outcome| drop(sender.send(outcome.result));
        pool.submit(job(r#"{"prompt":"x"}"#, done)).expect("room");
    }
    drop(sender);
    let (ending, ends) = mpsc::channel();
    let end = std::thread::spawn(move || {
        ending.send(()).expect("a receiver");
        drop(pool);
    });
    ends.recv_timeout(PATIENCE).expect("a thread");
    drop(release);
    end.join().expect("the pool ends");
    // The thread may have taken some of them before it saw the end.
    let results: Vec<_> = outcomes.iter().collect();
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|one| one.is_ok() || *one == Err(PromptError::Stopped)));
}

#[test]
fn what_was_tokenized_before_is_counted_as_known() {
    let pool = pool(1, 8);
    let text = "Counting tokens once is enough. ".repeat(40);
    let body = format!(r#"{{"prompt":"{text}"}}"#);
    for turn in 1..=2 {
        let (sender, outcomes) = mpsc::channel();
        pool.submit(job(&body, move |outcome| drop(sender.send(outcome.result)))).expect("room");
        let tokenized = outcomes.recv_timeout(PATIENCE).expect("an outcome").expect("tokens");
        let cached = if turn == 1 { 0 } else { text.len() as u64 };
        assert_eq!((tokenized.work.bytes, tokenized.work.cached), (text.len() as u64, cached));
    }
    assert_eq!(pool.counters().bytes(), 2 * text.len() as u64);
    assert_eq!(pool.counters().cached_bytes(), text.len() as u64);
}
