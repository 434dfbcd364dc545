"""Runs of the generator against a gateway of their own, one for each kind of caller, all at once."""

import json
import os
import pathlib
import subprocess
import sys

import gateway as program

# Requests of each operation that are drawn at random, and scenarios of several requests. Others than administrators are
# refused most of them for the same reason.
ROLES = {"admin": (12, 100), "plain": (6, 20), "anonymous": (4, 10)}
HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 900


class Run:
    def __init__(self, role, directory):
        self.role = role
        self.log = directory / f"{role}.log"
        self.gateway = program.Gateway.run()
        self._ended = False
        try:
            self.gateway.seed()
            email = "admin@example.test" if role == "admin" else "plain@example.test"
            described = directory / f"{role}.run"
            described.write_text(json.dumps({
                "role": role, "url": self.gateway.url, "email": email, "password": program.PASSWORD,
                "program": program.MCPGW, "directory": str(self.gateway.directory), "demo": program.DEMO}))
            requests, scenarios = ROLES[role]
            config = directory / f"{role}.toml"
            config.write_text((HERE / "schemathesis.toml").read_text() + f"generation.max-examples = {scenarios}\n")
            with self.log.open("w") as out:
                self._process = subprocess.Popen(
                    [str(pathlib.Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
                     str(program.DOCUMENT), "--url", self.gateway.url, "--max-examples", str(requests)],
                    cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    env={**os.environ, "MCPGW_API_RUN": str(described), "PYTHONPATH": str(HERE), "NO_COLOR": "1"})
        except BaseException:
            self.gateway.close()
            raise

    def wait(self):
        """The exit code of the generator."""
        return self._process.wait(timeout=SECONDS)

    def end(self):
        if self._ended:
            return 0
        self._ended = True
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        return self.gateway.close()


def start_all(directory):
    runs = {}
    try:
        for role in ROLES:
            runs[role] = Run(role, directory)
    except BaseException:
        for run in runs.values():
            run.end()
        raise
    return runs
