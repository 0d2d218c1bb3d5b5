"""All sessions of one ``Live``: who is connected under which name, and how to reach them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from tidewire.clock import Clock, Timer
from tidewire.protocol.codes import EXPIRED, REPLACED, SUBSCRIPTION_EXPIRED, UNSUBSCRIBED, Code
from tidewire.protocol.packets import Message, Push
from tidewire.protocol.payload import encode_json
from tidewire.server.hooks import DISCONNECT, Hooks
from tidewire.server.identity import Identity

if TYPE_CHECKING:
    from tidewire.server.session.session import Session


class Sessions:
    """A registry. ``grace_s``: how long the id of a lost connection waits for its client to come back.

    Ids that wait are as many as connections were lost within the grace.
    """

    def __init__(self, clock: Clock, hooks: Hooks, *, grace_s: float) -> None:
        self.clock = clock
        self._hooks = hooks
        self._grace_s = grace_s
        # in which order they came
        self._all: dict[Session, int] = {}
        self._entered = 0
        self._by_user: dict[str, dict[Session, None]] = {}
        self._by_key: dict[tuple[str, str], Session] = {}
        # the ids of lost connections by their user and key, and what forgets them
        self._lost: dict[tuple[str, str | None], dict[str, Timer]] = {}
        # functions of the application that are told of an end; each has a deadline
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._all))

    def enter(self, session: Session) -> None:
        """A connection that has not said who it is."""
        self._entered += 1
        self._all[session] = self._entered

    def name(self, session: Session) -> str | None:
        """The id of a session that connects now: that of its lost connection, if it is known to have one.

        A session with a key replaces the one that has it: that one is half open, or a copy. None: it is itself the
        older one, whose word was long on its way.
        """
        user, key = session.identity.user, session.key
        if key is not None:
            other = self._by_key.get((user, key))
            if other is not None:
                if self._all[other] > self._all[session]:
                    return None
                other.replace(REPLACED)
            self._by_key[user, key] = session
        self._by_user.setdefault(user, {})[session] = None
        return self._claim(user, key) or str(uuid.uuid4())

    def leave(self, session: Session, *, may_come_back: bool) -> None:
        """It is over; ``may_come_back``: its id waits for a while. Twice is nothing."""
        if session not in self._all:
            return
        del self._all[session]
        user = session.identity.user
        same_user = self._by_user.get(user, {})
        if session not in same_user:
            return
        del same_user[session]
        if not same_user:
            del self._by_user[user]
        if session.key is not None and self._by_key.get((user, session.key)) is session:
            del self._by_key[user, session.key]
        if may_come_back:
            self._keep_id(user, session.key, session.client)

    def _keep_id(self, user: str, key: str | None, client: str) -> None:
        if user or key is not None:
            # otherwise nobody could tell who comes back
            timer = self.clock.call_later(self._grace_s, lambda: self._forget_id(user, key, client))
            self._lost.setdefault((user, key), {})[client] = timer

    def _forget_id(self, user: str, key: str | None, client: str) -> None:
        lost = self._lost[user, key]
        del lost[client]
        if not lost:
            del self._lost[user, key]

    def _claim(self, user: str, key: str | None) -> str | None:
        """The id that was lost last, which is lost no more."""
        lost = self._lost.get((user, key))
        if not lost:
            return None
        client, timer = lost.popitem()
        timer.cancel()
        if not lost:
            del self._lost[user, key]
        return client

    def of_user(self, user: str) -> list[Session]:
        """The connected sessions of ``user``, oldest first."""
        return list(self._by_user.get(user, {}))

    def send(self, user: str, value: object) -> int:
        """Push ``value`` to every session of ``user``; returns how many there are. Raises ``BadPayload``."""
        push = Push(message=Message(data=Raw(encode_json(value))))
        sessions = [session for session in self.of_user(user) if session.is_connected]
        for session in sessions:
            session.push(push)
        return len(sessions)

    def disconnect(self, user: str, code: Code) -> int:
        """End every session of ``user``; returns how many there were."""
        sessions = self.of_user(user)
        for session in sessions:
            session.end(code)
        return len(sessions)

    def end_revoked(self, is_revoked: Callable[[Identity], bool]) -> int:
        """End every session whose token is void, and of the others subscriptions whose own is; how many sessions."""
        n = 0
        for session in [one for one in self if one.is_connected]:
            if is_revoked(session.identity):
                session.end(EXPIRED, "the token was revoked")
                n += 1
                continue
            for reader in list(session.subscriptions.values()):
                if reader.bearer is not None and is_revoked(reader.bearer):
                    session.drop_subscription(reader, SUBSCRIPTION_EXPIRED, "the token was revoked")
        return n

    def unsubscribe(self, user: str, topic: str) -> int:
        """End every subscription of ``user`` to ``topic``; returns how many there were."""
        readers = [(session, session.subscriptions.get(topic)) for session in self.of_user(user)]
        n = 0
        for session, reader in readers:
            if reader is not None:
                session.drop_subscription(reader, UNSUBSCRIBED)
                n += 1
        return n

    def tell_disconnected(self, session: Session) -> None:
        """Run what the application wants to be run when somebody has gone."""
        if DISCONNECT not in self._hooks:
            return
        task = asyncio.get_running_loop().create_task(self._tell_disconnected(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_disconnected(self, session: Session) -> None:
        await session.finished()
        await self._hooks.run(DISCONNECT, session.http, session.identity)

    def end_all(self, code: Code) -> None:
        """Say goodbye to everybody."""
        for session in list(self._all):
            session.end(code)

    async def close(self) -> None:
        """Forget who was lost, and wait for what runs because somebody has gone; it has a deadline of its own."""
        for lost in self._lost.values():
            for timer in lost.values():
                timer.cancel()
        self._lost.clear()
        while self._tasks:
            await asyncio.wait(self._tasks)
