#!/usr/bin/env bash
# The packages of other languages, built from the source tree as their READMEs say, by somebody who has no library yet; then the
# examples that use them, elsewhere.
# Usage: bindings.sh python|node WORK    (node takes the library that python has built)
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
work=$2
unset MCPGW_C_LIBRARY
die() { echo "$*"; exit 1; }

case $1 in
  python)
    rm -rf "$tree/bindings/python/build"
    python3 -m venv "$work/venv"
    mapfile -t pytest < <(grep -iE '^(iniconfig|packaging|pluggy|pygments|pytest)==' "$tree/bindings/python/tests/requirements.txt")
    pip=("$work/venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet)
    "${pip[@]}" --no-deps "${pytest[@]}"
    "${pip[@]}" "$tree/bindings/python"
    cp -r "$tree/examples/with_pytest" "$work/"
    cd "$work/with_pytest"
    "$work/venv/bin/python" -m pytest -q -p no:cacheprovider . | tee "$work/pytest.log"
    grep -q '^2 passed' "$work/pytest.log" || die "these are not the tests of the example"
    # The library is the package's own.
    "$work/venv/bin/python" -c 'import mcpgw; print(open("/proc/self/maps").read())' | grep "$work/venv/lib/.*/mcpgw/libmcpgw_c.so$" >/dev/null
    ;;
  node)
    (cd "$tree/bindings/node" && npm pack --silent --pack-destination "$work")
    [ ! -e "$tree/bindings/node/native" ] || die "packing leaves files in the tree"
    mkdir "$work/app"
    cp "$tree/bindings/node/.npmrc" "$work/app/"
    cp -r "$tree/examples/with_node_test" "$work/app/"
    cd "$work/app"
    npm install --ignore-scripts --silent "$work"/mcpgw-*.tgz
    node --test with_node_test/release_notes.test.mjs | tee "$work/node.log"
    grep -q '^# pass 2$' "$work/node.log" || die "these are not the tests of the example"
    node --input-type=module -e 'import "mcpgw"; import fs from "node:fs"; console.log(fs.readFileSync("/proc/self/maps", "utf8"))' |
      grep "$work/app/node_modules/mcpgw/native/libmcpgw_c.so$" >/dev/null
    ;;
  *) die "unknown step $1" ;;
esac
