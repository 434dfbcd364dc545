"""Requests made from the document, by every kind of caller: what comes back must be what the document says."""

import re

import pytest

from conftest import OPERATIONS
from generated import ROLES

# Of the links of the document, how many an administrator's scenarios follow at least. Others are refused at the first.
LINKS = 20


@pytest.mark.parametrize("role", ROLES)
def test_generated_requests(runs, role):
    run = runs[role]
    code = run.wait()
    log = run.log.read_text()
    assert run.gateway.process.poll() is None, "the gateway has ended:\n" + "\n".join(run.gateway.lines.kept[-40:])
    assert code == 0, log
    # That nothing failed means something only if everything was asked.
    assert int(re.search(r"Tested: +(\d+)", log).group(1)) == len(OPERATIONS), log
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in log, log
    if role == "admin":
        assert int(re.search(r"API Links: +(\d+) covered", log).group(1)) >= LINKS, log
    assert run.end() == 0
