"""Calls whose function yields: items as they come (``tidewire.stream``, docs/protocols.md "Streams of a call")."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from tidewire.client.errors import ConsumerTooSlow, WrongType
from tidewire.client.session.shell import Shell
from tidewire.client.session.values import Read
from tidewire.errors import BadPayload, ClientError
from tidewire.protocol import packets

T = TypeVar("T")

STREAM: Final = "tidewire.stream"
CANCEL: Final = "tidewire.cancel"
# a stream may be quiet for as long as it likes; the line below it is watched by pings
_NO_DEADLINE_S: Final = 30 * 86400.0
_CANCEL_S: Final = 5.0
_encoder = msgspec.json.Encoder()


class Items(Generic[T]):
    """What an async generator of ``@live.call`` yields. ``async for`` takes it, ``async with`` ends it early.

    ::

        async with client.stream("jobs.run", {"n": 3}, type=Progress) as items:
            async for progress in items: ...

    It begins with the first item that is asked for. Items wait here, ``buffer`` of them at most: a consumer that is
    further behind ends the stream with ``ConsumerTooSlow``. It raises what ``client.call`` raises, behind the items
    that came before, and does not survive its connection.
    """

    def __init__(self, shell: Shell, method: str, data: msgspec.Raw, read: Read, *, buffer: int) -> None:
        self._shell = shell
        self._method = method
        self._data = data
        self._read = read
        self._buffer = buffer
        self._id = secrets.token_hex(12)
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        # the call itself: it is answered behind the last item
        self._call: asyncio.Task[Any] | None = None
        self._error: ClientError | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._is_closed:
            raise StopAsyncIteration
        if self._call is None:
            self._begin()
        while not self._waiting:
            if self._error is not None:
                await self._fail(self._error)
            if self._call is not None and self._call.done():
                await self._finish(self._call)
            self._news.clear()
            try:
                await self._news.wait()
            except asyncio.CancelledError:
                await self.aclose()
                raise
        data = self._waiting.popleft()
        try:
            item: T = self._read(data)
        except BadPayload as error:
            await self.aclose()
            raise WrongType(f"an item of {self._method!a}", str(error), data) from None
        return item

    def _begin(self) -> None:
        asked = {"id": self._id, "method": self._method}
        data = _encoder.encode(asked if not bytes(self._data) else {**asked, "data": self._data})
        request = packets.RPCRequest(data=msgspec.Raw(data), method=STREAM)
        self._shell.machine.streams.begin(self._id, self._take)
        work = self._shell.ask(request, f"the call {self._method!a}", timeout_s=_NO_DEADLINE_S)
        self._call = asyncio.get_running_loop().create_task(work)
        self._call.add_done_callback(lambda _: self._news.set())

    def _take(self, data: bytes) -> None:
        if len(self._waiting) >= self._buffer:
            self._error = self._error or ConsumerTooSlow(self._method, len(self._waiting))
        else:
            self._waiting.append(data)
        self._news.set()

    async def _fail(self, error: ClientError) -> None:
        await self.aclose()
        raise error

    async def _finish(self, call: asyncio.Task[Any]) -> None:
        self._is_closed = True
        self._shell.machine.streams.end(self._id)
        # raises what the call has ended with
        await call
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it: the function on the server is cancelled, where there is still a line to say so. Twice is nothing."""
        was_closed, self._is_closed = self._is_closed, True
        call = self._call
        self._shell.machine.streams.end(self._id)
        self._waiting.clear()
        if was_closed or call is None:
            return
        is_over = call.done()
        call.cancel()
        await asyncio.wait([call])
        if call.done() and not call.cancelled():
            # looked at, so that nobody calls it never retrieved
            call.exception()
        if not is_over:
            data = msgspec.Raw(_encoder.encode({"id": self._id}))
            with suppress(ClientError):
                await self._shell.ask(
                    packets.RPCRequest(data=data, method=CANCEL), "to end a stream", timeout_s=_CANCEL_S
                )
