"""A session's subscriptions: how messages look in its dialect, and what the hub says to it."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from tidewire.clock import Timer
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.policy import Latest, Log, Signal
from tidewire.hub.presence import Member
from tidewire.hub.subscription import Eviction, Gap, Opened, Subscription
from tidewire.protocol import codes, packets, plain
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec
from tidewire.protocol.codes import Fault
from tidewire.protocol.message import End, Kind, Message
from tidewire.protocol.packets import NOTHING, Publication, Push, Reply, SubscribeResult
from tidewire.protocol.position import Position
from tidewire.wire import frames

if TYPE_CHECKING:
    from tidewire.server.gate import Declaration
    from tidewire.server.identity import Identity
    from tidewire.server.session.session import Session

_json = msgspec.json.Encoder()
_who = msgspec.json.Decoder(packets.ClientInfo)


@dataclass(frozen=True, slots=True)
class Framing:
    """Packets as items of a batch: frames of our own wire, or ASGI events. One for all sessions that speak so."""

    codec: Codec
    is_raw: bool
    """Frames of our own wire."""
    _encoders: WeakValueDictionary[str, TopicEncoder] = field(
        default_factory=WeakValueDictionary, compare=False, repr=False
    )

    def encoder(self, topic: str) -> TopicEncoder:
        """The one for ``topic``: sessions that have the same one share what it makes (``hub.subscription.Encode``)."""
        found = self._encoders.get(topic)
        if found is None:
            found = self._encoders[topic] = TopicEncoder(self, topic)
        return found

    def item(self, payload: bytes) -> Any:
        """The payload of one WebSocket message, ready to be written."""
        if self.is_raw:
            first = frames.WHOLE_TEXT if self.codec.is_text else frames.WHOLE_BINARY
            return frames.head(first, len(payload)) + payload
        if self.codec.is_text:
            return {"type": "websocket.send", "text": payload.decode()}
        return {"type": "websocket.send", "bytes": payload}

    def batch(self, payload: bytes) -> Batch:
        """What the dialect itself says, as a batch."""
        return Batch((self.item(payload),), len(payload), 0)

    def push(self, push: Push) -> Batch:
        """One push."""
        return self.batch(self.codec.join([self.codec.write(Reply(push=push))]))


_FRAMINGS = {(codec.name, is_raw): Framing(codec, is_raw) for codec in (JSON, PROTOBUF) for is_raw in (True, False)}


def framing_of(codec: Codec, *, is_raw: bool) -> Framing:
    """The one framing of all sessions of this form and kind of server."""
    return _FRAMINGS[codec.name, is_raw]


def publication(message: Message, codec: Codec) -> Publication:
    """``message`` as the protocol's publication.

    JSON: text is a JSON string, bytes are a string in base64 with the tag ``encoding``. Protobuf: the payload as it is,
    and where it is no JSON the tag says ``text`` or ``bytes``.
    """
    tags: dict[str, str] = {}
    data = message.payload
    if codec.is_text and message.kind is Kind.TEXT:
        data = _json.encode(message.payload.decode())
    elif codec.is_text and message.kind is Kind.BYTES:
        data = _json.encode(base64.b64encode(message.payload).decode())
        tags["encoding"] = "base64"
    elif message.kind is not Kind.JSON:
        tags["encoding"] = message.kind.value
    if message.removed:
        tags |= {"removed": "true", "key": message.key or ""}
    if message.snapshot:
        tags["snapshot"] = "true"
    info = _who.decode(message.publisher) if message.publisher else None
    if message.topic:
        # a pattern's: the position is the topic's, and means nothing here; SDKs show the tags and not the channel
        tags["topic"] = message.topic
        return Publication(data=msgspec.Raw(data), info=info, channel=message.topic, tags=tags)
    if message.snapshot:
        # part of a state: who has a part only does not stand at its position
        return Publication(data=msgspec.Raw(data), tags=tags)
    return Publication(data=msgspec.Raw(data), info=info, offset=message.offset, tags=tags)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TopicEncoder:
    """What messages of one topic look like to the sessions of one framing: one frame for a whole batch."""

    framing: Framing
    topic: str

    def __call__(self, messages: Sequence[Message]) -> Batch:
        """All of ``messages`` in one frame."""
        codec = self.framing.codec
        write = self._write_json if codec.is_text else self._write
        payload = codec.join([write(message) for message in messages])
        return Batch((self.framing.item(payload),), len(payload), len(messages), plain.position_of(messages[-1]))

    def _write(self, message: Message) -> bytes:
        codec = self.framing.codec
        return codec.write(Reply(push=Push(channel=self.topic, pub=publication(message, codec))))

    def _write_json(self, message: Message) -> bytes:
        """The usual case by hand: it is what a fan-out costs."""
        if message.kind is not Kind.JSON or message.removed or message.snapshot or message.topic:
            return self._write(message)
        head = b'{"push":{"channel":"%s","pub":{"data":%s' % (self.topic.encode(), message.payload)
        if message.publisher:
            head += b',"info":' + message.publisher
        return head + (b',"offset":%d}}}' % message.offset if message.offset else b"}}}")


class Pages:
    """Pages of history as sessions say them, written once for all who have missed the same. Full: the oldest go."""

    _BYTES_MAX = 8 * 1024 * 1024
    _PAGES_MAX = 1000

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[Any, ...], msgspec.Raw] = OrderedDict()
        self._bytes = 0

    def prepare(self, encoder: TopicEncoder, page: Sequence[Message]) -> Any:
        """The publications of ``page``, which follow one another in the history of the encoder's topic."""
        codec = encoder.framing.codec
        name = (codec.name, encoder.topic, page[0].epoch, page[0].offset, page[-1].offset)
        found = self._pages.get(name)
        if found is None:
            found = self._pages[name] = codec.prepare([publication(message, codec) for message in page])
            self._bytes += len(bytes(found))
            while self._bytes > self._BYTES_MAX or len(self._pages) > self._PAGES_MAX:
                _, oldest = self._pages.popitem(last=False)
                self._bytes -= len(bytes(oldest))
        return found


