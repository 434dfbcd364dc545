"""Bodies that a careless or hostile client sends, to every route that takes one."""

import json

import pytest

from conftest import DOCUMENT, OPERATIONS, fill

MIB = 1024 * 1024
WITH_BODY = [name for name, operation in OPERATIONS.items() if "requestBody" in operation and name != "POST /mcp"]
WITHOUT = [name for name, operation in OPERATIONS.items()
           if "requestBody" not in operation and name.split()[0] in ("POST", "DELETE") and name.startswith(("POST /api", "DELETE /api"))
           and name not in ("POST /api/auth/logout",)]


def resolved(schema):
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].split("/")[-1]]
    return schema


def schema_of(name):
    return resolved(OPERATIONS[name]["requestBody"]["content"]["application/json"]["schema"])


def send(gateway, name, body, **headers):
    """To something that exists, as an administrator; what is refused changes nothing."""
    method, path = name.split()
    ids = {"id": gateway.ids["other" if "/users" in path else "policy of web" if "/policies" in path else "web"],
           "scopeValue": gateway.ids["plain"] if "/user/" in path else "user" if "/role/" in path else "staff"}
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    return gateway.api(method, fill(path, ids), body, as_="admin", headers={"Content-Type": "application/json", **headers})


def refused(answer, status, code, field=None):
    assert (answer.status, answer.code) == (status, code), answer
    if field is not None:
        assert answer.json["field"] == field, answer
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", WITH_BODY)
def test_other_media_types_are_415(gateway, name):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
                 "application/jsonx", "json", "application/", "+json", ""):
        refused(send(gateway, name, b"{}", Content_Type=kind), 415, "unsupported_media_type")
    for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"):
        assert send(gateway, name, b"[]", Content_Type=kind).code == "invalid_request"


@pytest.mark.parametrize("name", WITH_BODY + WITHOUT)
def test_bodies_over_the_limit_are_413(gateway, name):
    refused(send(gateway, name, b'{"x":"' + b"x" * MIB + b'"}'), 413, "body_too_large")


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_body_of_the_greatest_size_is_read(gateway, name):
    body = b'{"unknown":"' + b"x" * (MIB - 14) + b'"'
    assert len(body) == MIB - 1
    refused(send(gateway, name, body + b"]"), 400, "invalid_json")


BROKEN = {
    "nothing": b"", "blank": b"  ", "half": b'{"a":', "a tail": b"{} x", "two": b"{}{}", "a comma": b'{"a":1,}', "single quotes": b"{'a':1}",
    "a comment": b"{/**/}", "NaN": b'{"a":NaN}', "infinity": b'{"a":-Infinity}', "a number": b'{"a":01}', "plus": b'{"a":+1}',
    "bad UTF-8": b'{"a":"\xff"}', "overlong": b'{"a":"\xc0\xaf"}', "a surrogate": b'{"a":"\xed\xa0\x80"}',
    "half an escape": b'{"a":"\\ud800"}', "a raw newline": b'{"a":"\n"}', "a raw NUL": b'{"a":"\x00"}', "a BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"), "a name twice": b'{"a":1,"a":2}', "a name twice, inside": b'{"a":{"b":1,"b":2}}',
    "a name twice, escaped": b'{"a":1,"\\u0061":2}', "deep": b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
    "very deep": b"[" * 500000, "deep objects": b'{"a":' * 40 + b"1" + b"}" * 40,
}


@pytest.mark.parametrize("name", WITH_BODY)
def test_what_is_no_json_is_400(gateway, name):
    required = OPERATIONS[name]["requestBody"].get("required", False)
    for what, body in BROKEN.items():
        if what == "nothing" and not required:
            continue
        answer = send(gateway, name, body)
        assert (answer.status, answer.code) == (400, "invalid_json"), (what, answer)


@pytest.mark.parametrize("name", WITH_BODY)
def test_json_that_is_no_object_is_400(gateway, name):
    for body in (b"[]", b'"text"', b"1", b"null", b"true", b"[{}]"):
        refused(send(gateway, name, body), 400, "invalid_request")


@pytest.mark.parametrize("name", [name for name in WITHOUT if name.startswith("POST")])
def test_routes_without_input_take_an_empty_object(gateway, name):
    for body in (None, b"", b"{}", b'{"unknown":[1]}'):
        answer = send(gateway, name, body)
        assert answer.status < 300 or answer.code in ("not_restartable",), answer
    refused(send(gateway, name, b"{"), 400, "invalid_json")
    refused(send(gateway, name, b"[]"), 400, "invalid_request")
    refused(send(gateway, name, b"{}", Content_Type="text/plain"), 415, "unsupported_media_type")


def members():
    for name in WITH_BODY:
        for member in schema_of(name)["properties"]:
            yield pytest.param(name, member, id=f"{name} {member}")


# Of each type of JSON something that is never right for another.
VALUES = {"string": "text \u00e9", "integer": 1000000000000, "number": 0.5, "boolean": True, "array": [{"x": [1]}], "object": {"x": {"y": 1}}}


