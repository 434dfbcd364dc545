"""Storage in Python: a gateway keeps everything in it, and a fault of it is never an allow."""

import threading
import time

import mcpgw
import pytest
from conftest import SECRETS


class DictStorage(mcpgw.Storage):
    def __init__(self):
        self.records = {}
        self.versions = {}
        self.lock = threading.Lock()
        self.down = False

    def _up(self):
        if self.down:
            raise mcpgw.Error("unavailable", "storage_unavailable", "The dictionary is closed")

    def get(self, collection, key):
        self._up()
        with self.lock:
            return self.records.get((collection, key))

    def list(self, collection, prefix, after, limit):
        self._up()
        with self.lock:
            found = [r for r in self.records.values() if r.collection == collection and r.key.startswith(prefix)]
        found = sorted((r for r in found if r.key.encode() > after.encode()), key=lambda r: r.key.encode())
        return found[:limit] if limit else found

    def commit(self, operations):
        self._up()
        with self.lock:
            for step in operations:
                old = self.records.get((step.collection, step.key))
                if step.expected_version is not None and (old.version if old else 0) != step.expected_version:
                    raise mcpgw.version_conflict(step)
            versions = []
            for step in operations:
                name = (step.collection, step.key)
                if step.op == "put":
                    self.versions[name] = self.versions.get(name, 0) + 1
                    self.records[name] = mcpgw.Record(*name, step.value, self.versions[name])
                    versions.append(self.versions[name])
                elif step.op == "erase":
                    versions.append(0 if self.records.pop(name, None) else None)
                else:
                    versions.append(0)
            return versions

    def ping(self):
        self._up()


def test_a_gateway_lives_in_it():
    storage = DictStorage()
    with mcpgw.testing.gateway(SECRETS, storage=storage) as gw:
        gw.server("s").add_tool("t", lambda arguments: "x")
        gw.allow("alice", "s")
        token = gw.as_user("alice").token
        assert gw.as_user("alice").call_tool("t").ok
    assert ("users" in {c for c, _ in storage.records}) or storage.records
    server = mcpgw.Server("s")
    server.add_tool("t", lambda arguments: "y")
    with mcpgw.Gateway(SECRETS, storage=storage, servers={"s": server}) as again:
        user = mcpgw.testing.User(again, "", "alice@example.test", token)
        assert user.call_tool("t").text == "y"


@pytest.mark.parametrize("options", [{}, {"jwt": SECRETS["jwt"]}])
@pytest.mark.parametrize("make", [mcpgw.Gateway, mcpgw.Repository])
def test_it_needs_a_key_that_outlives_the_process(make, options):
    storage = DictStorage()
    with pytest.raises(mcpgw.Error) as refused:
        make(options, storage=storage)
    assert (refused.value.reason, refused.value.field) == ("invalid_option", "encryption.key")
    assert "storage of the host" in refused.value.message
    assert not storage.records  # nothing is written that would belong to a key which nobody has


def test_what_is_sealed_is_opened_after_a_restart():
    storage = DictStorage()
    with mcpgw.Gateway(SECRETS, storage=storage) as gateway:
        target = gateway.admin(
            "POST",
            "/api/targets",
            {"name": "git", "transport_type": "streamable-http", "url": "https://git.invalid/mcp", "auth_type": "bearer"},
        )
        gateway.admin("POST", "/api/users", {"email": "bob@example.org", "password": "a long password"})
        gateway.admin("PUT", f"/api/targets/{target['id']}/tokens/default", {"token": "everyone's"})
    assert "everyone's" not in "".join(record.value for record in storage.records.values())
    found = mcpgw.TokenResolver(mcpgw.Repository(SECRETS, storage=storage)).resolve(user="bob@example.org", target="git")
    assert found is not None and found.value == "everyone's"


def test_a_test_needs_no_key():
    storage = DictStorage()
    with mcpgw.testing.gateway(storage=storage) as gw:
        alice = gw.as_user("alice").id
    with mcpgw.testing.gateway(storage=storage) as again:
        assert [user["id"] for user in again.admin("GET", "/api/users")] == [alice]


def test_two_gateways_share_it():
    storage = DictStorage()
    with mcpgw.Gateway(SECRETS, storage=storage) as one, mcpgw.Gateway(SECRETS, storage=storage) as two:
        one.admin("POST", "/api/users", {"email": "a@example.org", "password": "a long password"})
        deadline = time.monotonic() + 30  # it is told by a thread of its own
        while not (users := two.admin("GET", "/api/users")) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [u["email"] for u in users] == ["a@example.org"]


def test_one_that_is_away():
    storage = DictStorage()
    with mcpgw.testing.gateway(SECRETS, storage=storage) as gw:
        storage.down = True
        with pytest.raises(mcpgw.ApiError) as refused:
            gw.admin("POST", "/api/users", {"email": "a@example.org", "password": "a long password"})
        assert refused.value.status == 503
        assert gw.handle("GET", "/ready").status == 503
        storage.down = False
        assert gw.handle("GET", "/ready").status == 200
    storage.down = True
    with pytest.raises(mcpgw.Error) as refused:
        mcpgw.Gateway(SECRETS, storage=storage)
    assert refused.value.code == "unavailable"


@pytest.mark.parametrize("fault", [ValueError("a secret text"), KeyboardInterrupt()])
def test_an_exception_of_any_kind_is_a_fault_without_its_text(fault):
    class Broken(DictStorage):
        def list(self, collection, prefix, after, limit):
            raise fault

    with pytest.raises(mcpgw.Error) as refused:
        mcpgw.Gateway(SECRETS, storage=Broken())
    assert "secret" not in str(refused.value)


def test_answers_that_make_no_sense():
    class Liar(DictStorage):
        lies = False

        def commit(self, operations):
            made = super().commit(operations)
            return [7] if self.lies else made

    storage = Liar()
    with mcpgw.Gateway(SECRETS, storage=storage) as gateway:
        storage.lies = True
        with pytest.raises(mcpgw.ApiError) as refused:
            gateway.admin("POST", "/api/users", {"email": "a@example.org", "password": "a long password"})
        assert refused.value.status >= 500


def test_others_write_too():
    storage = DictStorage()
    with mcpgw.Gateway(SECRETS, storage=storage) as gateway:
        other = DictStorage()
        other.records, other.versions, other.lock = storage.records, storage.versions, storage.lock
        with mcpgw.Gateway(SECRETS, storage=other) as second:
            second.admin("POST", "/api/users", {"email": "a@example.org", "password": "a long password"})
        assert gateway.admin("GET", "/api/users") == []
        storage.changed()
        until = time.monotonic() + 30
        while not gateway.admin("GET", "/api/users"):
            assert time.monotonic() < until, "what others wrote never shows"
        assert [u["email"] for u in gateway.admin("GET", "/api/users")] == ["a@example.org"]
