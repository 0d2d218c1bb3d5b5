"""What waits for the receiver of a raw connection: how much of it, what is dropped, and who is woken."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.wire.fakes import FakeTransport, opens, passes
from tidewire.errors import Close, ConnectionClosed, closed_error
from tidewire.limits import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX
from tidewire.testing import ManualClock
from tidewire.wire.frames import Message, Part
from tidewire.wire.intake import Intake
from tidewire.wire.open import OpenSocket, Shared

KIB = 1024


class Desk:
    """An intake, and the socket it belongs to."""

    def __init__(self, *, was_read: bool = True) -> None:
        self.transport = FakeTransport()
        shared = Shared(asyncio.get_running_loop(), set(), ManualClock())
        self.socket = OpenSocket(self.transport, shared, None, max_size=1 << 24)  # type: ignore[arg-type]
        self.intake = self.socket.owner = Intake(self.socket)
        self.intake.was_read = was_read
        self.socket.start()

    def give(self, *messages: Message) -> None:
        """Each on its own, as they would come."""
        for message in messages:
            self.intake.received([message])

    def take(self) -> list[str | bytes]:
        taken = []
        while (message := self.intake.take_whole()) is not None:
            taken.append(message)
        return taken


def numbered(count: int) -> list[Message]:
    return [str(n) for n in range(count)]


def parts(text: str, count: int) -> list[Message]:
    return [Part(f"{text}{n}", n == count - 1) for n in range(count)]


def whole(text: str, count: int) -> str:
    return "".join(f"{text}{n}" for n in range(count))


@opens
async def test_messages_come_out_as_they_went_in() -> None:
    desk = Desk()
    desk.give("a", b"b", *parts("c", 3), "", Part(b"d", False), Part(b"", True))
    assert len(desk.intake.waiting) == 8
    assert desk.take() == ["a", b"b", whole("c", 3), "", b"d"]
    assert desk.intake.take() is None


@opens
async def test_what_has_begun_is_given_back_as_pieces() -> None:
    desk = Desk()
    assert desk.intake.take_begun() == []
    desk.give(*parts("c", 3)[:2])
    assert desk.intake.take_whole() is None
    assert desk.intake.take_begun() == parts("c", 3)[:2]
    assert desk.intake.take_begun() == []


@pytest.mark.parametrize(
    ("messages", "low"),
    [
        (numbered(INBOX_MESSAGES_MAX), INBOX_MESSAGES_MAX // 4),
        ([Part("x", False)] * INBOX_MESSAGES_MAX, INBOX_MESSAGES_MAX // 4),
        (["x" * 128 * KIB] * (INBOX_BYTES_MAX // KIB // 128), 4),
    ],
    ids=["messages", "pieces", "bytes"],
)
@opens
async def test_reading_stops_when_it_is_full_and_begins_again_when_little_waits(
    messages: list[Message], low: int
) -> None:
    desk = Desk()
    desk.give(*messages[:-1])
    assert not desk.transport.is_paused
    desk.give(messages[-1])
    assert desk.transport.is_paused
    while len(desk.intake.waiting) > low:
        assert desk.transport.is_paused
        desk.intake.take()
    assert not desk.transport.is_paused
    assert not desk.intake.is_paused
    assert (desk.transport.pauses, desk.transport.resumes) == (1, 1)
    assert desk.intake.dropped == 0


@opens
async def test_one_message_of_any_size_has_room_and_all_that_comes_at_once_is_kept() -> None:
    desk = Desk()
    desk.intake.received(["x" * 4 * INBOX_BYTES_MAX, *numbered(100)])
    assert desk.transport.is_paused
    assert len(desk.take()) == 101
    assert not desk.transport.is_paused


@opens
async def test_nobody_has_ever_received_and_reading_goes_on() -> None:
    desk = Desk(was_read=False)
    desk.give(*numbered(INBOX_MESSAGES_MAX + 7))
    assert desk.intake.dropped == 7
    assert not desk.transport.pauses
    desk.intake.was_read = True
    assert desk.take() == numbered(INBOX_MESSAGES_MAX), "the oldest are kept"
    desk.give("next")
    assert desk.take() == ["next"]


@opens
async def test_bytes_that_nobody_receives_are_bounded_too() -> None:
    desk = Desk(was_read=False)
    desk.give(*[b"x" * 256 * KIB] * 10)
    assert desk.intake.dropped == 6
    assert sum(map(len, desk.intake.waiting)) == INBOX_BYTES_MAX


@pytest.mark.parametrize("before", range(INBOX_MESSAGES_MAX - 6, INBOX_MESSAGES_MAX + 2))
@opens
async def test_a_message_in_pieces_is_dropped_whole_and_counted_once(before: int) -> None:
    desk = Desk(was_read=False)
    kept = numbered(min(before, INBOX_MESSAGES_MAX))
    desk.give(*numbered(before))
    desk.give(*parts("p", 4), *parts("q", 4))
    room = INBOX_MESSAGES_MAX - before
    lost = max(0, before - INBOX_MESSAGES_MAX) + (2 if room < 4 else 1)
    assert desk.intake.dropped == lost
    desk.intake.was_read = True
    assert desk.take() == [*kept, *([whole("p", 4)] if room >= 4 else [])]
    desk.give("next")
    assert desk.take() == ["next"]


@opens
async def test_who_begins_to_receive_in_the_middle_of_a_dropped_message_gets_no_half_of_it() -> None:
    desk = Desk(was_read=False)
    desk.give(*numbered(INBOX_MESSAGES_MAX - 1))
    desk.give(*parts("p", 5)[:3])
    desk.intake.was_read = True
    desk.give(*parts("p", 5)[3:], "next", *parts("q", 2))
    assert desk.take() == [*numbered(INBOX_MESSAGES_MAX - 1), "next", whole("q", 2)]
    assert desk.intake.dropped == 1


@pytest.mark.parametrize("seed", range(30))
@opens
async def test_messages_are_whole_and_in_order_whatever_is_dropped(seed: int) -> None:
    rng = random.Random(seed)
    desk = Desk(was_read=False)
    sent, taken = [], []
    for n in range(120):
        count = rng.choice([1, 1, 1, 3, 8])
        sent.append(f"{n} " if count == 1 else whole(f"{n} ", count))
        pieces = [f"{n} "] if count == 1 else parts(f"{n} ", count)
        for piece in pieces:
            desk.give(piece)
            if rng.random() < 0.02:
                desk.intake.was_read = True
            if desk.intake.was_read and rng.random() < 0.4 and (message := desk.intake.take_whole()) is not None:
                taken.append(message)
    desk.intake.was_read = True
    taken += desk.take()
    assert taken == [message for message in sent if message in set(taken)], "whole, and in order"
    assert len(taken) + desk.intake.dropped == len(sent)


@opens
async def test_news_and_room_and_the_end_wake_those_who_wait() -> None:
    desk = Desk()
    desk.transport.stall()
    desk.socket.pause_writing()
    news = asyncio.create_task(desk.intake.wait_news())
    rooms = [asyncio.create_task(desk.intake.wait_room()) for _ in range(3)]
    over = asyncio.create_task(desk.intake.wait_over())
    await passes(3)
    assert not any(task.done() for task in (news, over, *rooms))
    rooms[1].cancel()
    desk.give("x")
    await passes(3)
    assert news.done() and rooms[1].cancelled()
    await desk.intake.wait_news()
    desk.socket.resume_writing()
    await passes(3)
    assert rooms[0].done() and rooms[2].done()
    desk.intake.take()
    news = asyncio.create_task(desk.intake.wait_news())
    desk.socket.pause_writing()
    room = asyncio.create_task(desk.intake.wait_room())
    await passes(3)
    ends: list[ConnectionClosed | None] = []
    desk.intake.on_end = lambda: ends.append(desk.intake.closed)
    desk.intake.ended(closed_error(None, Close(1000, "")))
    assert ends == [desk.intake.closed]
    await passes(3)
    assert news.done() and room.done() and over.done()
    await desk.intake.wait_news()
    await desk.intake.wait_room()
    await desk.intake.wait_over()


@opens
async def test_room_that_is_gone_again_is_no_room() -> None:
    desk = Desk()
    desk.socket.pause_writing()
    waiting = asyncio.create_task(desk.intake.wait_room())
    await passes(3)
    desk.socket.resume_writing()
    desk.socket.pause_writing()
    await passes(3)
    assert not waiting.done()
    desk.socket.resume_writing()
    await passes(3)
    assert waiting.done()
