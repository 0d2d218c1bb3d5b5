"""A call that goes on: its function runs as a route of the inner app, in a task of its own.

The task is what keeps the function's dependencies: a stream needs them after its first item, and a thread, which
nobody can interrupt, after its caller has gone. The caller and the task go in turns: the function runs only while the
caller waits, so nothing piles up between them, and a deadline is the time the caller waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from tidewire.errors import CallError
from tidewire.protocol.codes import INTERNAL, LIMIT_EXCEEDED

logger = logging.getLogger("tidewire.server")

T = TypeVar("T")
Work = Callable[[], Awaitable[bytes | None]]

_running: contextvars.ContextVar[Invocation] = contextvars.ContextVar("tidewire_invocation")


def running() -> Invocation:
    """The invocation that the caller of this runs in; for the endpoints of calls."""
    return _running.get()


class Invocation:
    """One call, between its caller (``next``, ``stop``) and its endpoint (``hand``, ``in_thread``).

    ``what`` names it in sentences. ``left``: where its task stands once the caller goes on without it.
    """

    def __init__(self, what: str, left: set[asyncio.Task[None]], *, close_s: float) -> None:
        self._what = what
        self._left = left
        self._close_s = close_s
        self._task: asyncio.Task[None] | None = None
        # where the caller waits for what comes next
        self._reader: asyncio.Future[bytes | CallError | None] | None = None
        # the endpoint goes on when this is set
        self._wanted = asyncio.Event()
        # the last word: the result, None at the end of a stream, or what went wrong
        self._outcome: bytes | CallError | None = None
        self._is_stopped = False
        # the function runs in a thread or is about to: cancelling would tear its dependencies from under it
        self._in_thread = False

    def begin(self, work: Work) -> None:
        """Run ``work``, which returns the result, or None at the end of a stream, and raises ``CallError`` alone."""
        self._task = asyncio.get_running_loop().create_task(self._carry(work))
        self._task.add_done_callback(self._settle)

    async def _carry(self, work: Work) -> None:
        _running.set(self)
        try:
            self._outcome = await work()
        except CallError as error:
            self._outcome = error

    def _settle(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and not self._is_stopped:
            # the loop is being ended, or the function cancelled itself
            self._outcome = CallError(INTERNAL.code, f"{self._what} was interrupted", temporary=INTERNAL.temporary)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(self._outcome)

    # The caller's side

    async def next(self, timeout_s: float) -> bytes | None:
        """What the function hands over next, or what it ended with: the result, None for a stream.

        Raises ``CallError``, also when nothing comes within ``timeout_s``. Then, and when whoever waits is cancelled,
        the function is ended and its dependencies are released before this raises.
        """
        if self._reader is not None:
            raise RuntimeError(f"{self._what} is being waited for already: one task takes its items")
        assert self._task is not None, "begun"
        try:
            answer = self._outcome if self._task.done() else await self._wait(timeout_s)
        except TimeoutError:
            logger.error("%s took longer than %g s", self._what, timeout_s)
            await self.stop()
            sentence = f"{self._what} took longer than {timeout_s:g} s: try again later"
            raise CallError(INTERNAL.code, sentence, temporary=True) from None
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            self._reader = None
        if isinstance(answer, CallError):
            raise answer
        return answer

    async def _wait(self, timeout_s: float) -> bytes | CallError | None:
        self._reader = asyncio.get_running_loop().create_future()
        self._wanted.set()
        async with asyncio.timeout(timeout_s):
            return await self._reader

    async def stop(self) -> None:
        """End the function and wait until its dependencies are released; twice, or after the end, is nothing.

        One in a thread is left to its end, as is whatever takes longer than ``close_s``.
        """
        task = self.let_go()
        if task is None or self._in_thread:
            return
        await asyncio.wait({task}, timeout=self._close_s)
        if not task.done():
            logger.error("%s did not end within %g s of being cancelled, and is left behind", self._what, self._close_s)

    def let_go(self) -> asyncio.Task[None] | None:
        """Cancel the function without waiting for it; returns its task, None if that has ended."""
        task = self._task
        if task is None or task.done():
            return None
        if not self._is_stopped:
            self._is_stopped = True
            self._left.add(task)
            task.add_done_callback(self._left.discard)
            if not self._in_thread:
                task.cancel()
        return task

    # The endpoint's side

    async def hand(self, item: bytes) -> None:
        """Give the caller an item; returns when it asks for the next."""
        # a task that is begun at once (asyncio.eager_task_factory) gets here before its caller waits
        await self._wanted.wait()
        self._wanted.clear()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(item)
        await self._wanted.wait()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the pool that FastAPI uses; it is not begun for a caller who has gone."""
        self._in_thread = True
        try:
            return await run_in_threadpool(self._unless_left, work)
        finally:
            self._in_thread = False

    def _unless_left(self, work: Callable[[], T]) -> T:
        if self._is_stopped:
            raise CallError(INTERNAL.code, f"nobody waits for {self._what} any more", temporary=True)
        return work()


class CallStream(AsyncIterator[bytes]):
    """What an async generator function yields, as JSON texts; its dependencies live until it ends or is closed.

    An item that takes longer than ``timeout_s`` ends it with ``CallError``, as what the function raises does. Whoever
    does not read to the end calls ``aclose``.
    """

    def __init__(self, invocation: Invocation, timeout_s: float) -> None:
        self._invocation = invocation
        self._timeout_s = timeout_s
        self._is_over = False
        self._loop = asyncio.get_running_loop()

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        try:
            item = await self._invocation.next(self._timeout_s)
        except (CallError, asyncio.CancelledError):
            self._is_over = True
            raise
        if item is None:
            self._is_over = True
            raise StopAsyncIteration
        return item

    async def collect(self, bytes_max: int) -> bytes:
        """All items as one JSON array, where there is room for one answer only; the stream is closed afterwards.

        Raises ``CallError`` as reading does, and when the array would have more than ``bytes_max``.
        """
        parts: list[bytes] = []
        size = 2
        try:
            async for item in self:
                size += len(item) + bool(parts)
                if size > bytes_max:
                    sentence = f"the items of a stream exceed the limit of {bytes_max} bytes: ask for fewer"
                    raise CallError(LIMIT_EXCEEDED.code, sentence)
                parts.append(item)
        finally:
            await self.aclose()
        return b"[" + b",".join(parts) + b"]"

    async def aclose(self) -> None:
        """End the function: its ``finally`` blocks run and its dependencies are released. Twice is nothing."""
        self._is_over = True
        await self._invocation.stop()

    def __del__(self) -> None:
        # dropped without aclose: the function may not wait for ever for somebody to ask
        if not self._is_over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._invocation.let_go)
