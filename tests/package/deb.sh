#!/usr/bin/env bash
# What the Debian packages hold, and that they install, run, upgrade and go away on a clean Debian 12.
# Usage: deb.sh STEP DIRECTORY_OF_PACKAGES ROOT DEMO_UPSTREAM    (steps need each other in their order; ROOT is a new directory)
set -euo pipefail
step=$1
debs=$2
root=$3
demo=$4
declare -A deb
for name in mcpgw libmcpgw-c0 libmcpgw-dev; do deb[$name]=$(echo "$debs/${name}"_*_*.deb); done
die() { echo "$*"; exit 1; }

in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

# with_server COMMAND...: runs it with $url, while the installed program serves from inside ROOT.
with_server() {
  local log=$root/tmp/serve.log pid
  # Not by in_root: the process that is ended must be the server, not a shell that waits for it.
  chroot "$root" env -i MCPGW_SERVER_DATA_DIR=/var/lib/mcpgw /usr/bin/mcpgw --config /etc/mcpgw/mcpgw.yaml serve --port 0 >"$log" 2>&1 &
  pid=$!
  # shellcheck disable=SC2064
  trap "kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true" EXIT
  for _ in $(seq 600); do
    url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$log" | head -1)
    if [ -n "$url" ]; then break; fi
    kill -0 "$pid" 2>/dev/null || { cat "$log"; die "it does not start"; }
    sleep 0.1
  done
  "$@"
}
post() { curl -sS --fail-with-body --max-time 60 "$url$1" -H "Authorization: Bearer $2" -H 'Content-Type: application/json' \
  -H 'Accept: application/json, text/event-stream' "${@:4}" -d "$3"; }
text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
readonly account='{"email":"admin@example.org","password":"a long password"}'

call_a_tool() {
  local token=$1 session answer
  session=$(post /mcp "$token" '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}' \
    -D - -o /dev/null | tr -d '\r' | sed -n 's/^[Mm]cp-[Ss]ession-[Ii]d: //p')
  answer=$(post /mcp "$token" '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}' -H "Mcp-Session-Id: $session")
  [[ $answer == *'"text":"hello"'* ]] || die "$answer"
}

first_use() {
  local token port
  exec {lines}< <("$demo" --http --port 0)
  local server=$!
  read -r port <&"$lines"
  port=$(tr -dc 0-9 <<<"$port")
  token=$(post /api/auth/register none "$account" | text token)
  post /api/targets "$token" "{\"name\":\"demo\",\"transport_type\":\"streamable-http\",\"url\":\"http://127.0.0.1:$port/mcp\",\"allow_private_network\":true}" >/dev/null
  post /api/policies "$token" '{"name":"everyone","effect":"allow","subjects":[{"subject_type":"everyone"}]}' >/dev/null
  call_a_tool "$token"
  kill "$server"
}

use_again() { post /api/auth/login none "$account" | text token | grep -q . || die "the account has gone"; }

