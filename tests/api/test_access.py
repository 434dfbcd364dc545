"""Who may do what: the table of the routes, held against the document and against the running server."""

import pytest

from conftest import NOBODY, OPERATIONS, fill
from gateway import PASSWORD

# P: everybody; U: every user; A: administrators. A route that is not written here is not to be there.
WHO = {
    "GET /health": "P", "GET /ready": "P", "GET /version": "P", "GET /metrics": "P",
    "GET /docs": "P", "GET /docs/openapi.yaml": "P", "GET /docs/openapi.json": "P",
    "POST /api/auth/register": "P", "POST /api/auth/login": "P",

    "GET /api/auth/me": "U",
    "GET /api/auth/tokens": "U", "POST /api/auth/tokens": "U", "DELETE /api/auth/tokens/{id}": "U",
    "POST /api/auth/logout": "U", "POST /api/auth/password": "U",

    "GET /api/users": "A", "POST /api/users": "A",
    "GET /api/users/{id}": "A", "PUT /api/users/{id}": "A", "DELETE /api/users/{id}": "A",
    "GET /api/users/{id}/tokens": "A", "DELETE /api/users/{id}/tokens/{tokenId}": "A", "POST /api/users/{id}/recycle": "A",
    "POST /api/sessions/recycle": "U",

    "GET /api/targets": "U", "POST /api/targets": "A",
    "GET /api/targets/{id}": "U", "PUT /api/targets/{id}": "A", "DELETE /api/targets/{id}": "A",
    "POST /api/targets/{id}/restart-instances": "A", "POST /api/targets/{id}/test": "A",

    "GET /api/targets/{id}/tokens": "A",
    "GET /api/targets/{id}/token": "U", "PUT /api/targets/{id}/token": "U", "DELETE /api/targets/{id}/token": "U",
    "PUT /api/targets/{id}/tokens/role": "A", "DELETE /api/targets/{id}/tokens/role/{role}": "A",
    "PUT /api/targets/{id}/tokens/group": "A", "DELETE /api/targets/{id}/tokens/group/{group}": "A",
    "PUT /api/targets/{id}/tokens/default": "A", "DELETE /api/targets/{id}/tokens/default": "A",

    "GET /api/policies": "U", "POST /api/policies": "A",
    "GET /api/policies/{id}": "U", "PUT /api/policies/{id}": "A", "DELETE /api/policies/{id}": "A",
    "POST /api/policies/{id}/subjects": "A", "DELETE /api/policies/{id}/subjects/{subjectId}": "A",
    "POST /api/policies/evaluate": "U",

    "GET /api/targets/{id}/env": "U", "GET /api/targets/{id}/env/resolve": "U",
    "GET /api/targets/{id}/env/default": "U",
    "POST /api/targets/{id}/env/default": "A", "PUT /api/targets/{id}/env/default": "A",
    "DELETE /api/targets/{id}/env/default/{key}": "A",
    "GET /api/targets/{id}/env/role/{scopeValue}": "U",
    "POST /api/targets/{id}/env/role/{scopeValue}": "A", "PUT /api/targets/{id}/env/role/{scopeValue}": "A",
    "DELETE /api/targets/{id}/env/role/{scopeValue}/{key}": "A",
    "GET /api/targets/{id}/env/group/{scopeValue}": "U",
    "POST /api/targets/{id}/env/group/{scopeValue}": "A", "PUT /api/targets/{id}/env/group/{scopeValue}": "A",
    "DELETE /api/targets/{id}/env/group/{scopeValue}/{key}": "A",
    "GET /api/targets/{id}/env/user/{scopeValue}": "U",
    "POST /api/targets/{id}/env/user/{scopeValue}": "U", "PUT /api/targets/{id}/env/user/{scopeValue}": "U",
    "DELETE /api/targets/{id}/env/user/{scopeValue}/{key}": "U",

    "GET /api/logs": "U",
    "GET /api/observability/snapshot": "U", "GET /api/observability/ws": "U", "POST /api/observability/ticket": "U",

    "POST /mcp": "U", "GET /mcp": "U", "DELETE /mcp": "U", "GET /sse": "U",
}
WORDS = {"P": "public", "U": "user", "A": "admin"}


def of(who):
    return [name for name in OPERATIONS if WHO.get(name) == who]


def rest(who):
    return [name for name in of(who) if name.split()[1].startswith("/api/")]


