"""Who may, and what those who may not are told; whoever serves the application (CONTRACTS 6 and 11)."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
from typing import Any

import pytest
from fastapi import FastAPI

from tests.client.fakes import quick
from tests.client.servers import run
from tests.interop.paths.readers import read_close
from tests.interop.paths.servers import Server
from tests.server.driver import SocketCall, play_with
from tests.wire.frames import TEXT, frame, open_websocket, split, upgrade
from tests.wire.servers import Peer
from tidewire import Deny, Live, Refused, publish, subscribe

pytestmark = pytest.mark.interop

EVENTS = {"accept": "text/event-stream"}
TEXT_BODY = {"content-type": "text/plain"}


class _Said:
    """What ``http.client`` wants to read from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def refusal_of_upgrade(server: Server, path: str, *headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
    """Status, body (None: an empty one) and headers of the answer to a handshake."""
    with Peer(server.port) as peer:
        peer.send(upgrade(path, *headers))
        peer.receive(_is_whole)
        answer = http.client.HTTPResponse(_Said(peer.received))  # type: ignore[arg-type]
        answer.begin()
        body = answer.read()
    return answer.status, json.loads(body) if body else None, answer.headers


def _is_whole(data: bytes) -> bool:
    """An answer with a length, or with a last chunk."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    lines = [line.lower().split(b":") for line in head.split(b"\r\n")[1:]]
    lengths = [int(line[1]) for line in lines if line[0] == b"content-length"]
    return len(body) >= lengths[0] if lengths else body.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("topic", "headers", "status", "words"),
    [
        ("members/a", (), 401, "say who you are"),
        ("members/a", ("authorization: banned",), 403, "not you, not here"),
        ("friends/a", (), 403, "friends only"),
        ("unknown/a", (), 404, "no such topic"),
        ("log/a?since=nonsense", (), 400, "position"),
        ("log/" + "x" * 300, (), 404, "topic"),
        ("log/a", ("origin: https://evil.example",), 403, "evil.example"),
        ("log/a", ("origin: null",), 403, "origin"),
    ],
)
def test_a_refused_handshake_says_why(
    server: Server, topic: str, headers: tuple[str, ...], status: int, words: str
) -> None:
    answered, answer, _ = refusal_of_upgrade(server, f"/live/{topic}", *headers)
    assert (answered, words in answer["detail"]) == (status, True)
    if not headers or "origin" not in headers[0]:
        # and the same over HTTP
        pairs = dict(header.split(": ") for header in headers)
        for more in (EVENTS, {}):
            answered, body = server.ask(f"/live/{topic}", **more, **pairs)
            assert (answered, words in body.decode()) == (status, True)
    assert server.stats()["topics"] == 0 or "a" not in topic.split("/")[1:]


def test_a_refusal_brings_its_headers(server: Server) -> None:
    status, _, headers = refusal_of_upgrade(server, "/live/members/a")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert headers["content-type"] == "application/json"


def test_the_function_sees_headers_and_cookies(server: Server) -> None:
    with open_websocket(server.port, "/live/members/a", "authorization: Bearer x", "cookie: session=s; other=1"):
        server.until_notes("subscribe members/a since=None authorization=Bearer x session=s")
    with Peer(server.port).request("/live/members/a", accept="text/event-stream", cookie="session=t") as peer:
        peer.receive(lambda data: b"event: position" in data)
        server.until_notes("subscribe members/a since=None authorization=None session=t")
    assert server.ask("/live/members/a", cookie="session=u")[0] == 200
    assert server.ask("/live/members/a", "POST", b"x", cookie="session=v", **TEXT_BODY)[0] == 204
    server.until_notes(
        "read members/a since=None authorization=None session=u",
        "publish members/a since=None authorization=None session=v",
    )


def test_a_dependency_that_admits_is_asked_with_the_headers_of_the_caller(server: Server) -> None:
    with open_websocket(server.port, "/live/friends/a", "x-friend: yes") as peer:
        peer.send(frame(TEXT, b"hello"))
        peer.receive(lambda data: split(data)[0])
    assert server.ask("/live/friends/a", **{"x-friend": "yes"}) == (200, b"hello\n")
    assert server.ask("/live/friends/a", "POST", b"x", **TEXT_BODY)[0] == 403
    assert server.ask("/live/friends/a", "POST", b"x", **TEXT_BODY, **{"x-friend": "yes"})[0] == 204


def test_a_message_from_one_who_may_only_read_ends_its_socket(server: Server) -> None:
    for path, headers in (("/live/members/b", ("cookie: session=reader",)), ("/live/quiet/b", ())):
        with open_websocket(server.port, path, *headers) as peer:
            server.until_stats("it is there", subscriptions=1)
            peer.send(frame(TEXT, b"hello"))
            code, reason = read_close(server, peer)
        assert code == 1008
        assert reason in {"not you, not here", "this topic takes no messages from clients"}
    assert server.ask("/live/members/b", "POST", b"x", cookie="session=reader", **TEXT_BODY)[0] == 403
    assert server.ask("/live/quiet/b", "POST", b"x", **TEXT_BODY)[0] == 405
    assert server.ask("/live/members/b", cookie="session=s") == (200, b"[]")


def test_pages_of_other_sites_may_neither_publish_nor_follow(server: Server) -> None:
    for origin in ("https://evil.example", "null"):
        assert server.ask("/live/log/origin", "POST", b"x", origin=origin, **TEXT_BODY)[0] == 403
        assert server.ask("/live/log/origin", origin=origin, **EVENTS)[0] == 403
    assert server.ask("/live/log/origin") == (200, b"[]")
    # a page of this very machine may
    origin = f"http://127.0.0.1:{server.port}"
    with open_websocket(server.port, "/live/log/origin", f"origin: {origin}"):
        assert server.ask("/live/log/origin", "POST", b"x", origin=origin, **TEXT_BODY)[0] == 204


def test_a_server_that_cannot_answer_a_handshake_closes_with_the_sentence() -> None:
    """Without the ASGI extension "websocket.http.response" the server makes a bare 403 of it. No server here is so."""

    async def scenario(app: FastAPI, live: Live) -> None:
        call = SocketCall(app, "/live/members")
        call.scope["extensions"] = {}
        await call.open()
        assert (call.accepted, call.status, call.close_code) == (False, 0, 1008)
        assert call.close_reason == "members only"

    play_with(declare_members, scenario)


def declare_members(live: Live) -> None:
    @live.topic("members")
    async def members() -> None:
        raise Deny("members only")


def test_raw_connections_ask_for_the_origin_too(server: Server) -> None:
    status, _, _ = refusal_of_upgrade(server, "/raw/echo", "origin: https://evil.example")
    assert status == 403


def test_coming_back_asks_again(server: Server) -> None:
    async def main() -> None:
        headers = {"Authorization": "Bearer x"}
        async with subscribe(f"{server.live}/members/c", headers=headers, backoff=quick()) as messages:
            await publish(f"{server.live}/members/c", 1, headers=headers)
            position = (await messages.next(10)).position
            assert messages._link is not None
            messages._link.abort()
            await publish(f"{server.live}/members/c", 2, headers=headers)
            assert (await messages.next(10)).data == 2
        said = await asyncio.to_thread(server.notes)
        assert [note.split(" authorization")[0] for note in said if note.startswith("subscribe")] == [
            "subscribe members/c since=None",
            f"subscribe members/c since={position}",
        ]

    run(main())


def test_a_position_opens_no_door(server: Server) -> None:
    """Who has been thrown out is refused on return, whatever it has to show."""
    url = f"{server.live}/members/d"

    async def main() -> None:
        position = await publish(url, 1, headers={"Authorization": "Bearer x"})
        with pytest.raises(Refused) as caught:
            await subscribe(url, since=position, headers={"Authorization": "banned"}).next(10)
        assert caught.value.status == 403
        assert "not you, not here" in str(caught.value)

    run(main())


@pytest.mark.parametrize("topic", ["log/a", "quiet/a", "members/a", "unknown/a", "-/client/topic.js"])
def test_a_router_included_with_a_dependency_that_refuses_lets_nobody_in(server: Server, topic: str) -> None:
    path = f"/guarded/{topic}"
    for method, body, headers in [
        ("GET", None, {}),
        ("GET", None, EVENTS),
        ("GET", None, {"accept": "text/html"}),
        ("POST", b"x", TEXT_BODY),
    ]:
        status, answer = server.ask(path, method, body, **headers)
        # there is no POST to a file
        assert (status, b"friends only" in answer) == (403, True) or (topic.startswith("-/") and status == 405)
    status, body, _ = refusal_of_upgrade(server, path)
    assert status == 403
    # who is let in finds the topics behind it
    if topic == "log/a":
        assert server.ask(path, **{"x-friend": "yes"}) == (200, b"[]")
        with open_websocket(server.port, path, "x-friend: yes"):
            server.until_stats("it is in", subscriptions=1)
