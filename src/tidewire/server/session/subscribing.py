"""Topics of a session: subscribe, unsubscribe, refresh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tidewire.errors import BadToken, KeysUnavailable, NotCarried, TokenExpired, TooManyTopics
from tidewire.hub.policy import Latest
from tidewire.hub.subscription import Subscription
from tidewire.protocol import codes, packets
from tidewire.protocol import payload as payloads
from tidewire.protocol.message import Kind
from tidewire.protocol.patterns import is_pattern
from tidewire.protocol.position import NOW, START, Position, Since
from tidewire.server.durable import check_there
from tidewire.server.gate import Declaration
from tidewire.server.inner import Operation
from tidewire.server.session.asking import admitted, ask, decode_data, find, refused, told_of_names
from tidewire.server.session.reader import Beginning, SessionReader
from tidewire.server.session.session import Refused, Session
from tidewire.server.streams import snapshot_messages

if TYPE_CHECKING:
    from tidewire.server.tokens import SubscriptionGrant

logger = logging.getLogger("tidewire.server")

# the protocol has 32 bits for it, and some clients have no sign to spare
_TTL_MAX_S = 2**31 - 1
# bit 1 of a subscribe command's flag: error 112 instead of an answer that says "not recovered"
_REJECT_UNRECOVERED = 2


Begin = Callable[[SessionReader], Awaitable[Subscription]]
"""How an admitted subscription begins at the hub."""


async def subscribe(session: Session, request: packets.SubscribeRequest, command_id: int) -> None:
    """Bring a topic, or all topics of a pattern, to this session. The answer is given by ``SessionReader.opened``."""
    topic, site = request.channel, session.site
    if topic in session.subscriptions:
        raise Refused(codes.ALREADY_SUBSCRIBED)
    if len(session.subscriptions) >= site.limits.session_subscriptions_max:
        most = site.limits.session_subscriptions_max
        raise Refused(codes.LIMIT_EXCEEDED, f"one session has {most} subscriptions at most")
    declaration, begin = await (_admit_pattern if is_pattern(topic) else _admit)(session, request)
    grant = await _check_subscription_token(session, request.token, topic)
    if not session.is_connected:
        return
    session.overtake(topic)
    may_reject = bool(request.flag & _REJECT_UNRECOVERED)
    beginning = Beginning(command_id, was_recovering=request.recover, reject_unrecovered=may_reject)
    reader = SessionReader(session, topic, declaration, beginning)
    reader.hears_members = declaration.presence and (request.join_leave or declaration.join_leave)
    if grant is not None:
        expire_subscription(session, reader, grant.expires_at)
        reader.bearer = grant.bearer(session.identity.user)
        reader.info = b"" if grant.info is None else payloads.encode_json(grant.info)
    await _bring_up(session, reader, beginning, begin)


async def _admit(session: Session, request: packets.SubscribeRequest) -> tuple[Declaration, Begin]:
    """Note the position, then ask who may (CONTRACTS 6)."""
    topic, site = request.channel, session.site
    declaration = find(session, topic, request)
    _check_features(session, request, declaration)
    data = decode_data(request.data)
    rate = _rate_of(declaration, data)
    noted = await site.hub.note(topic)
    since = since_of(request, noted)
    if isinstance(declaration.policy, Latest) and not request.offset:
        # it has nothing of the state, or a part of it
        since = NOW
    asked_since = str(since) if isinstance(since, Position) else None
    admission = await ask(session, declaration, Operation("subscribe", topic, asked_since, data))
    missing = await check_there(site, topic, declaration)
    if missing is not None:
        raise refused(missing)
    snapshot = snapshot_messages(site, declaration, admission.value, noted)

    def begin(reader: SessionReader) -> Awaitable[Subscription]:
        return site.hub.subscribe(
            topic,
            declaration.policy,
            reader,
            since=since,
            noted=noted,
            snapshot=snapshot,
            rate=rate,
            rest_after_gap=False,
        )

    return declaration, begin


async def _admit_pattern(session: Session, request: packets.SubscribeRequest) -> tuple[Declaration, Begin]:
    """A pattern: its function is asked once, and the admission reaches only topics of its declaration."""
    pattern, gate = request.channel, session.site.gate
    with told_of_names():
        declaration, values = gate.find_pattern(pattern)
    _check_features(session, request, declaration)
    data = decode_data(request.data)
    rate = _rate_of(declaration, data)
    operation = Operation("subscribe", pattern, data=data)
    admitted(await gate.ask_pattern(declaration, values, operation, session.http, session.identity))

    def begin(reader: SessionReader) -> Awaitable[Subscription]:
        return session.site.hub.subscribe_pattern(
            pattern, declaration.policy, reader, admits=lambda topic: gate.admits(declaration, topic), rate=rate
        )

    return declaration, begin


def _check_features(session: Session, request: packets.SubscribeRequest, declaration: Declaration) -> None:
    """Refuse what is not spoken here (docs/protocols.md); delta and channel numbers are offers, not taken up."""
    if request.type:
        raise Refused(codes.NOT_AVAILABLE, "subscriptions to maps and shared polls are not offered here")
    if bytes(request.tf):
        raise Refused(codes.NOT_AVAILABLE, "filters of tags are not offered here")
    if session.framing.codec.is_text and declaration.payload is Kind.BYTES:
        raise Refused(codes.NOT_AVAILABLE, "this topic carries bytes: connect with Protobuf")


def since_of(request: packets.SubscribeRequest, noted: Position | None) -> Since:
    """Where the client wants to begin. Without an epoch it is taken to mean the present one."""
    if not request.recover:
        return NOW
    if request.epoch:
        return Position(request.epoch, request.offset)
    if noted is None:
        return START
    return Position(noted.epoch, request.offset)


def _rate_of(declaration: Declaration, data: Any) -> float | None:
    """Flushes a second of a ``Latest`` topic: ``{"max_per_s": n}`` in the data asks for fewer than are declared."""
    policy = declaration.policy
    if not isinstance(policy, Latest):
        return None
    asked = data.get("max_per_s") if isinstance(data, dict) else None
    if asked is None:
        return policy.max_per_s
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0.01 <= asked <= 1000:
        raise Refused(codes.BAD_COMMAND, "max_per_s is a number of flushes per second between 0.01 and 1000")
    rate = round(float(asked), 2)
    return rate if policy.max_per_s is None else min(rate, policy.max_per_s)


async def _check_subscription_token(session: Session, token: str, topic: str) -> SubscriptionGrant | None:
    identities = session.site.identities
    if not token:
        return None
    if identities is None or session.site.tokens is None:
        raise Refused(codes.PERMISSION_DENIED, "this server takes no tokens: it asks the topic's function only")
    try:
        return await identities.of_subscription(token, session.identity, topic)
    except KeysUnavailable as error:
        raise Refused(codes.INTERNAL, str(error)) from None
    except TokenExpired as error:
        raise Refused(codes.TOKEN_EXPIRED, str(error)) from None
    except BadToken as error:
        raise Refused(codes.PERMISSION_DENIED, str(error)) from None


def ttl_of(session: Session, moment: float) -> int:
    """How long a client is told that it has until ``moment`` (seconds since 1970)."""
    return min(max(1, int(session.seconds_until(moment))), _TTL_MAX_S)


def expire_subscription(session: Session, reader: SessionReader, moment: float | None) -> None:
    """End the subscription a grace after ``moment`` (seconds since 1970), unless it is told another one before."""
    if reader.expiry is not None:
        reader.expiry.cancel()
        reader.expiry = None
    if moment is None:
        return
    if reader.beginning is not None:
        reader.beginning.result.expires, reader.beginning.result.ttl = True, ttl_of(session, moment)
    delay_s = max(0.0, session.seconds_until(moment) + session.site.limits.session_expiry_grace_s)
    reader.expiry = session.site.hub.clock.call_later(
        delay_s, lambda: session.drop_subscription(reader, codes.SUBSCRIPTION_EXPIRED)
    )


async def _bring_up(session: Session, reader: SessionReader, beginning: Beginning, begin: Begin) -> None:
    """Subscribe at the hub; returns when the command is answered. A long past goes on beside the next commands."""
    session.subscriptions[reader.topic] = reader
    beginning.task = session.spawn(follow(session, reader, beginning, begin))
    both: set[asyncio.Future[Any]] = {beginning.task, beginning.answered}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not beginning.answered.done():
        # it has ended before it began: the session, or the reason is in the log
        session.forget_subscription(reader)
        if session.is_connected:
            raise Refused(beginning.fault or codes.INTERNAL)
        return
    if not beginning.answered.result():
        session.forget_subscription(reader)
        raise Refused(codes.UNRECOVERABLE)


async def follow(session: Session, reader: SessionReader, beginning: Beginning, begin: Begin) -> None:
    """Subscribe at the hub, and note what went wrong there."""
    try:
        subscription = await begin(reader)
    except TooManyTopics:
        beginning.fault = codes.LIMIT_EXCEEDED
    except NotCarried:
        beginning.fault = codes.NOT_AVAILABLE
    except Exception:
        logger.exception("subscribing to %r failed", reader.topic)
    else:
        reader.subscription = subscription
        reader.beginning = None
        if session.subscriptions.get(reader.topic) is not reader:
            session.site.hub.unsubscribe(subscription)
            if session.dropped.get(reader.topic) is not reader:
                reader.release()


async def unsubscribe(
    session: Session, request: packets.UnsubscribeRequest, command_id: int
) -> packets.UnsubscribeResult:
    """Leave a topic; one that is not there is left already."""
    if not request.channel:
        session.end(codes.BAD_REQUEST, "unsubscribe without a channel")
        raise Refused(codes.BAD_COMMAND)
    reader = session.subscriptions.get(request.channel)
    if reader is not None:
        session.forget_subscription(reader)
        reader.forget_queued()
    session.overtake(request.channel)
    return packets.UnsubscribeResult()


async def sub_refresh(
    session: Session, request: packets.SubRefreshRequest, command_id: int
) -> packets.SubRefreshResult:
    """A new token for a subscription: its right is asked for again."""
    if request.type:
        raise Refused(codes.NOT_AVAILABLE, "shared polls are not offered here")
    if not is_pattern(request.channel):
        find(session, request.channel, request)
    reader = session.subscriptions.get(request.channel)
    if reader is None:
        raise Refused(codes.BAD_COMMAND, "there is no such subscription to refresh")
    if not request.token:
        raise Refused(codes.BAD_COMMAND, "a token is needed to refresh a subscription")
    await _ask_again(session, reader)
    # last, as on subscribe: what is revoked while the function runs is revoked
    grant = await _check_subscription_token(session, request.token, request.channel)
    assert grant is not None, "a token was given"
    if session.subscriptions.get(request.channel) is not reader:
        raise Refused(codes.BAD_COMMAND, "the subscription has ended meanwhile")
    expire_subscription(session, reader, grant.expires_at)
    reader.bearer = grant.bearer(session.identity.user)
    if grant.expires_at is None:
        return packets.SubRefreshResult()
    return packets.SubRefreshResult(expires=True, ttl=ttl_of(session, grant.expires_at))


async def _ask_again(session: Session, reader: SessionReader) -> None:
    operation, gate = Operation("subscribe", reader.topic), session.site.gate
    if not is_pattern(reader.topic):
        await ask(session, reader.declaration, operation)
        return
    with told_of_names():
        declaration, values = gate.find_pattern(reader.topic)
    admitted(await gate.ask_pattern(declaration, values, operation, session.http, session.identity))
