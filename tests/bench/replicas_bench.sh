#!/usr/bin/env bash
# CPU of a call with 1, 2 and 4 replicas over one PostgreSQL.
#
#   tests/bench/replicas_bench.sh [--calls N] [--connections N]
set -euo pipefail
cd "$(dirname "$0")/../.."
source apps/lib/packages.sh
install_packages "${build_packages[@]}" "${bench_packages[@]}"
mkdir -p build
if ! { cmake --preset release -DMCPGW_WERROR=OFF &&
  cmake --build --preset release -j "$(nproc)" --target mcpgw demo_upstream; } >build/replicas-bench-build.log 2>&1; then
  tail -n 40 build/replicas-bench-build.log >&2
  exit 1
fi
npm ci --prefix tests/e2e >build/replicas-bench-npm.log 2>&1 || { tail -n 20 build/replicas-bench-npm.log >&2; exit 1; }
MCPGW=$PWD/build/release/apps/mcpgw/mcpgw DEMO_UPSTREAM=$PWD/build/release/examples/demo_upstream/demo_upstream \
  exec tests/e2e/node_modules/.bin/node --test-reporter=spec tests/bench/replicas_bench.mjs "$@"
