"""Streams that end: an async iterator published to a topic by a task that outlives the request that asked for it.

A run belongs to the ``Live``, not to whoever began it: its reader may leave and come back, and several may wait for
it. Every run ends in one of three ways, and the readers of its topic are told which: the iterator ended, it failed,
or the run was cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Generator
from types import TracebackType
from typing import Any

from tidewire.errors import NotRunning, RunCancelled, RunIdTaken, TidewireError, TooManyRuns, TopicFinished
from tidewire.hub.hub import Hub
from tidewire.limits import Limits
from tidewire.protocol.position import NOW
from tidewire.protocol.topics import validate_topic
from tidewire.server.gate import Declaration, Gate
from tidewire.server.publisher import Publisher

logger = logging.getLogger("tidewire.runs")

CANCELLED = "the run was cancelled"
STOPPED = "the server stopped before the run had ended"
_NAME_MAX = 60


class Run:
    """What ``live.publish_from`` gives back: a handle on a run that goes on by itself.

    ``await run`` waits until it has ended and returns the position of its last message (``None`` when there was
    none, or nothing is numbered); it raises what the iterator raised, what publishing raised, or ``RunCancelled``.
    Cancelling whoever waits does not stop the run; ``cancel`` does.
    """

    __slots__ = ("_work", "started")

    def __init__(self, work: Work, started: bool) -> None:
        self._work = work
        self.started = started
        """Whether the call that returned this handle began the run, or joined one that was there."""

    @property
    def topic(self) -> str:
        """The topic it publishes to."""
        return self._work.topic

    @property
    def run_id(self) -> str | None:
        """What a second call joins it by, if anything."""
        return self._work.run_id

    @property
    def done(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self._work.over.is_set()

    @property
    def published(self) -> int:
        """How many items have been published so far."""
        return self._work.published

    def cancel(self) -> None:
        """End the run: its iterator is closed and its readers are told. Twice, or after the end, is nothing."""
        self._work.cancel(CANCELLED)

    def __await__(self) -> Generator[Any, None, str | None]:
        return self._work.wait().__await__()

    def __repr__(self) -> str:
        state = "ended" if self.done else "running"
        return f"<Run of {self.topic!r}, id {self.run_id!r}: {state}, {self.published} published>"


class Work:
    """One run: everything about it happens in one task, from the first item to the goodbye."""

    def __init__(
        self, topic: str, declaration: Declaration, source: AsyncIterable[Any], run_id: str | None, *, finish: bool
    ) -> None:
        self.topic = topic
        self.run_id = run_id
        self.published = 0
        # set when it has ended, the goodbye included
        self.over = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._declaration = declaration
        # what was given and what iterates over it; let go at the end, because a run that has ended is remembered
        self._source: AsyncIterable[Any] | None = source
        self._iterator: AsyncIterator[Any] | None = None
        self._finish = finish
        # text of the last position, and what ended the run if it was not the iterator's own end
        self._position: str | None = None
        self._error: Exception | None = None
        self._trace: TracebackType | None = None
        # why it was cancelled, in words for its readers
        self._why: str | None = None
        # what a cancellation may interrupt: asking the producer always, publishing and closing only by force, and the
        # goodbye never
        self._asking = False
        self._leaving = False

    def publishes(self, source: object) -> bool:
        """Whether this very iterator is the one being published."""
        return self._source is source

    def cancel(self, why: str, *, force: bool = False) -> None:
        """Stop asking for items. ``force``: interrupt once more, also a producer that cleans up."""
        if self._is_cancelled() and not force:
            return
        self._why = self._why or why
        if self.task is None or self.task is asyncio.current_task():
            # the producer ends its own run: it is asked for nothing more
            return
        if self._asking or (force and not self._leaving):
            self.task.cancel()

    def _is_cancelled(self) -> bool:
        return self._why is not None

    async def wait(self) -> str | None:
        """The position of the last message, when it has ended; raises what ended it."""
        await self.over.wait()
        if self._error is not None:
            # from where it was caught: the tracebacks of several waiters do not pile up
            raise self._error.with_traceback(self._trace)
        return self._position

    async def carry(self, hub: Hub, publisher: Publisher, limits: Limits) -> None:
        """The task: publish every item, close the iterator, finish the topic. Raises nothing."""
        farewell: str | None = None
        try:
            farewell = await self._publish_all(hub, publisher)
        except asyncio.CancelledError:
            self._why = self._why or CANCELLED
        except Exception as error:  # noqa: BLE001 - logged, and raised for those who wait
            farewell = self._producer_failed(error)
        self._asking = False
        for owned in (self._iterator, None if self._source is self._iterator else self._source):
            await close_iterator(owned, self.topic, limits.run_close_s)
        self._source = self._iterator = None
        if self._why is not None and self._error is None:
            self._error, farewell = RunCancelled(self.topic, self._why), self._why
        self._leaving = True
        await self.say_goodbye(hub, farewell)

    async def _publish_all(self, hub: Hub, publisher: Publisher) -> str | None:
        """To the end of the iterator, or until it is cancelled; returns the error to tell the readers.

        Raises what the producer raises.
        """
        assert self._source is not None, "a run is carried once"
        try:
            await self._refuse_a_finished_topic(hub)
        except Exception as error:  # noqa: BLE001 - logged, and raised for those who wait
            return self._publishing_failed(error)
        self._iterator = aiter(self._source)
        while not self._is_cancelled():
            self._asking = True
            try:
                item = await anext(self._iterator)
            except StopAsyncIteration:
                return None
            self._asking = False
            if self._is_cancelled():
                # the producer took its cancellation for something else
                return None
            try:
                draft = publisher.draft_value(self._declaration, item)
                position = (await publisher.publish_draft(self.topic, self._declaration, draft)).position
            except Exception as error:  # noqa: BLE001 - logged, and raised for those who wait
                return self._publishing_failed(error)
            self.published += 1
            self._position = None if position is None else str(position)
        return None

    async def _refuse_a_finished_topic(self, hub: Hub) -> None:
        """So that a producer does not run for nobody."""
        history = await hub.read(self.topic, NOW, 1)
        if history is not None and history.end is not None:
            raise TopicFinished(self.topic, str(history.top))

    def _producer_failed(self, error: Exception) -> str:
        """Keep and log ``error``; the readers are told its type and no more."""
        self._keep(error)
        logger.error("the producer for %r failed after %d items", self.topic, self.published, exc_info=error)
        return f"the producer failed ({type(error).__name__[:_NAME_MAX]})"

    def _publishing_failed(self, error: Exception) -> str:
        self._keep(error)
        unexpected = None if isinstance(error, TidewireError) else error
        logger.error("item %d for %r was not published: %s", self.published + 1, self.topic, error, exc_info=unexpected)
        return f"an item could not be published ({type(error).__name__[:_NAME_MAX]})"

    def _keep(self, error: Exception) -> None:
        self._error, self._trace = error, error.__traceback__

    async def say_goodbye(self, hub: Hub, farewell: str | None) -> None:
        """Finish the topic, unless it is to go on; ``farewell`` is the error that its readers are told."""
        if not self._finish:
            return
        try:
            await hub.finish(self.topic, self._declaration.policy, farewell)
        except Exception as error:
            logger.exception("the topic %r of a run that has ended could not be finished", self.topic)
            if self._error is None:
                self._keep(error)

    def settle(self) -> None:
        """It has ended: wake who waits."""
        task = self.task
        if task is not None and task.done() and (task.cancelled() or task.exception() is not None):
            # somebody cancelled the task itself, or the program is being ended
            self._error = self._error or RunCancelled(self.topic, self._why or CANCELLED)
        self.over.set()

    async def abandon(self, hub: Hub) -> None:
        """The producer does not let itself be ended: tell the readers and who waits, and leave it behind."""
        logger.error("the producer for %r ignores that it was cancelled, and is left behind", self.topic)
        self._error = self._error or RunCancelled(self.topic, self._why or STOPPED)
        await self.say_goodbye(hub, self._why or STOPPED)
        self.settle()


class Runs:
    """The runs of one ``Live``: those that go on, and for a while those that have ended, by their ids."""

    def __init__(self, hub: Hub, gate: Gate, publisher: Publisher, limits: Limits) -> None:
        self._hub = hub
        self._gate = gate
        self._publisher = publisher
        self._limits = limits
        # where runs may begin; None before the start and from the stop on
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[Work] = set()
        self._by_id: dict[str, Work] = {}
        # the ids of runs that have ended and when, longest ago first
        self._ended: OrderedDict[str, float] = OrderedDict()
        # closing iterators that nobody needed
        self._closing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """From now on runs may begin; those of a former life are forgotten, as their topics are."""
        self._loop = asyncio.get_running_loop()
        self._by_id.clear()
        self._ended.clear()

    def begin(self, topic: str, source: AsyncIterable[Any], run_id: str | None, *, finish: bool) -> Run:
        """Begin a run, or join the one that ``run_id`` names; see ``Live.publish_from``."""
        _check(source, run_id)
        loop = self._check_loop()
        declaration = self._gate.find(validate_topic(topic))
        self._forget_old()
        known = None if run_id is None else self._by_id.get(run_id)
        if known is not None:
            if known.topic != topic:
                raise RunIdTaken(known.run_id or "", known.topic, topic)
            if not known.publishes(source):
                self._spawn(close_iterator(source, topic, self._limits.run_close_s))
            return Run(known, started=False)
        if len(self._running) >= self._limits.runs_max:
            raise TooManyRuns(self._limits.runs_max)
        work = Work(topic, declaration, source, run_id, finish=finish)
        self._running.add(work)
        if run_id is not None:
            self._by_id[run_id] = work
        work.task = loop.create_task(work.carry(self._hub, self._publisher, self._limits))
        work.task.add_done_callback(lambda task: self._reap(work))
        return Run(work, started=True)

    def find(self, run_id: str) -> Run | None:
        """The run with this id, while it goes on and as long as it is remembered."""
        self._forget_old()
        work = self._by_id.get(run_id)
        return None if work is None else Run(work, started=False)

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise NotRunning(
                "publish_from begins a task: call it in the event loop, from an async def route or task"
            ) from None
        if self._loop is None:
            raise NotRunning("publish_from needs the running application: call it after startup, before shutdown")
        if loop is not self._loop:
            raise NotRunning("publish_from was called in another event loop than the application's: call it there")
        return loop

    def _forget_old(self) -> None:
        horizon = self._hub.clock.now() - self._limits.run_remembered_s
        while self._ended:
            oldest, ended_at = next(iter(self._ended.items()))
            if ended_at > horizon and len(self._ended) <= self._limits.runs_remembered_max:
                return
            del self._ended[oldest], self._by_id[oldest]

    def _reap(self, work: Work) -> None:
        self._running.discard(work)
        work.settle()
        if work.run_id is not None and self._by_id.get(work.run_id) is work:
            self._ended[work.run_id] = self._hub.clock.now()
            self._forget_old()

    def _spawn(self, closing: Any) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """Cancel every run and tell its readers, within twice ``Limits.run_close_s``; none begins any more."""
        self._loop = None
        for force in (False, True):
            for work in self._running:
                work.cancel(STOPPED, force=force)
            tasks = [*(work.task for work in self._running if work.task is not None), *self._closing]
            if tasks:
                await asyncio.wait(tasks, timeout=self._limits.run_close_s)
        for work in list(self._running):
            self._running.discard(work)
            await work.abandon(self._hub)


async def close_iterator(source: object, topic: str, timeout_s: float) -> None:
    """``aclose`` it, if it can be; what goes wrong is logged. A cancellation ends the closing and goes no further."""
    aclose = getattr(source, "aclose", None)
    if aclose is None:
        return
    try:
        async with asyncio.timeout(timeout_s):
            await aclose()
    except (asyncio.CancelledError, TimeoutError):
        logger.error("the iterator of a run for %r did not close within %g s", topic, timeout_s)
    except Exception:
        logger.exception("the iterator of a run for %r could not be closed", topic)


def _check(source: object, run_id: object) -> None:
    """Raise ``TypeError`` with what to do instead."""
    if run_id is not None and (not isinstance(run_id, str) or not run_id):
        raise TypeError(f"run_id is a text that is not empty, or None for a run nobody joins; not {run_id!r}")
    if isinstance(source, AsyncIterable):
        return
    what = f"publish_from takes an async iterator, and this is a {type(source).__name__}"
    if inspect.isasyncgenfunction(source):
        raise TypeError(f"{what}: call it, as in publish_from(topic, {source.__name__}())")
    if inspect.isawaitable(source):
        raise TypeError(f"{what}: await it first, or yield in the async def that made it")
    raise TypeError(f"{what}: write an async def that yields the items, and pass what calling it gives")
