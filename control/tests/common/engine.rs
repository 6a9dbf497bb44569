//! A publisher of KV-cache events that does what a test says.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use rmp::encode;

/// Tokens per block, of the engine and in the keys.
pub(crate) const BLOCK: usize = 16;

/// The model that topics name.
pub(crate) const MODEL: &str = "m";

/// How answers to replay requests look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// vLLM from 0.26: with a topic.
    Topic,
    /// vLLM to 0.24: without.
    Bare,
}

/// Where it publishes and what it keeps.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) address: IpAddr,
    /// Port of its requests, for the topic.
    pub(crate) port: u16,
    pub(crate) events: u16,
    pub(crate) replays: Option<u16>,
    pub(crate) form: Form,
    /// Batches that can be replayed.
    pub(crate) buffer: usize,
}

impl Setup {
    pub(crate) fn topic(&self) -> String {
        format!("kv@{}:{}@{MODEL}", self.address, self.port)
    }
}

type Buffer = Arc<Mutex<VecDeque<(u64, Vec<u8>)>>>;

/// See the [module](self).
pub(crate) struct Engine {
    pub(crate) setup: Setup,
    socket: zmq::Socket,
    next: u64,
    buffer: Buffer,
    /// Whether replays are answered.
    pub(crate) answers: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    replaying: Option<JoinHandle<()>>,
}

impl Engine {
    /// One that binds.
    pub(crate) fn start(setup: Setup) -> Self {
        let url = format!("tcp://{}:{}", setup.address, setup.events);
        Self::with(setup, |socket| bind(socket, &url))
    }

    /// One that connects to a central subscriber.
    pub(crate) fn connect(setup: Setup, url: &str) -> Self {
        Self::with(setup, |socket| socket.connect(url).unwrap())
    }

    fn with(setup: Setup, open: impl FnOnce(&zmq::Socket)) -> Self {
        let context = zmq::Context::new();
        // A PUB that tells who subscribes.
        let socket = context.socket(zmq::XPUB).unwrap();
        socket.set_xpub_verbose(true).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_sndhwm(100_000).unwrap();
        open(&socket);
        let buffer = Buffer::default();
        let (answers, ends) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let replaying = setup.replays.map(|port| {
            let router = context.socket(zmq::ROUTER).unwrap();
            router.set_linger(0).unwrap();
            router.set_rcvtimeo(20).unwrap();
            bind(&router, &format!("tcp://{}:{port}", setup.address));
            let (topic, form, buffer) = (setup.topic(), setup.form, Arc::clone(&buffer));
            let (answers, ends) = (Arc::clone(&answers), Arc::clone(&ends));
            thread::spawn(move || serve(&router, &topic, form, &buffer, &answers, &ends))
        });
        Self { setup, socket, next: 0, buffer, answers, ends, replaying }
    }

    /// Waits until one more subscriber hears what is published: that its connection stands is too
    /// early.
    pub(crate) fn heard(&self) {
        loop {
            assert!(self.socket.poll(zmq::POLLIN, 20_000).unwrap() > 0, "nobody subscribes");
            // 0 ends a subscription.
            if self.socket.recv_bytes(0).unwrap().first() == Some(&1) {
                return;
            }
        }
    }

