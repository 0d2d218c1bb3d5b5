"""Writes begun by a flush over plain ASGI: one coroutine sends to every ready connection, and no task is woken for it.

Most sends never wait: the socket takes them. Waking a task for each of a thousand of them costs more than the
sends, and so does stepping a thousand coroutines. The flush therefore drives one coroutine that sends to all,
with one sleeping task entered as the current one (the functions that asyncio documents for this, "Extending",
"Task lifetime support"). When a send has to wait, that task goes on with it and with nothing else: deadlines and
cancellation work as in any task. The others are served by the next.
"""

from __future__ import annotations

import asyncio
import types
from asyncio import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, Protocol

from tidewire.hub.outbox import Batch

Waiting = tuple[Coroutine[Any, Any, None], Any]
"""A coroutine that has been begun and waits, and what it waits for."""


class Writer(Protocol):
    """A connection whose sends are coroutines (a ``hub.outbox.Writer``)."""

    ready: bool
    """Its own writer sleeps, and others may write in its name."""

    @property
    def write_one(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """Writes one item of a batch. Only while ready."""

    def began(self, batch: Batch, task: asyncio.Task[None]) -> None:
        """``task`` has begun to write ``batch`` and waits for the peer: await it, and call ``Outbox.done``."""

    def failed(self, batch: Batch, error: Exception) -> None:
        """Writing ``batch`` has raised: the connection's error."""


class Pump:
    """Sends a batch to many connections at once (a ``hub.outbox.Carrier``).

    One idle task between flushes; ``close`` cancels it.
    """

    __slots__ = ("_idle", "_parked")

    def __init__(self) -> None:
        self._idle: _Hand | None = None
        # sends that wait; each ends with its send, and is cancelled by the connection it is for
        self._parked: set[asyncio.Task[None]] = set()

    def write(self, writers: Sequence[Writer], batch: Batch) -> list[Writer]:
        """Write ``batch`` to every ready one of ``writers``; returns those that have not written all of it.

        Those were not ready, or have been told ``began`` or ``failed``. Cheapest from a callback of the loop,
        where no task is current.
        """
        loop = asyncio.get_running_loop()
        current = asyncio.current_task(loop)
        if current is not None:
            _leave_task(loop, current)
        held: list[Writer] = []
        try:
            rest = iter(writers)
            while self._write_some(rest, batch, held, loop):
                pass
        finally:
            if current is not None:
                _enter_task(loop, current)
        return held

    def _write_some(
        self, rest: Iterator[Writer], batch: Batch, held: list[Writer], loop: asyncio.AbstractEventLoop
    ) -> bool:
        """Go on until a send waits or fails; False when there are no more."""
        hand = self._idle
        if hand is None or hand.loop is not loop or hand.task.done():
            hand = self._idle = _Hand(loop)
        coroutine = hand.write_each(rest, batch, held)
        _enter_task(loop, hand.task)
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            return False
        except Exception as error:  # noqa: BLE001 - the connection's, which raises it again
            self._hold(hand, held).failed(batch, error)
            return True
        finally:
            _leave_task(loop, hand.task)
        self._idle = None
        self._parked.add(hand.task)
        hand.task.add_done_callback(self._reap)
        hand.go_on((coroutine, awaited))
        self._hold(hand, held).began(batch, hand.task)
        return True

    @staticmethod
    def _hold(hand: _Hand, held: list[Writer]) -> Writer:
        assert hand.writer is not None, "a connection was being written to"
        held.append(hand.writer)
        return hand.writer

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._parked.discard(task)
        if not task.cancelled():
            # the connection has it, or is gone and nobody wants it
            task.exception()

    def close(self) -> None:
        """End the idle task. Sends that wait belong to their connections."""
        if self._idle is not None:
            self._idle.task.cancel()
            self._idle = None


class _Hand:
    """A sleeping task in whose name sends are begun, and which goes on with the first that waits."""

    __slots__ = ("_began", "loop", "task", "writer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # who is being written to
        self.writer: Writer | None = None
        self._began: asyncio.Future[Waiting] = loop.create_future()
        self.task = loop.create_task(self._finish())

    async def write_each(self, rest: Iterator[Writer], batch: Batch, held: list[Writer]) -> None:
        """Send to one connection after the other.

        When a send waits, others take over ``rest`` and empty it before this one is resumed: it ends with its send.
        """
        items = batch.items
        for writer in rest:
            if not writer.ready:
                held.append(writer)
                continue
            self.writer = writer
            for item in items:
                await writer.write_one(item)
        # nobody is kept alive until the next flush
        self.writer = None

    def go_on(self, waiting: Waiting) -> None:
        """Wake the task to finish what waits."""
        self._began.set_result(waiting)

    async def _finish(self) -> None:
        await _finish(await self._began)


@types.coroutine
def _finish(waiting: Waiting) -> Generator[Any, Any, None]:
    """Go on with a coroutine whose first step was taken elsewhere, in the task it was taken for."""
    coroutine, awaited = waiting
    while True:
        try:
            try:
                answer = yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on, cancellation too
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(answer)
        except StopIteration:
            return
