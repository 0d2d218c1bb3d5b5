"""The histories of sessions are worth something: each of these faults, put in on purpose, is found by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.property.sessions import run_many
from tidewire.brokers import memory
from tidewire.brokers.base import History
from tidewire.hub.presence import Presence
from tidewire.hub.subscription import Opened
from tidewire.protocol import packets
from tidewire.protocol.position import Position
from tidewire.server.session import subscribing, table
from tidewire.server.session.reader import SessionReader
from tidewire.server.session.session import Session
from tidewire.server.session.time import Heart
from tidewire.server.tokens import SubscriptionGrant, Tokens

HISTORIES = 2000
Patch = Callable[[pytest.MonkeyPatch], None]


def epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    """A position of another numbering is continued as if it were of this one."""
    original = memory.MemoryBroker.history

    async def history(self: Any, topic: str, since: Any, limit: int) -> Any:
        place = self._topics.get(topic)
        if isinstance(since, Position) and place is not None:
            since = Position(place.topic.epoch, min(since.offset, place.topic.top))
        return await original(self, topic, since, limit)

    patch.setattr(memory.MemoryBroker, "history", history)


def wrong_offset_on_recovery(patch: pytest.MonkeyPatch) -> None:
    """The answer names the newest position instead of the one that was asked for."""
    original = SessionReader.opened

    def opened(self: Any, subscription: Any, how: Opened) -> bool:
        if how.recovered and how.page and how.start is not None:
            how = replace(how, start=Position(how.start.epoch, how.page[-1].offset))
        return original(self, subscription, how)

    patch.setattr(SessionReader, "opened", opened)


def duplicate_subscribe_accepted(patch: pytest.MonkeyPatch) -> None:
    """A second subscription to the same topic is made beside the first."""
    original = subscribing.subscribe

    async def subscribe(session: Session, request: packets.SubscribeRequest, command_id: int) -> None:
        session.subscriptions.pop(request.channel, None)
        await original(session, request, command_id)

    patch.setitem(table._COMMANDS, packets.SubscribeRequest, subscribe)


def no_pings(patch: pytest.MonkeyPatch) -> None:
    """The server does not ping."""
    patch.setattr(Heart, "begin", lambda self, *, is_pinged: self._session.site.wheel.clear(self))


def token_of_another(patch: pytest.MonkeyPatch) -> None:
    """A subscription token is good for every user and every topic."""

    async def verify(self: Any, token: str, identity: Any, topic: str) -> SubscriptionGrant:
        return SubscriptionGrant(None)

    patch.setattr(Tokens, "verify_subscription", verify)


def partial_recovery(patch: pytest.MonkeyPatch) -> None:
    """Where not all is kept, what is left is called everything."""
    original = memory.MemoryBroker.history

    async def history(self: Any, topic: str, since: Any, limit: int) -> Any:
        found = await original(self, topic, since, limit)
        if isinstance(since, Position) and not found.complete and since.epoch == found.top.epoch:
            return History(found.messages, since, found.top, True, found.end)
        return found

    patch.setattr(memory.MemoryBroker, "history", history)


def message_before_the_answer(patch: pytest.MonkeyPatch) -> None:
    """The answer to a subscribe command waits for others, and messages do not."""
    patch.setattr(Session, "reply_now", Session.reply)


def join_lost(patch: pytest.MonkeyPatch) -> None:
    """Somebody joins, and those who listen are not told."""
    original = Session.told

    def told(self: Any, topic: str, member: Any, is_joined: bool) -> None:
        if not is_joined or member.client == self.client:
            original(self, topic, member, is_joined)

    patch.setattr(Session, "told", told)


def ghost_in_presence(patch: pytest.MonkeyPatch) -> None:
    """Who is lost stays in the roster."""
    patch.setattr(Presence, "lose", lambda self, topic, client: None)


def half_open_predecessor(patch: pytest.MonkeyPatch) -> None:
    """A client has come back, and its old connection goes on."""
    patch.setattr(Session, "replace", lambda self, code: None)


FAULTS: tuple[Patch, ...] = (
    epoch_ignored,
    wrong_offset_on_recovery,
    duplicate_subscribe_accepted,
    no_pings,
    token_of_another,
    partial_recovery,
    message_before_the_answer,
    join_lost,
    ghost_in_presence,
    half_open_predecessor,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_found(fault: Patch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        asyncio.run(run_many(range(HISTORIES)))
    # the fault itself is found, and not that it does not fit the code any more
    assert [record.exc_text or record.getMessage() for record in caplog.records if record.exc_info] == []
