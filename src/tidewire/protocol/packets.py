"""The packets of sessions: Centrifuge client protocol v2 as one set of types for both of its codecs.

Source: ``client.proto`` of github.com/centrifugal/protocol. Fields have the names they have there (the names of the
JSON form), and their numbers (the Protobuf form) beside them. "Channel" is the protocol's word for a topic. Numbers
count seconds where the protocol says nothing else.

``Raw`` is what the application has said and what is passed on as it is: embedded JSON in the JSON form, bytes in the
Protobuf form; empty when it was not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Raw, Struct, field

from tidewire.protocol.position import OFFSET_MAX

NOTHING: Final = Raw()
"""No data: the field is left out."""


def _at(number: int) -> Meta:
    """The number of a field in the Protobuf form."""
    return Meta(extra={"number": number})


UInt32: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1, extra={"kind": "uint32"})]
# offsets only, and ours have 63 bits
UInt64: TypeAlias = Annotated[int, Meta(ge=0, le=OFFSET_MAX, extra={"kind": "uint64"})]
Int32: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, extra={"kind": "int32"})]
Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, extra={"kind": "int64"})]


class Packet(Struct, omit_defaults=True, gc=False):
    """What all are: a field at its default is not sent. None is part of a cycle, and crowds of them come and go."""


# What a client asks for


class SubscribeRequest(Packet):
    """Subscribe to a channel. What this server does not speak is here to be refused."""

    channel: Annotated[str, _at(1)] = ""
    token: Annotated[str, _at(2)] = ""
    # the position to recover from
    recover: Annotated[bool, _at(3)] = False
    epoch: Annotated[str, _at(6)] = ""
    offset: Annotated[UInt64, _at(7)] = 0
    data: Annotated[Raw, _at(8)] = NOTHING
    positioned: Annotated[bool, _at(9)] = False
    recoverable: Annotated[bool, _at(10)] = False
    join_leave: Annotated[bool, _at(11)] = False
    delta: Annotated[str, _at(12)] = ""
    # a filter of tags; a message of its own, looked at by nobody here
    tf: Annotated[Raw, _at(13)] = NOTHING
    # bit 0: numbers for channels; bit 1: error 112 instead of "not recovered"
    flag: Annotated[Int64, _at(14)] = 0
    # 0: a stream; 1 to 3: maps; 4: shared poll
    type: Annotated[Int32, _at(15)] = 0


class ConnectRequest(Packet):
    """The first command of a connection."""

    token: Annotated[str, _at(1)] = ""
    data: Annotated[Raw, _at(2)] = NOTHING
    # positions of the subscriptions that the server makes by itself
    subs: Annotated[dict[str, SubscribeRequest], _at(3)] = field(default_factory=dict)
    name: Annotated[str, _at(4)] = ""
    version: Annotated[str, _at(5)] = ""
    # what a browser cannot put in the request of a WebSocket
    headers: Annotated[dict[str, str], _at(6)] = field(default_factory=dict)
    flag: Annotated[Int64, _at(7)] = 0


class UnsubscribeRequest(Packet):
    """Leave a channel."""

    channel: Annotated[str, _at(1)] = ""


class PublishRequest(Packet):
    """Publish to a channel."""

    channel: Annotated[str, _at(1)] = ""
    data: Annotated[Raw, _at(2)] = NOTHING
    # 1: to a map
    type: Annotated[Int32, _at(3)] = 0


class PresenceRequest(Packet):
    """Ask who is in a channel."""

    channel: Annotated[str, _at(1)] = ""


class PresenceStatsRequest(Packet):
    """Ask how many are in a channel."""

    channel: Annotated[str, _at(1)] = ""


class StreamPosition(Packet):
    """A place in a channel's history."""

    offset: Annotated[UInt64, _at(1)] = 0
    epoch: Annotated[str, _at(2)] = ""


class HistoryRequest(Packet):
    """Ask for what is kept of a channel. ``limit``: 0 for the position only, -1 for all."""

    channel: Annotated[str, _at(1)] = ""
    limit: Annotated[Int32, _at(7)] = 0
    # exclusive; with ``reverse`` the walk goes down from it
    since: Annotated[StreamPosition | None, _at(8)] = None
    reverse: Annotated[bool, _at(9)] = False


class PingRequest(Packet):
    """A ping of the client's; no SDK sends it, servers ping here."""


class SendRequest(Packet):
    """Data for the server, without a reply."""

    data: Annotated[Raw, _at(1)] = NOTHING


class RPCRequest(Packet):
    """Call a method."""

    data: Annotated[Raw, _at(1)] = NOTHING
    method: Annotated[str, _at(2)] = ""


class RefreshRequest(Packet):
    """A new token of the connection's."""

    token: Annotated[str, _at(1)] = ""


