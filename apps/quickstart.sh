#!/usr/bin/env bash
# From nothing to a tool call through the gateway, on Debian 12 as root or with sudo.
#
#   apps/quickstart.sh            builds, sets up, shows a call, keeps the gateway running in the foreground
#   apps/quickstart.sh --no-run   the same, and ends what it started after the call
#
# All it keeps is in ./mcpgw-data of the checkout (MCPGW_QUICKSTART_DIR names another place); a second run goes on with
# the same data. MCPGW_QUICKSTART_PORT chooses the port (3000).
set -euo pipefail
run=true
for argument in "$@"; do
  case $argument in
    --no-run) run=false ;;
    *) echo "usage: apps/quickstart.sh [--no-run]" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/.."
source apps/lib/packages.sh
data=${MCPGW_QUICKSTART_DIR:-$PWD/mcpgw-data}
port=${MCPGW_QUICKSTART_PORT:-3000}
email=admin@example.com
step() { printf '\n-> %s\n' "$*"; }
die() { echo "quickstart: $*" >&2; exit 1; }

step "Packages"
mkdir -p build
install_packages "${build_packages[@]}" "${quickstart_packages[@]}"
# Only the pages (/ and /docs) come from npm: without them the gateway lacks nothing else.
{ ensure_node && ensure_npm_packages apps/docs && ensure_npm_packages apps/console; } 2>build/quickstart-npm.log ||
  echo "The console and /docs will be plain pages: npm packages could not be fetched (build/quickstart-npm.log)"

step "Build (build/release; the first time takes some minutes)"
if ! { cmake --preset release -DMCPGW_BUILD_TESTS=OFF -DMCPGW_WERROR=OFF && cmake --build --preset release -j "$(nproc)" --target mcpgw demo_upstream; } \
  >build/quickstart.log 2>&1; then
  tail -n 40 build/quickstart.log >&2
  die "the build failed; see build/quickstart.log"
fi
mcpgw=$PWD/build/release/apps/mcpgw/mcpgw
demo=$PWD/build/release/examples/demo_upstream/demo_upstream

step "Gateway"
log=$PWD/build/quickstart-gateway.log
cli() { "$mcpgw" "$@"; }
export MCPGW_SERVER_DATA_DIR=$data MCPGW_SERVER_PORT=$port MCPGW_LOGGING_FORMAT=console
export MCPGW_UPSTREAM_ALLOW_PRIVATE=true  # so that targets on this machine and in this network can be tried
: >"$log"
"$mcpgw" serve >"$log" 2>&1 &
gateway=$!
stop_gateway() {
  kill -TERM "$gateway" 2>/dev/null || true
  wait "$gateway" 2>/dev/null || true
}
trap stop_gateway EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
url=""
for _ in $(seq 1 150); do
  url=$(sed -n 's/.* listening  url=\([^ ]*\).*/\1/p' "$log" | head -1)
  [ -z "$url" ] || break
  kill -0 "$gateway" 2>/dev/null || { cat "$log" >&2; die "the gateway ended at once"; }
  sleep 0.2
done
[ -n "$url" ] || { cat "$log" >&2; die "the gateway does not listen"; }
echo "$url, data in $data"

# The password and the token are made here and kept beside the gateway's keys, for this user alone.
umask 077
password_file=$data/quickstart-password
token_file=$data/quickstart-token
[ -s "$password_file" ] || od -An -N18 -tx1 /dev/urandom | tr -d ' \n' >"$password_file"

# json NAME: the string member NAME of a JSON object on stdin (ids and tokens: no escapes in them).
json() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -1; }
# call METHOD PATH [BODY]: a request to the REST API; secrets go by stdin, not by arguments.
call() {
  curl -sS --fail-with-body -X "$1" "$url$2" -H 'Content-Type: application/json' \
    ${login:+-H @<(printf 'Authorization: Bearer %s\n' "$login")} --data-binary @- <<<"${3:-}"
}

