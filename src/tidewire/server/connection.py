"""One socket's life: an outbox written to a link, and an end that is decided once.

``TopicConnection.run`` is the writer. It never waits for a reader for longer than the peer itself makes it: an
eviction interrupts a write that does not return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from tidewire.hub.outbox import Batch, Outbox
from tidewire.limits import Limits
from tidewire.protocol.codes import shorten_reason
from tidewire.server.pump import Pump
from tidewire.wire.asgi import Link, means_gone

GONE = 1006
"""RFC 6455 7.4.1: never on the wire; the peer has closed without a word, or there is none to hear one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a connection ends.

    ``abrupt``: what is queued is not worth sending; otherwise it goes out first, then ``last_words``.
    """

    code: int
    reason: str = ""
    abrupt: bool = True
    last_words: Batch | None = None


class Connection(Protocol):
    """A topic's connection, whoever writes it: what readers and the site do with it."""

    outbox: Outbox
    verdict: Verdict | None

    def end(self, verdict: Verdict) -> None:
        """Decide how it ends; the first decision stands. Never waits."""

    def drop(self) -> None:
        """Whatever was decided, it has taken too long: abort."""


class TopicConnection:
    """Writes what its outbox holds until a verdict.

    ``heartbeat``: what to write when nothing else was written for ``limits.heartbeat_s`` (None: nothing).
    """

    # a server holds thousands of these
    __slots__ = (
        "__weakref__",
        "_begun",
        "_failure",
        "_heartbeat",
        "_interrupted",
        "_limits",
        "_link",
        "_loop",
        "_silent",
        "_sleeper",
        "_writer",
        "_writing",
        "carrier",
        "outbox",
        "ready",
        "verdict",
        "write_one",
    )

    def __init__(self, link: Link, limits: Limits, pump: Pump, heartbeat: Batch | None = None) -> None:
        self._link = link
        # who writes to many of these in a flush, and what it calls for every delivery
        self.carrier = pump
        self.write_one: Callable[[Any], Coroutine[Any, Any, None]] = link.write_one
        self._limits = limits
        self._heartbeat = heartbeat
        self.outbox = Outbox(self, bytes_max=limits.outbox_bytes_max, messages_max=limits.outbox_messages_max)
        # the writer sleeps, and others may write in its name
        self.ready = False
        self.verdict: Verdict | None = None
        self._loop = asyncio.get_running_loop()
        # what the idle writer sleeps on, until it is woken
        self._sleeper: asyncio.Future[None] | None = None
        # the task that runs the writer, and whether it is inside a write
        self._writer: asyncio.Task[Any] | None = None
        self._writing = False
        self._interrupted = False
        # nothing was written for the time of a heartbeat
        self._silent = False
        # a write that was begun while the writer slept and has to wait, or the error it ended with
        self._begun: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def end(self, verdict: Verdict) -> None:
        """Decide how it ends; the first decision stands. Never waits."""
        if self.verdict is not None:
            return
        self.verdict = verdict
        self.outbox.seal()
        if verdict.abrupt:
            self._interrupt()
        self.wake()

    def peer_gone(self) -> None:
        """The peer has closed: nothing can be sent any more."""
        self.verdict = Verdict(GONE)
        self._interrupt()
        self.wake()

    def drop(self) -> None:
        """Whatever was decided, it has taken too long: abort."""
        self.peer_gone()
        self._link.abort()

    def _interrupt(self) -> None:
        self.outbox.close()
        if self._writing and self._writer is not None and not self._interrupted:
            self._interrupted = True
            self._writer.cancel()

    async def run(self) -> None:
        """Write until the verdict, then say goodbye. Call it once, in the task that owns the connection."""
        self._writer = asyncio.current_task()
        try:
            await self._write_all()
        except Exception as error:
            if not means_gone(error):
                raise
            self.verdict = Verdict(GONE)
        except asyncio.CancelledError:
            if not self._interrupted or self._writer is None or self._writer.uncancel() > 0:
                raise
        finally:
            self._writer = None
            self.outbox.close()
            if self._begun is not None:
                self._begun.cancel()
        await self._say_goodbye()

    async def _write_all(self) -> None:
        while self.verdict is None or not self.verdict.abrupt:
            if self._failure is not None:
                raise self._failure
            if self._begun is not None:
                await self._finish_begun(self._begun)
            elif (batch := self.outbox.take()) is not None:
                await self._write(batch)
                self.outbox.done()
            elif self.verdict is not None:
                if self.verdict.last_words is not None:
                    await self._write(self.verdict.last_words)
                return
            elif self._silent and self._heartbeat is not None:
                self._silent = False
                await self._write(self._heartbeat)
            else:
                await self._sleep()

    async def _write(self, batch: Batch) -> None:
        self._writing = True
        try:
            await self._link.write(batch.items)
        finally:
            self._writing = False

    async def _finish_begun(self, begun: asyncio.Task[None]) -> None:
        self._begun = None
        try:
            await begun
        finally:
            self._writing = False
        self.outbox.done()

    def began(self, batch: Batch, task: asyncio.Task[None]) -> None:
        """``task`` writes ``batch`` in our name and has to wait for the peer (``server.pump``)."""
        self._begun = task
        self._take_over(batch)

    def failed(self, batch: Batch, error: Exception) -> None:
        """A write in our name has raised: the writer raises it again, whose it is (``server.pump``)."""
        self._failure = error
        self._take_over(batch)

    def _take_over(self, batch: Batch) -> None:
        self._writing = True
        self.outbox.begin(batch)
        self.wake()

    async def _sleep(self) -> None:
        """Wait for something to write, or for the time of a heartbeat; meanwhile others may write in our name."""
        sleeper = self._sleeper = self._loop.create_future()
        timer = None if self._heartbeat is None else self._loop.call_later(self._limits.heartbeat_s, self._on_silence)
        self.ready = True
        try:
            await sleeper
        finally:
            self._sleeper = None
            self.ready = False
            if timer is not None:
                timer.cancel()

    def _on_silence(self) -> None:
        self._silent = not self.outbox.busy
        self.wake()

    def wake(self) -> None:
        """Something can be written, or something was decided."""
        sleeper, self._sleeper = self._sleeper, None
        self.ready = False
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)

    async def _say_goodbye(self) -> None:
        """Close as the verdict says; a peer that does not take it in time is dropped (CONTRACTS 8)."""
        verdict = self.verdict
        assert verdict is not None
        if verdict.code == GONE:
            return
        try:
            async with asyncio.timeout(self._limits.evict_drain_s):
                if not self._interrupted:
                    await self._link.close(verdict.code, shorten_reason(verdict.reason))
                while self._link.pending_bytes():  # noqa: ASYNC110 - transports offer no event for this
                    await asyncio.sleep(self._limits.evict_drain_s / 20)
                if not self._interrupted:
                    return
        except TimeoutError:
            pass
        except Exception as error:
            if not means_gone(error):
                raise
            return
        self._link.abort()
