"""What an application receives of an open WebSocket, and what a new owner gets of what it has not received."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from tests.wire.fakes import HIGH_WATER, FakeOwner, FakeTransport, passes
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, TEXT, Frame, close_payload, frame, split, upgrade
from tidewire.errors import Close, closed_error
from tidewire.testing import ManualClock
from tidewire.wire.asgi import EXTENSION
from tidewire.wire.events import _BYTES_MAX, _MESSAGES_LOW, _MESSAGES_MAX, Events
from tidewire.wire.frames import Message, Part
from tidewire.wire.open import OpenSocket, Shared
from tidewire.wire.uvicorn import Protocol

CONNECT = {"type": "websocket.connect"}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": data}


def binary(data: bytes) -> dict[str, Any]:
    return {"type": "websocket.receive", "bytes": data}


def gone(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


class Stage:
    """Events that own a socket on a fake transport."""

    def __init__(self) -> None:
        self.events = Events()
        self.transport = FakeTransport()
        shared = Shared(asyncio.get_running_loop(), set(), ManualClock())
        self.socket = self.events.socket = OpenSocket(self.transport, shared, self.events, max_size=4 * _BYTES_MAX)
        self.socket.start()

    async def receive(self) -> dict[str, Any]:
        """What is there already."""
        task = asyncio.ensure_future(self.events.receive())
        await passes()
        assert task.done(), "nothing is there"
        return task.result()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


# The queue


def test_messages_are_received_in_order_and_each_as_what_it_is() -> None:
    async def test() -> None:
        stage = Stage()
        assert await stage.receive() == CONNECT
        stage.transport.deliver(frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT, b"") + frame(BINARY, b""))
        stage.transport.deliver(frame(TEXT, b"x", fin=False))
        stage.transport.deliver(frame(CONTINUATION, b"y", fin=False) + frame(CONTINUATION, b"z"))
        expected = [text("a"), binary(b"b"), text(""), binary(b""), text("xyz")]
        assert [await stage.receive() for _ in expected] == expected

    run(test)


def test_who_waits_is_woken() -> None:
    async def test() -> None:
        stage = Stage()
        await stage.receive()
        for number in range(3):
            waiting = asyncio.ensure_future(stage.events.receive())
            await passes()
            assert not waiting.done()
            stage.transport.deliver(frame(TEXT, b"%d" % number))
            assert await waiting == text(f"{number}")
        waiting = asyncio.ensure_future(stage.events.receive())
        await passes()
        stage.transport.lose()
        assert await waiting == gone(1006)

    run(test)


def test_the_end_comes_behind_the_messages_and_again_and_again() -> None:
    async def test() -> None:
        stage = Stage()
        await stage.receive()
        stage.transport.deliver(frame(TEXT, b"a") + frame(CLOSE, close_payload(3005, "enough")))
        assert await stage.receive() == text("a")
        assert [await stage.receive() for _ in range(3)] == [gone(3005, "enough")] * 3
        await passes()
        assert await stage.receive() == gone(3005, "enough")

    run(test)


@pytest.mark.parametrize(
    ("received", "sent", "expected"),
    [
        (None, None, gone(1006)),
        (Close(1005), Close(1005), gone(1005)),
        (Close(1001, "bye"), Close(1001, "bye"), gone(1001, "bye")),
        (None, Close(1002, "no"), gone(1002, "no")),
        (Close(4000), Close(1012), gone(4000)),
    ],
)
def test_how_it_ended_is_told(received: Close | None, sent: Close | None, expected: dict[str, Any]) -> None:
    async def test() -> None:
        stage = Stage()
        await stage.receive()
        stage.events.ended(closed_error(received, sent))
        assert await stage.receive() == expected

    run(test)


def test_the_first_goodbye_stands_and_nothing_is_received_behind_it() -> None:
    async def test() -> None:
        stage = Stage()
        await stage.receive()
        stage.transport.deliver(frame(TEXT, b"before"))
        stage.events.say_goodbye(1000, "closed by the application")
        stage.transport.deliver(frame(TEXT, b"after"))
        stage.events.ended(closed_error(None, None))
        assert await stage.receive() == text("before")
        assert await stage.receive() == gone(1000, "closed by the application")

    run(test)


# Water marks


def test_reading_stops_when_many_wait_and_goes_on_when_few_do() -> None:
    async def test() -> None:
        stage = Stage()
        # the handshake is one of those that wait
        for _ in range(_MESSAGES_MAX - 2):
            stage.transport.deliver(frame(TEXT, b"x"))
        assert stage.transport.is_reading()
        stage.transport.deliver(frame(TEXT, b"x"))
        assert not stage.transport.is_reading()
        for _ in range(_MESSAGES_MAX - _MESSAGES_LOW - 1):
            await stage.receive()
            assert not stage.transport.is_reading()
        await stage.receive()
        assert stage.transport.is_reading()
        assert (stage.transport.pauses, stage.transport.resumes) == (1, 1)

    run(test)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_reading_stops_when_much_waits(opcode: int) -> None:
    async def test() -> None:
        stage = Stage()
        await stage.receive()
        half = frame(opcode, b"x" * (_BYTES_MAX // 2))
        stage.transport.deliver(half)
        assert stage.transport.is_reading()
        stage.transport.deliver(half)
        assert not stage.transport.is_reading()
        await stage.receive()
        assert stage.transport.is_reading()
        # what was received does not count for ever
        await stage.receive()
        for _ in range(10):
            stage.transport.deliver(half)
            assert stage.transport.is_reading()
            await stage.receive()

    run(test)


def test_one_message_over_the_mark_does_not_stop_reading_for_ever() -> None:
    async def test() -> None:
        stage = Stage()
        await stage.receive()
        stage.transport.deliver(frame(BINARY, b"x" * (_BYTES_MAX + 1)))
        assert not stage.transport.is_reading()
        assert len((await stage.receive())["bytes"]) == _BYTES_MAX + 1
        assert stage.transport.is_reading()

    run(test)


def test_who_sends_waits_for_room_and_for_nothing_once_it_has_ended() -> None:
    async def test() -> None:
        stage = Stage()
        await stage.events.wait_for_room()
        for ending in (stage.transport.unstall, stage.transport.lose):
            stage.transport.stall()
            stage.socket.send(bytes(HIGH_WATER * 2))
            await passes()
            waiting = [asyncio.ensure_future(stage.events.wait_for_room()) for _ in range(3)]
            await passes(2)
            assert not any(one.done() for one in waiting)
            ending()
            await asyncio.gather(*waiting)
        await stage.events.wait_for_room()

    run(test)


# What was not received


def test_everything_that_waits_can_be_taken() -> None:
    async def test() -> None:
        stage = Stage()
        assert stage.events.take_messages() == []
        stage = Stage()
        stage.transport.deliver(frame(TEXT, b"a") + frame(BINARY, b"b"))
        stage.transport.deliver(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", fin=False))
        taken = stage.events.take_messages()
        assert taken[:2] == ["a", b"b"]
        assert joined(taken[2:]) == ("xy", False)
        # the application has heard the last
        assert await stage.receive() == gone(1005)
        assert stage.events.take_messages() == []

    run(test)


def joined(messages: list[Message]) -> tuple[Any, bool]:
    """Pieces of one message, together, and whether the last one is there."""
    pieces = [message for message in messages if isinstance(message, Part)]
    assert len(pieces) == len(messages)
    assert not any(piece.is_last for piece in pieces[:-1])
    return "".join(piece.data for piece in pieces if isinstance(piece.data, str)), pieces[-1].is_last


# Handing over, from the request on


class Actor:
    """A connection with an application that does as the test says, on a fake transport."""

    def __init__(self, *, early: bytes = b"", **options: Any) -> None:
        self.transport = FakeTransport()
        self.state = ServerState()
        self.scope: Any = None
        self.receive: Any = None
        self.send: Any = None
        self.result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        config = Config(self._app, interface="asgi3", lifespan="off", log_config=None, **options)
        self.protocol = Protocol(config, self.state, {})
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(upgrade("/a"))
        self.transport.set_protocol(self.protocol)
        if early:
            self.transport.deliver(early)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        await self.result

    async def accept(self) -> None:
        await passes()
        await self.send({"type": "websocket.accept"})

    def hand_over(self, make: Callable[[OpenSocket], Any]) -> Any:
        return self.scope["extensions"][EXTENSION]["hand_over"](make)

    async def leave(self) -> None:
        """The application returns; nobody may be left."""
        if not self.result.done():
            self.result.set_result(None)
        await passes(3)
        if not self.transport.lost:
            self.transport.lose()
            await passes()
        assert (self.state.connections, self.state.tasks) == (set(), set())

    @property
    def frames(self) -> list[Frame]:
        return split(self.transport.taken.partition(b"\r\n\r\n")[2])[0]


def test_a_new_owner_is_given_what_came_before_in_order_and_then_the_rest() -> None:
    async def test() -> None:
        actor = Actor(early=frame(TEXT, b"early"))
        await actor.accept()
        actor.transport.deliver(frame(BINARY, b"one") + frame(TEXT, "caf\u00e9".encode()[:-1], fin=False))
        owner = FakeOwner()
        assert actor.hand_over(lambda socket: owner) is owner
        actor.transport.deliver(frame(CONTINUATION, b"\xa9") + frame(TEXT, b"last"))
        assert owner.messages[:2] == ["early", b"one"]
        assert joined(owner.messages[2:-1]) == ("caf\u00e9", True)
        assert owner.messages[-1] == "last"
        actor.result.set_result(None)
        await passes(3)
        # the application is gone, the connection is not
        assert actor.state.tasks == set()
        assert not actor.transport.is_closing()
        actor.transport.deliver(frame(CLOSE, close_payload(1000)))
        assert owner.ends[0].rcvd == Close(1000)
        await actor.leave()

    run(test)


def test_what_the_application_has_received_is_not_given_again() -> None:
    async def test() -> None:
        actor = Actor()
        await actor.accept()
        actor.transport.deliver(frame(TEXT, b"1") + frame(TEXT, b"2"))
        assert [await actor.receive() for _ in range(2)] == [CONNECT, text("1")]
        owner = FakeOwner()
        actor.hand_over(lambda socket: owner)
        assert owner.messages == ["2"]
        assert await actor.receive() == gone(1005)
        await actor.leave()

    run(test)


def test_a_new_owner_hears_of_an_end_that_was_before_it() -> None:
    async def test() -> None:
        actor = Actor()
        await actor.accept()
        actor.transport.deliver(frame(TEXT, b"1") + frame(CLOSE, close_payload(4000)))
        owner = FakeOwner()
        actor.hand_over(lambda socket: owner)
        assert owner.messages == ["1"]
        assert owner.end == (Close(4000), Close(4000), True)
        await actor.leave()

    run(test)


def test_a_full_queue_is_handed_over_and_reading_goes_on() -> None:
    async def test() -> None:
        actor = Actor()
        await actor.accept()
        while actor.transport.is_reading():
            actor.transport.deliver(frame(TEXT, b"x"))
        owner = FakeOwner()
        actor.hand_over(lambda socket: owner)
        assert len(owner.messages) == _MESSAGES_MAX - 1
        assert actor.transport.is_reading()
        await actor.leave()

    run(test)


def test_only_an_open_socket_can_be_handed_over_and_only_once() -> None:
    async def test() -> None:
        actor = Actor()
        await passes()
        with pytest.raises(RuntimeError, match="only an accepted WebSocket"):
            actor.hand_over(lambda socket: FakeOwner())
        await actor.accept()
        actor.hand_over(lambda socket: FakeOwner())
        with pytest.raises(RuntimeError, match="only once"):
            actor.hand_over(lambda socket: FakeOwner())
        await actor.leave()
        actor = Actor()
        await actor.accept()
        await actor.send({"type": "websocket.close"})
        with pytest.raises(RuntimeError, match="only an accepted WebSocket"):
            actor.hand_over(lambda socket: FakeOwner())
        await actor.leave()

    run(test)


def test_an_owner_that_cannot_be_made_leaves_the_socket_with_the_application() -> None:
    async def test() -> None:
        actor = Actor()
        await actor.accept()

        def fail(socket: OpenSocket) -> FakeOwner:
            raise LookupError("broken")

        with pytest.raises(LookupError):
            actor.hand_over(fail)
        actor.transport.deliver(frame(TEXT, b"still"))
        assert [await actor.receive() for _ in range(2)] == [CONNECT, text("still")]
        actor.result.set_result(None)
        await passes(3)
        # nobody else would close it
        assert [one.close[0] for one in actor.frames] == [1000]
        await actor.leave()

    run(test)


def test_what_comes_before_the_answer_is_bounded_and_kept() -> None:
    async def test() -> None:
        actor = Actor()
        piece = frame(BINARY, b"x" * 10_000)
        sent = 0
        while actor.transport.is_reading():
            actor.transport.deliver(piece)
            sent += 1
            assert sent < 20
        await actor.accept()
        assert actor.transport.is_reading()
        assert await actor.receive() == CONNECT
        assert [len((await actor.receive())["bytes"]) for _ in range(sent)] == [10_000] * sent
        await actor.leave()

    run(test)


@pytest.mark.parametrize("code", [1004, 1006, 99, 70_000])
def test_a_code_that_cannot_be_sent_is_an_error_in_the_application(code: int) -> None:
    async def test() -> None:
        actor = Actor()
        await actor.accept()
        with pytest.raises(ValueError, match=str(code)):
            await actor.send({"type": "websocket.close", "code": code})
        # it has not closed: it may say something better, or raise
        await actor.send({"type": "websocket.close", "code": 1011})
        assert [one.close[0] for one in actor.frames] == [1011]
        await actor.leave()

    run(test)


def test_what_an_application_sends_in_one_pass_leaves_in_one_write() -> None:
    async def test() -> None:
        actor = Actor()
        await actor.accept()
        await passes()
        before = len(actor.transport.writes)
        for n in range(20):
            await actor.send({"type": "websocket.send", "text": f"m{n}"})
        assert len(actor.transport.writes) == before
        await passes()
        assert len(actor.transport.writes) == before + 1
        assert [one.payload for one in actor.frames] == [b"m%d" % n for n in range(20)]
        await actor.leave()

    run(test)


def test_a_denial_that_cannot_be_sent_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        actor = Actor()
        await passes()
        start = {"type": "websocket.http.response.start", "status": 403, "headers": [(b"x", b"a\r\nset-cookie: b")]}
        await actor.send(start)
        with pytest.raises(ValueError, match="cannot be sent as a header") as error:
            await actor.send({"type": "websocket.http.response.body", "body": b"no"})
        actor.result.set_exception(error.value)
        await passes(3)
        assert actor.transport.taken.startswith(b"HTTP/1.1 500 ")
        assert b"set-cookie" not in actor.transport.taken
        await actor.leave()

    run(test)
    assert "cannot be sent as a header" in caplog.text