class SubRefreshRequest(Packet):
    """A new token of a subscription's."""

    channel: Annotated[str, _at(1)] = ""
    token: Annotated[str, _at(2)] = ""
    # 1 and 2: shared poll
    type: Annotated[Int32, _at(3)] = 0


Request: TypeAlias = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | PingRequest
    | SendRequest
    | RPCRequest
    | RefreshRequest
    | SubRefreshRequest
)


class Command(Packet):
    """What a client sends. Without an id and a request it is the answer to a ping."""

    id: Annotated[UInt32, _at(1)] = 0
    connect: Annotated[ConnectRequest | None, _at(4)] = None
    subscribe: Annotated[SubscribeRequest | None, _at(5)] = None
    unsubscribe: Annotated[UnsubscribeRequest | None, _at(6)] = None
    publish: Annotated[PublishRequest | None, _at(7)] = None
    presence: Annotated[PresenceRequest | None, _at(8)] = None
    presence_stats: Annotated[PresenceStatsRequest | None, _at(9)] = None
    history: Annotated[HistoryRequest | None, _at(10)] = None
    ping: Annotated[PingRequest | None, _at(11)] = None
    send: Annotated[SendRequest | None, _at(12)] = None
    rpc: Annotated[RPCRequest | None, _at(13)] = None
    refresh: Annotated[RefreshRequest | None, _at(14)] = None
    sub_refresh: Annotated[SubRefreshRequest | None, _at(15)] = None

    @property
    def request(self) -> Request | None:
        """The first there is, in the order of the fields (``client.proto``, Command)."""
        return next(self._requests(), None)

    def _requests(self) -> Iterator[Request]:
        for name in self.__struct_fields__[1:]:
            request: Request | None = getattr(self, name)
            if request is not None:
                yield request


# What a server answers


class Error(Packet):
    """Why a command was refused. ``temporary``: asking again may help."""

    code: Annotated[UInt32, _at(1)] = 0
    message: Annotated[str, _at(2)] = ""
    temporary: Annotated[bool, _at(3)] = False


class ClientInfo(Packet):
    """Somebody's connection: who, which connection of theirs, and what they let be known."""

    user: Annotated[str, _at(1)] = ""
    client: Annotated[str, _at(2)] = ""
    conn_info: Annotated[Raw, _at(3)] = NOTHING
    chan_info: Annotated[Raw, _at(4)] = NOTHING


class Publication(Packet):
    """A message of a channel. ``offset`` 0: it has no position. ``time``: ms since 1970."""

    data: Annotated[Raw, _at(4)] = NOTHING
    # only where a client has published it
    info: Annotated[ClientInfo | None, _at(5)] = None
    offset: Annotated[UInt64, _at(6)] = 0
    tags: Annotated[dict[str, str], _at(7)] = field(default_factory=dict)
    time: Annotated[Int64, _at(9)] = 0
    # with subscriptions to patterns
    channel: Annotated[str, _at(10)] = ""


class SubscribeResult(Packet):
    """Subscribed: from which position on, and what was missed."""

    expires: Annotated[bool, _at(1)] = False
    ttl: Annotated[UInt32, _at(2)] = 0
    recoverable: Annotated[bool, _at(3)] = False
    epoch: Annotated[str, _at(6)] = ""
    # ascending; as a server writes them they may be prepared (``Codec.prepare``)
    publications: Annotated[list[Publication], _at(7)] = field(default_factory=list)
    recovered: Annotated[bool, _at(8)] = False
    # where ``publications`` begin; without any: the channel's present position
    offset: Annotated[UInt64, _at(9)] = 0
    positioned: Annotated[bool, _at(10)] = False
    data: Annotated[Raw, _at(11)] = NOTHING
    was_recovering: Annotated[bool, _at(12)] = False


class ConnectResult(Packet):
    """Welcome. ``ping``: how often the server pings; ``pong``: whether it wants answers. ``time``: ms since 1970."""

    client: Annotated[str, _at(1)] = ""
    version: Annotated[str, _at(2)] = ""
    expires: Annotated[bool, _at(3)] = False
    ttl: Annotated[UInt32, _at(4)] = 0
    data: Annotated[Raw, _at(5)] = NOTHING
    subs: Annotated[dict[str, SubscribeResult], _at(6)] = field(default_factory=dict)
    ping: Annotated[UInt32, _at(7)] = 0
    pong: Annotated[bool, _at(8)] = False
    session: Annotated[str, _at(9)] = ""
    node: Annotated[str, _at(10)] = ""
    time: Annotated[Int64, _at(11)] = 0


class UnsubscribeResult(Packet):
    """Left."""


class PublishResult(Packet):
    """Published."""


class PresenceResult(Packet):
    """Who is there, by the ids of their connections."""

    presence: Annotated[dict[str, ClientInfo], _at(1)] = field(default_factory=dict)


