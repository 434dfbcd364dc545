#!/usr/bin/env bash
# Installs what the tests need, builds, and runs them. The last line is "N passed, N failed".
#
#   tests/run.sh              all tiers
#   tests/run.sh unit e2e     these tiers
#
# Tiers: unit inprocess contract transports (and every other label of ctest), package, bindings, http, e2e, replicas, conformance, observability, api, web, fuzz, asan, tsan.
# A prerequisite that is missing fails its tier: nothing is skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
source apps/lib/packages.sh
jobs=$(nproc)
logs=build/logs
# The program that e2e, replicas, conformance, observability, api and web start; MCPGW may name another one (tests/compat/run.sh).
program=${MCPGW:-$PWD/build/dev/apps/mcpgw/mcpgw}
passed=0
failed=0
built=""
ahead=""  # the process of build_ahead()

say() { printf '\n== %s\n' "$*"; }

# count TIER PASSED FAILED
count() {
  passed=$((passed + $2))
  failed=$((failed + $3))
  if [ "$3" -eq 0 ] && [ "$2" -gt 0 ]; then echo "$1: $2 ok"; else echo "$1: $2 ok, $3 FAILED"; fi
}

# fail TIER LOG WHY: something the tier rests on did not work.
fail() {
  echo "$1: $3"
  tail -n 60 "$2" 2>/dev/null
  count "$1" 0 1
}

