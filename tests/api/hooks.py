"""What the generator of requests (schemathesis) cannot know by itself. Few things, each with its reason.

The run is described by the file that MCPGW_API_RUN names: role, url, email, password, program, directory, demo.
"""

import itertools
import json
import os
import re
import subprocess
import time

import schemathesis
from hypothesis import strategies as st
from schemathesis.generation.meta import TestPhase

import gateway

RUN = json.loads(open(os.environ["MCPGW_API_RUN"]).read())
ROLE = RUN["role"]

# -- Who asks ----------------------------------------------------------------------------------------------------------


def _restore():
    """Log-outs, revocations, a new password and a lost role are requests like any other here: whoever asks gets the
    account back by the program's own commands, which go by no token, and logs in anew."""
    words = ["user", "add", RUN["email"]] + (["--admin"] if ROLE == "admin" else [])
    for command in (words, ["user", "set-password", RUN["email"]], ["user", "enable", RUN["email"]],
                    ["user", "set-role", RUN["email"], "admin" if ROLE == "admin" else "user"]):
        subprocess.run([RUN["program"], *command], cwd=RUN["directory"], input=RUN["password"], text=True,
                       capture_output=True, timeout=60)


def _login():
    answer = gateway.request(RUN["url"], "POST", "/api/auth/login",
                             body={"email": RUN["email"], "password": RUN["password"]})
    return answer.json["token"] if answer.status == 200 else None


if ROLE != "anonymous":

    @schemathesis.auth(refresh_interval=3600, retry_on=[401])
    class Account:
        """Asked once, and again after each 401."""

        def get(self, case, context):
            token = _login()
            if token is None:
                _restore()
                # The running gateway hears of another process' write a moment later.
                end = time.monotonic() + 10
                while (token := _login()) is None and time.monotonic() < end:
                    time.sleep(0.05)
            assert token is not None, "the account of the run cannot be restored"
            return token

        def set(self, case, token, context):
            case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def after_call(context, case, response):
    if ROLE == "admin" and response.status_code == 403 and b"admin_required" in response.content:
        _restore()


# -- What must not happen ----------------------------------------------------------------------------------------------


@schemathesis.hook
def before_call(context, case, kwargs):
    """A tested target is connected to. Whatever URL was thought of, nothing but this machine is ever asked."""
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = _local(case.body["url"])
    if case.meta is None:
        return
    if case.meta.generation.mode.is_positive:
        _known(case)
    if case.meta.phase.name == TestPhase.STATEFUL:
        _repeatable(case)


def _local(url):
    return re.sub(r"^(https?://)(\[[0-9a-f:.]*\]|[\w.-]+)(:\d*)?(?=[/?]|$)", r"\g<1>127.0.0.1:9", url, flags=re.I)


def _known(case):
    """Versions and cursors are made by the gateway: guessed ones end a request before its body is looked at."""
    if case.meta.phase.name != TestPhase.STATEFUL and "If-Match" in (case.headers or {}):
        case.headers["If-Match"] = "*"  # (in scenarios it comes from what was read)
    if case.query:
        case.query.pop("cursor", None)


_made = itertools.count()


def _repeatable(case):
    """The generator repeats the beginnings of its scenarios and gives up when they then end otherwise: a name that was
    free must be so again, and a list begins where it began. (Taken names and pages are asked about in the other phases,
    and in test_races.py and test_routes.py.)"""
    if case.query:
        case.query.pop("offset", None)
    names = {"createUser": ("email", "user{}@example.test", "@"), "createTarget": ("name", "target {}", ""),
             "updateTarget": ("name", "target {}", ""), "register": ("email", "user{}@example.test", "@")}
    member, form, sign = names.get(case.operation.definition.raw.get("operationId"), (None, None, None))
    if member is None or not isinstance(case.body, dict):
        return
    if isinstance(case.body.get(member), str) and case.body[member] and sign in case.body[member]:
        case.body[member] = form.format(next(_made))
    if isinstance(case.body.get("slug"), str) and case.body["slug"]:
        case.body["slug"] = f"slug-{next(_made)}"


# -- Texts with a grammar that no schema tells -------------------------------------------------------------------------

# A pattern of RE2, as far as the schema goes (`format: re2`).
schemathesis.openapi.format("re2", st.sampled_from(["", "^read_", "delete", r"^(get|list)_\w+$", "[a-z]{1,8}$", r"\d+", "(?i)x"]))


@schemathesis.hook("map_body").apply_to(operation_id_regex="^merge.*Env$")
def name_keys(context, body):
    """OpenAPI 3.0 cannot say what the names of members look like: they become names of variables."""
    if isinstance(body, dict) and isinstance(body.get("configs"), dict):
        body["configs"] = {f"KEY_{number}": value for number, value in enumerate(body["configs"].values())}
    return body


@schemathesis.hook("map_body").apply_to(operation_id_regex="^(create|update)Target$")
def run_the_demo(context, body):
    """The gateway of the tests starts one command only, by configuration."""
    if isinstance(body, dict) and isinstance(body.get("command"), str) and body["command"].strip():
        body["command"] = RUN["demo"]
    return body


# -- What depends on what is stored, on the clock or on the caller -----------------------------------------------------

# A request that fits the document may be refused with these: the thing that it names does not exist (any more), or
# is not of the kind that the operation is for.
STATE_CODES = {
    "unknown_target", "unknown_user", "not_restartable", "kubernetes_disabled",
}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Keeps a failure unless it is the refusal of a well-formed request for a reason outside of it."""
    if response.status_code in (414, 431) and type(failure).__name__ == "UndefinedStatusCode":
        return False  # bounds of the HTTP server, met before an operation is known: not repeated for each of them
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    if case.operation.path == "/mcp":
        return False  # which message may come when, and what an answer is to, is MCP's own matter, tested elsewhere
    if response.status_code != 400:
        return True
    error = json.loads(response.content)
    if error["code"] in STATE_CODES:
        return False
    operation = case.operation.definition.raw.get("operationId")
    if operation == "createToken" and error.get("field") == "expires_at":
        return False  # a time that has passed
    field = error.get("field")
    if error["code"] in ("invalid_value", "invalid_request") and field in ("value", "configs", "token"):
        if re.search(r"[\t\n]", "".join(_texts(case.body))):
            return False  # they go into processes, not into headers: it depends on the target
    if field == "forward_headers" and len({name.lower() for name in case.body[field]}) < len(case.body[field]):
        return False  # a schema's `uniqueItems` takes X-A and x-a for two
    if case.method.upper() == "PUT" and isinstance(case.body, dict) and (field == "tls" or not case.body.get(field)):
        return False  # the member at fault is a stored one, or a part of it: what was sent does not go with it
    return True


def _texts(value):
    """The strings among the members of a body, and in the objects that they are."""
    for one in value.values() if isinstance(value, dict) else ():
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from _texts(one)
