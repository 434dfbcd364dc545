"""Starts the mcpgw program in a directory of its own and fills it with something to ask about."""

import http.client
import json
import os
import pathlib
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]
MCPGW = os.environ.get("MCPGW", str(ROOT / "build/dev/apps/mcpgw/mcpgw"))
DEMO = os.environ.get("DEMO_UPSTREAM", str(ROOT / "build/dev/examples/demo_upstream/demo_upstream"))
DOCUMENT = ROOT / "docs/openapi.yaml"
PASSWORD = "a password of the tests"

# Attempts are counted per address, and all of these tests come from one. Only the demo server is ever started,
# whatever command a generator thinks of.
CONFIG = f"""
auth:
  max_tokens_per_user: 900
  rate:
    login_per_pair: 1000000
    login_per_address: 1000000
    login_per_account: 1000000
    register_per_address: 1000000
upstream:
  allow_private: true
  connect_timeout: 1s
  list_timeout: 3s
stdio:
  allowed_commands: [{json.dumps(DEMO)}]
logging:
  level: warn
"""


class Answer:
    """What came back: status, headers by lower-case name, the bytes, and the JSON of them."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["code"]

    def __repr__(self):
        return f"{self.status} {self.body[:500]!r}"


def request(url, method, path, *, token=None, body=None, headers=None, timeout=30):
    """One request over a connection of its own. `body`: bytes as they are, anything else as JSON."""
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, body=body, headers=sent)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


class Lines:
    """The lines of a child process, kept, so that it never blocks on a full pipe."""

    def __init__(self, stream):
        self.kept = []
        self._fresh = queue.Queue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream):
        with stream:
            for line in stream:
                self.kept.append(line.rstrip("\n"))
                self._fresh.put(line)
        self._fresh.put(None)

    def first(self, match, seconds=30):
        """The value that `match` gives for the first line for which it gives one."""
        end = time.monotonic() + seconds
        while True:
            line = self._fresh.get(timeout=max(0.01, end - time.monotonic()))
            if line is None:
                raise RuntimeError("the process ended early:\n" + "\n".join(self.kept[-20:]))
            if (value := match(line)) is not None:
                return value


def start(command, **options):
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        **options)
    return process, Lines(process.stdout)


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def _json_member(line, name):
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value.get(name) if isinstance(value, dict) else None


@dataclass
class Gateway:
    """A running gateway. `tokens` has API tokens with both scopes by the name of their owner."""

    directory: pathlib.Path
    process: subprocess.Popen
    lines: Lines
    url: str
    demo: subprocess.Popen | None = None
    tokens: dict = field(default_factory=dict)
    ids: dict = field(default_factory=dict)

    @classmethod
    def run(cls, config=CONFIG):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="mcpgw-api-"))
        # "listening" is logged at level info: the port is asked for with the first lines, the rest is for failures.
        (directory / "mcpgw.yaml").write_text(config.replace("level: warn", "level: info"))
        process, lines = start([MCPGW, "serve", "--port", "0"], cwd=directory)
        try:
            url = lines.first(lambda line: _json_member(line, "url") if _json_member(line, "message") == "listening" else None)
        except Exception:
            stop(process)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return cls(directory, process, lines, url)

    def close(self):
        """Ends it; gives its exit code."""
        code = stop(self.process)
        if self.demo is not None:
            stop(self.demo)
        shutil.rmtree(self.directory, ignore_errors=True)
        return code

    def api(self, method, path, body=None, *, as_=None, token=None, headers=None):
        return request(self.url, method, path, token=token or self.tokens.get(as_), body=body, headers=headers)

    def ask(self, method, path, body=None, *, as_="admin", token=None):
        """The same, which must succeed; gives the body."""
        answer = self.api(method, path, body, as_=as_, token=token)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer}")
        return answer.json if answer.body else None

    def command(self, *words, text=""):
        """A command of the program over the same data, as an administrator of the machine would give it."""
        return subprocess.run([MCPGW, *words], cwd=self.directory, input=text, capture_output=True, text=True, timeout=60)

    def login(self, email):
        return self.ask("POST", "/api/auth/login", {"email": email, "password": PASSWORD}, as_=None)["token"]

    def add_user(self, name, **members):
        email = f"{name}@example.test"
        user = self.ask("POST", "/api/users", {"email": email, "password": PASSWORD, **members})
        self.ids[name] = user["id"]
        self.tokens[name] = self.ask("POST", "/api/auth/tokens", {"name": "tests"}, token=self.login(email))["token"]
        return user

    def seed(self):
        """An admin, a plain user who reaches two of three targets, and an entry of every kind."""
        first = self.ask("POST", "/api/auth/register", {"email": "admin@example.test", "password": PASSWORD}, as_=None)
        self.ids["admin"] = first["user"]["id"]
        self.tokens["admin"] = self.ask("POST", "/api/auth/tokens", {"name": "tests"}, token=first["token"])["token"]
        self.add_user("plain", groups=["staff", "night/shift"])
        self.add_user("other", role="viewer")
        self.demo, lines = start([DEMO, "--http", "--port", "0"])
        port = lines.first(lambda line: _json_member(line, "port"))
        targets = {
            "web": {"url": f"http://127.0.0.1:{port}/mcp", "auth_type": "bearer"},
            "tool": {"transport_type": "stdio", "command": DEMO, "args": ["--stdio"], "isolation_boundary": "per_user",
                     "user_env_keys": ["REGION"]},
            "hidden": {"url": "http://127.0.0.1:9/mcp"},
        }
        for name, members in targets.items():
            target = self.ask("POST", "/api/targets", {"name": name, **members})
            self.ids[name] = target["id"]
            self.ask("PUT", f"/api/targets/{target['id']}/tokens/default", {"token": "default-credential"})
            self.ask("PUT", f"/api/targets/{target['id']}/tokens/role", {"role": "user", "token": "role-credential"})
            self.ask("PUT", f"/api/targets/{target['id']}/tokens/group", {"group_name": "staff", "token": "group-credential"})
            for scope in ("default", "role/user", "group/staff", "group/night%2Fshift", f"user/{self.ids['plain']}"):
                self.ask("POST", f"/api/targets/{target['id']}/env/{scope}", {"key": "REGION", "value": "eu-1"})
        for name in ("web", "tool"):
            policy = self.ask("POST", "/api/policies", {
                "name": f"plain users have {name}", "target_id": self.ids[name], "effect": "allow",
                "subjects": [{"subject_type": "role", "subject_value": "user"}]})
            self.ids[f"policy of {name}"] = policy["id"]
            self.ask("PUT", f"/api/targets/{self.ids[name]}/token", {"token": "own-credential"}, as_="plain")
        return self
