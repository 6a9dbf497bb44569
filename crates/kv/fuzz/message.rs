//! Any payloads, one after the other: decoded, applied, and nothing of it left after a reset. Shared by the
//! fuzz target and the test that replays the corpus.
//!
//! The first byte chooses the sizes, the rest is split at the bytes `7f 7f`.

use std::num::NonZeroU32;

use inlane_kv::event::{EngineType, decode};
use inlane_kv::frames::{Message, Replayed};
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_kv::literal::LiteralMirror;
use inlane_kv::topic::Topic;
use inlane_kv::{Applier, Limits, Mirror};

pub(crate) fn message(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let block = NonZeroU32::new(u32::from(first >> 4) + 1).unwrap_or(NonZeroU32::MIN);
    let (algorithm, engine) = match first & 1 {
        0 => (Algorithm::CborFnv, EngineType::Vllm),
        _ => (Algorithm::Xxh64, EngineType::Sglang),
    };
    let limits = Limits { blocks_per_slot: 1 << 10, tails_per_slot: 1 << 8 };
    let mut applier = Applier::new(Hasher::new(algorithm, "", block), [], limits);
    let mut mirror = LiteralMirror::with_room(1 << 12);

    let frames: Vec<&[u8]> = rest.splitn(4, |byte| *byte == 0x7e).collect();
    let _ = Message::live(&frames);
    let _ = Replayed::parse(&frames);
    let topic = Topic::parse(rest).unwrap_or_default();
    let mut start = 0;
    let ends = rest.windows(2).enumerate().filter(|(_, pair)| *pair == [0x7f, 0x7f]);
    for end in ends.map(|(at, _)| at).chain([rest.len()]) {
        if let Ok(batch) = decode(rest.get(start..end).unwrap_or_default(), engine) {
            applier.apply(&mut mirror, 0, topic.model, &batch);
        }
        start = end + 2;
    }
    assert!(mirror.len(0) <= 2 << 10);
    applier.clear(&mut mirror, 0);
    assert!(mirror.is_empty(0));
}
