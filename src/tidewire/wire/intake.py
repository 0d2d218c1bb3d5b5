"""What has come on a raw connection of our own wire and was not received yet, bounded; and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tidewire.errors import ConnectionClosed
from tidewire.limits import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX
from tidewire.wire.frames import Assembler, Message, Part
from tidewire.wire.open import OpenSocket

# reading goes on when so little waits
_MESSAGES_LOW = INBOX_MESSAGES_MAX // 4
_BYTES_LOW = INBOX_BYTES_MAX // 2


class Intake:
    """The owner of a socket (``wire.open.Owner``) for one receiver.

    Full (32 messages or pieces, or 1 MiB): the socket stops reading, if anybody has ever received. Nobody has: whole
    messages are dropped and counted, so that pongs and the end are still heard. The same while we close.
    """

    __slots__ = (
        "_assembler",
        "_is_dropping",
        "_loop",
        "_news",
        "_over",
        "_rooms",
        "_socket",
        "closed",
        "dropped",
        "is_paused",
        "on_end",
        "waiting",
        "was_read",
    )

    def __init__(self, socket: OpenSocket) -> None:
        # how it ended, once it has, and who is told at once
        self.closed: ConnectionClosed | None = None
        self.on_end: Callable[[], None] | None = None
        # somebody has begun to receive
        self.was_read = False
        # messages that came to nobody
        self.dropped = 0
        self._socket = socket
        # asking for it each time is a system call before Python 3.12
        self._loop = asyncio.get_running_loop()
        # oldest first; ``take`` takes from it
        self.waiting: deque[Message] = deque()
        # made when the first message in pieces is received whole
        self._assembler: Assembler | None = None
        # the rest of a message of which a piece was dropped is dropped too
        self._is_dropping = False
        # the socket was told to stop reading
        self.is_paused = False
        # what the receiver sleeps on, what senders sleep on, and those who wait for the end
        self._news: asyncio.Future[None] | None = None
        self._rooms: list[asyncio.Future[None]] = []
        self._over = asyncio.Event()

    # The socket's calls

    def received(self, messages: list[Message]) -> None:
        """Keep these for the receiver."""
        if not self.was_read or self._is_dropping or self._socket.sent is not None:
            for message in messages:
                if self._has_room(message):
                    self.waiting.append(message)
        else:
            self.waiting.extend(messages)
        if self.was_read and self._is_full():
            self.is_paused = True
            self._socket.pause_reading()
        if self._news is not None:
            _wake(self._news)

    def _is_full(self) -> bool:
        # counted when something comes, not for each message that is taken
        return len(self.waiting) >= INBOX_MESSAGES_MAX or sum(map(len, self.waiting)) >= INBOX_BYTES_MAX

    def _has_room(self, message: Message) -> bool:
        """Whether to keep a message that perhaps nobody will receive; half a message is not kept.

        While we close nothing is kept behind what was dropped: its beginning may have been received.
        """
        is_closing = self._socket.sent is not None
        is_last = not isinstance(message, Part) or message.is_last
        if self._is_dropping:
            self._is_dropping = is_closing or not is_last
            return False
        if (self.was_read and not is_closing) or not self._is_full():
            return True
        if not self.was_read:
            self.dropped += 1
        while self.waiting and isinstance(self.waiting[-1], Part) and not self.waiting[-1].is_last:
            self.waiting.pop()
        self._is_dropping = is_closing or not is_last
        return False

    def ended(self, closed: ConnectionClosed) -> None:
        """Everybody who waits is told."""
        self.closed = closed
        self._over.set()
        self.may_write()
        if self._news is not None:
            _wake(self._news)
        if self.on_end is not None:
            self.on_end()

    def must_wait(self) -> None:
        """Who sends looks at the socket."""

    def may_write(self) -> None:
        """Who sends goes on."""
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            _wake(room)

    # The receiver's and the senders'

    def take(self) -> Message | None:
        """The oldest message, or piece of one; None when nothing waits."""
        if not self.waiting:
            return None
        message = self.waiting.popleft()
        if self.is_paused:
            self.look_for_room()
        return message

    def look_for_room(self) -> None:
        """Something was taken: read again when little waits."""
        if len(self.waiting) <= _MESSAGES_LOW and sum(map(len, self.waiting)) <= _BYTES_LOW:
            self.is_paused = False
            self._socket.resume_reading()

    def take_whole(self) -> str | bytes | None:
        """The oldest message, its pieces joined; None when it is not whole yet."""
        while (message := self.take()) is not None:
            if not isinstance(message, Part):
                return message
            self._assembler = self._assembler or Assembler()
            whole = self._assembler.add(message)
            if whole is not None:
                return whole
        return None

    def take_begun(self) -> list[Message]:
        """The pieces that ``take_whole`` has joined already of a message that is not whole."""
        return [] if self._assembler is None else self._assembler.take()

    async def wait_news(self) -> None:
        """Return when something has come, or it has ended. One at a time."""
        if self.waiting or self.closed is not None:
            return
        self._news = self._loop.create_future()
        try:
            await self._news
        finally:
            self._news = None

    async def wait_room(self) -> None:
        """Return when the socket can be written to, or it has ended."""
        while not self._socket.writable and self.closed is None:
            room = self._loop.create_future()
            self._rooms.append(room)
            try:
                await room
            finally:
                if room in self._rooms:
                    self._rooms.remove(room)

    async def wait_over(self) -> None:
        """Return when it has ended."""
        await self._over.wait()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
