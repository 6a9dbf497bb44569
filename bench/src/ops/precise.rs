//! The precise prefix step of a decision: keys of a prompt, and who holds its blocks.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroU32;

use inlane_core::endpoint::{Endpoint, EndpointSet, Slot};
use inlane_core::request::{Prompt, Request};
use inlane_core::snapshot::IndexDocument;
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::HashAlgorithm;
use inlane_plugins::precise::score::{TierWeights, Walk};
use inlane_plugins::precise::{EngineIndex, Inquiry, PreciseIndex};
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorWriter};

use super::{Operation, Run};
use crate::Fallible;

/// Tokens per block.
const BLOCK: u32 = 16;
/// Blocks of the prompt that is looked up: 8,192 tokens.
const CHAIN: usize = 512;
/// Blocks that each endpoint holds beside it.
const OTHERS: usize = 1_000;
/// Memory of the mirror.
const BYTES: usize = 256 << 20;

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (name, algorithm, limit) in
        [("cbor-fnv", HashAlgorithm::CborFnv, 80_000.0), ("xxh64", HashAlgorithm::Xxh64, 15_000.0)]
    {
        let keys = Operation::new(format!("precise/keys-10000/{name}"), move || keys(algorithm));
        operations.push(keys.limit_ns(limit).without_allocation());
    }
    for (endpoints, limit) in [(8, 50_000.0), (100, 80_000.0), (1_000, 300_000.0), (10_000, 0.0)] {
        for (what, tiers, expected) in
            [("gpu", 1, false), ("gpu-cpu", 2, false), ("gpu-expected", 1, true)]
        {
            let name = format!("precise/{what}-512/{endpoints}");
            let walk = Operation::new(name, move || walk(endpoints, tiers, expected));
            let walk = walk.without_allocation();
            operations.push(if limit > 0.0 { walk.limit_ns(limit) } else { walk });
        }
    }
    operations
}

fn keying(algorithm: HashAlgorithm) -> Keying {
    Keying::new(algorithm, "", NonZeroU32::new(BLOCK).unwrap_or(NonZeroU32::MIN))
}

/// The keys of a prompt of 10,000 tokens of a large vocabulary.
fn keys(algorithm: HashAlgorithm) -> Fallible<Run> {
    let mut rng = fastrand::Rng::with_seed(1);
    let ids: Vec<u32> = std::iter::repeat_with(|| rng.u32(..128_000)).take(10_000).collect();
    let (keying, mut out) = (keying(algorithm), Vec::new());
    Ok(Box::new(move || {
        let prompts = [Prompt::Tokens(black_box(&ids))];
        let request = Request { target_model: "m", prompts: &prompts, ..Request::default() };
        out.clear();
        keying.keys(&request, 0, &mut out);
        assert_eq!(out.len(), 625);
    }))
}

/// Who holds a prompt's blocks: endpoint `i` of `n` the first `(i + 1) / n`, so that every length
/// occurs; beside them each holds blocks of its own. With two tiers the rear of what every
/// second endpoint holds is on the CPU.
fn walk(endpoints: u32, tiers: u8, expected: bool) -> Fallible<Run> {
    let pool = EndpointSet::new(1, (0..endpoints).map(endpoint).collect());
    let spec = MirrorSpec::within(usize::try_from(endpoints)?, BYTES);
    let words = MappedWords::anonymous(spec.words()?)?;
    let view = words.view();
    let mut mirror = MirrorWriter::create(words, &spec, 7)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let chain: Vec<u64> = std::iter::repeat_with(|| rng.u64(..)).take(CHAIN).collect();
    let others = if endpoints > 1_000 { OTHERS / 10 } else { OTHERS };
    for slot in 0..u16::try_from(endpoints)? {
        let held = CHAIN * (usize::from(slot) + 1) / endpoints as usize;
        let on_gpu = if tiers > 1 && slot % 2 == 1 { held * 3 / 4 } else { held };
        let own: Vec<u64> = std::iter::repeat_with(|| rng.u64(..)).take(others).collect();
        let refused = mirror.hold(slot, 0, &chain[..on_gpu], &chain[..on_gpu])
            + mirror.hold(slot, 1, &chain[on_gpu..held], &chain[on_gpu..held])
            + mirror.hold(slot, 0, &own, &own);
        if refused > 0 {
            return Err("the mirror is too small".into());
        }
    }
    let index = EngineIndex::default();
    let document = IndexDocument {
        block_tokens: BLOCK,
        algorithm: "cbor-fnv".into(),
        tiers: vec!["gpu".into(), "cpu".into()],
        ..IndexDocument::default()
    };
    index.follow(Some((MirrorReader::open(view)?, document)));
    let weights = TierWeights::default();
    if expected {
        index.make_room()?;
        let request = Request::default();
        let inquiry = Inquiry {
            request: &request,
            prompt: 0,
            keys: &chain,
            endpoints: &pool,
            weights: &weights,
        };
        (0..endpoints.min(20)).for_each(|ix| index.expect(&inquiry, ix, 1 << 40));
        index.pass(0);
    }
    let mut walk = Walk::default();
    Ok(Box::new(move || {
        let request = Request::default();
        let keys = black_box(&chain[..]);
        walk.begin(pool.len());
        let inquiry =
            Inquiry { request: &request, prompt: 0, keys, endpoints: &pool, weights: &weights };
        assert_eq!(index.walk(&inquiry, &mut walk) as usize, CHAIN);
        let best = walk.scored().fold(0.0, |best: f64, (_, score)| best.max(score));
        assert!(best > 400.0, "{best}");
    }))
}

fn endpoint(slot: u32) -> Endpoint {
    let name = format!("pod-{slot:05}");
    Endpoint {
        id: format!("default/{name}"),
        namespace: "default".into(),
        pod_name: name.clone(),
        name,
        address: "10.0.0.1".into(),
        port: 8000,
        host_port: "10.0.0.1:8000".into(),
        rank: 0,
        labels: BTreeMap::new(),
        slot: Slot { index: slot, generation: 1 },
    }
}