# build PRESET [TARGET...]
build() {
  local preset=$1 log=$logs/build-$1.log
  shift
  case " $built " in *" $preset "*) return 0 ;; esac
  say "build $preset"
  cmake --preset "$preset" >"$log" 2>&1 || return 1
  local targets=("$@")
  if ((${#targets[@]} == 0)); then
    cmake --build --preset "$preset" -j "$jobs" >>"$log" 2>&1 || return 1
  else
    cmake --build --preset "$preset" -j "$jobs" --target "${targets[@]}" >>"$log" 2>&1 || return 1
  fi
  built="$built $preset"
}

# The executables of the tiers that run under the sanitizers.
sanitized_targets() {
  ninja -C "build/$1" -t targets all |
    sed -n 's#^\(tests/\(unit\|inprocess\|capi\)/[a-z_0-9]*\): \(CXX\|C\)_EXECUTABLE_LINKER.*#\1#p' | grep -v capi_postgres_test
}

# build_ahead PRESET...: compiles what the sanitizers' tiers need while other tiers wait for their programs, which go first.
build_ahead() {
  (
    for preset in "$@"; do
      cmake --preset "$preset" && mapfile -t targets < <(sanitized_targets "$preset") &&
        nice -n 19 cmake --build --preset "$preset" -j "$jobs" --target "${targets[@]}"
    done
  ) >$logs/build-ahead.log 2>&1 &
  ahead=$!
  trap 'pkill -P "$ahead"; kill "$ahead"' EXIT
}

# Ends what build_ahead() began; a fault in it shows when the tier builds.
await_ahead() {
  [ -n "$ahead" ] || return 0
  wait "$ahead"
  ahead=""
  trap - EXIT
}

# ctest_tier TIER PRESET LABELS: counts the cases from ctest's own report.
ctest_tier() {
  local tier=$1 preset=$2 labels=$3 report=$PWD/$logs/$1.xml log=$logs/$1.log
  rm -f "$report"
  ctest --test-dir "build/$preset" -L "^($labels)\$" --no-tests=error -j "$jobs" --output-on-failure \
    --output-junit "$report" >"$log" 2>&1
  local result=$?
  if [ ! -s "$report" ]; then fail "$tier" "$log" "ctest ran no test"; return; fi
  local tests bad
  tests=$(sed -n 's/^[[:space:]]*tests="\([0-9]*\)".*/\1/p' "$report" | head -1)
  bad=$(sed -n 's/^[[:space:]]*\(failures\|disabled\|skipped\)="\([0-9]*\)".*/\2/p' "$report" | paste -sd+ | sed 's/^$/0/')
  bad=$((bad))
  if [ "$tests" -eq 0 ]; then fail "$tier" "$log" "there is no such tier, or it has no test"; return; fi
  if [ "$result" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ "$bad" -ne 0 ]; then grep -E -A40 '\*\*\*(Failed|Exception|Timeout|Not Run)|tests failed' "$log" | tail -n 150; fi
  count "$tier" $((tests - bad)) "$bad"
}

run_ctest() {
  say "$1"
  build dev || { fail "$1" $logs/build-dev.log "does not build"; return; }
  ctest_tier "$1" dev "$1"
}

run_sanitized() {
  say "$1"
  await_ahead
  cmake --preset "$1" >"$logs/build-$1.log" 2>&1 || { fail "$1" "$logs/build-$1.log" "does not configure"; return; }
  local targets
  mapfile -t targets < <(sanitized_targets "$1")
  ((${#targets[@]})) || { fail "$1" "$logs/build-$1.log" "has no tests"; return; }
  build "$1" "${targets[@]}" || { fail "$1" "$logs/build-$1.log" "does not build"; return; }
  # Warnings of httplib's own allocations aside, whatever a sanitizer reports ends the test.
  ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 ctest_tier "$1" "$1" "unit|inprocess"
}

run_package() {
  say package
  build dev || { fail package $logs/build-dev.log "does not build"; return; }
  tests/package/run.sh build/dev >$logs/package.log 2>&1
  local line
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' $logs/package.log | tail -1)
  [ -n "$line" ] || { fail package $logs/package.log "ended early"; return; }
  [[ $line == *", 0 failed" ]] || cat $logs/package.log
  # shellcheck disable=SC2086
  set -- $line
  count package "$1" "$3"
}

# node_tests TIER ARGUMENT...: runs and counts tests of node:test. NODE may name a Node.js of its own.
node_tests() {
  local tier=$1 tap=$logs/$1.tap
  shift
  MCPGW=$program DEMO_UPSTREAM=$PWD/build/dev/examples/demo_upstream/demo_upstream \
    timeout 1500 "${NODE:-node}" --test --test-reporter=tap "$@" >"$tap" 2>>"$logs/$tier.log"
  local result=$? ok bad
  number() { sed -n "s/^# $1 \([0-9]*\)\$/\1/p" "$tap" | tail -1; }
  ok=$(number pass)
  bad=$(number fail)+$(number cancelled)+$(number skipped)+$(number todo)
  # A report cut off anywhere in its last lines is none: what is not a number would end this script, and its count would pass for one.
  if ! [[ $ok+$bad =~ ^[0-9]+(\+[0-9]+){4}$ ]]; then fail "$tier" "$tap" "ended early, with $result"; return; fi
  bad=$((bad))
  if [ "$result" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ "$bad" -ne 0 ]; then grep -E -A30 '^ *not ok' "$tap" | head -n 200; fi
  count "$tier" "$ok" "$bad"
}

# The HTTP server and client: their cases of the unit tier, then a crowd of streams and waiting calls.
run_http() {
  say http
  built=${built/ dev/}  # benches are built on demand
  build dev all crowd_bench || { fail http $logs/build-dev.log "does not build"; return; }
  local program report ok=0 bad=0
  for program in build/dev/tests/unit/unit_{http_framing,server,websocket,fuzz_corpus,http_client}*_test; do
    report=$("$program" 2>&1 | tee "$logs/http-$(basename "$program").log" | grep '^\[doctest\] test cases:')
    [[ $report =~ \|\ *([0-9]+)\ passed\ \|\ *([0-9]+)\ failed ]] || { bad=$((bad + 1)); continue; }
    ok=$((ok + BASH_REMATCH[1]))
    bad=$((bad + BASH_REMATCH[2]))
    [ "${BASH_REMATCH[2]}" -eq 0 ] || tail -n 60 "$logs/http-$(basename "$program").log"
  done
  if timeout 300 build/dev/tests/bench/crowd_bench 2000 300; then ok=$((ok + 1)); else bad=$((bad + 1)); fi
  count http "$ok" "$bad"
}

# Some clients ask for a newer Node.js than Debian's: npm brings it, here and in the tier conformance.
run_e2e() {
  say e2e
  build dev || { fail e2e $logs/build-dev.log "does not build"; return; }
  { ensure_node && ensure_npm_packages tests/e2e; } >$logs/e2e.log 2>&1 ||
    { fail e2e $logs/e2e.log "npm packages cannot be installed"; return; }
  local version
  for version in 1 2; do
    python_environment "build/venv-mcp$version" "tests/e2e/python/requirements-mcp$version.txt" >>$logs/e2e.log 2>&1 ||
      { fail e2e $logs/e2e.log "PyPI packages cannot be installed"; return; }
  done
  NODE=$PWD/tests/e2e/node_modules/.bin/node node_tests e2e tests/e2e/*.test.mjs
}

# Several programs over one PostgreSQL, and moving what is stored.
run_replicas() {
  say replicas
  build dev || { fail replicas $logs/build-dev.log "does not build"; return; }
  { ensure_node && ensure_npm_packages tests/e2e; } >$logs/replicas.log 2>&1 ||
    { fail replicas $logs/replicas.log "npm packages cannot be installed"; return; }
  NODE=$PWD/tests/e2e/node_modules/.bin/node node_tests replicas tests/replicas/*.test.mjs
}

# The official suite against the fixture in tests/conformance, bare and through the gateway.
run_conformance() {
  say conformance
  build dev || { fail conformance $logs/build-dev.log "does not build"; return; }
  { ensure_node && ensure_npm_packages tests/conformance; } >$logs/conformance.log 2>&1 ||
    { fail conformance $logs/conformance.log "npm packages cannot be installed"; return; }
  NODE=$PWD/tests/conformance/node_modules/.bin/node node_tests conformance tests/conformance/*.test.mjs
  sed -n 's/^# \(|.*\)/\1/p' $logs/conformance.tap
}

# Each fault of a server on each transport; then what was measured.
run_transports() {
  run_ctest transports
  sed -n 's/.*: MESSAGE: \(.*ratio .*\|.*starts; .*\)$/  \1/p' build/dev/Testing/Temporary/LastTest.log
}

# Metrics as a real Prometheus reads them, the dashboard's queries and alert rules, and audit rows where they go.
run_observability() {
  say observability
  build dev || { fail observability $logs/build-dev.log "does not build"; return; }
  { install_packages "${observability_packages[@]}" && ensure_node && ensure_npm_packages tests/e2e; } >$logs/observability.log 2>&1 ||
    { fail observability $logs/observability.log "Prometheus or npm packages cannot be installed"; return; }
  NODE=$PWD/tests/e2e/node_modules/.bin/node node_tests observability tests/observability/*.test.mjs
}

# The pages of the program in a browser, and the API document behind them.
run_web() {
  say web
  install_packages "${web_packages[@]}" >$logs/web.log 2>&1 || { fail web $logs/web.log "Chromium is missing"; return; }
  ensure_node >>$logs/web.log 2>&1 || { fail web $logs/web.log "Node.js is missing"; return; }
  { ensure_npm_packages apps/docs && ensure_npm_packages apps/console && ensure_npm_packages tests/web; } >>$logs/web.log 2>&1 ||
    { fail web $logs/web.log "npm packages cannot be installed"; return; }
  built=${built/ dev/}  # it may have been configured without the packages
  build dev || { fail web $logs/build-dev.log "does not build"; return; }
  node_tests web tests/web/*.test.mjs
}

run_api() {
  say api
  build dev || { fail api $logs/build-dev.log "does not build"; return; }
  python_environment build/venv-api tests/api/requirements.txt >$logs/api.log 2>&1 ||
    { fail api $logs/api.log "PyPI packages cannot be installed"; return; }
  MCPGW=$program DEMO_UPSTREAM=$PWD/build/dev/examples/demo_upstream/demo_upstream \
    pytest_tests api build/venv-api/bin/python -c tests/api/pytest.ini tests/api
}

# pytest_tests TIER PYTHON ARGUMENT...: runs and counts tests of pytest.
pytest_tests() {
  local tier=$1 python=$2 report=$PWD/$logs/$1.xml numbers
  shift 2
  rm -f "$report"
  PYTHONDONTWRITEBYTECODE=1 timeout 1500 "$python" -m pytest -q --junit-xml "$report" "$@" >>"$logs/$tier.log" 2>&1
  local result=$? tests bad
  numbers=$(grep -o '<testsuite [^>]*>' "$report" 2>/dev/null | head -1)
  number() { sed -n "s/.* $1=\"\([0-9]*\)\".*/\1/p" <<<"$numbers"; }
  tests=$(number tests)
  if [ -z "$tests" ] || [ "$tests" -eq 0 ]; then fail "$tier" "$logs/$tier.log" "ran no test"; return; fi
  bad=$(number errors)+$(number failures)+$(number skipped)
  if ! [[ $bad =~ ^[0-9]+(\+[0-9]+){2}$ ]]; then fail "$tier" "$logs/$tier.log" "left no whole report"; return; fi
  bad=$((bad))
  if [ "$result" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ "$bad" -ne 0 ]; then tail -n 200 "$logs/$tier.log"; fi
  count "$tier" $((tests - bad)) "$bad"
}

# The packages of other languages over the C interface, as their users install them; the C interface itself is the tier capi.
run_bindings() {
  say bindings
  build dev || { fail bindings $logs/build-dev.log "does not build"; return; }
  local library=$PWD/build/dev/bindings/c/libmcpgw_c.so
  local python=build/venv-bindings/bin/python wheels=build/wheels log=$logs/bindings.log
  rm -rf $wheels bindings/python/build
  { python_environment build/venv-bindings bindings/python/tests/requirements.txt &&
    MCPGW_C_LIBRARY=$library $python -m pip wheel --disable-pip-version-check --quiet --no-build-isolation --no-deps -w $wheels bindings/python &&
    $python -m pip install --disable-pip-version-check --quiet --no-deps --force-reinstall $wheels/mcpgw-*-py3-none-*.whl; } >$log 2>&1 ||
    { fail bindings $log "the Python package cannot be built and installed"; return; }
  if $python -m mypy --cache-dir build/mypy --config-file bindings/python/pyproject.toml bindings/python/src/mcpgw \
    bindings/python/src/mcpgw_pytest.py bindings/python/tests/typed_program.py >>$log 2>&1; then
    count bindings 1 0
  else
    fail bindings $log "types of the Python package"
  fi
  # The library is the one inside the wheel.
  pytest_tests bindings $python -c bindings/python/pyproject.toml bindings/python/tests
  { ensure_node && ensure_npm_packages bindings/node; } >>$log 2>&1 || { fail bindings $log "npm packages cannot be installed"; return; }
  MCPGW_C_LIBRARY=$library node_tests bindings bindings/node/test/*.test.mjs
}

# Each fuzzer for a few seconds, from the corpus in the tree. What it finds belongs into tests/fuzz/regressions.
run_fuzz() {
  say fuzz
  install_packages "${fuzz_packages[@]}" >$logs/fuzz.log 2>&1 || { fail fuzz $logs/fuzz.log "clang is missing"; return; }
  { cmake -S . -B build/fuzz -G Ninja -DMCPGW_FUZZ=ON -DMCPGW_WERROR=ON -DMCPGW_BUILD_TESTS=OFF -DMCPGW_BUILD_APPS=OFF \
    -DMCPGW_BUILD_EXAMPLES=OFF -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14 &&
    cmake --build build/fuzz -j "$jobs" --target mcpgw_fuzzers; } >>$logs/fuzz.log 2>&1 ||
    { fail fuzz $logs/fuzz.log "does not build"; return; }
  local corpus target ok=0 bad=0
  for corpus in tests/fuzz/corpus/*/; do
    target=$(basename "$corpus")
    rm -rf "build/fuzz/work/$target"
    mkdir -p "build/fuzz/work/$target"
    if timeout 60 "build/fuzz/tests/fuzz/fuzz_$target" -max_total_time=12 -max_len=4096 -timeout=5 -rss_limit_mb=1024 \
      -artifact_prefix="$logs/fuzz-$target-" "build/fuzz/work/$target" "$corpus" >"$logs/fuzz-$target.log" 2>&1; then
      ok=$((ok + 1))
    else
      bad=$((bad + 1))
      tail -n 40 "$logs/fuzz-$target.log"
    fi
  done
  count fuzz "$ok" "$bad"
}

mkdir -p $logs
say "prerequisites"
if ! install_packages "${build_packages[@]}" "${test_packages[@]}" >$logs/packages.log 2>&1; then
  cat $logs/packages.log
  echo "Packages that building and testing need cannot be installed"
  echo "0 passed, 1 failed"
  exit 1
fi
export CCACHE_DIR=${CCACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ccache}
# The same file with the same flags is compiled once, whichever directory below build/ asks for it (dev, a consumer's, the core
# alone), and whichever clone of the tree.
export CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=$PWD

if (($#)); then
  tiers=("$@")
else
  # Every label that a test has, so that a new tier needs no line here.
  build dev >/dev/null || true
  mapfile -t labels < <(ctest --test-dir build/dev --print-labels 2>/dev/null | sed -n 's/^  \([a-z0-9_]*\)$/\1/p')
  ((${#labels[@]})) || labels=(unit)
  tiers=("${labels[@]}" package bindings e2e replicas conformance observability api web fuzz asan tsan)
fi
started=$SECONDS
for tier in "${tiers[@]}"; do
  began=$SECONDS
  # From the first tier that is no build of its own.
  if [ -z "$ahead" ] && [ "$tier" = bindings ]; then
    mapfile -t sanitizers < <(printf '%s\n' "${tiers[@]}" | grep -xE 'asan|tsan')
    ((${#sanitizers[@]} == 0)) || build_ahead "${sanitizers[@]}"
  fi
  case $tier in
    package) run_package ;;
    bindings) run_bindings ;;
    e2e) run_e2e ;;
    replicas) run_replicas ;;
    conformance) run_conformance ;;
    observability) run_observability ;;
    web) run_web ;;
    fuzz) run_fuzz ;;
    api) run_api ;;
    http) run_http ;;
    transports) run_transports ;;
    asan | tsan) run_sanitized "$tier" ;;
    *) run_ctest "$tier" ;;
  esac
  took="${took:-}$(printf '%6d s  %s' $((SECONDS - began)) "$tier")"$'\n'
done
say "where the time went"
printf '%s%6d s\n' "$took" $((SECONDS - started))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
