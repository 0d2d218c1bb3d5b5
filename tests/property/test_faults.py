"""The histories are worth something: each of these faults, put in on purpose, is found by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.property.histories import run_many
from tidewire.brokers import history as brokers_history
from tidewire.brokers import memory as brokers_memory
from tidewire.brokers.base import History
from tidewire.hub import conflator, fanout, lanes, recovery
from tidewire.protocol.position import Position

HISTORIES = 400
Patch = Callable[[pytest.MonkeyPatch], None]


def duplicates_at_the_splice(patch: pytest.MonkeyPatch) -> None:
    """What was delivered while history was read is not compared with it."""
    patch.setattr(fanout, "after", lambda at, messages: messages)


def buffer_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was delivered while history was read is thrown away."""
    original = fanout.Fanout.end_buffering
    patch.setattr(fanout.Fanout, "end_buffering", lambda self, sub: original(self, sub) and [])


def live_before_level(patch: pytest.MonkeyPatch) -> None:
    """A reader shares flushes although it has read further than was delivered."""
    patch.setattr(fanout.Fanout, "_is_level", lambda self, sub: True)


def epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    """A position of another numbering is continued as if it were of this one."""

    async def history(self: Any, topic: str, since: Any, limit: int) -> Any:
        place = self._topics.get(topic)
        if isinstance(since, Position) and place is not None:
            since = Position(place.topic.epoch, since.offset)
        return await original(self, topic, since, limit)

    original = brokers_memory.MemoryBroker.history
    patch.setattr(brokers_memory.MemoryBroker, "history", history)


def gap_untold(patch: pytest.MonkeyPatch) -> None:
    """History says that it continues a position when it begins later."""

    async def history(self: Any, topic: str, since: Any, limit: int) -> Any:
        found = await original(self, topic, since, limit)
        return found and History(found.messages, found.start, found.top, True, found.end)

    original = brokers_memory.MemoryBroker.history
    patch.setattr(brokers_memory.MemoryBroker, "history", history)


def overflow_drops_in_silence(patch: pytest.MonkeyPatch) -> None:
    """A slow reader of a Log loses messages instead of being closed."""
    patch.setattr(fanout.Fanout, "evict", lambda self, sub, why: None)


def ring_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """History begins one message too late."""
    original = brokers_history.RingHistory.after
    patch.setattr(brokers_history.RingHistory, "after", lambda self, offset, limit: original(self, offset + 1, limit))


def end_before_the_rest(patch: pytest.MonkeyPatch) -> None:
    """The end is told before what had gathered."""
    original = fanout.Fanout.finish

    def finish(self: Any, end: Any) -> None:
        self._gathered.clear()
        original(self, end)

    patch.setattr(fanout.Fanout, "finish", finish)


def end_missed_while_catching_up(patch: pytest.MonkeyPatch) -> None:
    """A reader that reads history while the topic ends never hears of it."""
    patch.setattr(fanout.Fanout, "end_if_over", lambda self, sub, end: None)


def lost_state_untold(patch: pytest.MonkeyPatch) -> None:
    """The broker starts a new numbering and live readers are not told."""
    patch.setattr(fanout.Fanout, "_tell_gap", lambda self, gap: None)


def old_value_wins(patch: pytest.MonkeyPatch) -> None:
    """A value that is held back is not replaced by a newer one."""
    original = conflator.Conflator.hold

    def hold(self: Any, messages: Any) -> None:
        waiting = {**self._held, **self._released}
        original(self, [message for message in messages if message.key not in waiting])

    patch.setattr(conflator.Conflator, "hold", hold)


def removal_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A removed key is not told to readers that hold values back."""
    original = conflator.Conflator.hold
    patch.setattr(
        conflator.Conflator, "hold", lambda self, messages: original(self, [m for m in messages if not m.removed])
    )


def laggards_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A reader that begins to lag does not get what it had no room for."""
    patch.setattr(lanes.ConflatedLane, "_give", lambda self, sub, held, messages: None)


def pages_with_holes(patch: pytest.MonkeyPatch) -> None:
    """The next page of history begins one message too late."""
    original = recovery._last_offset
    patch.setattr(recovery, "_last_offset", lambda history: original(history) + (len(history.messages) > 2))


FAULTS: list[tuple[Patch, str]] = [
    (duplicates_at_the_splice, "log"),
    (buffer_forgotten, "log"),
    (live_before_level, "log"),
    (epoch_ignored, "log"),
    (gap_untold, "log"),
    (overflow_drops_in_silence, "log"),
    (ring_off_by_one, "log-ttl"),
    (end_before_the_rest, "log"),
    (end_missed_while_catching_up, "log"),
    (lost_state_untold, "log"),
    (old_value_wins, "latest"),
    (removal_forgotten, "latest"),
    (laggards_forgotten, "latest-rate"),
    (pages_with_holes, "log"),
]


@pytest.mark.parametrize(("fault", "policy"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_is_found(
    fault: Patch, policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, KeyError), match=r".") as found:
        asyncio.run(run_many(range(HISTORIES), policy))
    assert any("replay" in note for note in found.value.__notes__)
    # the fault itself is found, and not that it does not fit the code any more
    assert [record.exc_text or record.getMessage() for record in caplog.records if record.exc_info] == []
