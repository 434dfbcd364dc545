#!/usr/bin/env bash
# Builds mcpgw twice: a program that notes what it runs while it is called, then one that is laid out by these notes and optimised
# as a whole. It does the same with a fifth less CPU. Takes half an hour on two cores; packages: cpack -G DEB in the directory,
# which builds the rest.
#
#   apps/packaging/optimized.sh DIRECTORY [CMAKE OPTION...]
set -euo pipefail
(($#)) || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
directory=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
source apps/lib/packages.sh
install_packages "${build_packages[@]}" "${bench_packages[@]}"

# build write|use TARGET...: profiles belong to one tree of objects, so both builds have the same directory.
build() {
  local profile=$1
  shift
  cmake -G Ninja -S . -B "$directory" -DCMAKE_BUILD_TYPE=Release -DMCPGW_BUILD_TESTS=OFF "${options[@]}" -DMCPGW_PROFILE="$profile"
  CCACHE_DISABLE=1 cmake --build "$directory" -j "$(nproc)" "$@"
}

options=("$@")
rm -rf "$directory/profile"
build write --target mcpgw demo_upstream
python3 tests/bench/bench.py --train --mcpgw "$directory/apps/mcpgw/mcpgw" --demo "$directory/examples/demo_upstream/demo_upstream"
ls "$directory"/profile/*.gcda >/dev/null
build use --target mcpgw demo_upstream
