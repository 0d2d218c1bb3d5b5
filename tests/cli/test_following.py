"""`tidewire sub` and `tidewire pub` in process, against scripted servers."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from tests.client.fakes import FakeHTTP, FakeTopic, Says, answer, at, quick, run
from tidewire.cli import pub, sub
from tidewire.client import topic
from tidewire.client.errors import NothingListens, Refused, TopicFailed


def wanted(url: str, **options: Any) -> Any:
    defaults: dict[str, Any] = {
        "count": None,
        "as_json": False,
        "since": None,
        "headers": [],
        "max_per_s": None,
        "wait": False,
        "quiet": False,
    }
    return sub._Wanted(url, **(defaults | options))


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "Backoff", quick)


async def five(socket: ServerConnection) -> None:
    says = Says(socket)
    await says.header(0)
    for offset in range(1, 6):
        await says.message(offset, json.dumps({"n": offset}).encode())
    await says.end(5)
    await socket.wait_closed()


async def two_then_cut(socket: ServerConnection) -> None:
    says = Says(socket)
    await says.header(0)
    for offset in (1, 2):
        await says.message(offset)
    await asyncio.sleep(0)
    says.cut()


async def two_more(socket: ServerConnection) -> None:
    says = Says(socket)
    await says.header(2, True, 2)
    for offset in (3, 4):
        await says.message(offset)
    await says.end(4)
    await socket.wait_closed()


async def forgot_everything(socket: ServerConnection) -> None:
    says = Says(socket, "a2")
    await says.header(0, False, 1)
    await says.gap(at(2), 0)
    await says.message(1)
    await says.end(1)
    await socket.wait_closed()


def test_prints_payloads_and_says_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeTopic(five) as server:
            await sub._follow(wanted(server.url))
        out, err = capfd.readouterr()
        assert out == "".join(f'{{"n":{n}}}\n' for n in range(1, 6))
        assert err.splitlines() == [f"listening to {server.url}", "the topic has ended"]

    run(main())


def test_leaves_after_n(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeTopic(five) as server:
            await sub._follow(wanted(server.url, count=2, quiet=True))

    run(main())
    assert capfd.readouterr() == ('{"n":1}\n{"n":2}\n', "")


def test_says_what_was_recovered(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeTopic(two_then_cut, two_more) as server:
            await sub._follow(wanted(server.url))

    run(main())
    out, err = capfd.readouterr()
    assert out == "1\n2\n3\n4\n"
    assert err.splitlines()[1:] == [
        "the line was cut: trying to reconnect",
        "reconnected, 2 recovered",
        "the topic has ended",
    ]


def test_says_what_was_lost(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeTopic(two_then_cut, forgot_everything) as server:
            await sub._follow(wanted(server.url, as_json=True))

    run(main())
    out, err = capfd.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["gap"] for line in lines] == [None, None, {"from": at(2), "to": at(0, "a2")}]
    assert "history lost, live again" in err.splitlines()


def test_asks_as_told(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeTopic(five) as server:
            await sub._follow(wanted(server.url, since="-1", max_per_s=3.0, headers=[("X-Token", "t")], count=1))
            assert server.asked == ["positions=1&since=-1&max_per_s=3"]
            assert server.requests[0].headers["X-Token"] == "t"

    run(main())


def test_failed_topic_and_refusals_come_out() -> None:
    async def failed(socket: ServerConnection) -> None:
        await Says(socket).header(0)
        await Says(socket).end(0, "model crashed")
        await socket.wait_closed()

    async def main() -> None:
        async with FakeTopic(failed) as server:
            with pytest.raises(TopicFailed, match="model crashed"):
                await sub._follow(wanted(server.url))
        async with FakeTopic(403) as server:
            with pytest.raises(Refused, match="says the server"):
                await sub._follow(wanted(server.url))
        with pytest.raises(NothingListens):
            await sub._follow(wanted(server.url))

    run(main())


def test_waits_when_told_to(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeTopic(five) as server:
            pass
        task = asyncio.create_task(sub._follow(wanted(server.url, wait=True)))
        err = ""
        while "waiting for" not in err:
            await asyncio.sleep(0.005)
            err += capfd.readouterr().err
        async with FakeTopic(five, port=server.port):
            await task
        assert err.splitlines() == [f"nothing listens there yet: waiting for {server.url}"]

    run(main())


@pytest.mark.parametrize(
    ("data", "form", "content_type", "body"),
    [
        (b"hello", None, "text/plain; charset=utf-8", b"hello"),
        (b'{"a": 1.50}', None, "application/json", b'{"a":1.50}'),
        (b"[1, 2]", None, "application/json", b"[[1,2]]"),
        (b"12345678901234567890123", None, "application/json", b"12345678901234567890123"),
        (b"7", "text", "text/plain; charset=utf-8", b"7"),
        (b"7", "json", "application/json", b"7"),
        (b"\x00\xff", "binary", "application/octet-stream", b"\x00\xff"),
    ],
)
def test_what_pub_sends(
    data: bytes, form: Any, content_type: str, body: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with FakeHTTP(answer("204 No Content", Stream_Next_Offset="a:1")) as server:
            await asyncio.to_thread(
                pub._publish_all, server.url, iter([data]), form=form, id="i", headers=[("X-A", "b")], timeout_s=10
            )
        posted = server.posted[0]
        assert (posted.headers["content-type"], posted.body) == (content_type, body)
        assert (posted.headers["idempotency-key"], posted.headers["x-a"]) == ("i", "b")

    run(main())
    assert capfd.readouterr().out == "a:1\n"


def test_pub_stops_at_the_first_refusal(capfd: pytest.CaptureFixture[str]) -> None:
    good, bad = answer("204 No Content", Stream_Next_Offset="a:1"), answer("413 Too Large")

    async def main() -> None:
        async with FakeHTTP(good, bad) as server:
            lines = iter([b"1", b"2", b"3"])
            with pytest.raises(Refused):
                await asyncio.to_thread(
                    pub._publish_all, server.url, lines, form=None, id=None, headers=[], timeout_s=10
                )
            assert len(server.posted) == 2

    run(main())
    assert capfd.readouterr().out == "a:1\n"


def test_topic_without_numbers_says_published(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with FakeHTTP(answer("204 No Content")) as server:
            await asyncio.to_thread(
                pub._publish_all, server.url, iter([b"1"]), form=None, id=None, headers=[], timeout_s=10
            )

    run(main())
    assert capfd.readouterr().out == "published\n"
