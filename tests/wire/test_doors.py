"""Who may come in, and what those who may not are told; over real sockets (CONTRACTS 6, 11)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.frames import TEXT, follow, frame, open_websocket, split, upgrade
from tests.wire.servers import Peer, Server, open_events, serving


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of ``tidewire serve``."""
    with serving(tmp_path_factory.mktemp("open"), "open") as server:
        yield server


def refusal_of_upgrade(server: Server, path: str, *headers: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and ``detail`` of the answer to a handshake."""
    with Peer(server.port) as peer:
        peer.send(upgrade(path, *headers).replace(b"host: 127.0.0.1", f"host: {host}".encode()))
        status, body = peer.answer()
        assert peer.read_to_end() == "closed"
    return status, json.loads(body)["detail"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_pages_of_other_sites_are_refused_on_both_wires(ours: Server, origin: str) -> None:
    status, detail = refusal_of_upgrade(ours, "/live/log/a", f"origin: {origin}")
    assert status == 403
    assert "origin" in detail.lower()
    for method, body in [("POST", b"x"), ("GET", None)]:
        headers = {"origin": origin, "accept": "text/event-stream", "content-type": "text/plain"}
        status, answer = ours.ask("/live/log/a", method, body, **headers)
        assert status == 403
        assert "origin" in json.loads(answer)["detail"].lower()
    assert ours.ask("/live/log/a") == (200, b"[]")
    # the log says it as well, with the setting that would allow it where there is one
    log = ours.new_log()
    assert log.count("refused /live/log/a: ") == 3
    assert ("allow them with Live(origins=['https://evil.example'])" in log) == (origin != "null")


@pytest.mark.parametrize("origin", ["http://127.0.0.1", "http://localhost:5173"])
def test_pages_of_this_machine_may(ours: Server, origin: str) -> None:
    with open_websocket(ours.port, "/live/log/a", f"origin: {origin}"):
        pass
    assert ours.ask("/live/log/own", "POST", b"x", **{"origin": origin, "content-type": "text/plain"})[0] == 204


@pytest.mark.parametrize(
    ("topic", "status", "words"),
    [
        ("members/a", 403, "members only"),
        ("unknown/a", 404, "no such topic"),
        ("log/a?since=nonsense", 400, "position"),
        ("log//a", 404, "topic"),
        ("log/%00", 404, "topic"),
        ("log/" + "x" * 300, 404, "topic"),
    ],
)
def test_a_refused_handshake_has_a_json_body(ours: Server, topic: str, status: int, words: str) -> None:
    assert refusal_of_upgrade(ours, f"/live/{topic}")[0] == status
    assert words in refusal_of_upgrade(ours, f"/live/{topic}")[1]
    answered, body = ours.ask(f"/live/{topic}", accept="text/event-stream")
    assert answered == status
    assert words in json.loads(body)["detail"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.1"])
def test_the_open_server_answers_to_no_other_name(open_server: Server, host: str) -> None:
    status, detail = refusal_of_upgrade(open_server, "/a", host=host)
    assert status == 421
    assert "127.0.0.1" in detail
    with Peer(open_server.port) as peer:
        peer.send(f"GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        status, body = peer.answer()
    assert status == 421
    assert json.loads(body)["detail"] == detail


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:1"])
def test_the_open_server_answers_to_the_names_of_this_machine(open_server: Server, host: str) -> None:
    with Peer(open_server.port) as peer:
        peer.send(f"GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        assert peer.answer()[0] == 200


def test_the_echo_answers_by_websocket_and_explains_itself_over_http(open_server: Server) -> None:
    with open_websocket(open_server.port, "/-/echo") as peer:
        peer.send(frame(TEXT, "hellö".encode()))
        peer.receive(lambda data: split(data)[0])
        assert split(peer.received)[0] == [(TEXT, "hellö".encode())]
    with Peer(open_server.port).request("/-/echo") as peer:
        status, body = peer.answer()
    assert status == 426
    assert "ws://127.0.0.1/-/echo" in json.loads(body)["detail"]


def test_secrets_in_urls_do_not_reach_the_log(ours: Server, tmp_path: Path) -> None:
    secrets = "token=s3cret&ticket=s3cret&access_token=s3cret&cf_connect=s3cret&TOKEN=s3cret"
    with follow(ours.port, "log/a", query=secrets):
        pass
    with open_events(ours.port, f"log/a?{secrets}"):
        pass
    assert ours.ask(f"/live/log/a?{secrets}&offset=now")[0] == 200
    assert ours.ask(f"/live/log/a?{secrets}", "POST", b"x", **{"content-type": "text/plain"})[0] == 204
    refusal_of_upgrade(ours, f"/live/members/a?{secrets}")
    refusal_of_upgrade(ours, f"/live/log/a?{secrets}", "origin: null")
    assert ours.ask(f"/broken/route?{secrets}")[0] == 500
    ours.expected_errors = ["Exception in ASGI application", "Traceback"]
    ours.until_stats("all are gone", sockets=0)
    log = ours.new_log()
    assert log.count("[hidden]") >= 6 * 5
    assert "s3cret" not in log
