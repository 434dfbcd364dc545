"""Requests made from the document, by every kind of caller: what comes back must be what the document says."""

import json

import pytest

from conftest import DOCUMENT, OPERATIONS
from generated import ROLES


@pytest.mark.parametrize("role", ROLES)
def test_generated_requests(runs, role):
    run = runs[role]
    code = run.wait()
    log = run.log.read_text()
    assert run.gateway.process.poll() is None, "the gateway has ended:\n" + "\n".join(run.gateway.lines.kept[-40:])
    assert code == 0, log
    print(json.dumps(json.loads(run.report.read_text()), indent=1)[:4000])
    assert run.end() == 0
