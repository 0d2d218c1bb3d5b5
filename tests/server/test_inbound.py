"""Messages of a socket that was handed over: published in order, one after the other, and only so many wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.server.fakes import House, Visitor, opens, passes, until
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame
from tidewire.errors import TooManyTopics
from tidewire.server.connection import Connection, Verdict
from tidewire.server.inbound import Publishing

KIB = 1024
Act = Callable[[str | bytes, Connection], Coroutine[Any, Any, None]]


class Desk(Publishing):
    """Publishes by noting; ``go`` lets one through at a time unless it is ``free``."""

    def __init__(self, *, free: bool = True) -> None:
        self.begun: list[str | bytes] = []
        self.published: list[str | bytes] = []
        self.at_work = self.most_at_work = 0
        self.free = free
        self.errors: dict[str | bytes, BaseException] = {}
        self.refused: set[str | bytes] = set()
        self.cancelled: list[str | bytes] = []
        self._doors: list[asyncio.Future[None]] = []

    async def publish(self, message: str | bytes, connection: Connection) -> bool:
        self.begun.append(message)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await asyncio.sleep(0)
            if not self.free:
                self._doors.append(asyncio.get_running_loop().create_future())
                await self._doors[-1]
        except asyncio.CancelledError:
            self.cancelled.append(message)
            raise
        finally:
            self.at_work -= 1
        if message in self.errors:
            raise self.errors[message]
        if message in self.refused:
            connection.end(Verdict(1008, "not you"))
            return False
        self.published.append(message)
        return True

    async def go(self, count: int = 1) -> None:
        for _ in range(count):
            await until(lambda: self._doors and not self._doors[-1].done(), "a message at the desk")
            self._doors[-1].set_result(None)
            await passes(3)


async def at(desk: Desk) -> tuple[House, Visitor]:
    house = await House().start()
    visitor = Visitor(house, publishing=desk)
    await passes()
    return house, visitor


async def leave(house: House, visitor: Visitor) -> None:
    visitor.vanish()
    await passes()
    house.clock.advance(20)
    await passes()
    house.check_empty()


def numbered(count: int, first: int = 0) -> list[str]:
    return [f"m{n}" for n in range(first, first + count)]


@opens
async def test_one_after_the_other_and_in_order() -> None:
    desk = Desk(free=False)
    house, visitor = await at(desk)
    visitor.say("m0", "m1")
    await passes()
    visitor.say("m2")
    assert desk.begun == ["m0"]
    await desk.go(2)
    visitor.say("m3")
    await desk.go(2)
    assert desk.begun == desk.published == numbered(4)
    assert desk.most_at_work == 1
    await until(lambda: len(asyncio.all_tasks()) == 1, "no task stays for those who say nothing")
    visitor.say("m4")
    await desk.go()
    assert desk.published == numbered(5)
    await leave(house, visitor)


@opens
async def test_kinds_stay_and_parts_are_joined() -> None:
    desk = Desk()
    house, visitor = await at(desk)
    large = bytes(range(256)) * 600
    visitor.send(
        frame(BINARY, b"b"),
        frame(TEXT, "gr\u00fc".encode()[:3], fin=False),
        frame(PING, b"between"),
        frame(CONTINUATION, "gr\u00fc".encode()[3:] + b"\xc3", fin=False),
    )
    visitor.send(frame(CONTINUATION, b"\x9fe"), frame(TEXT, b""))
    await until(lambda: len(desk.published) == 3)
    assert desk.published == [b"b", "gr\u00fc\u00dfe", ""]
    assert [one.opcode for one in visitor.frames] == [PONG]
    data = frame(BINARY, large)
    for begin in range(0, len(data), 50_000):
        visitor.send(data[begin : begin + 50_000])
        await passes(2)
    await until(lambda: len(desk.published) == 4)
    assert desk.published[-1] == large
    await leave(house, visitor)


@pytest.mark.parametrize(
    ("messages", "is_full"),
    [
        (numbered(31), False),
        (numbered(32), True),
        (["x" * 64 * KIB] * 15 + ["x" * (64 * KIB - 1)], False),
        (["x" * 64 * KIB] * 16, True),
    ],
    ids=["31", "32", "a byte less than a mebibyte", "a mebibyte"],
)
@opens
async def test_reading_stops_when_much_waits_and_goes_on_when_all_is_published(
    messages: list[str], is_full: bool
) -> None:
    desk = Desk(free=False)
    house, visitor = await at(desk)
    visitor.say(*messages)
    await passes()
    assert desk.begun == messages[:1]
    assert visitor.transport.is_paused is is_full
    await desk.go(len(messages) - 1)
    assert visitor.transport.is_paused is is_full, "until the last one"
    await desk.go()
    assert desk.published == messages
    assert not visitor.transport.is_paused
    assert visitor.transport.pauses == visitor.transport.resumes == is_full
    visitor.say("again")
    await desk.go()
    assert desk.published == [*messages, "again"]
    await leave(house, visitor)


@opens
async def test_reading_stops_again_and_again() -> None:
    desk = Desk()
    house, visitor = await at(desk)
    for turn in range(5):
        visitor.say(*numbered(40, 40 * turn))
        assert visitor.transport.is_paused
        await until(lambda: not visitor.transport.is_paused)
    assert desk.published == numbered(200)
    assert desk.most_at_work == 1
    await leave(house, visitor)


@opens
async def test_a_refusal_ends_the_connection_and_what_came_behind_it_is_not_published() -> None:
    desk = Desk()
    house, visitor = await at(desk)
    desk.refused = {"m2"}
    visitor.say(*numbered(5))
    await passes()
    assert desk.begun == numbered(3)
    assert desk.published == numbered(2)
    assert visitor.goodbye == (1008, "not you")
    visitor.say("later")
    await passes()
    assert desk.begun == numbered(3)
    assert len(asyncio.all_tasks()) == 1
    await leave(house, visitor)


@opens
async def test_a_refusal_of_one_of_many_lets_the_goodbye_be_heard() -> None:
    """Reading was stopped, and the peer's close frame is to be read."""
    desk = Desk()
    house, visitor = await at(desk)
    desk.refused = {"m2"}
    visitor.say(*numbered(50))
    assert visitor.transport.is_paused
    await passes()
    assert visitor.goodbye == (1008, "not you")
    assert not visitor.transport.is_paused
    visitor.close(1008)
    await passes()
    house.clock.advance(20)
    house.check_empty()


