"""One topic of a client: from subscribing to subscribed to unsubscribed, and where it stands. Pure.

It asks its ``Desk`` for commands and alarms, and tells through its events. The position is that of the last message
its sink has taken: from there it goes on after whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Raw

from tidewire.client.errors import CommandRefused, TopicFailed, Unsubscribed
from tidewire.client.reconnect import Advice, Backoff, ComeBack
from tidewire.client.resume import Gap
from tidewire.client.session.advice import (
    RESUBSCRIBE_FROM,
    SUBSCRIPTION_EXPIRED,
    SUBSCRIPTION_INVALIDATED,
    may_ask_again,
)
from tidewire.client.session.desk import Desk
from tidewire.client.session.events import Arrived, TrackChanged
from tidewire.client.session.inbox import Entry, Inbox, Notes, Put, Sink, join_gaps, say
from tidewire.client.session.messages import MemberChange, SubscriptionState, SubscriptionStateName
from tidewire.client.session.token import Token
from tidewire.client.session.values import read_member
from tidewire.errors import ClientError
from tidewire.protocol import codes, packets
from tidewire.protocol.packets import NOTHING, Publication, Push, Reply, SubscribeRequest, SubscribeResult
from tidewire.protocol.position import Position

MEMBER_CHANGES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscription asks for, on every connection.

    ``since``: go on after this position. ``data``: for the topic's function. ``hears_members``: be told of joins and
    leaves. ``token``: the one there is; ``renews_token``: a function gets new ones.
    """

    since: Position | None = None
    data: Raw = field(default_factory=lambda: NOTHING)
    hears_members: bool = False
    token: str = ""
    renews_token: bool = False


