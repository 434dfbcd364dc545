#!/usr/bin/env bash
# What it costs to count, record and trace a call: CPU of the same gateway with and without all of it, in turns.
#
#   tests/bench/observability_bench.sh [--seconds N] [--rounds N] [--connections N]
set -euo pipefail
cd "$(dirname "$0")/../.."
source apps/lib/packages.sh
install_packages "${build_packages[@]}" "${bench_packages[@]}"
mkdir -p build
if ! { cmake --preset release -DMCPGW_BUILD_TESTS=ON -DMCPGW_WERROR=OFF &&
  cmake --build --preset release -j "$(nproc)" --target observed_server unobserved_server demo_upstream; } \
  >build/observability-bench-build.log 2>&1; then
  tail -n 40 build/observability-bench-build.log >&2
  exit 1
fi
exec python3 tests/bench/observability_bench.py --directory build/release "$@"
