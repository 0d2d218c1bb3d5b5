"""A subscription in its user's hands: messages, joins and leaves, and how it stands."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from tidewire.client.errors import ClientClosed, WrongType
from tidewire.client.resume import Gap
from tidewire.client.session.inbox import Entry, Inbox, say
from tidewire.client.session.messages import MemberChange, Message, SubscriptionState, SubscriptionStateName
from tidewire.client.session.shell import Listener, Shell
from tidewire.client.session.track import Track, Wish
from tidewire.client.session.values import Read, read_data, read_member
from tidewire.errors import BadPayload, ClientError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a subscription needs to begin."""

    topic: str
    wish: Wish
    inbox: Inbox
    listener: Listener
    read: Read


class Subscription(Generic[T]):
    """An async iterator of ``Message``, and an async context manager; made by ``Client.subscribe``.

    Begins on entering ``async with``, or else at the first message, and goes on across connections until it is left.
    One task reads it at a time. A subscription that nobody holds any more is left by itself.
    """

    def __init__(self, shell: Shell, plan: Plan) -> None:
        self._shell = shell
        self._plan = plan
        self._bell = plan.listener.bell
        # None until it begins
        self._track: Track | None = None
        # a task is inside of ``next``
        self._is_read = False

    @property
    def topic(self) -> str:
        """Its name."""
        return self._plan.topic

    @property
    def state(self) -> SubscriptionState:
        """As it was told last."""
        return SubscriptionState("unsubscribed", "not begun") if self._track is None else self._track.state

    @property
    def position(self) -> str | None:
        """After the last message that has come (read or not); None where the topic numbers nothing."""
        return say(self._plan.wish.since if self._track is None else self._track.position)

    @property
    def lost(self) -> Gap | None:
        """What is lost and no message has carried yet."""
        return None if self._track is None else self._track.lost

    @property
    def dropped(self) -> int:
        """How many messages were dropped because nobody read them."""
        return self._plan.inbox.dropped

    async def wait_for(self, name: SubscriptionStateName, timeout_s: float | None = None) -> SubscriptionState:
        """Wait until it stands so, if only for a moment. Raises ``TimeoutError``, and what has ended it otherwise."""

        def look(what: object) -> SubscriptionState | None:
            return what if isinstance(what, SubscriptionState) and what.name in (name, "unsubscribed") else None

        async with asyncio.timeout(timeout_s):
            state = look(self._begin().state)
            if state is None:
                state = await self._bell.until(look)
        if state.name != name:
            raise (state.error or ClientClosed(self.topic)).with_traceback(None)
        return state

    # Reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[T]:
        return await self.next()

    async def next(self, timeout_s: float | None = None) -> Message[T]:
        """The next message. Raises ``TimeoutError`` after ``timeout_s``, which loses nothing.

        Raises ``StopAsyncIteration`` when the topic has ended well, or it was left; ``TopicFailed``, ``Unsubscribed``,
        ``CommandRefused``, ``ConsumerTooSlow``, or what has closed the client. ``WrongType`` for a message that is not
        of the type that was asked for: the next one can be read.
        """
        if self._is_read:
            raise RuntimeError("another task reads this subscription: let one task read and hand the messages out")
        self._is_read = True
        try:
            async with asyncio.timeout(timeout_s):
                return self._message(await self._take())
        finally:
            self._is_read = False

    async def _take(self) -> Entry:
        track = self._begin()
        inbox = self._plan.inbox
        while True:
            entry = inbox.take()
            if track.is_paused and inbox.is_low:
                self._shell.resume(track)
            if entry is not None:
                return entry
            if track.state.name == "unsubscribed":
                raise _ending(track)
            await self._bell.wait()

    def _message(self, entry: Entry) -> Message[T]:
        return read_message(entry, self._plan.read)

    async def members(self) -> AsyncIterator[MemberChange]:
        """Who joins and who leaves, from now on; ends as the messages do.

        Needs a topic with presence, and ``subscribe(..., members=True)`` where it is not declared with ``join_leave``.
        1,000 changes wait to be read; of more, and when the line was cut, a change of the kind "missed" says so.
        """
        track = self._begin()
        while True:
            change = track.changes.take()
            if change is not None:
                yield change
            elif track.state.name == "unsubscribed":
                if track.state.error is not None:
                    raise track.state.error.with_traceback(None)
                return
            else:
                await self._bell.wait()

    # Living

    def _begin(self) -> Track:
        if self._track is None:
            shell, plan = self._shell, self._plan
            self._track = shell.subscribe(plan.topic, plan.inbox, plan.wish, plan.listener)
            finalizer = weakref.finalize(self, _leave_soon, asyncio.get_running_loop(), shell, self._track)
            finalizer.atexit = False
        return self._track

    async def __aenter__(self) -> Self:
        track = self._begin()
        try:
            while track.state.name == "subscribing":
                await self._bell.wait()
        except BaseException:
            self._shell.leave(track)
            raise
        if track.state.error is not None and not len(self._plan.inbox):
            raise track.state.error.with_traceback(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Unsubscribe; a reader in another task gets what has come, and ends. What was left cannot begin again."""
        if self._track is not None:
            self._shell.leave(self._track)


def _ending(track: Track) -> Exception:
    error: ClientError | None = track.state.error
    return StopAsyncIteration() if error is None else error.with_traceback(None)


def _leave_soon(loop: asyncio.AbstractEventLoop, shell: Shell, track: Track) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
        loop.call_soon_threadsafe(shell.leave, track)


def read_message(entry: Entry, read: Read) -> Message[T]:
    """One message as its user gets it. Raises ``WrongType``."""
    tags, position = entry.tags, say(entry.position)
    publisher = None if entry.publisher is None else read_member(entry.publisher)
    if tags.get("removed") == "true":
        none: T = None  # type: ignore[assignment]  # a key that is gone has no value
        return Message(none, entry.topic, position, entry.gap, tags.get("key"), True, False, publisher, tags)
    try:
        data = read_data(entry.data, tags, read)
    except BadPayload as error:
        where = f"a message of {entry.topic!a}" if entry.topic else "a message for this user"
        raise WrongType(where, str(error), entry.data, position) from None
    is_snapshot = tags.get("snapshot") == "true"
    return Message(data, entry.topic, position, entry.gap, None, False, is_snapshot, publisher, tags)


class UserMessages(Generic[T]):
    """What the server sends to this user alone: an async iterator of ``Message``; made by ``Client.messages``."""

    def __init__(self, shell: Shell, read: Read) -> None:
        self._shell = shell
        self._read = read

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[T]:
        return await self.next()

    async def next(self, timeout_s: float | None = None) -> Message[T]:
        """The next one. Raises ``TimeoutError``, ``WrongType``, and what has closed the client."""
        machine = self._shell.machine
        async with asyncio.timeout(timeout_s):
            while (entry := machine.messages.take()) is None:
                if machine.state.name == "closed":
                    error = machine.state.error
                    raise StopAsyncIteration if error is None else error.with_traceback(None)
                await self._shell.bell.wait()
        return read_message(entry, self._read)
