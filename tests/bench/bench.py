"""Runs wrk against three ways to one tool call and prints rates, latencies and CPU time of what is in between."""
import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

CALL = '{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello, world"}}}'
MODERN_CALL = CALL[:-2] + (',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
                          '"io.modelcontextprotocol/clientCapabilities":{}}}}')
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
SESSIONS = 16
IDS = 10000  # an id must not be in flight twice in one session
ACCEPT = "application/json, text/event-stream"
PASSWORD = "a password of the bench"
TICKS = os.sysconf("SC_CLK_TCK")


def request(url, method="GET", body=None, headers=None):
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    every = {"Content-Type": "application/json", "Accept": ACCEPT, **(headers or {})}
    with urllib.request.urlopen(urllib.request.Request(url, data, every, method=method), timeout=30) as answer:
        text = answer.read().decode()
        return answer.headers, (json.loads(text) if text else None)


def open_session(url, headers):
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    answer, _ = request(url, "POST", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, headers)
    headers = {**headers, "Mcp-Session-Id": answer["Mcp-Session-Id"]}
    request(url, "POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
    return headers


def open_sessions(url, headers):
    """Clients have one each."""
    return [open_session(url, headers) for _ in range(SESSIONS)]


def check(way):
    """An error would be fast: what is measured must be the answer of the tool."""
    _, answer = request(way["url"], "POST", way.get("call", CALL) % 0, way["sessions"][0])
    assert answer["result"]["content"][0]["text"] == "hello, world", answer


def descendants(pid):
    out = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            out += descendants(int(child))
    return out


def cpu_seconds(pid):
    total = 0
    for one in descendants(pid):
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def milliseconds(text):
    number, unit = re.fullmatch(r"([0-9.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def measure(way, connections, seconds, script):
    lines = ["local headers = {}"]
    for place, session in enumerate(way["sessions"], 1):
        lines.append(f"headers[{place}] = {{}}")
        for name, value in {"Content-Type": "application/json", "Accept": ACCEPT, **session}.items():
            lines.append(f"headers[{place}][{lua(name)}] = {lua(value)}")
    # Rendered before the clock starts, so that wrk costs the same as with one fixed request.
    lines.append(f"""local requests, at = {{}}, 0
init = function()
  for id = 1, {IDS} do
    requests[id] = wrk.format("POST", nil, headers[id % #headers + 1], string.format({lua(way.get("call", CALL))}, id))
  end
end
request = function()
  at = at % {IDS} + 1
  return requests[at]
end""")
    script.write_text("\n".join(lines) + "\n")
    before = cpu_seconds(way["pid"])
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), way["url"]],
                         capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    used = cpu_seconds(way["pid"]) - before
    for fault in ("Non-2xx", "Socket errors"):
        if fault in out:
            print(f"{way['name']} at {connections} connections: {fault}:\n{out}", file=sys.stderr)
    count = int(re.search(r"(\d+) requests in", out).group(1))
    if count == 0:
        raise SystemExit(f"{way['name']} at {connections} connections answered nothing:\n{out}")
    return {"rate": float(re.search(r"Requests/sec:\s+([0-9.]+)", out).group(1)),
            "p50": milliseconds(re.search(r"^\s+50%\s+(\S+)", out, re.M).group(1)),
            "p99": milliseconds(re.search(r"^\s+99%\s+(\S+)", out, re.M).group(1)),
            "cpu": used / max(count, 1) * 1e6, "count": count}


def lua(text):
    return json.dumps(text)


def first_line(process, match):
    for line in process:
        found = match(line)
        if found:
            return found
    raise SystemExit("a process ended before it listened")


