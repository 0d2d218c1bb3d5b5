"""A raw connection on the server's side, over ASGI events handed in one by one: no server, no port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import pytest

from tidewire.errors import (
    BadPayload,
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    NotOffered,
    TooLarge,
)
from tidewire.limits import INBOX_MESSAGES_MAX
from tidewire.wire.connection import Connection
from tidewire.wire.socket import ServerSocket


class Wire:
    """The server below: events to the application, and what it has sent."""

    def __init__(self, **extension: Any) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.taken = 0
        self.error: Exception | None = None
        # cleared: the peer does not read
        self.writable = asyncio.Event()
        self.writable.set()
        scope = {
            "type": "websocket",
            "path": "/péage",
            "raw_path": b"/p%C3%A9age",
            "query_string": b"a=1",
            "headers": [(b"host", b"test"), (b"x-a", b"1"), (b"x-a", b"2")],
            "client": ("10.0.0.1", 1234),
            "extensions": {"tidewire": extension} if extension else {},
        }
        self.socket = ServerSocket(scope, self._receive, self._send, subprotocol="chat", max_size=10)
        self.connection = Connection(self.socket)

    async def _receive(self) -> dict[str, Any]:
        event = await self.events.get()
        self.taken += 1
        return event

    async def _send(self, event: Any) -> None:
        await self.writable.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(event)

    def say(self, *messages: str | bytes) -> None:
        for message in messages:
            key = "text" if isinstance(message, str) else "bytes"
            self.events.put_nowait({"type": "websocket.receive", key: message})

    def leave(self, code: int = 1000, reason: str = "") -> None:
        self.events.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})


def play(scenario: Callable[[Wire], Coroutine[Any, Any, None]], **extension: Any) -> None:
    async def run() -> None:
        wire = Wire(**extension)
        reader = asyncio.create_task(wire.socket.read())
        async with asyncio.timeout(5):
            await scenario(wire)
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled():
            reader.result()

    asyncio.run(run())


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_text_stays_text_and_binary_stays_binary() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("text", b"binary", "", b"")
        assert [await wire.connection.recv() for _ in range(4)] == ["text", b"binary", "", b""]
        for message in ("text", b"binary", bytearray(b"array"), memoryview(b"view"), ""):
            await wire.connection.send(message)
        assert [event.get("text", event.get("bytes")) for event in wire.sent] == [
            "text", b"binary", b"array", b"view", "",
        ]  # fmt: skip

    play(scenario)


def test_json_both_ways() -> None:
    async def scenario(wire: Wire) -> None:
        await wire.connection.send_json({"ä": [1, None]})
        assert wire.sent[0]["text"] == '{"ä":[1,null]}'
        wire.say('{"a": 1}', b"[2]", "{broken", "[" * 100_000)
        assert [await wire.connection.recv_json() for _ in range(2)] == [{"a": 1}, [2]]
        for _ in range(2):
            with pytest.raises(BadPayload, match="JSON was expected"):
                await wire.connection.recv_json()
        with pytest.raises(ValueError, match="JSON"):
            await wire.connection.send_json(float("nan"))

    play(scenario)


def test_an_iterable_is_one_message() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for n in range(3):
            yield b"%d" % n

    async def scenario(wire: Wire) -> None:
        await wire.connection.send(["a", "b"])
        await wire.connection.send(numbers())
        await wire.connection.send(iter([]))
        assert [event.get("text", event.get("bytes")) for event in wire.sent] == ["ab", b"012"]

    play(scenario)


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ({"a": 1}, TypeError, "send_json"),
        (5, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
        (["a", b"b"], TypeError, "either str or bytes"),
        ([1, 2], TypeError, "not int"),
        ([b"12345678", b"90x"], TooLarge, "11 bytes exceeds the limit of 10 bytes"),
        (["ääääää"], TooLarge, "12 bytes exceeds the limit of 10 bytes"),
    ],
)
def test_what_cannot_be_sent_is_told_and_nothing_leaves(message: Any, error: type[Exception], words: str) -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(error, match=words):
            await wire.connection.send(message)
        assert not wire.sent
        await wire.connection.send("still open")

    play(scenario)


def test_the_handshake_can_be_looked_at() -> None:
    async def scenario(wire: Wire) -> None:
        request = wire.connection.request
        assert request.path == "/p%C3%A9age?a=1"
        assert request.headers["Host"] == "test"
        assert request.headers.get_all("X-A") == ["1", "2"]
        assert wire.connection.subprotocol == "chat"
        assert wire.connection.remote_address == ("10.0.0.1", 1234)
        assert (wire.connection.close_code, wire.connection.close_reason) == (None, None)
        assert "open" in repr(wire.connection)

    play(scenario)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (1000, ConnectionClosedOK, "received 1000 (OK) bye; then sent 1000 (OK) bye"),
        (1001, ConnectionClosedOK, "received 1001 (going away) bye; then sent 1001 (going away) bye"),
        (1005, ConnectionClosedOK, "1005 (no status received"),
        (1006, ConnectionClosedError, "no close frame received or sent"),
        (1011, ConnectionClosedError, "1011 (internal error) bye"),
        (4000, ConnectionClosedError, "4000 (private use) bye"),
    ],
)
def test_what_came_before_the_end_is_delivered_before_it(code: int, kind: type[ConnectionClosed], text: str) -> None:
    async def scenario(wire: Wire) -> None:
        wire.say(*"12345")
        wire.leave(code, "bye")
        await turn()
        assert [await wire.connection.recv() for _ in range(5)] == list("12345")
        with pytest.raises(kind) as told:
            await wire.connection.recv()
        assert text in str(told.value)
        assert told.value.code == wire.connection.close_code == code
        for act in (wire.connection.recv(), wire.connection.send("late"), wire.connection.ping()):
            with pytest.raises(kind) as again:
                await act
            assert again.value is not told.value
        await wire.connection.close()
        await wire.connection.wait_closed()
        assert not wire.sent

    play(scenario)


@pytest.mark.parametrize(("code", "quiet", "raises"), [(1000, False, False), (1006, False, True), (1006, True, False)])
def test_a_loop_ends_with_the_connection(code: int, quiet: bool, raises: bool) -> None:
    async def scenario(wire: Wire) -> None:
        connection = Connection(wire.socket, ends_quietly=quiet)
        wire.say("a", "b")
        wire.leave(code)
        seen: list[Any] = []
        try:
            seen += [message async for message in connection]
            seen.append("end")
        except ConnectionClosedError:
            seen.append("error")
        assert seen == (["error"] if raises else ["a", "b", "end"])

    play(scenario)


def test_a_peer_our_server_has_refused_did_not_say_so_itself() -> None:
    async def scenario(wire: Wire) -> None:
        wire.leave(1009, "frame with 20 bytes exceeds limit of 10 bytes")
        with pytest.raises(ConnectionClosedError) as told:
            await wire.connection.recv()
        assert (told.value.rcvd, told.value.sent) == (
            None,
            Close(1009, "frame with 20 bytes exceeds limit of 10 bytes"),
        )
        assert told.value.code == wire.connection.close_code == 1009

    play(scenario, refused=lambda: True)


def test_closing_says_so_once() -> None:
    async def scenario(wire: Wire) -> None:
        await asyncio.gather(wire.connection.close(4001, "ä" * 100), wire.connection.close())
        await wire.connection.close()
        assert [event["type"] for event in wire.sent] == ["websocket.close"]
        assert wire.sent[0]["code"] == 4001
        assert len(wire.sent[0]["reason"].encode()) <= 123
        assert wire.connection.close_code == 4001
        with pytest.raises(ConnectionClosedError, match="sent 4001"):
            await wire.connection.recv()
        with pytest.raises(ConnectionClosedError, match="sent 4001"):
            await wire.connection.send("late")

    play(scenario)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_codes_that_may_not_be_sent(code: int) -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(ValueError, match="cannot be sent"):
            await wire.connection.close(code)
        assert not wire.sent

    play(scenario)


def test_a_cancelled_recv_loses_nothing() -> None:
    async def scenario(wire: Wire) -> None:
        for message in ("first", "second"):
            waiting = asyncio.create_task(wire.connection.recv())
            await turn()
            wire.say(message)
            # the message comes, and the wish to stop waiting with it
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            if waiting.cancelled():
                assert await wire.connection.recv() == message
            else:
                assert waiting.result() == message

    play(scenario)


def test_one_task_receives_at_a_time() -> None:
    async def scenario(wire: Wire) -> None:
        first = asyncio.create_task(wire.connection.recv())
        await turn()
        with pytest.raises(RuntimeError, match="another task is receiving"):
            await wire.connection.recv()
        wire.say("for the first")
        assert await first == "for the first"

    play(scenario)


def test_two_tasks_send_whole_messages() -> None:
    async def scenario(wire: Wire) -> None:
        async def send(name: str) -> None:
            for n in range(20):
                await wire.connection.send([f"{name}", f"{n}"])

        await asyncio.gather(send("a"), send("b"))
        assert sorted(event["text"] for event in wire.sent) == sorted(f"{x}{n}" for x in "ab" for n in range(20))

    play(scenario)


def test_a_full_inbox_stops_reading_for_a_body_that_receives() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("0")
        assert await wire.connection.recv() == "0"
        wire.say(*map(str, range(1, 3 * INBOX_MESSAGES_MAX)))
        await turn()
        await turn()
        # one more is in the hands of the reader
        assert wire.taken <= 1 + INBOX_MESSAGES_MAX + 1
        seen = [await wire.connection.recv() for _ in range(1, 3 * INBOX_MESSAGES_MAX)]
        assert seen == [str(n) for n in range(1, 3 * INBOX_MESSAGES_MAX)]
        assert wire.socket.dropped == 0

    play(scenario)


def test_a_body_that_never_receives_drops_what_is_too_much() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say(*map(str, range(INBOX_MESSAGES_MAX + 8)))
        wire.leave(1001)
        await wire.connection.wait_closed()
        assert wire.socket.dropped == 8
        assert wire.connection.close_code == 1001

    play(scenario)


def test_a_goodbye_does_not_wait_for_a_full_inbox() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("0")
        await wire.connection.recv()
        wire.say(*["x"] * (2 * INBOX_MESSAGES_MAX))
        await turn()
        await wire.connection.close()
        assert wire.connection.close_code == 1000
        assert await wire.connection.recv() == "x", "what had come before is still there"

    play(scenario)


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError('Cannot call "send" once a close message')])
def test_a_send_to_a_peer_that_is_gone(error: Exception) -> None:
    async def scenario(wire: Wire) -> None:
        wire.error = error
        sending = asyncio.create_task(wire.connection.send("x"))
        await turn()
        wire.leave(1001)
        with pytest.raises(ConnectionClosedOK, match="received 1001"):
            await sending

    play(scenario)


def test_a_send_to_a_peer_that_is_gone_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire.wire.socket._NEWS_S", 0.001)

    async def scenario(wire: Wire) -> None:
        wire.error = OSError("gone")
        with pytest.raises(ConnectionClosedError, match="no close frame"):
            await wire.connection.send("x")
        assert wire.connection.close_code == 1006

    play(scenario)


def test_an_error_that_is_no_goodbye_is_passed_on() -> None:
    async def scenario(wire: Wire) -> None:
        wire.error = ValueError("a middleware's bug")
        with pytest.raises(ValueError, match="a middleware's bug"):
            await wire.connection.send("x")
        with pytest.raises(ValueError, match="a middleware's bug"):
            await wire.connection.close()

    play(scenario)


def test_a_goodbye_that_is_not_taken_is_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire.wire.socket.RAW_CLOSE_S", 0.001)
    aborted: list[bool] = []

    async def scenario(wire: Wire) -> None:
        wire.writable.clear()
        await wire.connection.close()
        assert aborted == [True]
        assert wire.connection.close_code == 1000
        with pytest.raises(ConnectionClosedError, match="no close frame received"):
            await wire.connection.recv()

    play(scenario, abort=lambda: aborted.append(True))


def test_pings_where_the_server_offers_them() -> None:
    pinged: list[bytes | None] = []

    def ping(data: bytes | None) -> asyncio.Future[float]:
        pinged.append(data)
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        future.set_result(0.25)
        return future

    async def scenario(wire: Wire) -> None:
        assert await (await wire.connection.ping()) == 0.25
        assert await (await wire.connection.ping("ä")) == 0.25
        assert pinged == [None, "ä".encode()]
        assert wire.connection.latency_s == 0.25
        with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
            await wire.connection.ping("x" * 126)

    play(scenario, ping=ping, latency_s=lambda: 0.25)


def test_pings_where_the_server_offers_none() -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(NotOffered, match="offers applications no pings: start it with"):
            await wire.connection.ping()
        assert wire.connection.latency_s == 0

    play(scenario)


def test_streaming_gives_the_message_in_one_piece() -> None:
    async def scenario(wire: Wire) -> None:
        wire.say("whole", b"next")
        assert [piece async for piece in wire.connection.recv_streaming()] == ["whole"]
        assert [piece async for piece in wire.connection.recv_streaming()] == [b"next"]

    play(scenario)


def test_a_server_that_gives_no_code() -> None:
    async def scenario(wire: Wire) -> None:
        wire.events.put_nowait({"type": "websocket.disconnect"})
        with pytest.raises(ConnectionClosedOK):
            await wire.connection.recv()
        assert wire.connection.close_code == 1005

    play(scenario)


def test_messages_are_iterables_of_their_own() -> None:
    """A generator is read to its end only once, and its own error is the caller's."""

    def broken() -> Iterable[bytes]:
        yield b"1"
        raise KeyError("mine")

    async def scenario(wire: Wire) -> None:
        with pytest.raises(KeyError, match="mine"):
            await wire.connection.send(broken())
        assert not wire.sent

    play(scenario)


