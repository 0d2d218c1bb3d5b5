"""Which streamed call an item belongs to (docs/protocols.md, "Streams of a call"). Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class _Item(msgspec.Struct):
    """A ``message`` push that is an item."""

    stream: str
    item: msgspec.Raw


_item = msgspec.json.Decoder(_Item)


class Streams:
    """Who takes the items of streamed calls, by the ids that these were begun with."""

    def __init__(self) -> None:
        self._takers: dict[str, Callable[[bytes], None]] = {}

    def __len__(self) -> int:
        return len(self._takers)

    def begin(self, stream: str, take: Callable[[bytes], None]) -> None:
        """Give the items of ``stream`` to ``take``."""
        self._takers[stream] = take

    def end(self, stream: str) -> None:
        """No longer; twice is nothing."""
        self._takers.pop(stream, None)

    def take(self, data: bytes) -> bool:
        """Give what a ``message`` push carries to whom it belongs; False where it is no item of a stream here."""
        if not self._takers:
            return False
        try:
            found = _item.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        take = self._takers.get(found.stream)
        if take is not None:
            take(bytes(found.item))
        return take is not None
