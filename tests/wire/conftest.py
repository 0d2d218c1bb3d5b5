"""Servers that all tests of this folder share. Each test gets them empty and must leave them so."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.wire.servers import Server, serving

SMALL = {"outbox_bytes_max": 256 * 1024, "evict_drain_s": 0.2, "message_bytes_max": 64 * 1024}
OPTIONS = {"ws_max_size": 128 * 1024}


@pytest.fixture(scope="session")
def _ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("ours"), "ours", limits=SMALL, options=OPTIONS) as server:
        yield server


@pytest.fixture(scope="session")
def _stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("stock"), "stock", limits=SMALL, options=OPTIONS) as server:
        yield server


@pytest.fixture(scope="session")
def _hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("hasty"),
        "ours",
        limits={"evict_drain_s": 0.2, "body_timeout_s": 0.2},
        options={"ws_ping_interval": 0.3, "ws_ping_timeout": 0.3},
        constants={"HEAD_DEADLINE_S": 0.4, "REFUSED_LINGER_S": 0.4},
    ) as server:
        yield server


@pytest.fixture(scope="session")
def _deflating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = {**OPTIONS, "ws_per_message_deflate": True}
    with serving(tmp_path_factory.mktemp("deflating"), "ours", limits=SMALL, options=options) as server:
        yield server


@pytest.fixture(scope="session")
def _secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = {**OPTIONS, "ssl_certfile": str(folder / "server.pem")}
    with serving(folder, "ours", limits=SMALL, options=options, context=context) as server:
        yield server


def _leave_clean(server: Server) -> Iterator[Server]:
    server.new_log()
    yield server
    server.check_clean()


@pytest.fixture
def ours(_ours: Server) -> Iterator[Server]:
    """The application on ``tidewire.run``, with small limits."""
    yield from _leave_clean(_ours)


@pytest.fixture
def stock(_stock: Server) -> Iterator[Server]:
    """The same on uvicorn with its own classes."""
    yield from _leave_clean(_stock)


@pytest.fixture
def hasty(_hasty: Server) -> Iterator[Server]:
    """The application on ``tidewire.run``, with deadlines of less than half a second."""
    yield from _leave_clean(_hasty)


@pytest.fixture
def deflating(_deflating: Server) -> Iterator[Server]:
    """The application on ``tidewire.run`` with permessage-deflate, with small limits."""
    yield from _leave_clean(_deflating)


@pytest.fixture
def secure(_secure: Server) -> Iterator[Server]:
    """The application on ``tidewire.run`` by TLS, with small limits; ``secure.context`` trusts it."""
    yield from _leave_clean(_secure)
