"""The gateway under test, the API document, and the runs of the generator, which begin with the first test."""

import re

import pytest
import yaml

import gateway as program
import generated

NOBODY = "11111111-1111-4111-8111-111111111111"


def load_document():
    """The document as it is written; a date in an example stays a text."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    return yaml.load(program.DOCUMENT.read_text(), Loader)


DOCUMENT = load_document()
OPERATIONS = {f"{method.upper()} {path}": operation
              for path, item in DOCUMENT["paths"].items() for method, operation in item.items()}


def fill(path, ids=None):
    """A path with values for its placeholders: those of `ids` by name, else ones that exist for nobody."""
    words = {"key": "REGION", "role": "user", "group": "staff", **(ids or {})}
    return re.sub(r"{(\w+)}", lambda match: words.get(match.group(1), NOBODY), path)



@pytest.fixture(scope="session", autouse=True)
def runs(request, tmp_path_factory):
    """They take longest: they go on while the other tests ask another gateway."""
    wanted = any(item.path.name == "test_generated.py" for item in request.session.items)
    runs = generated.start_all(tmp_path_factory.mktemp("generated")) if wanted else {}
    yield runs
    for run in runs.values():
        run.end()


@pytest.fixture(scope="session")
def gateway():
    """With an admin, plain users, targets, credentials and policies."""
    running = program.Gateway.run()
    try:
        yield running.seed()
    finally:
        assert running.close() == 0


@pytest.fixture
def empty_gateway():
    """Without any user."""
    running = program.Gateway.run()
    try:
        yield running
    finally:
        assert running.close() == 0
