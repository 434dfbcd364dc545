#!/usr/bin/env bash
# Consumers, built as a user would: one finds the installed package, one includes the source tree, one asks pkg-config, one is in C.
# Then the Python and Node.js packages, and the Debian packages of a release build: what they hold, and their life on a clean Debian.
# Usage: run.sh BUILD_DIR (of a configured and built preset)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
check() {
  local name=$1 began=$SECONDS
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "ok   $name$( ((SECONDS - began >= 10)) && echo ", $((SECONDS - began)) s")"
    passed=$((passed + 1))
  else
    echo "FAIL $name"
    # A test that fails says why where it fails, which with many tests is far above the end.
    { grep -E -A30 '\*\*\*(Failed|Exception|Timeout|Not Run)' "$work/log" || true; } | head -n 100
    tail -n 40 "$work/log"
    failed=$((failed + 1))
  fi
}

check "install" cmake --install "$build" --prefix "$work/prefix"
check "find_package: configure" cmake -G Ninja -S "$here/find_package" -B "$work/found" -DCMAKE_PREFIX_PATH="$work/prefix"
check "find_package: build in C++17" cmake --build "$work/found" -j2
check "find_package: run" "$work/found/consumer" "$work/found.db"
# As deep as the build directories of the presets: the compiler's cache knows what it compiles then.
sub=$here/../../build/sub
rm -rf "$sub"
check "add_subdirectory: configure" cmake -G Ninja -S "$here/add_subdirectory" -B "$sub" \
  -DCMAKE_BUILD_TYPE=Debug -DMCPGW_WERROR=ON -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)"
check "add_subdirectory: build" cmake --build "$sub" -j2
check "add_subdirectory: run" "$sub/consumer" "$work/sub.db"
# pkg-config: the static C++ libraries, and the C interface from a directory that is nowhere known.
pc() { PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name mcpgw.pc)") pkg-config "$@"; }
cxx_by_pkg_config() {
  # shellcheck disable=SC2046
  "${CXX:-c++}" -std=c++17 "$here/consumer.cpp" -o "$work/by_pc" $(pc --cflags --libs mcpgw) && "$work/by_pc" "$work/by_pc.db"
}
c_by_pkg_config() {
  # shellcheck disable=SC2046
  "${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -Werror "$here/../../examples/c_host/main.c" -o "$work/c_host" $(pc --cflags --libs mcpgw-c) &&
    LD_LIBRARY_PATH=$(pc --variable=libdir mcpgw-c) "$work/c_host" | grep -q '21 degrees'
}
check "pkg-config: a C++ consumer" cxx_by_pkg_config
check "pkg-config: a C consumer" c_by_pkg_config
check "mcpgw.h compiles alone in C99" sh -c "echo '#include <mcpgw/mcpgw.h>' | ${CC:-cc} -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c -I '$work/prefix/include' -"
check "mcpgw.h compiles alone in C++" sh -c "echo '#include <mcpgw/mcpgw.h>' | ${CXX:-c++} -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ -I '$work/prefix/include' -"
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
# The core alone: no server, no database, none of their libraries. Whatever tests of units and of gateways in process make sense
# without those pass on it.
core=$here/../../build/core
check "core alone: configure" cmake -G Ninja -S "$here/../.." -B "$core" -DCMAKE_BUILD_TYPE=Debug -DMCPGW_WERROR=ON \
  -DMCPGW_WITH_SQLITE=OFF -DMCPGW_WITH_SERVER=OFF -DMCPGW_WITH_POSTGRES=OFF
mapfile -t alone < <(ninja -C "$core" -t targets all | sed -n 's#^\(tests/\(unit\|inprocess\)/[a-z_0-9]*\): CXX_EXECUTABLE_LINKER.*#\1#p')
check "core alone: has tests" test "${#alone[@]}" -gt 50
check "core alone: build" cmake --build "$core" --target "${alone[@]}"
check "core alone: unit and inprocess" ctest --test-dir "$core" -L '^(unit|inprocess)$' --no-tests=error -j "$(nproc)" --output-on-failure
no_other_libraries() { ! ldd "$core/tests/inprocess/inprocess_calls" | grep -E 'sqlite|httplib|libpq'; }
check "core alone: links nothing else" no_other_libraries
# What is given to others' tools, judged by those.
source "$here/../../apps/lib/packages.sh"
tools=$here/../../build/venv-package
check "tools for the chart and the Dockerfile" python_environment "$tools" "$here/requirements.txt"
check "the Dockerfile, by hadolint" "$tools/bin/hadolint" "$here/../../apps/packaging/Dockerfile"
check "the Helm chart" env -C "$here" PYTHONDONTWRITEBYTECODE=1 "MCPGW=$build/apps/mcpgw/mcpgw" "$tools/bin/python" -m unittest chart_test
# The packages, of a release build of their own: `cpack` builds nothing but what is installed.
release=$here/../../build/package
check "tools for packages" install_packages "${package_packages[@]}"
# The command of the Dockerfile, so that what an image holds is what is tested here.
configure=$(sed -n "s#^ *\\(cmake -G Ninja -S \\. -B\\) /build \\(.*\\) && .*#\\1 build/package \\2#p" "$here/../../apps/packaging/Dockerfile")
check "release: configure" env -C "$here/../.." bash -euc "${configure:?the Dockerfile is not what this test reads}"
# Warnings that the compiler has only when it optimises, which no other build of the tests does.
no_warning() { ! grep 'warning:' "$work/release.log"; }
check "release: build" cmake --build "$release"
cp "$work/log" "$work/release.log"
check "release: no warning" no_warning
# The packages of other languages, from the tree: what they compile has just been compiled with the same flags.
check "Python: pip install builds the library, the example passes" "$here/bindings.sh" python "$work"
check "Node.js: node and npm" ensure_node
check "Node.js: npm pack builds the library, the example passes" "$here/bindings.sh" node "$work"
check "release: packages" cmake -E chdir "$release" cpack -G DEB -B "$work/debs"
for step in contents size unit bootstrap install container run activation upgrade purge; do
  check "Debian packages: $step" "$here/deb.sh" "$step" "$work/debs" "$work/debian" "$build/examples/demo_upstream/demo_upstream"
done
echo "$passed passed, $failed failed"
test "$failed" -eq 0
