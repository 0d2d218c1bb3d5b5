"""One server per way, shared by all tests of this folder. Each test gets it empty and must leave it so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.paths.servers import WAYS, Server, Way, serving


@pytest.fixture(scope="session", params=WAYS, ids=lambda way: way.name)
def _server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(request.param, tmp_path_factory.mktemp(request.param.name)) as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """The application, on each way in turn."""
    _server.new_log()
    _server.notes()
    yield _server
    _server.check_clean()


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way, for tests that start and stop a server of their own."""
    found: Way = request.param
    return found