Act = Callable[[Connection], Coroutine[Any, Any, Any]]


async def ping_and_wait(connection: Connection) -> None:
    await (await connection.ping())


@pytest.mark.parametrize(
    ("act", "usable"),
    [
        (lambda connection: connection.send("x"), True),
        (lambda connection: connection.send(["x", "y"]), True),
        (lambda connection: connection.recv(), True),
        (lambda connection: connection.recv_json(), True),
        (ping_and_wait, True),
        (lambda connection: connection.wait_closed(), True),
        (lambda connection: connection.close(), False),
    ],
    ids=["send", "send pieces", "recv", "recv_json", "ping", "wait_closed", "close"],
)
def test_cancelling_in_every_await_leaves_nothing_behind(act: Act, usable: bool) -> None:
    async def scenario(wire: Wire) -> None:
        before = asyncio.all_tasks()
        wire.writable.clear()
        acting = asyncio.create_task(act(wire.connection))
        await turn()
        assert not acting.done()
        acting.cancel()
        await asyncio.wait([acting])
        assert acting.cancelled()
        assert asyncio.all_tasks() == before
        wire.writable.set()
        if usable:
            await wire.connection.send("still open")
            wire.say('"heard"')
            assert await wire.connection.recv() == '"heard"'
        else:
            with pytest.raises(ConnectionClosedError):
                await wire.connection.send("too late")

    play(scenario, ping=lambda data: asyncio.get_running_loop().create_future())
