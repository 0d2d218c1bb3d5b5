"""Application code that raises ends its own request and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.wire.frames import CLOSE, TEXT, close_payload, follow, frame, open_websocket, split, upgrade
from tests.wire.servers import Peer, Server, open_events


def test_a_topic_function_that_raises_refuses_its_own_callers_only(ours: Server) -> None:
    with follow(ours.port, "log/healthy") as reader:
        with Peer(ours.port) as peer:
            peer.send(upgrade("/live/boom/a"))
            status, body = peer.answer()
        assert status == 500
        assert "its log has the error" in json.loads(body)["detail"]
        assert ours.ask("/live/boom/a", accept="text/event-stream")[0] == 500
        assert ours.ask("/live/boom/a", "POST", b"x", **{"content-type": "text/plain"})[0] == 500
        assert ours.new_log().count("LookupError: broken topic function") == 3
        ours.publish("log/healthy")
        reader.receive(lambda data: len(split(data)[0]) == 2)


@pytest.mark.parametrize("path", ["/broken/route", "/broken/stream"])
def test_a_route_that_raises_takes_nobody_with_it(ours: Server, path: str) -> None:
    ours.expected_errors = ["Exception in ASGI application", "Traceback"]
    with follow(ours.port, "log/beside") as socket, open_events(ours.port, "log/beside") as events:
        with Peer(ours.port).request(path, connection="close") as peer:
            peer.read_to_end()
        ours.publish("log/beside")
        socket.receive(lambda data: len(split(data)[0]) == 2)
        events.receive(lambda data: b'data: {"n"' in data)


def test_a_websocket_route_that_raises_takes_nobody_with_it(ours: Server) -> None:
    ours.expected_errors = ["Exception in ASGI application", "Traceback"]
    with follow(ours.port, "log/beside-socket") as reader:
        with open_websocket(ours.port, "/broken/socket") as peer:
            peer.receive(lambda data: split(data)[0])
            assert split(peer.received)[0][-1].close[0] == 1011
            peer.send(frame(CLOSE, close_payload(1011)))
            peer.read_to_end()
        ours.publish("log/beside-socket")
        reader.receive(lambda data: len(split(data)[0]) == 2)


def test_messages_to_broken_code_end_the_sender_only(ours: Server) -> None:
    with follow(ours.port, "moody/a") as reader, follow(ours.port, "moody/a") as sender:
        sender.send(frame(TEXT, b"raise"))
        ours.until_stats("the sender is gone", connections=1)
        sender.receive(lambda data: split(data)[0][1:])
        code, reason = split(sender.received)[0][-1].close
        assert code == 1008
        assert "its log has the error" in reason
        assert "LookupError: broken publish" in ours.new_log()
        ours.publish("moody/a")
        reader.receive(lambda data: len(split(data)[0]) == 2)
