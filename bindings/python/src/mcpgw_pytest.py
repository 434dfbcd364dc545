"""Fixtures for pytest, which finds them by itself where the package is installed.

A module beside the package, so that a run of pytest loads the shared library only when a test asks for a gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from mcpgw.testing import TestGateway


@pytest.fixture
def mcpgw_gateway() -> Iterator[TestGateway]:
    """A gateway in memory, without a port, that ends with the test: see mcpgw.testing."""
    import mcpgw.testing

    with mcpgw.testing.gateway() as made:
        yield made
