"""CPU time of one tool call through a gateway with and without observability, in turns; medians and their ratio."""
import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import tempfile

from bench import check, machine, measure, open_sessions, running, start_demo


def start_gateway(stack, program, database, upstream_port):
    command = [program, str(database), f"http://127.0.0.1:{upstream_port}/mcp"]
    process = stack.enter_context(running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    facts = json.loads(process.stdout.readline())
    return process.pid, facts["url"], {"Authorization": f"Bearer {facts['token']}"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True, help="of the build")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    build = pathlib.Path(options.directory).resolve()

    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpgw-bench-")))
        _, demo_port = start_demo(stack, str(build / "examples/demo_upstream/demo_upstream"))
        ways = []
        for name in ("unobserved", "observed"):
            pid, url, token = start_gateway(stack, str(build / f"tests/bench/{name}_server"),
                                            directory / f"{name}.db", demo_port)
            ways.append({"name": name, "pid": pid, "url": url, "sessions": open_sessions(url, token)})
        seen = {way["name"]: [] for way in ways}
        for round_number in range(options.rounds + 1):
            # What changes with time on the machine concerns both alike.
            for way in ways if round_number % 2 else reversed(ways):
                check(way)
                result = measure(way, options.connections, options.seconds if round_number else 1,
                                 directory / "wrk.lua")
                check(way)
                if round_number:  # the first is for warming up
                    seen[way["name"]].append(result["cpu"])
        print(f"{machine()}; medians of {options.rounds} rounds of {options.seconds} s, "
              f"{options.connections} connections\n")
        print("| Way | CPU us/call | least | most |\n|---|---|---|---|")
        for name, cpu in seen.items():
            print(f"| {name} | {statistics.median(cpu):.1f} | {min(cpu):.1f} | {max(cpu):.1f} |")
        pairs = [observed / bare for bare, observed in zip(seen["unobserved"], seen["observed"])]
        print(f"\nWith observability a call costs {statistics.median(pairs):.3f} times as much CPU "
              f"({min(pairs):.3f} to {max(pairs):.3f})")


if __name__ == "__main__":
    main()