def start_demo(stack, demo):
    process = stack.enter_context(running([demo, "--http", "--port", "0"], stdout=subprocess.PIPE, text=True))
    return process.pid, first_line(process.stdout, lambda line: json.loads(line)["port"])


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_nginx(stack, directory, upstream_port):
    """Its port is free when it is asked for: nginx cannot choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temp = "".join(f"  {name}_temp_path {directory}/{name};\n"
                   for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(f"""{user}daemon off; worker_processes auto; pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
{temp}  upstream demo {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://demo; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    process = stack.enter_context(running([nginx, "-p", str(directory), "-c", str(directory / "nginx.conf")]))
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process.pid, port
        time.sleep(0.05)
    raise SystemExit("nginx does not listen")


def start_mcpgw(stack, directory, mcpgw, upstream_port):
    config = directory / "mcpgw.yaml"
    config.write_text("upstream:\n  allow_private: true\n")
    log = open(directory / "log", "w+b", buffering=0)
    stack.callback(log.close)
    process = stack.enter_context(running([mcpgw, "serve", "--port", "0"], cwd=directory, stderr=log))
    url = None
    for _ in range(200):
        for line in (directory / "log").read_text().splitlines():
            event = json.loads(line)
            if event["message"] == "listening":
                url = event["url"]
        if url or process.poll() is not None:
            break
        time.sleep(0.05)
    if not url:
        raise SystemExit((directory / "log").read_text())
    _, admin = request(f"{url}/api/auth/register", "POST", {"email": "admin@example.test", "password": PASSWORD})
    auth = {"Authorization": f"Bearer {admin['token']}"}
    _, user = request(f"{url}/api/users", "POST", {"email": "user@example.test", "password": PASSWORD}, auth)
    _, login = request(f"{url}/api/auth/login", "POST", {"email": "user@example.test", "password": PASSWORD})
    token = {"Authorization": f"Bearer {login['token']}"}
    _, target = request(f"{url}/api/targets", "POST",
                        {"name": "demo", "url": f"http://127.0.0.1:{upstream_port}/mcp", "auth_type": "bearer"}, auth)
    request(f"{url}/api/policies", "POST",
            {"name": "bench", "target_id": target["id"], "resource_type": "tool", "resource_pattern": "^echo$",
             "effect": "allow", "subjects": [{"subject_type": "user", "subject_value": user["id"]}]}, auth)
    request(f"{url}/api/targets/{target['id']}/token", "PUT", {"token": "a credential of the user"}, token)
    _, minted = request(f"{url}/api/auth/tokens", "POST", {"name": "bench", "scopes": ["mcp"]}, token)
    # As for nginx: no access log. Every call still leaves its audit row.
    config.write_text("upstream:\n  allow_private: true\nlogging:\n  level: warn\n")
    process.send_signal(signal.SIGHUP)
    return process.pid, url, auth, {"Authorization": f"Bearer {minted['token']}"}


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    release = re.search(r'PRETTY_NAME="(.*)"', pathlib.Path("/etc/os-release").read_text())
    return f"{os.cpu_count()} cores, {cpu.group(1) if cpu else 'unknown CPU'}, {release.group(1)}"


def train(mcpgw, demo):
    """Calls of both eras, for a program that notes what it runs (apps/packaging/optimized.sh)."""
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpgw-train-")))
        _, demo_port = start_demo(stack, demo)
        pid, url, _, token = start_mcpgw(stack, directory, mcpgw, demo_port)
        for connections in (1, 16, 64):
            legacy = {"name": "2025-11-25", "pid": pid, "url": f"{url}/mcp", "sessions": open_sessions(f"{url}/mcp", token)}
            modern = {**legacy, "name": "2026-07-28", "sessions": [{**token, **MODERN_HEADERS}], "call": MODERN_CALL}
            for way in (legacy, modern):
                check(way)
                print(f"{way['name']}, {connections} connections: {measure(way, connections, 3, directory / 'wrk.lua')['count']} calls")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mcpgw", required=True)
    parser.add_argument("--demo", required=True)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", default="1,16,64,256")
    parser.add_argument("--train", action="store_true", help="measure nothing: only call mcpgw in its usual ways")
    options = parser.parse_args()
    mcpgw, demo = (str(pathlib.Path(path).resolve()) for path in (options.mcpgw, options.demo))
    if options.train:
        return train(mcpgw, demo)

    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpgw-bench-")))
        demo_pid, demo_port = start_demo(stack, demo)
        nginx_pid, nginx_port = start_nginx(stack, directory, demo_port)
        gateway_pid, gateway_url, admin, token = start_mcpgw(stack, directory, mcpgw, demo_port)
        direct = open_sessions(f"http://127.0.0.1:{demo_port}/mcp", {})
        ways = [
            {"name": "direct", "pid": demo_pid, "url": f"http://127.0.0.1:{demo_port}/mcp", "sessions": direct},
            {"name": "nginx", "pid": nginx_pid, "url": f"http://127.0.0.1:{nginx_port}/mcp", "sessions": direct},
            {"name": "mcpgw", "pid": gateway_pid, "url": f"{gateway_url}/mcp",
             "sessions": open_sessions(f"{gateway_url}/mcp", token)},
        ]
        script, calls = directory / "wrk.lua", 0
        print(f"{machine()}; medians of {options.rounds} rounds of {options.seconds} s; wrk with 1 thread\n")
        print("| Connections | Way | Requests/s | p50 ms | p99 ms | CPU us/request | Rate to nginx | CPU to nginx |")
        print("|---|---|---|---|---|---|---|---|")
        for connections in (int(text) for text in options.connections.split(",")):
            seen = {way["name"]: [] for way in ways}
            for round_number in range(options.rounds + 1):
                for way in ways:
                    check(way)
                    # The first round, a short one, is for warming up.
                    result = measure(way, connections, options.seconds if round_number else 1, script)
                    check(way)
                    if way["name"] == "mcpgw":
                        calls += result["count"] + 2
                    if round_number:
                        seen[way["name"]].append(result)
            median = {name: {key: statistics.median(one[key] for one in results) for key in results[0]}
                      for name, results in seen.items()}
            for name, value in median.items():
                base = median["nginx"]
                ratios = ("", "") if name == "direct" else (f"{value['rate'] / base['rate']:.2f}",
                                                            f"{value['cpu'] / max(base['cpu'], 0.01):.2f}")
                print(f"| {connections} | {name} | {value['rate']:.0f} | {value['p50']:.2f} | {value['p99']:.2f} | "
                      f"{value['cpu']:.1f} | {ratios[0]} | {ratios[1]} |", flush=True)
        # wrk drops what is in flight when its time is up, so there may be a few more rows than counted answers.
        time.sleep(2)
        headers, _ = request(f"{gateway_url}/api/logs?kind=mcp&method=tools/call&limit=1", headers=admin)
        print(f"\nCalls through mcpgw: {calls}; audit rows: {headers['X-Total-Count']}")


if __name__ == "__main__":
    main()
