"""What has come and was not taken yet, bounded in messages and bytes. Pure."""

from __future__ import annotations

from collections import deque


class Inbox:
    """A queue of messages. Full: whoever fills it stops reading, or drops (``wire.socket`` decides which).

    There is always room for one message, whatever its size.
    """

    __slots__ = ("_bytes_max", "_messages", "_messages_max", "_size_bytes")

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._messages: deque[str | bytes] = deque()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether what comes next has to wait."""
        return len(self._messages) >= self._messages_max or self._size_bytes >= self._bytes_max

    def put(self, message: str | bytes) -> None:
        """Add a message; the caller has looked whether it is full."""
        self._messages.append(message)
        # a character counts as one byte: what Python holds for most text
        self._size_bytes += len(message)

    def take(self) -> str | bytes:
        """The oldest message."""
        message = self._messages.popleft()
        self._size_bytes -= len(message)
        return message