def ask(gateway, name, ids=None, **options):
    method, path = name.split()
    if method in ("POST", "PUT"):
        options.setdefault("body", {})
    return gateway.api(method, fill(path, ids), **options)


def test_the_document_says_who_may():
    assert set(OPERATIONS) == set(WHO)
    for name, operation in OPERATIONS.items():
        assert operation["x-mcpgw-who"] == WORDS[WHO[name]], name
        assert (operation["security"] == []) == (WHO[name] == "P"), name


@pytest.mark.parametrize("name", of("U") + of("A"))
def test_anonymous_is_challenged(gateway, name):
    """Whatever the request looks like otherwise, and with the same words whether or not the object exists."""
    answers = [ask(gateway, name), ask(gateway, name, {"id": gateway.ids["web"]}), ask(gateway, name, {"id": "x"})]
    for answer in answers:
        assert (answer.status, answer.code) == (401, "unauthorized"), answer
        assert answer.headers["www-authenticate"] == 'Bearer realm="mcpgw"'
    for header in ("Bearer", "Bearer ", "Basic YTpi", "Token x", "bearer a b"):
        answer = ask(gateway, name, headers={"Authorization": header})
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith('Bearer realm="mcpgw"'), (header, answer)
    forged = gateway.tokens["admin"][:-4] + "AAAA"
    answer = ask(gateway, name, headers={"Authorization": f"Bearer {forged}"})
    assert answer.status == 401 and 'error="invalid_token"' in answer.headers["www-authenticate"], answer
    if not name.endswith("/ws"):  # a browser cannot set headers on a WebSocket; nowhere else is a query looked at
        method, path = name.split()
        assert gateway.api(method, fill(path) + "?token=" + gateway.tokens["admin"]).status == 401


@pytest.mark.parametrize("name", rest("A"))
def test_plain_users_may_not(gateway, name):
    """Whether or not the object exists, and before anything of the body is looked at."""
    for ids in (None, {"id": gateway.ids["web"]}, {"id": gateway.ids["plain"]}, {"id": "no id"}):
        for body in ({}, b"no json"):
            if name.split()[0] in ("GET", "DELETE") and body:
                continue
            ids = {name: value.replace(" ", "%20") for name, value in (ids or {}).items()}
            answer = ask(gateway, name, ids, as_="plain", body=body or None)
            assert (answer.status, answer.code) == (403, "admin_required"), answer


@pytest.mark.parametrize("name", rest("U") + rest("A"))
def test_a_token_for_mcp_alone_opens_nothing(gateway, name):
    if "narrow" not in gateway.tokens:
        made = gateway.ask("POST", "/api/auth/tokens", {"name": "narrow", "scopes": ["mcp"]})
        gateway.tokens["narrow"] = made["token"]
    answer = ask(gateway, name, as_="narrow")
    assert (answer.status, answer.code) == (403, "insufficient_scope"), answer
    assert answer.headers["www-authenticate"] == 'Bearer realm="mcpgw", error="insufficient_scope", scope="api"'