case $step in
  contents)
    for name in "${!deb[@]}"; do
      [ -f "${deb[$name]}" ] || die "$name is missing"
      list=$(dpkg-deb -c "${deb[$name]}" | awk '{print $1, $2, $6}')
      if grep -vE '^d' <<<"$list" | grep -vE ' \./(usr|etc/mcpgw)/'; then die "$name has files elsewhere"; fi
      if grep -vE ' root/root ' <<<"$list"; then die "$name has files of somebody"; fi
    done
    list=$(dpkg-deb -c "${deb[mcpgw]}")
    grep -qE '^-rwxr-xr-x .* \./usr/bin/mcpgw$' <<<"$list" || die "no program"
    grep -qE ' \./etc/mcpgw/mcpgw.yaml$' <<<"$list" || die "no configuration"
    [ "$(dpkg-deb -I "${deb[mcpgw]}" conffiles)" = /etc/mcpgw/mcpgw.yaml ] || die "conffiles"
    [[ $(dpkg-deb -I "${deb[libmcpgw-c0]}" shlibs) == "libmcpgw_c 0 libmcpgw-c0"* ]] || die "shlibs"
    # PostgreSQL's and SQLite's libraries are linked, not loaded when asked for: `database.url` may name either.
    depends=$(dpkg-deb -f "${deb[libmcpgw-c0]}" Depends)
    for library in libpq5 libsqlite3-0 libssl3; do [[ $depends == *"$library"* ]] || die "libmcpgw-c0 does not ask for $library: $depends"; done
    [[ $(dpkg-deb -f "${deb[libmcpgw-dev]}" Depends) == *"libmcpgw-c0 (= "* ]] || die "the headers go with another library"
    list=$(dpkg-deb -c "${deb[libmcpgw-dev]}")
    for file in include/mcpgw/gateway.hpp include/mcpgw/mcpgw.h 'lib/(.*/)?libmcpgw_core.a' 'lib/(.*/)?mcpgw/mcpgwConfig.cmake' 'lib/(.*/)?pkgconfig/mcpgw.pc' 'lib/(.*/)?pkgconfig/mcpgw-c.pc'; do
      grep -qE " \./usr/$file$" <<<"$list" || die "libmcpgw-dev lacks $file"
    done
    ;;
  size)  # stripped, with the console inside
    dpkg-deb -x "${deb[mcpgw]}" "$root.size"
    size=$(stat -c %s "$root.size/usr/bin/mcpgw")
    rm -rf "$root.size"
    echo "mcpgw: $size bytes"
    [ "$size" -le $((15 * 1000 * 1000)) ] || die "more than 15 MB"
    ;;
  unit)
    dpkg-deb -x "${deb[mcpgw]}" "$root.unit"
    trap 'rm -rf "$root.unit"' EXIT
    dir=$root.unit/usr/lib/systemd/system
    sed -i "s#/usr/bin/mcpgw#$root.unit/usr/bin/mcpgw#" "$dir/mcpgw.service"
    complaints=$(systemd-analyze verify --man=no "$dir/mcpgw.service" "$dir/mcpgw.socket" 2>&1 | grep -F "$dir" || true)
    [ -z "$complaints" ] || die "$complaints"
    # 0 is a service that may nothing; below 2 the tool says "OK".
    systemd-analyze security --offline=true --threshold=20 --no-pager "$dir/mcpgw.service" | tail -1
    ;;
  bootstrap)
    # Where this machine has its own packages from.
    mirror=$(apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' | sed -n 's/^bookworm //p' | sort -u | sed -n 1p)
    [ -n "$mirror" ] || die "apt knows no mirror of Debian 12"
    debootstrap --variant=minbase bookworm "$root" "$mirror"
    ;;
  install)
    mkdir -p "$root/debs"
    cp "${deb[mcpgw]}" "${deb[libmcpgw-c0]}" "$root/debs/"
    in_root apt-get update -qq
    in_root sh -c 'apt-get install -y -qq --no-install-recommends /debs/*.deb'
    in_root mcpgw version
    in_root sh -c 'ldconfig -p | grep -q "libmcpgw_c.so.0 "'
    in_root sh -c '! ldd /usr/bin/mcpgw /usr/lib/libmcpgw_c.so.0 2>/dev/null | grep "not found"'
    ;;
  run) with_server first_use ;;
  activation)  # the port of mcpgw.socket, the command of mcpgw.service, and systemd's own tool in place of systemd: it listens, and
               # starts the program when the first connection comes, which is the one that is answered
    unit=$root/usr/lib/systemd/system
    host=$(sed -n 's/^ListenStream=\(.*\):[0-9]*$/\1/p' "$unit/mcpgw.socket")
    command=$(sed -n 's/^ExecStart=//p' "$unit/mcpgw.service")
    if [ -z "$host" ] || [ -z "$command" ]; then die "the units are not what this test reads"; fi
    port=$(free_port)
    # shellcheck disable=SC2086
    systemd-socket-activate --listen="$host:$port" --setenv=MCPGW_SERVER_DATA_DIR=/var/lib/mcpgw chroot "$root" $command >"$root/tmp/activation.log" 2>&1 &
    pid=$!
    trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true' EXIT
    url=http://$host:$port
    for _ in $(seq 100); do grep -q Listening "$root/tmp/activation.log" && break || sleep 0.1; done
    [[ $(readlink "/proc/$pid/exe") == */systemd-socket-activate ]] || die "it was started before anybody came"
    (use_again) || { cat "$root/tmp/activation.log"; die "nobody answers"; }
    [[ $(readlink "/proc/$pid/exe") == */usr/bin/mcpgw ]] || die "somebody else answered"
    grep -q "\"url\":\"$url\"" "$root/tmp/activation.log" || die "it listens elsewhere than where it was told"
    kill $pid
    wait $pid || die "it does not end in order"
    ;;
  container)  # R73: the last stage of the Dockerfile, on this Debian: its RUN after the installation, its user, its health check
    file=$(dirname "$0")/../../apps/packaging/Dockerfile
    makes_user=$(sed -n 's/^ *\(useradd .*\) && \\$/\1/p' "$file")
    directory=$(sed -n 's/^ *\(install -d .*\)$/\1/p' "$file")
    user=$(sed -n 's/^USER //p' "$file")
    health=$(sed -n 's/^ *CMD \(\["\/bin\/bash".*\)$/\1/p' "$file" | jq -r '.[2]')
    variables=$(sed -n 's/^ENV //p' "$file")
    for found in "$makes_user" "$directory" "$user" "$health" "$variables"; do [ -n "$found" ] || die "the Dockerfile is not what this test reads"; done
    case ${user%%:*} in 0 | root) die "the image runs as root" ;; esac
    in_root sh -c "$makes_user && $directory"
    # A port that is free now, in place of the 3000 that may not be.
    port=$(free_port)
    # shellcheck disable=SC2086
    chroot --userspec="$user" "$root" env -i PATH=/usr/bin:/bin $variables MCPGW_SERVER_HOST=127.0.0.1 "MCPGW_SERVER_PORT=$port" \
      /usr/bin/mcpgw --config /etc/mcpgw/mcpgw.yaml serve >"$root/tmp/container.log" 2>&1 &
    pid=$!
    trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true' EXIT
    for _ in $(seq 300); do
      if in_root /bin/bash -c "${health//3000/$port}" 2>/dev/null; then break; fi
      kill -0 $pid 2>/dev/null || { cat "$root/tmp/container.log"; die "it does not start as $user"; }
      sleep 0.1
    done
    in_root /bin/bash -c "${health//3000/$port}"
    [ "$(stat -c %u "/proc/$pid")" = "${user%%:*}" ] || die "it runs as somebody else"
    [ "$(stat -c %u "$root/var/lib/mcpgw/mcpgw.db")" = "${user%%:*}" ] || die "its database is somebody else's"
    kill $pid
    wait $pid || die "it does not end in order"
    if in_root /bin/bash -c "${health//3000/$port}" 2>/dev/null; then die "the health check finds what is not there"; fi
    rm -rf "$root/var/lib/mcpgw"
    ;;
  upgrade)
    echo '# changed by the administrator' >>"$root/etc/mcpgw/mcpgw.yaml"
    in_root sh -c 'dpkg -i /debs/*.deb'
    grep -q 'changed by the administrator' "$root/etc/mcpgw/mcpgw.yaml" || die "the configuration was overwritten"
    with_server use_again
    ;;
  purge)
    in_root dpkg --purge mcpgw libmcpgw-c0
    for path in usr/bin/mcpgw etc/mcpgw var/lib/mcpgw usr/lib/systemd/system/mcpgw.service; do
      [ ! -e "$root/$path" ] || die "$path is still there"
    done
    ;;
  *) die "unknown step $step" ;;
esac