@pytest.mark.parametrize(
    ("error", "code"), [(TooManyTopics(3), 1013), (ValueError("a bug"), 1011)], ids=["a limit", "a bug"]
)
@opens
async def test_an_error_ends_the_connection(error: Exception, code: int, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    house, visitor = await at(desk)
    desk.errors["m1"] = error
    visitor.say(*numbered(40))
    await passes()
    assert desk.begun == numbered(2)
    assert visitor.goodbye is not None
    assert visitor.goodbye[0] == code
    assert not visitor.transport.is_paused
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * (code == 1011)
    await leave(house, visitor)


@pytest.mark.parametrize("how", ["closes", "vanishes"])
@opens
async def test_what_a_peer_has_sent_before_it_left_is_published(how: str) -> None:
    """A program that sends and closes has published."""
    desk = Desk(free=False)
    house, visitor = await at(desk)
    visitor.say(*numbered(3))
    if how == "closes":
        visitor.close()
    else:
        visitor.vanish()
    await desk.go(3)
    assert desk.published == numbered(3)
    assert desk.most_at_work == 1
    await passes()
    house.clock.advance(20)
    house.check_empty()


@opens
async def test_a_message_and_a_goodbye_in_one_packet_is_a_publish() -> None:
    desk = Desk()
    house, visitor = await at(desk)
    visitor.send(frame(TEXT, b"m0") + frame(TEXT, b"m1") + frame(CLOSE, close_payload(1000)))
    await passes()
    assert desk.published == numbered(2)
    house.clock.advance(20)
    house.check_empty()


@opens
async def test_a_refusal_counts_although_nobody_hears_it() -> None:
    desk = Desk(free=False)
    house, visitor = await at(desk)
    desk.refused = {"m1"}
    visitor.say(*numbered(4))
    visitor.close()
    await desk.go(2)
    assert desk.begun == numbered(2)
    await passes()
    house.clock.advance(20)
    house.check_empty()


@pytest.mark.parametrize("begun", [False, True])
@opens
async def test_what_was_not_published_when_we_have_ended_it_is_not(begun: bool) -> None:
    desk = Desk(free=False)
    house, visitor = await at(desk)
    visitor.say(*numbered(40))
    if begun:
        await desk.go(2)
    visitor.connection.drop()
    await passes()
    assert desk.published == numbered(2 * begun)
    assert desk.cancelled == (["m2"] if begun else []), "it was at work, and has stopped"
    house.clock.advance(20)
    house.check_empty()


@opens
async def test_a_verdict_lets_one_message_end_and_begins_no_other() -> None:
    desk = Desk(free=False)
    house, visitor = await at(desk)
    visitor.say(*numbered(3))
    await passes()
    visitor.connection.end(Verdict(1000, abrupt=False))
    await desk.go()
    assert desk.begun == ["m0"]
    visitor.say("m3")
    visitor.close()
    await passes()
    assert desk.begun == ["m0"]
    house.clock.advance(20)
    house.check_empty()
