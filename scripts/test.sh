#!/usr/bin/env bash
# Every test that `make test` stands for, cheapest first. Each stage prints its name and its time;
# the last line sums the test counts up.
#
#   scripts/test.sh [stage ...]      stages: fmt clippy docs build tests examples loom   (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

stage() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  "$@"
  printf '== %s: ok, %d s\n' "$name" $((SECONDS - start))
}

fmt() { cargo fmt --all --check; }

clippy() { cargo clippy --quiet --workspace --all-targets --locked -- -D warnings; }

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --locked; }

# The integration tests drive the release build, which is what is shipped.
build() {
  cargo build --quiet --release --locked \
    -p inlane-module -p inlane-control -p inlane-sim -p inlane-cli
}

# Unit, property, model, corpus and acceptance tests, and the scenarios in real Envoys.
tests() { cargo test --workspace --locked --no-fail-fast 2>&1 | tee -a "$log"; }

# The crate with plugins of its own, as a user would build it; with the versions of this workspace.
examples() {
  cp Cargo.lock examples/own-plugin/Cargo.lock
  (cd examples/own-plugin && export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../target}" &&
    cargo fmt --check && cargo clippy --quiet --all-targets -- -D warnings &&
    cargo test --no-fail-fast 2>&1) | tee -a "$log"
}

# The production protocol code of the segment under loom: every order of its memory accesses.
loom() {
  RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
    cargo test --locked --release -p inlane-segment --lib models 2>&1 | tee -a "$log"
}

[ $# -gt 0 ] || set -- fmt clippy docs build tests examples loom
for name in "$@"; do
  stage "$name" "$name"
done

awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
