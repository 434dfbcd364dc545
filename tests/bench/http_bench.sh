#!/bin/sh
# Requests a second and CPU per request of the bundled server beside nginx (one worker), the same small body.
#   tests/bench/http_bench.sh <path of http_bench> [seconds a run, default 3]
# Needs wrk and nginx. Loopback only, free ports, ends what it starts. Compare figures of one run only.
set -eu
bench=$1
seconds=${2:-3}
dir=$(mktemp -d)
trap 'kill $nginx_pid $ours_pid $ours2_pid 2>/dev/null || true; rm -rf "$dir"' EXIT
nginx_pid= ours_pid= ours2_pid=

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

port=$(free_port)
cat > "$dir/nginx.conf" <<CONF
worker_processes 1;
daemon off;
master_process off;
pid $dir/nginx.pid;
error_log $dir/error.log crit;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 100000000;
  server {
    listen 127.0.0.1:$port backlog=4096;
    location / {
      default_type application/json;
      return 200 '{"status":"ok","version":"1.0.0","uptime_seconds":12345,"sessions":17}';
    }
  }
}
CONF
nginx -p "$dir" -c "$dir/nginx.conf" 2>/dev/null &
nginx_pid=$!
"$bench" 1 > "$dir/one" &
ours_pid=$!
"$bench" 2 > "$dir/two" &
ours2_pid=$!
while [ ! -s "$dir/one" ] || [ ! -s "$dir/two" ] || ! curl -s -o /dev/null "http://127.0.0.1:$port/"; do sleep 0.1; done

hz=$(getconf CLK_TCK)
cpu() { awk '{print $14 + $15}' "/proc/$1/stat"; }
run() { # name pid port connections
  before=$(cpu "$2")
  wrk -t1 -c"$4" -d"${seconds}s" --latency -s "$dir/headers.lua" "http://127.0.0.1:$3/mcp" > "$dir/out"
  after=$(cpu "$2")
  total=$(awk '/requests in/ {print $1}' "$dir/out")
  awk -v name="$1" -v c="$4" -v ticks=$((after - before)) -v hz="$hz" -v total="$total" '
    /50%/ {p50 = $2} /99%/ {p99 = $2} /Requests\/sec/ {rps = $2} /Non-2xx/ {bad = $NF} /Socket errors/ {bad = $0}
    END {printf "%-14s c=%-5s %9.0f req/s  p50 %-9s p99 %-9s %5.1f us CPU a request %s\n", name, c, rps, p50, p99, ticks / hz * 1e6 / total, bad}' "$dir/out"
}
cat > "$dir/headers.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["Authorization"] = "Bearer mcpgw_0123456789abcdef0123456789abcdef"
wrk.headers["Mcp-Session-Id"] = "3f2b8c1e-4a5d-4c6f-9e7a-1b2c3d4e5f60"
wrk.body = '{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"git_log","arguments":{"path":"/srv/repo","limit":20,"branch":"main","since":"2026-01-01"},"_meta":{"progressToken":"p-17"}}}'
LUA
for connections in 1 16 64 256 1024; do
  run "nginx 1 worker" "$nginx_pid" "$port" $connections
  run "mcpgw 1 loop" "$ours_pid" "$(cat "$dir/one")" $connections
  run "mcpgw 2 loops" "$ours2_pid" "$(cat "$dir/two")" $connections
done
