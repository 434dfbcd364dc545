"""Every path of the document: what is not there, what is not offered, and what is answered on every GET route."""

import pytest

from conftest import DOCUMENT, OPERATIONS, fill

PATHS = DOCUMENT["paths"]
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "PURGE")


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/targets/", "/api//targets", "/nothing", "/mcp/x",
                                  "/api/targets/%2e%2e/users", "/api/policies/evaluate/x", "/API/targets", "/health/"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_routes_are_404_in_json(gateway, method, path):
    answer = gateway.api(method, path)
    assert answer.status == 404 and answer.code == "not_found", answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", PATHS)
def test_methods_that_are_not_offered_are_405_with_allow(gateway, path):
    """Before anybody is asked who they are."""
    offered = {method.upper() for method in PATHS[path]}
    allowed = offered | {"OPTIONS"} | ({"HEAD"} if "GET" in offered and path not in ("/mcp", "/sse") else set())
    for method in METHODS:
        if method in offered:
            continue
        answer = gateway.api(method, fill(path))
        assert answer.status == 405 and answer.code == "method_not_allowed", (method, answer)
        assert {word.strip() for word in answer.headers["allow"].split(",")} == allowed, (method, answer.headers)
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
def test_options_tells_the_methods(gateway, path):
    answer = gateway.api("OPTIONS", fill(path))
    assert answer.status == 204 and answer.body == b"", answer
    assert {method.upper() for method in PATHS[path]} <= {word.strip() for word in answer.headers["allow"].split(",")}


@pytest.mark.parametrize("path", [path for path, item in PATHS.items() if "get" in item and path not in ("/mcp", "/sse")])
def test_head_is_get_without_a_body(gateway, path):
    ids = {"id": gateway.ids["admin" if path.startswith("/api/users") else
                             "policy of web" if path.startswith("/api/policies") else "web"],
           "scopeValue": gateway.ids["plain"] if "/user/" in path else "user" if "/role/" in path else "staff"}
    get = gateway.api("GET", fill(path, ids), as_="admin")
    head = gateway.api("HEAD", fill(path, ids), as_="admin")
    assert head.status == get.status
    assert head.body == b""
    assert get.status == (426 if path.endswith("/ws") else 200), get
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize("path", [path for path, item in PATHS.items() if "get" in item and path.startswith("/api/")])
def test_what_every_answer_carries(gateway, path):
    answer = gateway.api("GET", fill(path), as_="admin", headers={"X-Request-Id": "of-the-client.1"})
    assert answer.headers["x-request-id"] == "of-the-client.1"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    own = gateway.api("GET", fill(path), as_="admin", headers={"X-Request-Id": "not one of ours"})
    assert own.headers["x-request-id"] not in ("", "not one of ours")


@pytest.mark.parametrize("path", [path for path in PATHS if "{" in path and path.startswith("/api/")])
def test_malformed_paths_are_400(gateway, path):
    method = next(iter(PATHS[path])).upper()
    body = None if method in ("GET", "DELETE") else {}
    if "{id}" in path:
        answer = gateway.api(method, fill(path, {"id": "%ff"}), body, as_="admin")
        assert (answer.status, answer.code) == (400, "invalid_path"), answer
        answer = gateway.api(method, fill(path, {"id": "a%2"}), body, as_="admin")
        assert (answer.status, answer.code) == (400, "invalid_path"), answer
    if method in ("GET", "DELETE"):
        answer = gateway.api(method, fill(path, {"id": "NOT-A-UUID"}), as_="admin")
        assert (answer.status, answer.code) == (400, "invalid_id"), answer


def lists():
    for name, operation in OPERATIONS.items():
        headers = operation["responses"].get("200", {}).get("headers", {})
        if "X-Total-Count" in headers and "{" not in name and name != "GET /api/logs":
            yield name.split()[1]


@pytest.mark.parametrize("path", list(lists()))
def test_pages_add_up(gateway, path):
    whole = gateway.api("GET", path, as_="admin")
    assert int(whole.headers["x-total-count"]) == len(whole.json)
    pages, where = [], f"{path}?limit=1"
    while where:
        page = gateway.api("GET", where, as_="admin")
        assert page.status == 200 and len(page.json) <= 1
        pages += page.json
        link = page.headers.get("link")
        where = link[1:link.index(">")] if link else None
    assert [row["id"] for row in pages] == [row["id"] for row in whole.json]
    for query in ("limit=0", "limit=1001", "limit=x", "limit=", "limit=1.0", "offset=-1", "offset=1e3", "limit=%00", "limit=%ff"):
        answer = gateway.api("GET", f"{path}?{query}", as_="admin")
        assert (answer.status, answer.code, answer.json["field"]) == (400, "invalid_request", query.split("=")[0]), (query, answer)
