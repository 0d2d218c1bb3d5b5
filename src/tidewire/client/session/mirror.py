"""``Client.mirror``: the newest values of a topic as a mapping that is always current."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tidewire.client.errors import ClientClosed, TooManyKeys, WrongType
from tidewire.client.session.inbox import Entry, Put
from tidewire.client.session.messages import Message, SubscriptionState
from tidewire.client.session.shell import Listener, Shell
from tidewire.client.session.subscription import read_message
from tidewire.client.session.track import Track, Wish
from tidewire.client.session.values import Read
from tidewire.errors import ClientError
from tidewire.protocol.payload import format_key
from tidewire.protocol.position import Position

T = TypeVar("T")
Key = str | Callable[[Any], object] | None
KEYS_MAX = 100_000


class Values:
    """The values, as the sink of a subscription (``inbox.Sink``). Pure.

    At most ``keys_max``; one more ends the subscription, because a mirror that leaves something out is none.
    """

    def __init__(self, key: Key, read: Read, *, keys_max: int = KEYS_MAX) -> None:
        self.current: dict[str, Any] = {}
        # of each who follows the changes, the keys it has not seen; bounded by the keys
        self.unseen: list[dict[str, None]] = []
        self._key = key
        self._read = read
        self._keys_max = keys_max
        self._refusal: ClientError | None = None

    def begin(self, position: Position | None, *, is_new: bool) -> None:
        """See ``Sink``: after a loss the server tells everything again, and what it does not tell is gone."""
        if is_new:
            for key in list(self.current):
                self._note(key)
            self.current.clear()

    def put(self, entry: Entry, *, may_pause: bool) -> Put:
        """See ``Sink``."""
        try:
            message: Message[Any] = read_message(entry, self._read)
            key = self._key_of(entry, message.key, message.data)
        except WrongType as error:
            self._refusal = error
            return Put.FAIL
        if message.removed:
            self.current.pop(key, None)
        elif key not in self.current and len(self.current) >= self._keys_max:
            self._refusal = TooManyKeys(entry.topic, self._keys_max)
            return Put.FAIL
        else:
            self.current[key] = message.data
        self._note(key)
        return Put.TAKEN

    def refusal(self, topic: str) -> ClientError:
        """See ``Sink``."""
        assert self._refusal is not None, "it has refused something"
        return self._refusal

    def _key_of(self, entry: Entry, removed: str | None, data: Any) -> str:
        if self._key is None:
            return entry.topic
        if removed is not None:
            return removed
        try:
            if callable(self._key):
                return format_key(self._key(data))
            return format_key(data[self._key] if isinstance(data, Mapping) else getattr(data, self._key))
        except (KeyError, AttributeError, TypeError) as error:
            why = f"it has no key ({type(error).__name__}: {error})"
            raise WrongType(f"a message of {entry.topic!a}", why, entry.data) from None

    def _note(self, key: str) -> None:
        for unseen in self.unseen:
            unseen.pop(key, None)
            unseen[key] = None


class Mirror(Mapping[str, T], Generic[T]):
    """A mapping from keys to newest values, kept current while its ``async with`` block runs; ``Client.mirror``."""

    def __init__(self, shell: Shell, topic: str, values: Values, wish: Wish, listener: Listener) -> None:
        self.topic = topic
        self._shell = shell
        self._values = values
        self._wish = wish
        self._listener = listener
        self._track: Track | None = None

    def __getitem__(self, key: str) -> T:
        value: T = self._values.current[key]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values.current)

    def __len__(self) -> int:
        return len(self._values.current)

    def __repr__(self) -> str:
        return f"<Mirror of {self.topic!a}: {len(self)} values, {self.state.name}>"

    @property
    def state(self) -> SubscriptionState:
        """How its subscription stands."""
        return SubscriptionState("unsubscribed", "not begun") if self._track is None else self._track.state

    @property
    def is_current(self) -> bool:
        """Whether what is new is heard of; after a cut line the values stay, and this is False until it is healed."""
        return self.state.name == "subscribed"

    async def changed(self, timeout_s: float | None = None) -> None:
        """Wait until a value or the state changes. Raises ``TimeoutError``, and what has ended it."""
        track = self._alive()
        async with asyncio.timeout(timeout_s):
            await self._listener.bell.wait()
        if track.state.error is not None:
            raise track.state.error.with_traceback(None)

    async def until(self, is_true: Callable[[Mapping[str, T]], object], timeout_s: float | None = None) -> None:
        """Wait until ``is_true(mirror)``, e.g. ``lambda quotes: "AAPL" in quotes``. Raises as ``changed``."""
        async with asyncio.timeout(timeout_s):
            while not is_true(self):
                await self.changed()

    async def changes(self) -> AsyncIterator[str]:
        """The keys whose values have changed, come or gone, from now on.

        One that changes several times before it is looked at is given once. Raises what has ended the mirror.
        """
        track = self._alive()
        unseen: dict[str, None] = {}
        self._values.unseen.append(unseen)
        try:
            while True:
                while unseen:
                    key = next(iter(unseen))
                    del unseen[key]
                    yield key
                if track.state.name == "unsubscribed":
                    break
                await self._listener.bell.wait()
            if track.state.error is not None:
                raise track.state.error.with_traceback(None)
        finally:
            self._values.unseen = [one for one in self._values.unseen if one is not unseen]

    def _alive(self) -> Track:
        if self._track is None:
            raise RuntimeError("use it as: async with client.mirror(topic) as values: ...")
        if self._track.state.name == "unsubscribed":
            raise self._track.state.error or ClientClosed(self.topic)
        return self._track

    async def __aenter__(self) -> Self:
        track = self._track = self._shell.subscribe(self.topic, self._values, self._wish, self._listener)
        try:
            while track.state.name == "subscribing":
                await self._listener.bell.wait()
        except BaseException:
            self._shell.leave(track)
            raise
        if track.state.error is not None:
            raise track.state.error.with_traceback(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._track is not None
        self._shell.leave(self._track)