    /// Publishes a batch of events.
    pub(crate) fn publish(&mut self, events: &[Event<'_>]) {
        let (seq, payload) = self.take(events);
        self.send(seq, &payload);
    }

    /// The same with a message that gets lost.
    pub(crate) fn lose(&mut self, events: &[Event<'_>]) {
        self.take(events);
    }

    /// Publishes a batch that was encoded before and is not kept for replays.
    pub(crate) fn publish_encoded(&mut self, payload: &[u8]) {
        let seq = self.next;
        self.next += 1;
        self.send(seq, payload);
    }

    fn send(&self, seq: u64, payload: &[u8]) {
        let topic = self.setup.topic();
        let frames = [topic.as_bytes(), &seq.to_be_bytes(), payload];
        self.socket.send_multipart(frames, 0).unwrap();
    }

    fn take(&mut self, events: &[Event<'_>]) -> (u64, Vec<u8>) {
        let seq = self.next;
        self.next += 1;
        let payload = batch(events);
        let mut buffer = self.buffer.lock().unwrap();
        buffer.push_back((seq, payload.clone()));
        while buffer.len() > self.setup.buffer {
            buffer.pop_front();
        }
        (seq, payload)
    }

    /// Publishes any frames.
    pub(crate) fn publish_frames(&self, frames: &[&[u8]]) {
        self.socket.send_multipart(frames, 0).unwrap();
    }

    /// Ends it and starts another in its place, which knows nothing.
    pub(crate) fn restart(self) -> Self {
        let setup = self.setup.clone();
        drop(self);
        Self::start(setup)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.replaying.take() {
            thread.join().unwrap();
        }
    }
}

/// Binds, if need be after a predecessor has let go.
fn bind(socket: &zmq::Socket, url: &str) {
    for _ in 0..200 {
        match socket.bind(url) {
            Ok(()) => return,
            Err(zmq::Error::EADDRINUSE) => thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{url}: {error}"),
        }
    }
    panic!("{url} stays in use");
}

fn serve(
    router: &zmq::Socket,
    topic: &str,
    form: Form,
    buffer: &Mutex<VecDeque<(u64, Vec<u8>)>>,
    answers: &AtomicBool,
    ends: &AtomicBool,
) {
    while !ends.load(Ordering::Acquire) {
        let Ok(request) = router.recv_multipart(0) else { continue };
        let [client, empty, from] = &request[..] else { continue };
        if !answers.load(Ordering::Acquire) {
            continue;
        }
        let from = u64::from_be_bytes(from[..].try_into().unwrap());
        let kept = buffer.lock().unwrap().clone();
        let end = (u64::MAX, Vec::new());
        let wanted = kept.into_iter().filter(|(seq, _)| *seq >= from);
        for (seq, payload) in wanted.chain([end]) {
            let topic = if seq == u64::MAX { &[][..] } else { topic.as_bytes() };
            let mut frames = vec![client.clone(), empty.clone()];
            if form == Form::Topic {
                frames.push(topic.to_vec());
            }
            frames.extend([seq.to_be_bytes().to_vec(), payload]);
            router.send_multipart(frames, 0).unwrap();
        }
    }
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    /// The blocks of these tokens, which follow `parent`.
    Stored {
        tokens: &'a [u32],
        parent: Option<u64>,
    },
    Removed(&'a [u64]),
    Cleared,
}

/// A batch as vLLM encodes it.
pub(crate) fn batch(events: &[Event<'_>]) -> Vec<u8> {
    use std::time::SystemTime;
    let out = &mut Vec::new();
    encode::write_array_len(out, 3).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    encode::write_f64(out, now.as_secs_f64()).unwrap();
    encode::write_array_len(out, events.len() as u32).unwrap();
    for event in events {
        match *event {
            Event::Stored { tokens, parent } => {
                map(out, "BlockStored", 5);
                encode::write_str(out, "block_hashes").unwrap();
                hashes(out, &engine_hashes(tokens, parent));
                encode::write_str(out, "parent_block_hash").unwrap();
                match parent {
                    Some(parent) => drop(encode::write_uint(out, parent).unwrap()),
                    None => encode::write_nil(out).unwrap(),
                }
                encode::write_str(out, "token_ids").unwrap();
                encode::write_array_len(out, tokens.len() as u32).unwrap();
                for &token in tokens {
                    encode::write_uint(out, token.into()).unwrap();
                }
                encode::write_str(out, "block_size").unwrap();
                encode::write_uint(out, BLOCK as u64).unwrap();
                encode::write_str(out, "lora_id").unwrap();
                encode::write_nil(out).unwrap();
            }
            Event::Removed(list) => {
                map(out, "BlockRemoved", 2);
                encode::write_str(out, "block_hashes").unwrap();
                hashes(out, list);
                encode::write_str(out, "medium").unwrap();
                encode::write_str(out, "GPU").unwrap();
            }
            Event::Cleared => map(out, "AllBlocksCleared", 0),
        }
    }
    encode::write_uint(out, 0).unwrap();
    std::mem::take(out)
}

fn map(out: &mut Vec<u8>, tag: &str, fields: u32) {
    encode::write_map_len(out, fields + 1).unwrap();
    encode::write_str(out, "type").unwrap();
    encode::write_str(out, tag).unwrap();
}

fn hashes(out: &mut Vec<u8>, list: &[u64]) {
    encode::write_array_len(out, list.len() as u32).unwrap();
    for &hash in list {
        encode::write_uint(out, hash).unwrap();
    }
}

/// What the engine calls the blocks of these tokens: a chain of hashes of its own.
pub(crate) fn engine_hashes(tokens: &[u32], parent: Option<u64>) -> Vec<u64> {
    let mut hash = parent.unwrap_or(0x5eed);
    let block = |block: &[u32]| {
        hash = block.iter().fold(hash, |hash, &token| {
            (hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        hash
    };
    tokens.chunks_exact(BLOCK).map(block).collect()
}

/// The keys by which a prompt of these tokens is looked up.
pub(crate) fn keys(tokens: &[u32]) -> Vec<u64> {
    let size = std::num::NonZeroU32::new(BLOCK as u32).unwrap();
    let hasher = Hasher::new(Algorithm::CborFnv, "", size);
    let mut keys = Vec::new();
    hasher.extend(hasher.start(MODEL), tokens, &Extras::NONE, &mut keys);
    keys
}

/// Tokens of so many blocks, different for every `seed`.
pub(crate) fn prompt(seed: u32, blocks: usize) -> Vec<u32> {
    let token = |at: usize| {
        let mixed = (seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9)
            ^ (at as u32).wrapping_mul(2_654_435_761);
        (mixed >> 8) % 128_000
    };
    (0..blocks * BLOCK).map(token).collect()
}
