"""The broker of one machine: topics in one file, there after a restart, a kill and (``durable``) a power cut.

A thread of its own writes. It takes whatever has queued while the last commit ran into the next one, so that a commit
is shared by all who wait at that time and nobody waits for a timer; who publishes is answered after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tidewire.brokers.base import Created, Deliver, History, Published, Retention
from tidewire.brokers.sqlite_engine import Engine, Job
from tidewire.clock import Clock, LoopClock
from tidewire.errors import NotRunning
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.position import Position, Since

T = TypeVar("T")

# how often a process with readers looks whether another one has written
_POLL_S = 0.01
# calls that share a transaction
_BATCH_MAX = 1000

_Waiting = tuple[Job, "asyncio.Future[Any]"]


class SqliteBroker:
    """Implements ``brokers.base.Broker`` and ``PatternBroker`` on the file ``path``.

    Every acknowledged message of a durable topic is on disk. What waits to be written is as many calls as wait for
    their answers. Raises ``BrokerFailed`` where the file cannot be written: nothing was acknowledged then.
    """

    shared = True

    def __init__(
        self,
        path: str | Path,
        *,
        limits: Limits | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._engine = Engine(Path(path), limits or Limits(), clock or LoopClock(), rng or random.SystemRandom())
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._deliver: Deliver | None = None

    @property
    def clock(self) -> Clock:
        """What its time is."""
        return self._engine.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._engine.clock = clock

    async def start(self, deliver: Deliver) -> None:
        """Open the file and begin. Raises ``BrokerFailed``."""
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="tidewire sqlite", daemon=True)
        self._thread.start()
        await opened

    async def close(self) -> None:
        """What was asked for is written still, then the file is closed."""
        thread, self._thread = self._thread, None
        self._deliver = None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    # The thread

    def _work(self, opened: asyncio.Future[None]) -> None:
        try:
            self._engine.open()
        except Exception as error:  # noqa: BLE001 - whoever starts it raises it
            self._tell(_settle_one, opened, None, error)
            return
        self._tell(_settle_one, opened, None, None)
        try:
            while (batch := self._take()) is not None:
                if batch:
                    self._engine.run([job for job, _ in batch])
                else:
                    self._engine.poll()
                events = self._engine.readers.take_away()
                if batch or events:
                    self._tell(self._settle, batch, events)
        finally:
            self._engine.close()

    def _take(self) -> list[_Waiting] | None:
        """Everything that waits, once something does, or nothing when others may have; None: that was all."""
        try:
            first = self._queue.get(timeout=_POLL_S if self._engine.is_listening else None)
        except queue.Empty:
            return []
        if first is None:
            return None
        batch = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < _BATCH_MAX:
                waiting = self._queue.get_nowait()
                if waiting is None:
                    # the end, after these
                    self._queue.put(None)
                    break
                batch.append(waiting)
        return batch

    def _tell(self, callback: Callable[..., None], *values: Any) -> None:
        # a loop that is closed has nobody left who waits
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *values)

    # The loop

    def _settle(self, batch: list[_Waiting], events: list[tuple[str, Message | End]]) -> None:
        """Deliver what was committed, then answer."""
        if self._deliver is not None:
            for name, event in events:
                self._deliver(name, event)
        for job, future in batch:
            _settle_one(future, job.value, job.error)

    async def _ask(self, verb: Callable[[Engine], T], *, writes: bool = False, durable: bool = False) -> T:
        if self._thread is None:
            raise NotRunning("the sqlite broker is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((Job(verb, writes=writes, durable=durable), future))
        return await future

    # Verbs

    async def publish(self, topic: str, draft: Draft, retention: Retention) -> Published:
        """``Broker.publish``: answered once it is committed."""
        writes = retention.keep > 0
        return await self._ask(
            lambda engine: engine.publish(topic, draft, retention), writes=writes, durable=writes and retention.durable
        )

    async def position(self, topic: str) -> Position | None:
        """``Broker.position``."""
        return await self._ask(lambda engine: engine.position(topic))

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        """``Broker.history``."""
        return await self._ask(lambda engine: engine.history(topic, since, limit))

    async def finish(self, topic: str, error: str | None, retention: Retention, terms: Terms | None = None) -> End:
        """``Broker.finish``."""
        return await self._ask(
            lambda engine: engine.finish(topic, error, retention, terms), writes=True, durable=retention.durable
        )

    async def create(
        self, topic: str, stream: Stream, first: Draft | None, retention: Retention, *, closed: bool = False
    ) -> Created:
        """``Broker.create``."""
        return await self._ask(
            lambda engine: engine.create(topic, stream, first, retention, closed),
            writes=True,
            durable=retention.durable,
        )

    async def drop(self, topic: str) -> bool:
        """``Broker.drop``."""
        return await self._ask(lambda engine: engine.drop(topic), writes=True, durable=True)

    async def attach(self, topic: str, retention: Retention) -> None:
        """``Broker.attach``."""
        await self._ask(lambda engine: engine.attach(topic, retention), writes=True)

    async def detach(self, topic: str) -> None:
        """``Broker.detach``."""
        await self._ask(lambda engine: engine.detach(topic), writes=True)

    async def attach_pattern(self, pattern: str) -> None:
        """``PatternBroker.attach_pattern``."""
        await self._ask(lambda engine: engine.attach_pattern(pattern), writes=True)

    async def detach_pattern(self, pattern: str) -> None:
        """``PatternBroker.detach_pattern``."""
        await self._ask(lambda engine: engine.detach_pattern(pattern))

    async def topics(self, pattern: str) -> list[str]:
        """``PatternBroker.topics``."""
        return await self._ask(lambda engine: engine.topics(pattern))


def _settle_one(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        # whoever asked was cancelled
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