class PresenceStatsResult(Packet):
    """How many are there."""

    num_clients: Annotated[UInt32, _at(1)] = 0
    num_users: Annotated[UInt32, _at(2)] = 0


class HistoryResult(Packet):
    """What is kept, and the channel's present position."""

    publications: Annotated[list[Publication], _at(1)] = field(default_factory=list)
    epoch: Annotated[str, _at(2)] = ""
    offset: Annotated[UInt64, _at(3)] = 0


class PingResult(Packet):
    """An answer to a client's ping."""


class RPCResult(Packet):
    """What the method has returned."""

    data: Annotated[Raw, _at(1)] = NOTHING


class RefreshResult(Packet):
    """The new token is taken."""

    client: Annotated[str, _at(1)] = ""
    version: Annotated[str, _at(2)] = ""
    expires: Annotated[bool, _at(3)] = False
    ttl: Annotated[UInt32, _at(4)] = 0


class SubRefreshResult(Packet):
    """The new token of a subscription is taken."""

    expires: Annotated[bool, _at(1)] = False
    ttl: Annotated[UInt32, _at(2)] = 0


# What a server says by itself


class Join(Packet):
    """Somebody has come to a channel."""

    info: Annotated[ClientInfo | None, _at(1)] = None


class Leave(Packet):
    """Somebody has left a channel."""

    info: Annotated[ClientInfo | None, _at(1)] = None


class Unsubscribe(Packet):
    """The server has ended a subscription: 2500 and above, subscribe again."""

    code: Annotated[UInt32, _at(2)] = 0
    reason: Annotated[str, _at(3)] = ""


class Message(Packet):
    """Data for this connection alone."""

    data: Annotated[Raw, _at(1)] = NOTHING


class Subscribe(Packet):
    """The server has subscribed the connection."""

    recoverable: Annotated[bool, _at(1)] = False
    epoch: Annotated[str, _at(4)] = ""
    offset: Annotated[UInt64, _at(5)] = 0
    positioned: Annotated[bool, _at(6)] = False
    data: Annotated[Raw, _at(7)] = NOTHING


class Disconnect(Packet):
    """The connection ends; the close frame says the same."""

    code: Annotated[UInt32, _at(1)] = 0
    reason: Annotated[str, _at(2)] = ""
    reconnect: Annotated[bool, _at(3)] = False


class Refresh(Packet):
    """What is known of the token's end has changed."""

    expires: Annotated[bool, _at(1)] = False
    ttl: Annotated[UInt32, _at(2)] = 0


class Push(Packet):
    """What a server says about a channel, or about the connection."""

    channel: Annotated[str, _at(2)] = ""
    pub: Annotated[Publication | None, _at(4)] = None
    join: Annotated[Join | None, _at(5)] = None
    leave: Annotated[Leave | None, _at(6)] = None
    unsubscribe: Annotated[Unsubscribe | None, _at(7)] = None
    message: Annotated[Message | None, _at(8)] = None
    subscribe: Annotated[Subscribe | None, _at(9)] = None
    disconnect: Annotated[Disconnect | None, _at(11)] = None
    refresh: Annotated[Refresh | None, _at(12)] = None


class Reply(Packet):
    """What a server sends: the answer to the command of that id, a push, or (empty) a ping."""

    id: Annotated[UInt32, _at(1)] = 0
    error: Annotated[Error | None, _at(2)] = None
    push: Annotated[Push | None, _at(4)] = None
    connect: Annotated[ConnectResult | None, _at(5)] = None
    subscribe: Annotated[SubscribeResult | None, _at(6)] = None
    unsubscribe: Annotated[UnsubscribeResult | None, _at(7)] = None
    publish: Annotated[PublishResult | None, _at(8)] = None
    presence: Annotated[PresenceResult | None, _at(9)] = None
    presence_stats: Annotated[PresenceStatsResult | None, _at(10)] = None
    history: Annotated[HistoryResult | None, _at(11)] = None
    ping: Annotated[PingResult | None, _at(12)] = None
    rpc: Annotated[RPCResult | None, _at(13)] = None
    refresh: Annotated[RefreshResult | None, _at(14)] = None
    sub_refresh: Annotated[SubRefreshResult | None, _at(15)] = None


_RESULT_FIELDS: Final = {
    ConnectResult: "connect",
    SubscribeResult: "subscribe",
    UnsubscribeResult: "unsubscribe",
    PublishResult: "publish",
    PresenceResult: "presence",
    PresenceStatsResult: "presence_stats",
    HistoryResult: "history",
    RPCResult: "rpc",
    RefreshResult: "refresh",
    SubRefreshResult: "sub_refresh",
}


def answer(command_id: int, result: Packet) -> Reply:
    """The reply to the command of that id."""
    reply = Reply(id=command_id)
    setattr(reply, _RESULT_FIELDS[type(result)], result)
    return reply
