//! One process that measures bytes, with an allocator that counts them.
//!
//! `inlane-bench-peers-memory PEER MIX` prints rows for the binary `inlane-bench-peers`;
//! `inlane-bench-peers-memory room MIX` the sizes to be given to `ours` as third and fourth argument.

use std::alloc::System;
use std::env;

use inlane_bench_peers::cells;
use inlane_bench_peers::fleet::Mix;
#[cfg(feature = "dynamo")]
use inlane_bench_peers::peers::Crtc;
use inlane_bench_peers::peers::{Chain, Ours, Room};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn heap() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn main() {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    let mix: Mix = args.get(1).expect("PEER MIX").parse().expect("a mix");
    let rows = match args[..] {
        ["room", _] => {
            let Room { blocks, pages } = cells::smallest_room(mix);
            println!("{blocks} {pages}");
            return;
        }
        ["ours", _, blocks, pages] => {
            let room = Room { blocks: number(blocks), pages: number(pages) };
            cells::memory::<Ours>(mix, Some(room), heap)
        }
        ["ours", _] => cells::memory::<Ours>(mix, None, heap),
        ["kv-index", _] => cells::memory::<Chain>(mix, None, heap),
        #[cfg(feature = "dynamo")]
        ["dynamo", _] => cells::memory::<Crtc>(mix, None, heap),
        _ => panic!("unknown peer `{}`", args[0]),
    };
    print!("{}", rows.0);
}
