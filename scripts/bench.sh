#!/usr/bin/env bash
# All benchmarks, one table at the end; raw output under bench/results/<date>-<host>/.
#
#   scripts/bench.sh [macro micro counted quality kv outage text peers]      default: all but peers
#   ROUNDS=3 SECONDS_PER_CELL=3                 how long the macro benchmark measures
#   PEER_ROUNDS=5                               processes per cell of the peers benchmark
#   KV_ROUNDS=5 OUTAGE_ROUNDS=5 TEXT_ROUNDS=4   rounds of kv, outage and text
#
# Nothing else should run meanwhile: load generator, pods and proxies share the cores. The macro
# rows say how busy the machine was. A whole run takes about twenty minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO="${CARGO:-cargo}"

model=$(awk -F': *' '/^model name/ { print tolower($2); exit }' /proc/cpuinfo | tr -cs 'a-z0-9\n' '-')
out="bench/results/$(date -u +%Y-%m-%dT%H%MZ)-$(nproc)x${model:-$(uname -m)}"
out="${out%-}"
mkdir -p "$out"
{
  printf 'commit   %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
  printf 'kernel   %s\n' "$(uname -sr)"
  printf 'cpu      %s x %s\n' "$(nproc)" "$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
  printf 'memory   %s\n' "$(awk '/^MemTotal/ { print $2, $3 }' /proc/meminfo)"
  printf 'load     %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
  printf 'rustc    %s\n' "$(rustc --version)"
} | tee "$out/host.txt"

micro() { "$CARGO" bench --quiet --locked -p inlane-bench --bench micro | tee "$out/micro.txt"; }

counted() { target/release/inlane-bench-counted --tsv "$out/counted.tsv" | tee "$out/counted.txt"; }

macro() {
  target/release/inlane-bench-macro --rounds "${ROUNDS:-3}" --seconds "${SECONDS_PER_CELL:-3}" \
    --out "$out" >/dev/null
}

# In virtual time: how busy the machine is does not matter.
quality() { target/release/inlane-bench-quality --out "$out/quality.txt"; }

# Measurements that are tests: they need what tests have, and are ignored or quick without this.
measured() {
  local package=$1 test=$2 file=$3
  shift 3
  "$CARGO" test --quiet --release --locked -p "$package" --test "$test" -- \
    --nocapture --test-threads=1 "$@" | tee "$out/$file"
}

# From a ZeroMQ socket to a reader of the segment.
kv() { KV_ROUNDS="${KV_ROUNDS:-5}" measured inlane-control kv_rate kv.txt --ignored; }

# A control plane that is killed under load, until its successor knows everything again.
outage() { OUTAGE_ROUNDS="${OUTAGE_ROUNDS:-5}" measured inlane-integration outage outage.txt; }

# Small requests beside chats of 100 KB.
text() { TEXT_ROUNDS="${TEXT_ROUNDS:-4}" measured inlane-integration tokens text.txt --ignored; }

# With the libraries of others, built for this alone.
peers() {
  local manifest=bench/peers/Cargo.toml
  "$CARGO" build --quiet --release --locked --manifest-path "$manifest"
  bench/peers/target/release/inlane-bench-peers --rounds "${PEER_ROUNDS:-5}" --out "$out" >/dev/null
}

[ $# -gt 0 ] || set -- macro micro counted quality kv outage text
# The benchmarks are built apart, so that features they turn on in shared crates are not in what they
# measure.
if [ "$*" != peers ]; then
  "$CARGO" build --quiet --release --locked -p inlane-module -p inlane-control -p inlane-sim
  "$CARGO" build --quiet --release --locked -p inlane-bench
fi
for part in "$@"; do
  printf '\n== %s\n' "$part"
  "$part"
done

printf '\n== results: %s\n' "$out"
for file in counted.txt macro.txt quality.txt kv.txt outage.txt text.txt peers.txt; do
  if [ -f "$out/$file" ]; then printf '\n'; cat "$out/$file"; fi
done
