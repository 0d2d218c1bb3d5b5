"""Sessions, whoever serves the application: commands and answers, recovery, slow clients, ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.interop.paths.readers import read_close
from tests.interop.paths.servers import Server, Way, serving
from tests.wire.frames import BINARY, CLOSE, TEXT, close_payload, frame, open_websocket, split, upgrade
from tests.wire.servers import Peer
from tidewire.protocol.codecs import PROTOBUF
from tidewire.protocol.packets import Command, ConnectRequest, PublishRequest, Reply, SubscribeRequest

pytestmark = pytest.mark.interop

PATH = "/live/-/session"


class Client:
    """A session in JSON, by hand."""

    def __init__(self, server: Server, *, query: str = "", receive_buffer: int | None = None) -> None:
        self.peer = open_websocket(server.port, PATH + query, receive_buffer=receive_buffer)
        self._id = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.peer.__exit__(*error)

    def send(self, **command: Any) -> int:
        self._id += 1
        self.peer.send(frame(TEXT, json.dumps({"id": self._id, **command}).encode()))
        return self._id

    def ask(self, **command: Any) -> Any:
        """The whole reply."""
        command_id = self.send(**command)
        self.peer.receive(lambda _: self.reply_of(command_id))
        return self.reply_of(command_id)

    @property
    def packets(self) -> list[Any]:
        texts = [one.payload.decode() for one in split(self.peer.received)[0] if one.opcode == TEXT]
        return [json.loads(line) for text in texts for line in text.split("\n")]

    def reply_of(self, command_id: int) -> Any:
        return next((packet for packet in self.packets if packet.get("id") == command_id), None)

    def numbers(self, topic: str) -> list[int]:
        """What came of a topic: recovered first, then live."""
        found = []
        for packet in self.packets:
            found += [one["data"]["n"] for one in packet.get("subscribe", {}).get("publications", [])]
            push = packet.get("push", {})
            if push.get("channel") == topic and "pub" in push:
                found.append(push["pub"]["data"]["n"])
        return found

    def until_numbers(self, topic: str, wanted: list[int]) -> None:
        self.peer.receive(lambda _: len(self.numbers(topic)) >= len(wanted))
        assert self.numbers(topic) == wanted

    def leave(self) -> None:
        self.peer.send(frame(CLOSE, close_payload(1000)))
        self.peer.read_to_end()


def test_commands_are_answered_in_order(server: Server) -> None:
    with Client(server) as client:
        assert client.ask(connect={})["connect"]["client"]
        assert client.ask(subscribe={"channel": "log/s"})["subscribe"]["recoverable"] is True
        ids = [client.send(publish={"channel": "log/s", "data": {"n": n}}) for n in range(30)]
        client.until_numbers("log/s", list(range(30)))
        client.peer.receive(lambda _: client.reply_of(ids[-1]))
        answered = [packet["id"] for packet in client.packets if packet.get("id") in ids]
        assert answered == ids
        assert client.ask(history={"channel": "log/s", "limit": 2})["history"]["offset"] == 30
        client.leave()


def test_protobuf_is_agreed_on(server: Server) -> None:
    peer = Peer(server.port)
    with peer:
        peer.send(upgrade(PATH, "sec-websocket-protocol: other, centrifuge-protobuf"))
        peer.receive(lambda data: b"\r\n\r\n" in data)
        head, _, peer.received = peer.received.partition(b"\r\n\r\n")
        assert b"sec-websocket-protocol: centrifuge-protobuf" in head.lower()
        commands = [
            Command(id=1, connect=ConnectRequest()),
            Command(id=2, subscribe=SubscribeRequest(channel="log/p")),
            Command(id=3, publish=PublishRequest(channel="log/p", data=b'{"n": 0}')),  # type: ignore[arg-type]
        ]
        peer.send(frame(BINARY, PROTOBUF.join([PROTOBUF.write(one) for one in commands])))

        def replies() -> list[Reply]:
            payloads = [one.payload for one in split(peer.received)[0] if one.opcode == BINARY]
            return [reply for payload in payloads for reply in PROTOBUF.read_replies(payload)]

        peer.receive(lambda _: {1, 2, 3} <= {reply.id for reply in replies()})
        peer.receive(lambda _: any(reply.push for reply in replies()))
        (push,) = [reply.push for reply in replies() if reply.push is not None]
        assert push.pub is not None
        assert bytes(push.pub.data) == b'{"n": 0}', "as it was written"
        peer.send(frame(CLOSE, close_payload(1000)))
        peer.read_to_end()


def test_who_comes_back_has_missed_nothing(server: Server) -> None:
    got: list[int] = []
    position: dict[str, Any] = {}
    for round_ in range(4):
        with Client(server) as client:
            client.ask(connect={})
            begun = client.ask(subscribe={"channel": "log/back", **position})["subscribe"]
            if round_:
                assert (begun["recovered"], begun["offset"]) == (True, position["offset"])
            server.publish("log/back", round_ * 20, 10)
            client.until_numbers("log/back", list(range(round_ * 20 - 10 if round_ else 0, round_ * 20 + 10)))
            got += client.numbers("log/back")
            position = {"recover": True, "epoch": begun["epoch"], "offset": len(got)}
            client.peer.vanish()
        server.publish("log/back", round_ * 20 + 10, 10)
    assert got == list(range(70))


def test_a_client_that_does_not_read_is_cut_and_others_are_not(server: Server) -> None:
    with Client(server, receive_buffer=4096) as slow, Client(server) as quick:
        for client in (slow, quick):
            client.ask(connect={})
            client.ask(subscribe={"channel": "log/slow"})
        evicted = server.stats()["evicted"]
        n = 0
        while server.stats()["evicted"] == evicted:
            assert n < 20_000
            # less than an outbox holds: nobody reads while this waits for the answer
            server.publish("log/slow", n, 50, size=2000)
            quick.until_numbers("log/slow", list(range(n, n + 50)))
            quick.peer.received = split(quick.peer.received)[1]
            n += 50
        assert quick.ask(history={"channel": "log/slow"})["history"]["offset"] == n
        quick.leave()


def test_mistakes_are_told(server: Server) -> None:
    with Client(server) as client:
        client.send(subscribe={"channel": "log/a"})
        assert read_close(server, client.peer)[0] == 3501
    with Client(server) as client:
        client.ask(connect={})
        assert client.ask(subscribe={"channel": "nowhere"})["error"]["code"] == 102
        assert client.ask(publish={"channel": "quiet/a", "data": 1})["error"]["code"] == 103
        client.peer.send(frame(TEXT, b"nonsense"))
        assert read_close(server, client.peer)[0] == 3501


def test_members_come_and_go(server: Server) -> None:
    def told(client: Client) -> list[str]:
        pushes = [packet["push"] for packet in client.packets if "push" in packet]
        return [name for push in pushes for name in ("join", "leave") if name in push]

    with Client(server) as one, Client(server) as two:
        for client in (one, two):
            client.ask(connect={})
            client.ask(subscribe={"channel": "room/a"})
        one.peer.receive(lambda _: told(one) == ["join", "join"])
        assert len(one.ask(presence={"channel": "room/a"})["presence"]["presence"]) == 2
        two.leave()
        one.peer.receive(lambda _: told(one) == ["join", "join", "leave"])
        one.leave()


def test_a_server_that_stops_says_come_back(way: Way, tmp_path: Path) -> None:
    with serving(way, tmp_path) as server, Client(server) as client:
        client.ask(connect={})
        client.ask(subscribe={"channel": "log/a"})
        server.process.send_signal(signal.SIGTERM)
        # who closes sockets before it tells the application says so in words of its own
        says_ours = way.stop_close is not None and way.stop_close[1] == "the server stops"
        if way.stop_close is not None:
            client.peer.receive(lambda data: split(data)[0][-1].opcode == CLOSE)
            expected = (3001, "shutdown") if says_ours else way.stop_close
            assert split(client.peer.received)[0][-1].close == expected
        server.process.wait(20)


def test_a_frame_over_the_limit_is_no_reason_to_stay_away(server: Server) -> None:
    """1009 would be: official clients stop for good. Servers of others close with it before we see the frame."""
    with Client(server) as client:
        client.ask(connect={})
        client.peer.send(frame(TEXT, b'{"id":2,"publish":{"channel":"log/a","data":"' + b"x" * 1_200_000 + b'"}}'))
        client.peer.receive(lambda data: any(one.opcode == CLOSE for one in split(data)[0]))
        code, reason = split(client.peer.received)[0][-1].close
    # where the server's own limit is larger than ours, it is we who see the frame
    is_ours = server.way.is_fast or server.way.wire_bytes_max > 1_200_000
    assert code == (4413 if is_ours else 1009)
    assert not is_ours or "1114112" in reason
