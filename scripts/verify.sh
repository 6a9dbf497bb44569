#!/usr/bin/env bash
# Checks that need a nightly toolchain or more time than a test run has: Miri over the segment's
# protocol code, and every fuzz target for a while (FUZZ_SECONDS, default 60).
set -euo pipefail
cd "$(dirname "$0")/.."

rustup toolchain list | grep -q nightly || rustup toolchain install nightly --profile minimal
rustup +nightly component add miri rust-src >/dev/null
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

echo "== miri: crates/segment"
MIRIFLAGS="-Zmiri-disable-isolation" CARGO_TARGET_DIR=target/miri \
  cargo +nightly miri test -p inlane-segment --lib

# The fuzz packages are workspaces of their own; one target directory serves all of them.
export CARGO_TARGET_DIR=$PWD/target/fuzz
for dir in crates/*/fuzz; do
  for target in $(cd "$dir" && cargo +nightly fuzz list); do
    echo "== fuzz: $dir $target"
    work=$(mktemp -d)
    (cd "$dir" && cargo +nightly fuzz run "$target" "$work" "corpus/$target" -- \
      -max_total_time="${FUZZ_SECONDS:-60}")
    rm -rf "$work"
  done
done
echo "verify: ok"
