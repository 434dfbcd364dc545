# Debian 12 packages, named here and nowhere else. Sourced by apps/quickstart.sh, tests/run.sh and tests/bench/run.sh.

# What building the program takes.
build_packages=(
  build-essential ca-certificates ccache cmake git ninja-build pkg-config
  libboost1.81-dev libcli11-dev libcpp-httplib-dev libfmt-dev libjemalloc-dev libpq-dev libre2-dev libspdlog-dev libsqlite3-dev libssl-dev
  libyaml-cpp-dev nlohmann-json3-dev zlib1g-dev
)
# What trying it out takes besides.
quickstart_packages=(curl)
# What the tests take besides building. Node.js is apart: any version from 18 on will do (see ensure_node).
test_packages=(curl doctest-dev jq libmicrohttpd-dev mold postgresql procps python3 python3-venv sqlite3)
# What the tests of the web pages take besides: a browser with letters to draw.
web_packages=(chromium fonts-dejavu-core fonts-inter)
# What the tests of what the program tells about itself take besides.
observability_packages=(prometheus)
# What the tests of the packages take besides: a clean Debian, and systemd's own judgement of the service.
package_packages=(debootstrap dpkg-dev systemd)
# What the fuzzers take besides building.
fuzz_packages=(clang-14 libclang-rt-14-dev)
# The other compiler (tests/compat/run.sh).
clang_packages=(clang-16)
# What the benches take besides building.
bench_packages=(curl nginx-light python3 wrk)

# install_packages NAME...: installs those that are missing; touches nothing when none is.
install_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "These packages are missing, and there is no sudo: ${missing[*]}" >&2; return 1; }
    as_root=(sudo)
  fi
  echo "Installing packages: ${missing[*]}" >&2
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# ensure_node: Node.js 18 or newer with npm.
ensure_node() {
  local version
  version=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
  if [ "$version" -lt 18 ]; then install_packages nodejs npm; fi
  command -v npm >/dev/null || install_packages npm
  version=$(node -p 'process.versions.node.split(".")[0]')
  [ "$version" -ge 18 ] || { echo "Node.js 18 or newer is needed; this is $version" >&2; return 1; }
}

# ensure_npm_packages DIRECTORY: what its lock file names, fetched anew when that changes. After ensure_node.
ensure_npm_packages() {
  local stamp=node_modules/.lock.sum
  (
    cd "$1" || return 1
    if sha256sum --check --status $stamp 2>/dev/null; then return 0; fi
    npm ci --ignore-scripts --no-audit --no-fund >&2 && sha256sum package-lock.json >$stamp
  )
}

# python_environment DIRECTORY REQUIREMENTS: a virtual environment with exactly these packages, made anew when they change.
python_environment() {
  local stamp=$1/requirements.sum
  if [ -x "$1/bin/python" ] && sha256sum --check --status "$stamp" 2>/dev/null; then return 0; fi
  rm -rf "$1"
  python3 -m venv "$1" &&
    "$1/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --no-deps --requirement "$2" &&
    "$1/bin/python" -m pip check --disable-pip-version-check &&
    sha256sum "$2" >"$stamp"
}
