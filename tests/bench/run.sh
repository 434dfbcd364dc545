#!/usr/bin/env bash
# Measures tools/call: the demo upstream directly, through mcpgw (token, session, policy, credential, audit row), and
# through nginx proxy_pass, in turns. Prints a table in Markdown. Sets no thresholds. Takes about three minutes;
# --optimized, which measures what apps/packaging/optimized.sh builds, half an hour.
#
#   tests/bench/run.sh [--optimized] [--seconds N] [--rounds N] [--connections 1,16,64,256]
set -euo pipefail
cd "$(dirname "$0")/../.."
source apps/lib/packages.sh
install_packages "${build_packages[@]}" "${bench_packages[@]}"
mkdir -p build
if [ "${1:-}" = --optimized ]; then
  shift
  directory=build/optimized
  build() { apps/packaging/optimized.sh "$directory"; }
else
  directory=build/release
  build() {
    cmake --preset release -DMCPGW_BUILD_TESTS=OFF -DMCPGW_WERROR=OFF &&
      cmake --build --preset release -j "$(nproc)" --target mcpgw demo_upstream
  }
fi
if ! build >build/bench-build.log 2>&1; then
  tail -n 40 build/bench-build.log >&2
  exit 1
fi
exec python3 tests/bench/bench.py --mcpgw "$directory/apps/mcpgw/mcpgw" --demo "$directory/examples/demo_upstream/demo_upstream" "$@"
