"""Peers that go without a word, or stay and say nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.wire.frames import PING, TEXT, follow, frame, open_websocket, split
from tests.wire.servers import Peer, Server, open_events

MIB = 1024 * 1024

CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1]) as socket:
    print(socket.recv(), flush=True)
    socket.recv()
"""


@pytest.mark.parametrize("flavour", ["ours", "stock"])
def test_a_killed_client_leaves_nothing_behind(request: pytest.FixtureRequest, flavour: str) -> None:
    server = request.getfixturevalue(flavour)
    url = server.url.replace("http", "ws") + "/live/log/killed?positions=1"
    with subprocess.Popen([sys.executable, "-c", CLIENT, url], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert b"position" in client.stdout.readline()
        assert server.stats()["subscriptions"] == 1
        client.kill()
    server.until_stats("the killed client is gone", subscriptions=0, connections=0, sockets=0, tasks=0)


@pytest.mark.parametrize("flavour", ["ours", "stock"])
@pytest.mark.parametrize("kind", [follow, open_events], ids=["websocket", "events"])
def test_a_peer_that_vanishes_leaves_nothing_behind(
    request: pytest.FixtureRequest, flavour: str, kind: Callable[..., Peer]
) -> None:
    server = request.getfixturevalue(flavour)
    peer = kind(server.port, "log/vanishes")
    assert server.stats()["subscriptions"] == 1
    peer.vanish()
    server.until_stats("who has vanished is gone", subscriptions=0, connections=0, sockets=0, tasks=0)


def test_a_peer_that_answers_no_ping_is_dropped(hasty: Server) -> None:
    with follow(hasty.port, "log/silent") as peer:
        assert peer.read_to_end() == "reset"
        kinds = [frame.opcode for frame in split(peer.received)[0]]
    assert kinds == [TEXT, PING]


def test_a_peer_that_answers_no_ping_is_dropped_with_all_that_waits_for_it(hasty: Server) -> None:
    """Closing politely would wait for a flush that never comes."""
    with open_websocket(hasty.port, "/stuck", receive_buffer=4096) as peer:
        hasty.until_stats("nobody is left", sockets=0, tasks=0)
        assert peer.read_to_end() == "reset"
        assert len(peer.received) < 32 * MIB


@pytest.mark.parametrize("sent", [3, 100], ids=["in the head", "in the payload"])
def test_a_client_killed_in_mid_message_publishes_nothing(ours: Server, sent: int) -> None:
    peer = open_websocket(ours.port, "/live/log/half")
    peer.send(frame(TEXT, b"x" * 300)[:sent])
    ours.until_stats("it is there", subscriptions=1)
    peer.vanish()
    ours.until_stats("it is gone", subscriptions=0, sockets=0)
    assert ours.ask("/live/log/half") == (200, b"[]")


def test_a_client_killed_in_mid_body_publishes_nothing(ours: Server) -> None:
    peer = Peer(ours.port).request("/live/log/half-body", "POST", content_type="text/plain", content_length="100")
    peer.send(b"x" * 50)
    ours.until_stats("it is there", tasks=1)
    peer.vanish()
    ours.until_stats("it is gone", tasks=0, sockets=0)
    assert ours.ask("/live/log/half-body") == (200, b"[]")