class Beginning:
    """How a subscription begins; forgotten when it has, as there are thousands that go on for hours.

    ``command_id``: the command that is to be answered; 0 where the server has subscribed. ``reject_unrecovered``:
    refuse to begin where the position is lost.
    """

    __slots__ = ("answered", "command_id", "fault", "reject_unrecovered", "result", "start", "task", "was_recovering")

    def __init__(self, command_id: int, *, was_recovering: bool = False, reject_unrecovered: bool = False) -> None:
        self.command_id = command_id
        self.was_recovering = was_recovering
        self.reject_unrecovered = reject_unrecovered
        # the answer, and whether it could begin, once that is known
        self.result = SubscribeResult()
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        # why it could not, where the hub said so
        self.fault: Fault | None = None
        # where it begins
        self.start: Position | None = None
        # the task that brings it up to date
        self.task: asyncio.Task[None] | None = None


class SessionReader:
    """One subscription of a session (``hub.subscription.Reader``), and the source of what is said of its members."""

    __slots__ = (
        "_session",
        "bearer",
        "beginning",
        "declaration",
        "encode",
        "expiry",
        "hears_members",
        "info",
        "is_clients",
        "member",
        "subscription",
        "topic",
    )

    def __init__(self, session: Session, topic: str, declaration: Declaration, beginning: Beginning) -> None:
        self.topic = topic
        self.declaration = declaration
        self.encode = session.framing.encoder(topic)
        self.beginning: Beginning | None = beginning
        # made by the client's command, not by the server itself
        self.is_clients = beginning.command_id != 0
        # hears of joins and leaves
        self.hears_members = False
        # what others may know of it here, as JSON text
        self.info = b""
        # of whose token it is, where it has one of its own
        self.bearer: Identity | None = None
        # its place in the roster
        self.member: Member | None = None
        # ends it when its token has expired
        self.expiry: Timer | None = None
        self.subscription: Subscription | None = None
        self._session = session

    @property
    def outbox(self) -> Outbox:
        """The connection's."""
        return self._session.connection.outbox

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """The answer to the command, with what was missed where that is little; it goes out before any message."""
        self.subscription = subscription
        beginning = self.beginning
        assert beginning is not None, "it begins once"
        beginning.start = how.start
        result = beginning.result
        policy = self.declaration.policy
        if how.start is not None and not isinstance(policy, Signal):
            result.recoverable, result.positioned = True, isinstance(policy, Log)
            result.epoch, result.offset = how.start.epoch, how.start.offset
        if isinstance(policy, Latest) and not how.recovered:
            # the whole state follows, and the position moves with what comes after it
            result.offset = 0
        result.was_recovering = beginning.was_recovering
        result.recovered = bool(how.recovered)
        if beginning.was_recovering and not how.recovered and beginning.reject_unrecovered:
            self._answer(beginning, is_taken=False)
            return True
        is_said = result.recovered and bool(how.page)
        if is_said:
            result.publications = self._session.site.pages.prepare(self.encode, how.page)
        self._answer(beginning, is_taken=True)
        return is_said

    def _answer(self, beginning: Beginning, *, is_taken: bool) -> None:
        if beginning.answered.done():
            return
        beginning.answered.set_result(is_taken)
        if is_taken:
            if self.is_clients:
                self._session.reply_now(beginning.command_id, beginning.result)
            self._session.entered(self)

    def pull(self) -> Batch | None:
        """An outbox's: joins and leaves are not held back (``hub.outbox.Source``)."""
        return None

    def handed_over(self, batch: Batch) -> None:
        """An outbox's: a join, a leave or the word of its end has left."""
        if self._session.dropped.get(self.topic) is self:
            del self._session.dropped[self.topic]
            self.release()

    def forget_queued(self) -> None:
        """The client has ended it: nothing that is queued for it is wanted any more."""
        self.outbox.discard(self)
        if self.subscription is not None:
            self.outbox.discard(self.subscription)

    def release(self) -> None:
        """It is over for good: nothing that refers to itself is left of it."""
        self.subscription = self.beginning = None

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """At the beginning the answer has said so; later the client is to subscribe again from where it is."""
        if self.beginning is None or gap.until != self.beginning.start:
            self._session.lose_subscription(self)

    def ended(self, subscription: Subscription, end: End) -> None:
        """The topic is finished."""
        self._session.drop_subscription(self, codes.TOPIC_FINISHED, end.error or codes.TOPIC_FINISHED.name)

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """The connection is too slow, or the server stops."""
        code = codes.SESSION_SHUTDOWN if why is Eviction.SHUTDOWN else codes.SLOW
        self._session.end(code, abrupt=why is not Eviction.SHUTDOWN)


def publisher_of(session: Session) -> bytes:
    """Who publishes, as it stands in ``Message.publisher``."""
    return _json.encode(client_info(Member(session.client, session.identity.user, session.info)))


def client_info(member: Member) -> packets.ClientInfo:
    """A member as the protocol says it."""
    return packets.ClientInfo(
        user=member.user,
        client=member.client,
        conn_info=msgspec.Raw(member.info) if member.info else NOTHING,
        chan_info=msgspec.Raw(member.topic_info) if member.topic_info else NOTHING,
    )