class Track:
    """The machine of one subscription. ``on_end`` is called when it is unsubscribed for good."""

    def __init__(
        self,
        desk: Desk,
        topic: str,
        sink: Sink,
        wish: Wish,
        *,
        on_end: Callable[[Track], None],
        is_servers: bool = False,
    ) -> None:
        self.topic = topic
        self.sink = sink
        self.state = SubscriptionState("subscribing")
        # who came and who went
        self.changes = Notes[MemberChange](MEMBER_CHANGES_MAX, MemberChange("missed", None))
        # after the last message that was taken; None: there is none to go on from
        self.position = wish.since
        # what no message has carried yet
        self.lost: Gap | None = None
        # the server has subscribed this client by itself, and whether its user wants it too
        self.is_servers = is_servers
        self.is_wanted = not is_servers
        # it waits for its consumer
        self.is_paused = False
        self.token = Token(desk, topic, wish.token, is_renewable=wish.renews_token)
        self._desk = desk
        self._wish = wish
        self._on_end = on_end
        self._backoff = Backoff(rng=desk.rng)
        # it was subscribed once, on whichever connection
        self._was_subscribed = False
        self._is_recoverable = False
        # a subscribe command waits for its reply; replies to older ones are ignored
        self._is_asked = False
        self._serial = 0

    # Subscribing

    def go(self) -> None:
        """Subscribe, if that is what it waits for and everything is there."""
        if self.state.name != "subscribing" or self._is_asked or self.is_paused or self.is_servers:
            return
        if not self._desk.is_connected:
            return
        if self.token.is_missing:
            self.token.want()
            return
        self._is_asked = True
        self._serial += 1
        serial, asked = self._serial, self.position

        def read(reply: Reply) -> None:
            if serial == self._serial:
                self._is_asked = False
                self._read_answer(reply, asked)

        self._desk.ask(self._request(), read)

    def _request(self) -> SubscribeRequest:
        request = self.recovery_request()
        request.channel, request.token, request.data = self.topic, self.token.value, self._wish.data
        request.positioned = request.recoverable = True
        request.join_leave = self._wish.hears_members
        return request

    def recovery_request(self) -> SubscribeRequest:
        """The position to go on from, as the protocol says it."""
        if self.position is None:
            return SubscribeRequest()
        return SubscribeRequest(recover=True, epoch=self.position.epoch, offset=self.position.offset)

    def _read_answer(self, reply: Reply, asked: Position | None) -> None:
        if reply.error is not None:
            self._refused(reply.error)
        elif reply.subscribe is None:
            self._again("the server's answer was no subscription")
        else:
            self._begin(reply.subscribe, asked)

    def adopt(self, result: SubscribeResult) -> None:
        """The server has subscribed this client by itself."""
        self.is_servers = True
        self._forget_answer()
        self._begin(result, self.position if result.was_recovering else None)

    def _begin(self, result: SubscribeResult, asked: Position | None) -> None:
        here = Position(result.epoch, result.offset) if result.epoch else None
        before = self.lost
        recovered: bool | None = None
        if asked is not None:
            recovered = result.recovered and _continues(here, asked)
        if recovered:
            self.position = asked
        else:
            start = asked or self.position
            is_later = asked is not None or self._was_subscribed or self.lost is not None
            if is_later and (start is None or start != here):
                self._lose(start, here)
            self.position = here
        self._is_recoverable = result.recoverable
        self._was_subscribed = True
        self._backoff.connected(self._desk.now)
        self.token.renew_in(expires=result.expires, ttl_s=result.ttl)
        self.sink.begin(self.position, is_new=not recovered)
        self._move("subscribed", recovered=recovered, lost=self.lost if self.lost != before else None)
        for publication in result.publications:
            self._take(publication, is_dense=True)

    def _refused(self, error: packets.Error) -> None:
        refused = CommandRefused(
            f"to subscribe to {self.topic!a}", error.code, error.message, temporary=error.temporary
        )
        if error.code == codes.TOKEN_EXPIRED.code and not self.token.is_renewable:
            self.end(refused)
        elif error.code == codes.TOKEN_EXPIRED.code:
            self.token.drop()
            self._again(error.message)
        elif error.code == codes.ALREADY_SUBSCRIBED.code:
            # each side thinks something else: begin from what both know
            self._ask_to_leave()
            self._again(error.message)
        elif error.code == codes.UNRECOVERABLE.code:
            self._forget_position()
            self._again(error.message)
        elif may_ask_again(error.code, error.temporary):
            self._again(error.message)
        else:
            self.end(refused)

    def _again(self, reason: str) -> None:
        """Subscribe after a while, fully jittered."""
        delay_s = self._backoff.failed(self._desk.now, Advice(ComeBack.FAST, reason))
        self._desk.alarms.set(("again", self.topic), self._desk.now + delay_s, self.go)
        self._move("subscribing", reason)

    # What comes

    def hear(self, push: Push) -> None:
        """What the server says about this topic; it is nothing while it is not subscribed, what is under way is old."""
        if self.state.name != "subscribed":
            return
        if push.pub is not None:
            self._take(push.pub)
        elif push.join is not None and push.join.info is not None:
            self._note(MemberChange("join", read_member(push.join.info)))
        elif push.leave is not None and push.leave.info is not None:
            self._note(MemberChange("leave", read_member(push.leave.info)))
        elif push.unsubscribe is not None:
            self._unsubscribed(push.unsubscribe.code, push.unsubscribe.reason)

    def _take(self, publication: Publication, *, is_dense: bool = False) -> None:
        """Hand one message on. ``is_dense``: a number that is left out was lost; keyed topics leave some out."""
        if self.state.name != "subscribed":
            return
        at, lost = self.position, self.lost
        position: Position | None = None
        if at is not None and (publication.offset or _is_snapshot(publication)):
            position = Position(at.epoch, publication.offset)
            if position <= at and not _is_snapshot(publication):
                # it is here already
                return
            if is_dense and position.offset > at.offset + 1:
                lost = join_gaps(lost, Gap(say(at), say(Position(at.epoch, position.offset - 1))))
        entry = Entry(
            publication.channel or self.topic,
            bytes(publication.data),
            publication.tags,
            position,
            lost,
            publication.info,
        )
        may_pause = self._is_recoverable and at is not None and not self.is_servers
        put = self.sink.put(entry, may_pause=may_pause)
        if put is Put.TAKEN:
            self.lost = None
            if position is not None and at is not None:
                self.position = max(at, position)
            self._tell_arrival()
        elif put is Put.PAUSE:
            self._pause()
        else:
            self.leave(self.sink.refusal(self.topic))

    def _note(self, change: MemberChange) -> None:
        self.changes.put(change)
        self._tell_arrival()

    def _tell_arrival(self) -> None:
        events = self._desk.events
        if not events or not isinstance(events[-1], Arrived) or events[-1].track is not self:
            events.append(Arrived(self))

    def _unsubscribed(self, code: int, reason: str) -> None:
        """The server has ended it (centrifugal.dev, "Client protocol", unsubscribe codes)."""
        if code == codes.TOPIC_FINISHED.code:
            is_well = reason in ("", codes.TOPIC_FINISHED.name)
            self.end(None if is_well else TopicFailed(self.topic, reason, say(self.position)), "the topic has ended")
            return
        if code < RESUBSCRIBE_FROM or (self.is_servers and not self.is_wanted):
            self.end(Unsubscribed(self.topic, code, reason))
            return
        self.is_servers = False
        if code in (SUBSCRIPTION_EXPIRED, SUBSCRIPTION_INVALIDATED):
            self.token.drop()
        if code == SUBSCRIPTION_INVALIDATED:
            self._forget_position()
        self._pass_over()
        self._again(f"the server ended the subscription: {reason} ({code})")

    # Losing and leaving

    def _lose(self, start: Position | None, end: Position | None) -> None:
        self.lost = join_gaps(self.lost, Gap(say(start), say(end)))

    def _forget_position(self) -> None:
        if self.position is not None:
            self._lose(self.position, None)
        self.position = None

    def invalidate(self) -> None:
        """Token and position are worth nothing any more (3014)."""
        self.token.drop()
        self._forget_position()

    def disconnect(self, reason: str) -> None:
        """The connection is lost."""
        self._desk.alarms.clear(("again", self.topic))
        self._forget_answer()
        if self.state.name == "subscribed":
            self._pass_over()
            self._move("subscribing", reason)

    def _forget_answer(self) -> None:
        self._serial += 1
        self._is_asked = False

    def _pass_over(self) -> None:
        """From here until it is subscribed again, joins and leaves are not heard."""
        self.token.rest()
        self.changes.miss()
        self._tell_arrival()

    def _pause(self) -> None:
        """The consumer does not read: leave, and come back for the rest."""
        self.is_paused = True
        self._ask_to_leave()
        self._pass_over()
        self._move("subscribing", "paused until what has come is read")

    def resume(self) -> None:
        """The consumer has read on."""
        if self.is_paused:
            self.is_paused = False
            self.go()

    def redirect(self, sink: Sink) -> None:
        """The server's subscription is wanted by the user too, who reads it from ``sink``."""
        old, self.sink, self.is_wanted = self.sink, sink, True
        sink.begin(self.position, is_new=True)
        while isinstance(old, Inbox) and (entry := old.take()) is not None:
            sink.put(entry, may_pause=False)
            self._tell_arrival()

    def _ask_to_leave(self) -> None:
        self._forget_answer()
        if self._desk.is_connected:
            self._desk.ask(packets.UnsubscribeRequest(channel=self.topic), lambda reply: None)

    def leave(self, error: ClientError | None = None) -> None:
        """Unsubscribe: the user wants no more, or (with an error) cannot take more."""
        if self.state.name == "unsubscribed":
            return
        if self._is_asked or self.state.name == "subscribed":
            self._ask_to_leave()
        self.end(error)

    def end(self, error: ClientError | None, reason: str = "") -> None:
        """It is over; twice is nothing."""
        if self.state.name == "unsubscribed":
            return
        self._forget_answer()
        self._desk.alarms.clear(("again", self.topic))
        self.token.rest()
        self._move("unsubscribed", reason or str(error or "left"), lost=self.lost, error=error)
        self._on_end(self)

    # Tokens

    def take_token(self, value: str) -> None:
        """A token has been got."""
        self.token.take(value)
        if self.state.name != "subscribed":
            self.go()
            return
        request = packets.SubRefreshRequest(channel=self.topic, token=value)
        serial = self._serial
        self._desk.ask(request, lambda reply: self._read_refreshed(reply) if serial == self._serial else None)

    def _read_refreshed(self, reply: Reply) -> None:
        error, result = reply.error, reply.sub_refresh
        if error is None:
            if result is not None:
                self.token.renew_in(expires=result.expires, ttl_s=result.ttl)
        elif may_ask_again(error.code, error.temporary):
            self.token.renew_later()
        else:
            what = f"to refresh the subscription to {self.topic!a}"
            self.leave(CommandRefused(what, error.code, error.message, temporary=error.temporary))

    def miss_token(self, error: ClientError, *, is_final: bool) -> None:
        """No token could be got. That ends a subscription that never began; others try again."""
        self.token.failed()
        if is_final or not self._was_subscribed:
            self.leave(error)
        elif self.state.name == "subscribed":
            self.token.renew_later()
        else:
            self._again(str(error))

    def _move(
        self,
        name: SubscriptionStateName,
        reason: str = "",
        *,
        recovered: bool | None = None,
        lost: Gap | None = None,
        error: ClientError | None = None,
    ) -> None:
        self.state = SubscriptionState(name, reason, recovered, lost, error)
        self._desk.events.append(TrackChanged(self, self.state))


def _is_snapshot(publication: Publication) -> bool:
    return publication.tags.get("snapshot") == "true"


def _continues(here: Position | None, asked: Position) -> bool:
    """Whether a subscription that begins ``here`` leaves nothing out after ``asked``, whatever the server says."""
    return here is not None and here.epoch == asked.epoch and here.offset <= asked.offset
