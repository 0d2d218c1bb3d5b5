"""When what has gathered goes out: windows between flushes, and turns that no topic holds for itself."""

from __future__ import annotations

import asyncio

from tidewire.clock import Clock
from tidewire.hub.fanout import Fanout
from tidewire.limits import Limits
from tidewire.protocol.message import Message

# How much earlier than asked for a timer may come and the window still be over.
_EARLY_S = 0.0001


class Turns:
    """Flushes the fan-outs of one hub. Time is the clock's.

    ``flush_window_s``: after a flush, what is gathered within this time waits for the next one; when nothing was
    flushed for that long, it goes out on the next pass of the loop.
    """

    def __init__(self, clock: Clock, limits: Limits, flush_window_s: float) -> None:
        self.clock = clock
        self.flush_window_s = flush_window_s
        self.is_scheduled = False
        self._limits = limits
        # topics with something gathered since the last flush
        self._unflushed: dict[Fanout, None] = {}
        self._last_flush = float("-inf")
        # topics to flush now, or whose flush has not reached everybody; in turn
        self._due: dict[Fanout, None] = {}
        self._is_turn_scheduled = False
        # published since the event loop last ran: what makes a publisher yield
        self._unyielded_messages = 0
        self._unyielded_bytes = 0

    def count_published(self, messages: int, size_bytes: int) -> None:
        """So much was published here."""
        self._unyielded_messages += messages
        self._unyielded_bytes += size_bytes

    @property
    def is_publisher_ahead(self) -> bool:
        """So much was published since the last flush that readers should have a turn."""
        limits = self._limits
        return (
            self._unyielded_messages >= limits.gather_messages_max or self._unyielded_bytes >= limits.gather_bytes_max
        )

    def gather(self, fanout: Fanout, message: Message) -> None:
        """A message was delivered: flush it in time, at once when much has gathered."""
        if fanout.gather(message) and self._flush_early(fanout):
            return
        self._unflushed[fanout] = None
        if not self.is_scheduled:
            self._schedule()

    def forget(self, fanout: Fanout) -> None:
        """It has ended, or nobody is there."""
        self._unflushed.pop(fanout, None)
        self._due.pop(fanout, None)

    def begun(self, fanout: Fanout) -> None:
        """A timer of ``fanout`` has begun a sweep."""
        self._due[fanout] = None
        self._turn()

    def flush(self) -> None:
        """Begin to hand out everything that has gathered."""
        self._unyielded_messages = self._unyielded_bytes = 0
        if self._unflushed:
            self._due.update(self._unflushed)
            self._unflushed.clear()
        self._turn()

    @property
    def is_flush_wanted(self) -> bool:
        """Whether a flush now would do what no turn will do by itself."""
        return bool(self._unflushed) or not self._is_turn_scheduled

    def _flush_early(self, fanout: Fanout) -> bool:
        """Much has gathered: flush without waiting, unless the flush before is still on its way and may end first."""
        if fanout.is_overfull:
            fanout.flush()
        elif not fanout.is_sweeping:
            self._due[fanout] = None
            self._turn()
        else:
            return False
        self._unflushed.pop(fanout, None)
        return True

    def _schedule(self) -> None:
        self.is_scheduled = True
        due_in = self._due_in()
        if due_in <= 0:
            self.clock.call_soon(self._scheduled_flush)
        else:
            self.clock.call_later(due_in, self._flush_after_window)

    def _due_in(self) -> float:
        return self._last_flush + self.flush_window_s - self.clock.now()

    def _flush_after_window(self) -> None:
        due_in = self._due_in()
        if due_in > _EARLY_S:
            # uvloop counts in whole milliseconds, and its timers come up to one early
            self.clock.call_later(max(due_in, 0.001), self._flush_after_window)
        else:
            self._scheduled_flush()

    def _scheduled_flush(self) -> None:
        self.is_scheduled = False
        self.flush()

    def _turn(self) -> None:
        """Write to as many readers as one pass of the loop may, topic after topic in turn."""
        if not self._due:
            return
        budget = self._limits.flush_writes_max
        while self._due and budget > 0:
            fanout = next(iter(self._due))
            del self._due[fanout]
            if not fanout.is_sweeping:
                fanout.begin_flush()
            budget = fanout.sweep(budget)
            if fanout.is_sweeping or (fanout.has_gathered and fanout not in self._unflushed):
                self._due[fanout] = None
        if not self._due:
            # the window begins when everybody has been written to: that may have taken longer than it is
            self._last_flush = self.clock.now()
        elif not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            self.clock.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_turn_scheduled = False
        self._turn()


async def sleep(clock: Clock, delay_s: float) -> None:
    """Return when ``clock`` has moved on by ``delay_s``."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(max(0.0, delay_s), lambda: None if woken.done() else woken.set_result(None))
    try:
        await woken
    finally:
        timer.cancel()
