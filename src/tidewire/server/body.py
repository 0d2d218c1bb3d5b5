"""The body of a raw connection: the user's code between accept and close, and who ends whom (CONTRACTS 9).

A client that leaves is heard by the reader. A body that receives is told by its next ``recv``, after everything that
was queued; one that has never received would not notice, and is cancelled. Only that cancellation is swallowed.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

from tidewire.errors import ConnectionClosed
from tidewire.limits import CLOSE_IN_A_HURRY_S
from tidewire.protocol.codes import BROKEN, FINISHED
from tidewire.wire.raw import RawSocket
from tidewire.wire.socket import ServerSocket

logger = logging.getLogger("tidewire")

_GOING_AWAY = 1001


class Body:
    """An async context manager around the body; entered and left by the task that runs it.

    ``grace_s``: how long a body that has never received may go on after its client has left, to find out by itself.
    """

    def __init__(self, socket: ServerSocket | RawSocket, *, grace_s: float = 0.0) -> None:
        self._socket = socket
        self._grace_s = grace_s
        # who runs the body, and the cancellations it had before it began
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        # whether we have cancelled it, and the time it has until then
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        task = self._task = asyncio.current_task()
        assert task is not None, "a body runs in a task"
        self._cancelling = task.cancelling()
        self._socket.watch(self._on_end)

    def _on_end(self) -> None:
        if self._socket.was_read:
            return
        if self._grace_s:
            self._timer = asyncio.get_running_loop().call_later(self._grace_s, self._cancel_unread)
        else:
            self._cancel_unread()

    def _cancel_unread(self) -> None:
        assert self._task is not None
        if not self._socket.was_read:
            self._cancelled = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._task is not None
        is_over, is_ending = self._socket.ended is not None, self._socket.is_ending
        # from here on nothing is left to be cancelled
        self._socket.unwatch()
        if self._timer is not None:
            self._timer.cancel()
        is_ours = self._cancelled and self._task.uncancel() <= self._cancelling
        try:
            if not is_over:
                await self._say_goodbye(error)
        finally:
            await self._socket.leave()
            if self._socket.dropped:
                logger.warning(
                    "%s never received: %d messages were dropped; receive them, or let a task of its own do so",
                    self._socket.shown,
                    self._socket.dropped,
                )
        if isinstance(error, asyncio.CancelledError):
            return is_ours
        # how it ended is what a body is told that goes on sending or receiving: no failure of its own
        return is_ending and _tells_the_end(error)

    async def _say_goodbye(self, error: BaseException | None) -> None:
        if error is None:
            await self._socket.close(FINISHED.code, "")
        elif isinstance(error, Exception):
            await self._socket.close(BROKEN.code, "")
        else:
            try:
                async with asyncio.timeout(CLOSE_IN_A_HURRY_S):
                    await self._socket.close(_GOING_AWAY, "")
            except TimeoutError:
                self._socket.abort()


def _tells_the_end(error: BaseException | None) -> bool:
    """Whether ``error`` says that the connection has ended, and nothing else; a task group says it for each task."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(ConnectionClosed)[1] is None
    return isinstance(error, ConnectionClosed)