@pytest.mark.parametrize("name, member", list(members()))
def test_a_member_of_the_wrong_type_is_named(gateway, name, member):
    schema = schema_of(name)
    kind = resolved(schema["properties"][member])["type"]
    for other, value in VALUES.items():
        if other == kind:
            continue
        refused(send(gateway, name, json.dumps({member: value}).encode()), 400, "invalid_request", field=first_fault(schema, member))
    if kind == "array":
        refused(send(gateway, name, {member: [None]}), 400, "invalid_request", field=first_fault(schema, member))


def first_fault(schema, member):
    """Members are judged in the document's order: one that is lacking before `member` is named first."""
    for one in schema["properties"]:
        if one == member:
            return member
        if one in schema.get("required", []):
            return one
    raise AssertionError(member)


@pytest.mark.parametrize("name", [name for name in WITH_BODY if schema_of(name).get("required")])
def test_a_member_that_is_lacking_is_named(gateway, name):
    schema = schema_of(name)
    first = next(member for member in schema["properties"] if member in schema["required"])
    refused(send(gateway, name, {}), 400, "invalid_request", field=first)
    refused(send(gateway, name, {first: None}), 400, "invalid_request", field=first)


def texts():
    for name in WITH_BODY:
        for member, schema in schema_of(name)["properties"].items():
            if resolved(schema)["type"] == "string" and "enum" not in schema:
                yield pytest.param(name, member, id=f"{name} {member}")


@pytest.mark.parametrize("name, member", list(texts()))
def test_control_characters_are_refused(gateway, name, member):
    """NUL too, which ends a text for many a program."""
    schema = schema_of(name)
    body = dict(schema["example"])
    for text in ("a\0b", "\0", "a\x1b[31m", "a\x7f", "a\r"):
        body[member] = text
        answer = send(gateway, name, body)
        codes = {"key": ("invalid_key",), "value": ("invalid_value",)}
        assert answer.status == 400 and answer.code in codes.get(member, ("invalid_request",)), (text, answer)
        assert answer.json["field"] == member, answer
        assert text not in answer.json["error"]


def test_unknown_members_are_ignored_and_numbers_do_not_wrap(gateway):
    path = f"/api/targets/{gateway.ids['hidden']}"
    before = gateway.ask("GET", path)
    assert gateway.api("PUT", path, {"unknown": {"a": [1]}, "": None, "Name": "x"}, as_="admin").status == 200
    # (A number that no machine holds is JSON all the same.)
    for text in ("4294967296", "18446744073709551616", "9223372036854775808", "-1", "1e3", "80.0", "80.5", '"80"', "1" + "0" * 400):
        answer = gateway.api("PUT", path, b'{"port":' + text.encode() + b"}", as_="admin")
        refused(answer, 400, "invalid_request", field="port")
    after = gateway.ask("GET", path)
    assert {**after, "updated_at": 0} == {**before, "updated_at": 0}


def test_arguments_of_policies_are_reserved(gateway):
    for value in ({}, None, []):
        refused(gateway.api("POST", "/api/policies", {"name": "p", "effect": "allow", "arguments": value}, as_="admin"),
                400, "invalid_request", field="arguments")


def test_null_leaves_a_member_alone(gateway):
    """Save where the route says that it clears."""
    made = gateway.ask("POST", "/api/targets", {"name": "nulls", "url": "http://127.0.0.1:9/mcp", "max_concurrency": 3, "timeout_ms": 5000})
    path = f"/api/targets/{made['id']}"
    nulls = {member: None for member in schema_of("PUT /api/targets/{id}")["properties"] if member not in ("max_concurrency", "tls")}
    changed = gateway.ask("PUT", path, nulls)
    assert {**changed, "updated_at": 0, "status": 0} == {**made, "updated_at": 0, "status": 0}
    assert gateway.ask("PUT", path, {"max_concurrency": None})["max_concurrency"] is None


def test_secrets_of_refused_bodies_are_not_repeated(gateway):
    canary = "canary-7f3a-of-a-refused-body"
    answers = [
        gateway.api("POST", "/api/auth/login", {"email": 1, "password": canary}),
        gateway.api("POST", "/api/auth/login", {"email": "plain@example.test", "password": canary}),
        gateway.api("POST", "/api/users", {"email": "no address", "password": canary}, as_="admin"),
        gateway.api("PUT", f"/api/targets/{gateway.ids['web']}/token", {"token": canary + "\n"}, as_="plain"),
        gateway.api("PUT", f"/api/targets/{gateway.ids['web']}/tokens/default", b'{"token":"' + canary.encode(), as_="admin"),
        gateway.api("POST", f"/api/targets/{gateway.ids['web']}/env/default", {"key": "1", "value": canary}, as_="admin"),
        gateway.api("PUT", f"/api/targets/{gateway.ids['web']}/env/default", {"configs": {"1": canary}}, as_="admin"),
    ]
    for answer in answers:
        assert answer.status in (400, 401), answer
        assert canary.encode() not in answer.body
    assert canary.encode() not in gateway.api("GET", "/api/logs?limit=1000", as_="admin").body
    assert canary not in "\n".join(gateway.lines.kept)
