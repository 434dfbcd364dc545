"""PolicyEngine and resolvers, with and without a gateway."""

import mcpgw
import pytest
from conftest import SECRETS


@pytest.fixture
def repository():
    made = mcpgw.Repository(SECRETS)
    bob = made.admin("POST", "/api/users", {"email": "bob@example.org", "password": "a long password", "groups": ["dev"]})
    target = made.admin(
        "POST",
        "/api/targets",
        {"name": "git", "transport_type": "streamable-http", "url": "https://git.invalid/mcp", "auth_type": "bearer"},
    )
    made.admin(
        "POST",
        "/api/policies",
        {
            "name": "devs read",
            "effect": "allow",
            "resource_type": "tool",
            "resource_pattern": "^git_log$",
            "subjects": [{"subject_type": "group", "subject_value": "dev"}],
        },
    )
    made.ids = (bob["id"], target["id"])
    return made


def test_evaluate(repository):
    engine = mcpgw.PolicyEngine(repository)
    decision = engine.evaluate(user="bob@example.org", target="git", name="git_log")
    assert decision and decision.policy_name == "devs read" and decision.reason == "matched_allow"
    assert not engine.evaluate(user="bob@example.org", target="git", name="git_push")
    assert not engine.evaluate(user="bob@example.org", target="git", type="resource", name="git_log")
    assert not engine.evaluate(user="nobody", target="git", name="git_log")
    assert not engine.evaluate(user="bob@example.org", target="svn", name="git_log")
    assert engine.evaluate(principal=mcpgw.Principal(groups=["dev"]), target="git", name="git_log")
    explained = engine.evaluate(user="bob@example.org", target="git", name="git_push", explain=True)
    assert [c["why"] for c in explained.considered if c["policy_name"] == "devs read"] == ["pattern"]
    repository.admin("PUT", f"/api/users/{repository.ids[0]}", {"enabled": False})
    assert engine.evaluate(user="bob@example.org", target="git", name="git_log").reason == "user_disabled"


def test_questions_are_checked(repository):
    engine = mcpgw.PolicyEngine(repository)
    with pytest.raises(ValueError):
        engine.evaluate(target="git", name="x")
    with pytest.raises(mcpgw.Error) as refused:
        engine.evaluate(user="bob@example.org", target="git", type="all", name="x")
    assert refused.value.field == "type"


def test_resolvers(repository):
    user, target = repository.ids
    tokens, env = mcpgw.TokenResolver(repository), mcpgw.EnvResolver(repository)
    assert tokens.resolve(user="bob@example.org", target="git") is None
    repository.admin("PUT", f"/api/targets/{target}/tokens/group", {"group": "dev", "token": "the devs' secret"})
    found = tokens.resolve(user=user, target=target)
    assert (found.value, found.scope, found.scope_value) == ("the devs' secret", "group", "dev")
    assert "secret" not in repr(found)
    repository.admin("PUT", f"/api/targets/{target}/env/default", {"configs": {"REGION": "eu"}})
    resolved = env.resolve(user="bob@example.org", target="git")
    assert resolved.values["REGION"] == "eu" and resolved.sources[0]["scope"] == "default"
    with pytest.raises(mcpgw.Error) as refused:
        tokens.resolve(user="nobody", target="git")
    assert refused.value.code == "not_found"


def test_of_a_gateway(gw, calculator):
    engine = mcpgw.PolicyEngine(gw)
    gw.as_user("bob")
    assert engine.evaluate(user="alice@example.test", target="calculator", name="add")
    assert not engine.evaluate(user="bob@example.test", target="calculator", name="add")
    gw.allow("bob", "calculator")
    assert engine.evaluate(user="bob@example.test", target="calculator", name="add")
