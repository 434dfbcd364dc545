#!/usr/bin/env bash
# Starts the example in front of a server, and calls a tool with the two lines that it prints; then once more on the same database.
# Usage: embed_in_service.sh PROGRAM DEMO_UPSTREAM
set -euo pipefail
work=$(mktemp -d)
mkfifo "$work/upstream" "$work/out"
"$2" --http --port 0 >"$work/upstream" &
upstream=$!
trap 'kill "$upstream" 2>/dev/null || true; rm -rf "$work"' EXIT
read -r line <"$work/upstream"
url=http://127.0.0.1:$(tr -dc 0-9 <<<"$line")/mcp

post() { curl -sS --fail-with-body --max-time 60 "$endpoint" -H "$authorization" -H 'Content-Type: application/json' \
  -H 'Accept: application/json, text/event-stream' "${@:2}" -d "$1"; }

for start in first second; do
  mkfifo "$work/in-$start"
  "$1" "$work/orders.db" "$url" <"$work/in-$start" >"$work/out" &
  service=$!
  exec {input}>"$work/in-$start"
  { read -r endpoint; read -r authorization; } <"$work/out"
  session=$(post '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}' \
    -D - -o /dev/null | tr -d '\r' | sed -n 's/^[Mm]cp-[Ss]ession-[Ii]d: //p')
  answer=$(post '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}' -H "Mcp-Session-Id: $session")
  echo "$start: $answer"
  [[ $answer == *'"text":"hello"'* ]]
  exec {input}>&-  # its input ends, and so does it
  wait "$service"
done
