"""mcpgw.testing: what a test author gets."""

import subprocess
import sys
import threading

import mcpgw
import pytest


def test_calls_and_refusals(gw, calculator):
    alice, bob = gw.as_user("alice"), gw.as_user("bob")
    assert alice.list_tools() == ["add", "fail", "crash"]
    assert alice.call_tool("add", a=2, b=3).text == "5"
    assert alice.call_tool("add", a=2).text == "3"
    assert bob.list_tools() == []
    refused = bob.call_tool("add", a=2)
    assert not refused.ok and refused.error_code == -32602
    assert [call["arguments"] for call in calculator.received_calls("add")] == [{"a": 2, "b": 3}, {"a": 2}]


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
def test_both_eras_on_either_side(gw, era, version):
    server = gw.server("s", protocol_era=era)
    server.add_tool("größe", lambda arguments: arguments["a"])
    gw.allow("alice", "s")
    alice = gw.as_user("alice")
    alice.speak(version)
    assert alice.list_tools() == ["größe"]
    reply = alice.call_tool("größe", a="x")
    assert reply.ok and reply.text == "x", reply
    assert reply.result.get("resultType") == ("complete" if version == "2026-07-28" else None)
    assert (alice.session_id is None) == (version == "2026-07-28")
    assert not gw.as_user("bob").call_tool("größe", a="x").ok
    methods = {message["method"] for message in server.received}
    assert ("server/discover" if era == "modern" else "initialize") in methods
    assert ("initialize" if era == "modern" else "server/discover") not in methods


def test_deny_comes_first(gw, calculator):
    gw.deny("alice", "calculator", "^fail$")
    assert gw.as_user("alice").list_tools() == ["add", "crash"]
    assert not gw.as_user("alice").call_tool("fail").ok
    assert calculator.received_calls("fail") == []


def test_tools_that_fail(gw, calculator):
    alice = gw.as_user("alice")
    failed = alice.call_tool("fail")
    assert not failed.ok and failed.text == "out of numbers" and failed.error_code is None
    crashed = alice.call_tool("crash")
    assert crashed.error_code == -32603 and "secret" not in crashed.error
    assert alice.call_tool("add").error_code == -32602  # an argument is missing
    assert alice.call_tool("nothing").error_code == -32602
    assert alice.call_tool("add", a=1).ok


def test_values_of_any_kind(gw):
    server = gw.server("values")
    server.add_tool("echo", lambda arguments: arguments["value"])
    gw.allow("alice")
    for value in ("text", "ünï", "", 7, 1.5, None, True, [1, {"a": "b"}], {"content": [{"type": "text", "text": "x"}]}):
        answer = gw.as_user("alice").call_tool("echo", value=value)
        assert answer.ok, answer
        if isinstance(value, dict):
            assert answer.result == value
    big = "x" * 1_000_000
    assert gw.as_user("alice").call_tool("echo", value=big).text == big


def test_a_tool_may_use_the_gateway(gw, calculator):
    outer = gw.server("outer")

    @outer.tool
    def twice(a: int) -> str:
        return gw.as_user("alice").call_tool("add", a=a, b=a).text

    gw.allow("carol", "outer")
    assert gw.as_user("carol").call_tool("twice", a=21).text == "42"


def test_many_threads(gw, calculator):
    results = []

    def work(name):
        user = gw.as_user(name)
        for n in range(20):
            results.append(user.call_tool("add", a=n, b=0).text == str(n))

    names = [f"user-{n}" for n in range(6)]
    for name in names:
        gw.allow(name, "calculator", "^add$")
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 120 and all(results)


def test_audit(gw, calculator):
    gw.as_user("alice").call_tool("add", a=1)
    gw.as_user("bob").call_tool("add", a=1)
    rows = [row for row in gw.audit_rows() if row["method"] == "tools/call"]
    assert [(row["user_email"], row["response_status"] < 400) for row in rows] == [
        ("bob@example.test", False),
        ("alice@example.test", True),
    ]


def test_rest_with_ones_own_token(gw):
    assert gw.as_user("bob").api("GET", "/api/users").status == 403
    assert gw.as_user("admin").api("GET", "/api/users").status == 200
    assert gw.as_user("bob").api("GET", "/api/auth/me").json()["email"] == "bob@example.test"


def test_two_gateways_do_not_know_each_other():
    with mcpgw.testing.gateway() as one, mcpgw.testing.gateway() as two:
        for gateway, word in ((one, "one"), (two, "two")):
            gateway.server("s").add_tool("which", lambda arguments, word=word: word)
            gateway.allow("alice")
        assert one.as_user("alice").call_tool("which").text == "one"
        assert two.as_user("alice").call_tool("which").text == "two"
        two.as_user("alice").token = one.as_user("alice").token
        assert two.as_user("alice").call_tool("which").status == 401


def test_pytest_finds_the_fixture(mcpgw_gateway):
    mcpgw_gateway.server("s").add_tool("t", lambda arguments: "x")
    mcpgw_gateway.allow("alice", "s")
    assert mcpgw_gateway.as_user("alice").call_tool("t").text == "x"


def test_the_fixture_loads_the_library_only_for_who_asks(tmp_path):
    (tmp_path / "test_other.py").write_text("import sys\n\ndef test_it():\n    assert 'mcpgw_pytest' in sys.modules and 'mcpgw' not in sys.modules\n")
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_as_user_takes_role_and_groups(gw):
    assert gw.as_user("eve", role="auditor", groups=["dev"]).api("GET", "/api/auth/me").json()["groups"] == ["dev"]
    with pytest.raises(mcpgw.ApiError) as refused:
        gw.as_user("not an address@")
    assert refused.value.status == 400
