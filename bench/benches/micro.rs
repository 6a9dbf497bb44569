//! Time of every operation, one by one.

use divan::counter::BytesCount;
use inlane_bench::ops;

fn main() {
    divan::main();
}

fn names() -> Vec<String> {
    ops::all().into_iter().map(|operation| operation.name).collect()
}

#[divan::bench(args = names(), max_time = 0.3)]
fn op(bencher: divan::Bencher<'_, '_>, name: &str) {
    let operation = ops::find(name).unwrap_or_else(|| panic!("no operation {name}"));
    let mut run = operation.start().unwrap_or_else(|error| panic!("{name}: {error}"));
    if operation.bytes > 0 {
        bencher.counter(BytesCount::new(operation.bytes)).bench_local(run);
    } else {
        bencher.bench_local(&mut run);
    }
}
