#!/usr/bin/env bash
# Another compiler or another cpp-httplib than everyday's: everything builds with warnings as errors, unit and inprocess tests pass.
# Or another program: that of apps/packaging/optimized.sh passes the tests of the program.
# No tier of CI: each is a build of the whole, half an hour on two cores.
#
#   tests/compat/run.sh clang                                  clang 16 (the preset of that name)
#   tests/compat/run.sh httplib PREFIX/lib/cmake/httplib       the release that is installed there
#   tests/compat/run.sh optimized
set -euo pipefail
cd "$(dirname "$0")/../.."
source apps/lib/packages.sh
usage() { sed -n '6,8s/^# *//p' "$0" >&2; exit 2; }

case ${1:-} in
  clang)
    install_packages "${build_packages[@]}" "${test_packages[@]}" "${clang_packages[@]}"
    build=build/clang
    cmake --preset clang
    ;;
  httplib)
    directory=${2:?the directory of httplibConfig.cmake}
    [ -f "$directory/httplibConfig.cmake" ] || { echo "There is no httplibConfig.cmake in $directory" >&2; exit 2; }
    install_packages "${build_packages[@]}" "${test_packages[@]}"
    build=build/httplib
    cmake --preset dev -B $build -Dhttplib_DIR="$(realpath "$directory")"
    grep -q "^httplib_DIR:PATH=$(realpath "$directory")$" $build/CMakeCache.txt
    ;;
  optimized)
    apps/packaging/optimized.sh build/optimized
    MCPGW=$PWD/build/optimized/apps/mcpgw/mcpgw exec tests/run.sh e2e replicas conformance api
    ;;
  *) usage ;;
esac
cmake --build $build -j "$(nproc)"
ctest --test-dir $build -L '^(unit|inprocess)$' --no-tests=error -j "$(nproc)" --output-on-failure
