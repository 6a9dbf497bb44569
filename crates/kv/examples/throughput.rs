//! How fast prompts are hashed, and messages decoded and applied.
//!
//! `cargo run --release -p inlane-kv --example throughput`

use std::error::Error;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use inlane_kv::event::{Batch, Buffers, EngineType, decode_into};
use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_kv::{Applier, Limits, Mirror};

/// Rounds; the fastest counts, and the one in the middle.
const ROUNDS: usize = 2_001;

fn main() -> Result<(), Box<dyn Error>> {
    let block = NonZeroU32::new(16).ok_or("a block holds tokens")?;
    for vocabulary in [32_000, 128_000, 200_000] {
        let tokens: Vec<u32> =
            random(1).map(|word| word as u32 % vocabulary).take(10_000).collect();
        for algorithm in [Algorithm::CborFnv, Algorithm::Xxh64] {
            let hasher = Hasher::new(algorithm, "", block);
            let mut keys = Vec::new();
            let name = format!("{} of 10,000 tokens of {vocabulary}", algorithm.name());
            time(&name, 1.0, || {
                keys.clear();
                hasher.extend(hasher.start("model"), black_box(&tokens), &Extras::NONE, &mut keys);
                black_box(&keys);
            });
        }
    }
    for (blocks, messages) in [(1, 512), (64, 8)] {
        let payloads: Vec<Vec<u8>> =
            (0..messages).map(|message| store(message, blocks)).collect::<Result<_, _>>()?;
        let mut buffers = Buffers::default();
        let operations = f64::from(blocks) * f64::from(messages);
        time(&format!("decoding, {blocks} blocks per message, per block"), operations, || {
            for payload in &payloads {
                let batch = decode_into(payload, EngineType::Vllm, std::mem::take(&mut buffers));
                buffers = black_box(batch).map(Batch::into_buffers).unwrap_or_default();
            }
        });
        for algorithm in [Algorithm::CborFnv, Algorithm::Xxh64] {
            let hasher = Hasher::new(algorithm, "", block);
            let mut applier = Applier::new(hasher, [], Limits::default());
            let name = format!("decoding and applying, {blocks} blocks, {}", algorithm.name());
            time(&name, operations, || {
                for payload in &payloads {
                    let batch =
                        decode_into(payload, EngineType::Vllm, std::mem::take(&mut buffers));
                    if let Ok(batch) = batch {
                        black_box(applier.apply(&mut Nothing, 0, "model", &batch));
                        buffers = batch.into_buffers();
                    }
                }
            });
        }
    }
    Ok(())
}

fn time(name: &str, operations: f64, mut run: impl FnMut()) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let [fastest, middle] = [times[0], times[ROUNDS / 2]].map(|t| t / operations * 1e6);
    println!("{name:<52} {fastest:>9.3} µs, median {middle:>9.3} µs");
}

/// A message that stores so many blocks of sixteen tokens, as vLLM 0.32 sends it.
fn store(message: u32, blocks: u32) -> Result<Vec<u8>, Box<dyn Error>> {
    use rmp::encode as write;
    let mut words = random(u64::from(message) + 7);
    let mut out = Vec::new();
    write::write_array_len(&mut out, 3)?;
    write::write_f64(&mut out, 1.5)?;
    write::write_array_len(&mut out, 1)?;
    write::write_map_len(&mut out, 11)?;
    write::write_str(&mut out, "type")?;
    write::write_str(&mut out, "BlockStored")?;
    write::write_str(&mut out, "block_hashes")?;
    write::write_array_len(&mut out, blocks)?;
    for hash in words.by_ref().take(blocks as usize) {
        write::write_uint(&mut out, hash)?;
    }
    write::write_str(&mut out, "parent_block_hash")?;
    write::write_nil(&mut out)?;
    write::write_str(&mut out, "token_ids")?;
    write::write_array_len(&mut out, blocks * 16)?;
    for token in words.by_ref().take(blocks as usize * 16) {
        write::write_uint(&mut out, token % 128_000)?;
    }
    write::write_str(&mut out, "block_size")?;
    write::write_uint(&mut out, 16)?;
    for name in ["lora_id", "lora_name"] {
        write::write_str(&mut out, name)?;
        write::write_nil(&mut out)?;
    }
    write::write_str(&mut out, "medium")?;
    write::write_str(&mut out, "GPU")?;
    write::write_str(&mut out, "extra_keys")?;
    write::write_array_len(&mut out, blocks)?;
    for _ in 0..blocks {
        write::write_nil(&mut out)?;
    }
    write::write_str(&mut out, "group_idx")?;
    write::write_uint(&mut out, 0)?;
    write::write_str(&mut out, "kv_cache_spec_kind")?;
    write::write_str(&mut out, "full_attention")?;
    write::write_uint(&mut out, 0)?;
    Ok(out)
}

/// A mirror that is always empty.
struct Nothing;

impl Mirror for Nothing {
    fn hold(&mut self, _: u16, _: u8, engine: &[u64], keys: &[u64]) -> usize {
        black_box((engine, keys));
        0
    }

    fn release(&mut self, _: u16, _: u8, _: u64) -> bool {
        true
    }

    fn keys_of(&self, _: u16, _: u64, _: &mut Vec<u64>) {}

    fn clear(&mut self, _: u16) {}

    fn len(&self, _: u16) -> usize {
        0
    }
}

fn random(mut state: u64) -> impl Iterator<Item = u64> {
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    })
}