step "Administrator $email"
login=""
credentials="{\"email\":\"$email\",\"password\":\"$(cat "$password_file")\"}"
if answer=$(call POST /api/auth/register "$credentials" 2>/dev/null); then
  echo "registered; the password is in $password_file"
elif ! answer=$(call POST /api/auth/login "$credentials"); then
  die "cannot log in as $email: $answer"
fi
login=$(json token <<<"$answer")
[ -n "$login" ] || die "no token in the answer to the login"

step "Target: the demo server"
if ! cli target show demo >/dev/null 2>&1; then
  call POST /api/targets "{\"name\":\"demo\",\"transport_type\":\"stdio\",\"command\":\"$demo\",\"args\":[\"--stdio\"]}" >/dev/null
fi
cli target list

step "Policy: everyone may use echo and add of the demo server"
policies=$(cli policy list)
if ! grep -q 'Quickstart$' <<<"$policies"; then
  target=$(cli target show demo | json id)
  call POST /api/policies '{"name":"Quickstart","target_id":"'"$target"'","resource_type":"tool",
    "resource_pattern":"^(echo|add)$","effect":"allow","subjects":[{"subject_type":"everyone"}]}' >/dev/null
fi
cli policy list

step "API token"
token=$(cat "$token_file" 2>/dev/null || true)
mcp() {  # mcp BODY [HEADER...]: one JSON-RPC message; prints the answer's headers and body
  local body=$1
  shift
  curl -sS -D - "$url/mcp" -H @<(printf 'Authorization: Bearer %s\n' "$token") -H 'Content-Type: application/json' \
    -H 'Accept: application/json, text/event-stream' "$@" --data-binary @- <<<"$body"
}
initialize='{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"quickstart","version":"1"}}}'
answer=$([ -z "$token" ] || mcp "$initialize")
if [[ $answer != *'"serverInfo"'* ]]; then
  token=$(call POST /api/auth/tokens '{"name":"quickstart","scopes":["mcp"]}' | json token)
  printf '%s' "$token" >"$token_file"
  answer=$(mcp "$initialize")
fi
session=$(tr -d '\r' <<<"$answer" | sed -n 's/^[Mm]cp-[Ss]ession-[Ii]d: //p')
[ -n "$session" ] || die "initialize failed: $answer"

step "A tool call through the gateway: add 19 and 23"
mcp '{"jsonrpc":"2.0","method":"notifications/initialized"}' -H "Mcp-Session-Id: $session" >/dev/null
answer=$(mcp '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"a":19,"b":23}}}' \
  -H "Mcp-Session-Id: $session" | tail -n 1)
[[ $answer == *'"42"'* ]] || die "unexpected answer: $answer"
echo "$answer"
curl -sS -X DELETE "$url/mcp" -H @<(printf 'Authorization: Bearer %s\n' "$token") -H "Mcp-Session-Id: $session" >/dev/null

cat <<END

== What you need next ==
URL      $url/mcp
Token    $token
Console  $url ($email; the password is in $password_file)

Claude Code
  claude mcp add --transport http mcpgw $url/mcp --header "Authorization: Bearer $token"
Cursor (.cursor/mcp.json)
  {"mcpServers":{"mcpgw":{"url":"$url/mcp","headers":{"Authorization":"Bearer $token"}}}}
VS Code (.vscode/mcp.json)
  {"servers":{"mcpgw":{"type":"http","url":"$url/mcp","headers":{"Authorization":"Bearer $token"}}}}
END

if ! $run; then
  stop_gateway
  trap - EXIT
  printf '\nThe gateway has been stopped. The answer of the tool was:\n%s\n' "$answer"
  exit 0
fi
printf '\nThe gateway runs until Ctrl-C. Its log:\n'
tail -n +1 -f --pid="$gateway" "$log" &
follower=$!
trap 'stop_gateway; kill "$follower" 2>/dev/null || true' EXIT
wait "$gateway"
