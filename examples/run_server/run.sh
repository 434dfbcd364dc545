#!/usr/bin/env bash
# The server, from nothing to the first call: an administrator, a server behind it, a policy, a token for a client.
# Usage: run.sh MCPGW MCP_SERVER_COMMAND   (the program `mcpgw`, and an MCP server that speaks on its standard input)
set -euo pipefail
mcpgw=$1
upstream=$2
data=$(mktemp -d)
MCPGW_SERVER_DATA_DIR=$data "$mcpgw" serve --port 0 >"$data/log" 2>&1 &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -rf "$data"' EXIT

# The log tells where it listens.
url=
for _ in $(seq 300); do
  url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$data/log" | head -1)
  [ -n "$url" ] && break
  kill -0 "$server" || { cat "$data/log"; exit 1; }
  sleep 0.1
done

# post PATH TOKEN BODY
post() { curl -sS --fail-with-body "$url$1" -H "Authorization: Bearer $2" -H 'Content-Type: application/json' \
  -H 'Accept: application/json, text/event-stream' "${@:4}" -d "$3"; }
text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# The first one to register becomes the administrator.
admin=$(post /api/auth/register none '{"email":"admin@example.org","password":"a long password"}' | text token)
post /api/targets "$admin" "{\"name\":\"demo\",\"transport_type\":\"stdio\",\"command\":\"$upstream\",\"args\":[\"--stdio\"]}" >/dev/null
post /api/policies "$admin" '{"name":"everyone echoes","effect":"allow","resource_type":"tool","resource_pattern":"^echo$","subjects":[{"subject_type":"everyone"}]}' >/dev/null
post /api/users "$admin" '{"email":"alice@example.org","password":"a long password"}' >/dev/null
alice=$(post /api/auth/login none '{"email":"alice@example.org","password":"a long password"}' | text token)

echo "MCP endpoint: $url/mcp"
session=$(post /mcp "$alice" '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}' \
  -D - -o /dev/null | tr -d '\r' | sed -n 's/^[Mm]cp-[Ss]ession-[Ii]d: //p')
echo "alice: $(post /mcp "$alice" '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}' -H "Mcp-Session-Id: $session")"