def test_a_token_for_the_api_alone_does_not_open_mcp(gateway):
    token = gateway.ask("POST", "/api/auth/tokens", {"name": "wide", "scopes": ["api"]}, as_="plain")["token"]
    answer = gateway.api("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, token=token)
    assert (answer.status, answer.code) == (403, "insufficient_scope"), answer
    answer = gateway.api("POST", "/api/auth/tokens", {"scopes": ["mcp"]}, token=token)
    assert (answer.status, answer.code, answer.json["field"]) == (403, "insufficient_scope", "scopes"), answer


@pytest.mark.parametrize("name", rest("U"))
def test_plain_users_may(gateway, name):
    """No route for every user asks for an administrator."""
    if name in ("POST /api/auth/logout",):
        token = gateway.login("plain@example.test")
        assert ask(gateway, name, token=token).status == 204
        assert ask(gateway, name, token=token).status == 401
        return
    answer = ask(gateway, name, as_="plain")
    assert answer.status != 401, answer
    assert answer.status != 403 or answer.code == "forbidden", answer


def same_words(answer, other):
    """What two answers tell is the same, save their request ids."""
    return answer.status == other.status and {**answer.json, "request_id": 0} == {**other.json, "request_id": 0}


@pytest.mark.parametrize("name", [name for name in rest("U") if "/api/targets/{id}" in name])
def test_what_is_not_reached_is_like_what_is_not_there(gateway, name):
    own = {"scopeValue": gateway.ids["plain"] if "/user/" in name else "user" if "/role/" in name else "staff"}
    method, _ = name.split()
    body = {"POST": {"key": "REGION", "value": "x"}, "PUT": {"token": "x"} if name.endswith("/token") else {"configs": {"REGION": "x"}}}
    hidden = ask(gateway, name, {**own, "id": gateway.ids["hidden"]}, as_="plain", body=body.get(method))
    unknown = ask(gateway, name, {**own, "id": NOBODY}, as_="plain", body=body.get(method))
    assert (hidden.status, hidden.code) == (404, "target_not_found"), hidden
    assert same_words(hidden, unknown)


ADMIN_ONLY = {"command", "args", "image", "port", "health_path", "auth_header_name", "forward_headers", "tls",
              "allow_private_network", "status"}


def test_targets_are_filtered_and_reduced(gateway):
    seen = gateway.ask("GET", "/api/targets", as_="plain")
    assert [target["name"] for target in seen] == ["tool", "web"]
    for target in seen + [gateway.ask("GET", f"/api/targets/{gateway.ids['web']}", as_="plain")]:
        assert target["url"] == "" and not ADMIN_ONLY & set(target), target
    assert gateway.ask("GET", "/api/targets", as_="other") == []
    assert {"web", "tool", "hidden"} <= {target["name"] for target in gateway.ask("GET", "/api/targets")}


def test_policies_are_filtered_and_reduced(gateway):
    shared = gateway.ask("POST", "/api/policies", {
        "name": "for several", "effect": "deny", "resource_type": "tool", "resource_pattern": "^nothing$",
        "subjects": [{"subject_type": "user", "subject_value": gateway.ids["other"]},
                     {"subject_type": "group", "subject_value": "staff"}]})
    off = gateway.ask("POST", "/api/policies", {"name": "off", "effect": "allow", "enabled": False,
                                                "subjects": [{"subject_type": "everyone"}]})
    seen = {policy["name"]: policy for policy in gateway.ask("GET", "/api/policies", as_="plain")}
    assert {"plain users have web", "plain users have tool", "for several"} <= set(seen)
    assert not {"off", "Admin Full Access", "Default Allow All"} & set(seen)
    assert [subject["subject_type"] for subject in seen["for several"]["subjects"]] == ["group"]
    one = gateway.ask("GET", f"/api/policies/{shared['id']}", as_="plain")
    assert [subject["subject_type"] for subject in one["subjects"]] == ["group"]
    hidden = gateway.api("GET", f"/api/policies/{off['id']}", as_="plain")
    assert hidden.status == 404 and same_words(hidden, gateway.api("GET", f"/api/policies/{NOBODY}", as_="plain"))
    for policy in (shared, off):
        assert gateway.api("DELETE", f"/api/policies/{policy['id']}", as_="admin").status == 204


def test_decisions_are_told_about_oneself(gateway):
    about = {"target_id": gateway.ids["web"], "resource_type": "tool", "name": "echo"}
    own = gateway.ask("POST", "/api/policies/evaluate", {**about, "user_id": gateway.ids["plain"]}, as_="plain")
    assert (own["effect"], own["policy_name"]) == ("allow", "plain users have web")
    answer = gateway.api("POST", "/api/policies/evaluate", {**about, "user_id": gateway.ids["other"]}, as_="plain")
    assert (answer.status, answer.code, answer.json["field"]) == (403, "forbidden", "user_id"), answer
    hidden = gateway.ask("POST", "/api/policies/evaluate", {**about, "target_id": gateway.ids["hidden"]}, as_="plain")
    unknown = gateway.ask("POST", "/api/policies/evaluate", {**about, "target_id": NOBODY}, as_="plain")
    assert hidden == unknown and hidden["effect"] == "deny" and hidden["considered"] == []


def test_environment_is_read_in_own_scopes_and_written_in_one(gateway):
    base = f"/api/targets/{gateway.ids['web']}/env"
    scopes = {(row["scope_type"], row["scope_value"]) for row in gateway.ask("GET", base, as_="plain")}
    assert scopes == {("default", None), ("role", "user"), ("group", "staff"), ("group", "night/shift"),
                      ("user", gateway.ids["plain"])}
    for scope in ("default", "role/user", "group/staff", "group/night%2Fshift", f"user/{gateway.ids['plain']}"):
        assert len(gateway.ask("GET", f"{base}/{scope}", as_="plain")) == 1
    for scope in ("role/admin", "group/others", f"user/{gateway.ids['other']}", f"user/{NOBODY}"):
        answer = gateway.api("GET", f"{base}/{scope}", as_="plain")
        assert (answer.status, answer.code) == (403, "forbidden"), (scope, answer)
    for method, path, body in (("POST", "", {"key": "REGION", "value": "x"}), ("PUT", "", {"configs": {"REGION": "x"}}),
                               ("DELETE", "/REGION", None)):
        answer = gateway.api(method, f"{base}/user/{gateway.ids['other']}{path}", body, as_="plain")
        assert (answer.status, answer.code) == (403, "forbidden"), answer


@pytest.mark.parametrize("target, key, permitted", [
    ("web", "ANYTHING", True), ("web", "AUTH_TOKEN", True), ("web", "BASE_URL", False), ("web", "AUTH_HEADER", False),
    ("tool", "REGION", True), ("tool", "AUTH_TOKEN", True), ("tool", "UNDECLARED", False), ("tool", "PATH", False),
    ("tool", "LD_PRELOAD", False), ("tool", "ld_preload", False),
])
def test_keys_that_users_may_set(gateway, target, key, permitted):
    """R89"""
    path = f"/api/targets/{gateway.ids[target]}/env/user/{gateway.ids['plain']}"
    before = gateway.ask("GET", path, as_="plain")
    for method, body in (("POST", {"key": key, "value": "x"}), ("PUT", {"configs": {"REGION": "y", key: "x"}})):
        answer = gateway.api(method, path, body, as_="plain")
        assert answer.status == (200 if permitted else 403), answer
        if not permitted:
            assert answer.code == "key_not_permitted" and answer.json["field"] in ("key", "configs")
            assert gateway.ask("GET", path, as_="plain") == before
    if permitted and key != "REGION":
        assert gateway.api("DELETE", f"{path}/{key}", as_="plain").status == 204


def test_log_rows_of_others_are_not_told(gateway):
    rows = gateway.ask("GET", "/api/logs?limit=1000", as_="plain")
    assert rows and {row["user_id"] for row in rows} == {gateway.ids["plain"]}
    answer = gateway.api("GET", f"/api/logs?user_id={gateway.ids['admin']}", as_="plain")
    assert (answer.status, answer.code, answer.json["field"]) == (403, "forbidden", "user_id"), answer
    assert gateway.ask("GET", f"/api/logs?limit=1&user_id={gateway.ids['plain']}")


def test_the_snapshot_is_of_what_is_reached(gateway):
    names = lambda as_: {target["name"] for target in gateway.ask("GET", "/api/observability/snapshot", as_=as_)["targets"]} - {"_gateway"}
    assert names("plain") == {"web", "tool"}
    assert names("other") == set()
    assert {"web", "tool", "hidden"} <= names("admin")


def test_tokens_of_others_are_not_there(gateway):
    mine = gateway.ask("GET", "/api/auth/tokens", as_="plain")
    assert {token["user_id"] for token in mine} == {gateway.ids["plain"]}
    others = gateway.ask("GET", f"/api/users/{gateway.ids['other']}/tokens")
    answer = gateway.api("DELETE", f"/api/auth/tokens/{others[0]['id']}", as_="plain")
    assert (answer.status, answer.code) == (404, "token_not_found"), answer
    answer = gateway.api("DELETE", f"/api/users/{gateway.ids['plain']}/tokens/{others[0]['id']}", as_="admin")
    assert (answer.status, answer.code) == (404, "token_not_found"), answer


def test_nobody_is_told_which_accounts_exist(gateway):
    known = gateway.api("POST", "/api/auth/login", {"email": "plain@example.test", "password": "wrong " + PASSWORD})
    unknown = gateway.api("POST", "/api/auth/login", {"email": "nobody@example.test", "password": PASSWORD})
    assert (known.status, known.code) == (401, "invalid_credentials") and same_words(known, unknown)
    assert known.headers["www-authenticate"] == unknown.headers["www-authenticate"] == 'Bearer realm="mcpgw"'
