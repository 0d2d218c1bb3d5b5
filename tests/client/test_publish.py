"""publish(): what goes over the wire, and what every answer becomes."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from tests.client.fakes import FakeHTTP, FakeTCP, answer, run
from tidewire.client.errors import BadURL, NoAnswer, NotATopic, NothingListens, Refused
from tidewire.client.publish import Publisher, publish
from tidewire.errors import BadPayload

GOOD = answer("204 No Content", Stream_Next_Offset="a:00000000000000000001")


@dataclass
class Point:
    x: int
    y: int


class Model(pydantic.BaseModel):
    name: str
    tags: list[str] = []


@pytest.mark.parametrize(
    ("obj", "content_type", "body"),
    [
        ({"bid": 1.5}, "application/json", b'{"bid":1.5}'),
        ([1, 2], "application/json", b"[[1,2]]"),
        ((1, 2), "application/json", b"[[1,2]]"),
        ([], "application/json", b"[[]]"),
        (msgspec.Raw(b" [1, 2.50]"), "application/json", b"[ [1, 2.50]]"),
        (msgspec.Raw(b'{"exact": 1.50}'), "application/json", b'{"exact": 1.50}'),
        (None, "application/json", b"null"),
        (7, "application/json", b"7"),
        (Point(1, 2), "application/json", b'{"x":1,"y":2}'),
        (Model(name="a", tags=["b"]), "application/json", b'{"name":"a","tags":["b"]}'),
        ("[1] is text", "text/plain; charset=utf-8", b"[1] is text"),
        ("grüße", "text/plain; charset=utf-8", "grüße".encode()),
        ("", "text/plain; charset=utf-8", b""),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (bytearray(b"[]"), "application/octet-stream", b"[]"),
    ],
)
def test_what_goes_over_the_wire(obj: Any, content_type: str, body: bytes) -> None:
    async def main() -> None:
        async with FakeHTTP(GOOD) as server:
            assert await publish(server.url + "?token=x", obj) == "a:00000000000000000001"
        posted = server.posted[0]
        assert posted.line == "POST /t?token=x HTTP/1.1"
        assert posted.headers["content-type"] == content_type
        assert posted.body == body
        assert "idempotency-key" not in posted.headers

    run(main())


def test_id_and_headers() -> None:
    async def main() -> None:
        async with FakeHTTP(GOOD) as server:
            await publish(server.url, 1, id="order-7", headers={"Authorization": "Bearer x"})
        assert server.posted[0].headers["idempotency-key"] == "order-7"
        assert server.posted[0].headers["authorization"] == "Bearer x"

    run(main())


def test_ws_url_is_posted_to_over_http() -> None:
    async def main() -> None:
        async with FakeHTTP(GOOD) as server:
            assert await publish(server.url.replace("http", "ws"), 1)

    run(main())


def test_topic_without_numbers() -> None:
    async def main() -> None:
        async with FakeHTTP(answer("204 No Content")) as server:
            assert await publish(server.url, 1) is None

    run(main())


def test_many_messages_share_a_connection() -> None:
    async def main() -> None:
        async with FakeHTTP(GOOD) as server, Publisher(server.url) as publisher:
            for number in range(5):
                await publisher.publish(number)
        assert [posted.body for posted in server.posted] == [b"0", b"1", b"2", b"3", b"4"]
        assert server.count == 1

    run(main())


def test_publisher_outside_its_block_says_how() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        run(Publisher("http://h/t").publish(1))


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "405 No", "413 Big", "503 Busy"]
)
def test_refusals_carry_the_server_s_sentence(status: str) -> None:
    async def main() -> None:
        refusal = answer(status, b'{"detail":"says the server"}', Content_Type="application/json", Retry_After="3")
        async with FakeHTTP(refusal) as server:
            with pytest.raises(Refused, match="says the server") as caught:
                await publish(server.url, 1)
        assert caught.value.status == int(status[:3])
        assert caught.value.retry_after_s == 3
        assert len(server.posted) == 1

    run(main())


def test_redirects_are_not_followed_but_told() -> None:
    async def main() -> None:
        async with FakeHTTP(answer("307 Elsewhere", Location="https://elsewhere/t")) as server:
            with pytest.raises(NotATopic, match="https://elsewhere/t"):
                await publish(server.url, 1)

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_listens(host: str) -> None:
    async def main() -> None:
        async with FakeHTTP(GOOD) as server:
            pass
        with pytest.raises(NothingListens, match=r"nothing listens at .*: start the server first"):
            await publish(f"http://{host}:{server.port}/t", 1)

    run(main())


def test_no_such_host() -> None:
    with pytest.raises(NothingListens, match="cannot reach"):
        run(publish("http://no-such-host.invalid/t", 1))


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never silent for long, never done: only a deadline for the whole ends this."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("talk", [silence, drip])
def test_server_that_does_not_answer_in_time(talk: Any) -> None:
    async def main() -> None:
        async with FakeTCP(talk) as server:
            with pytest.raises(NoAnswer, match="may have arrived or not; repeat it with an id"):
                await publish(server.url, 1, timeout_s=0.4)

    run(main())


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 204 No Content\r\nX" + b"x" * 200_000])
def test_server_that_hangs_up_or_talks_nonsense(said: bytes) -> None:
    async def main() -> None:
        async with FakeHTTP(said) as server:
            with pytest.raises(NoAnswer, match="may have arrived"):
                await publish(server.url, 1, timeout_s=2)

    run(main())


def test_loopback_never_goes_through_a_proxy_and_others_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    async def main() -> None:
        async with FakeHTTP(GOOD) as server:
            assert await publish(server.url, 1)
        monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
        with pytest.raises(NothingListens, match="proxy"):
            await publish("http://192.0.2.1/t", 1)

    run(main())


def test_endless_answer_is_not_read_to_its_end() -> None:
    poured = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal poured
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()
            poured += 65536

    async def main() -> None:
        async with FakeTCP(pour) as server:
            with pytest.raises(Refused):
                await publish(server.url, 1)

    run(main())
    assert poured < 20_000_000


def test_what_cannot_be_published_is_told_before_anything_is_sent() -> None:
    for obj in (object(), "\ud800", {1: object()}):
        with pytest.raises(BadPayload):
            run(publish("http://127.0.0.1:1/t", obj))
    with pytest.raises(BadURL):
        run(publish("chat/7", 1))
    with pytest.raises(ValueError, match="header"):
        run(publish("http://127.0.0.1:1/t", 1, id="a\nb"))
