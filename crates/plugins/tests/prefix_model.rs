//! The approximate prefix index against a literal model of its description.
//!
//! The model keeps, per pod, a list of prompt prefixes in order of their last insertion. Prompts
//! are drawn from few symbols so that they share prefixes, and the capacity is small so that
//! blocks are evicted all the time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::collections::VecDeque;

use inlane_core::columns::PrefixMatch;
use inlane_core::request::{Prompt, Request};
use inlane_core::rng::Rng;

use support::Proxy;

const PODS: usize = 5;
const CAPACITY: usize = 6;
const BLOCK: usize = 64;

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: approx-prefix-cache-producer
  parameters: {autoTune: false, blockSizeTokens: 64, lruCapacityPerServer: 6}
- type: prefix-cache-scorer
- type: weighted-random-picker
";

/// A block is identified by the prompt up to and including it.
type Block = Vec<u32>;

#[derive(Default)]
struct Model {
    pods: [VecDeque<Block>; PODS],
}

impl Model {
    fn blocks(prompt: &[u32]) -> Vec<Block> {
        let ends = (BLOCK..prompt.len()).step_by(BLOCK).chain([prompt.len()]);
        ends.map(|end| prompt[..end].to_vec()).collect()
    }

    fn matches(&self, blocks: &[Block]) -> [u32; PODS] {
        let held = |block: &Block| self.pods.each_ref().map(|pod| pod.contains(block));
        let mut counts = [0; PODS];
        for held in blocks.iter().map(held).take_while(|held| held.contains(&true)) {
            for (count, held) in counts.iter_mut().zip(held) {
                *count += u32::from(held);
            }
        }
        counts
    }

    fn insert(&mut self, pod: usize, blocks: &[Block]) {
        for block in blocks {
            self.pods[pod].retain(|held| held != block);
            self.pods[pod].push_back(block.clone());
            if self.pods[pod].len() > CAPACITY {
                self.pods[pod].pop_front();
            }
        }
    }
}

fn prompt(rng: &mut Rng) -> Vec<u32> {
    let blocks = rng.below(5);
    let tail = rng.below(3) * 20;
    let mut ids = Vec::new();
    for _ in 0..blocks {
        let symbol = rng.below(2);
        ids.extend([symbol; BLOCK]);
    }
    ids.extend(std::iter::repeat_n(7, tail as usize));
    if ids.is_empty() {
        ids.push(1);
    }
    ids
}

#[test]
fn the_index_does_what_its_description_says() {
    let mut hits = 0;
    for stream in 0..20 {
        let mut rng = Rng::new(stream);
        let mut proxy = Proxy::new(CONFIG, PODS as u32);
        let column = proxy.plan.config().schema.find::<PrefixMatch>("approx-prefix-cache-producer");
        let column = column.expect("the producer's column");
        let mut model = Model::default();
        for step in 0..200 {
            let ids = prompt(&mut rng);
            let blocks = Model::blocks(&ids);
            let prompts = [Prompt::Tokens(&ids)];
            let request = Request { target_model: "m", prompts: &prompts, ..Default::default() };
            let pod = proxy.serve(&request, rng.next_u64()) as usize;
            proxy.drain();

            let found: Vec<_> = proxy.scratch.columns.get(column).iter().flatten().collect();
            let matched: Vec<u32> = found.iter().map(|found| found.match_blocks).collect();
            assert_eq!(matched, model.matches(&blocks), "stream {stream}, step {step}");
            assert!(found.iter().all(|found| found.total_blocks as usize == blocks.len()));
            hits += matched.iter().filter(|&&n| n > 0).count();
            model.insert(pod, &blocks);
        }
        let held: usize = model.pods.iter().map(VecDeque::len).sum();
        assert_eq!(proxy.indexes()[0].size() as usize, held);
    }
    assert!(hits > 1_000, "{hits} matches: the streams share too little to tell");
}
