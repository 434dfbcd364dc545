#!/usr/bin/env bash
# Two consumers, built as a user would: one finds the installed package, one includes the source tree. Both run.
# Usage: run.sh BUILD_DIR (of a configured and built preset)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
check() {
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "ok   $name"
    passed=$((passed + 1))
  else
    echo "FAIL $name"
    tail -n 40 "$work/log"
    failed=$((failed + 1))
  fi
}

check "install" cmake --install "$build" --prefix "$work/prefix"
check "find_package: configure" cmake -G Ninja -S "$here/find_package" -B "$work/found" -DCMAKE_PREFIX_PATH="$work/prefix"
check "find_package: build in C++17" cmake --build "$work/found" -j2
check "find_package: run" "$work/found/consumer" "$work/found.db"
check "add_subdirectory: configure" cmake -G Ninja -S "$here/add_subdirectory" -B "$work/sub" \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)"
check "add_subdirectory: build" cmake --build "$work/sub" -j2
check "add_subdirectory: run" "$work/sub/consumer" "$work/sub.db"
# Each public header compiles alone in C++17 and names no other library.
for header in "$work"/prefix/include/mcpgw/*.hpp; do
  echo "#include <mcpgw/${header##*/}>" >"$work/alone.cpp"
  check "${header##*/} compiles alone" "${CXX:-c++}" -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only \
    -I "$work/prefix/include" "$work/alone.cpp"
done
no_foreign_includes() {
  ! grep -nE '#include [<"](nlohmann|boost|fmt|httplib|openssl|sqlite3|re2|spdlog|yaml-cpp)' "$work"/prefix/include/mcpgw/*.hpp
}
check "no header includes another library" no_foreign_includes
# What is installed are the public headers and nothing of src/.
check "no internal header is installed" test -z "$(find "$work/prefix" -name 'raw.hpp' -o -name 'core.hpp')"
echo "$passed passed, $failed failed"
test "$failed" -eq 0
