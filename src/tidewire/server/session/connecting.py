"""The beginning of a session: who it is, what it gets; and a new token in time."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from functools import cache
from importlib.metadata import version

import msgspec

from tidewire.errors import BadToken, BadTopic, KeysUnavailable, TokenExpired, TooManyTopics, UnknownTopic
from tidewire.hub.subscription import Subscription
from tidewire.protocol import codes, packets
from tidewire.protocol import payload as payloads
from tidewire.protocol.packets import ConnectResult, SubscribeRequest, SubscribeResult
from tidewire.protocol.position import NOW, Position, Since
from tidewire.server.gate import Declaration
from tidewire.server.hooks import CONNECT, Welcome
from tidewire.server.identity import Identity
from tidewire.server.inner import Refusal
from tidewire.server.session.asking import decode_data, refused
from tidewire.server.session.reader import Beginning, SessionReader, publication
from tidewire.server.session.session import Refused, Session, State
from tidewire.server.session.subscribing import follow, since_of, ttl_of

logger = logging.getLogger("tidewire.server")

KEY_HEADER = "tidewire-session"
_KEY = re.compile(r"[\x21-\x7e]{8,128}\Z")


async def connect(session: Session, request: packets.ConnectRequest, command_id: int) -> ConnectResult | None:
    """Find out who it is, ask the application, subscribe it to what the server chooses, and answer."""
    session.state = State.CONNECTING
    try:
        session.identity = await _identify(session, request.token)
        welcome = await _welcome(session, request)
        session.key = _key_of(session, request)
    except Refused:
        session.state = State.REFUSED
        raise
    if session.is_over() or _is_revoked(session):
        # before it takes the place of another
        return None
    identity = session.identity
    info = identity.info if welcome.info is None else welcome.info
    session.info = b"" if info is None else payloads.encode_json(info)
    client = session.site.sessions.name(session)
    if client is None:
        session.end(codes.REPLACED)
        return None
    session.client = client
    topics = dict.fromkeys([*welcome.topics, *_topics_of(identity)])
    started = {topic: await _recover(session, topic, request.subs.get(topic)) for topic in topics}
    if session.is_over() or _is_revoked(session):
        return None
    session.connected()
    session.expire_at(identity.expires_at)
    result = _result(session, welcome)
    result.subs = {topic: begun.result for topic, begun in started.items() if begun is not None}
    session.reply_now(command_id, result)
    for begun in started.values():
        if begun is not None:
            begun.go_on(session)
    return None


async def _identify(session: Session, token: str) -> Identity:
    """A token says who it is; without one it is who the handshake was from, unless that has ended since."""
    identities = session.site.identities
    if identities is None and not token:
        return session.identity
    if identities is None or (token and session.site.tokens is None):
        raise Refused(codes.UNAUTHORIZED, "this server takes no tokens")
    try:
        if token:
            return await identities.of_token(token)
        identities.check(session.identity)
        return session.identity
    except KeysUnavailable as error:
        raise Refused(codes.INTERNAL, str(error)) from None
    except TokenExpired as error:
        raise Refused(codes.TOKEN_EXPIRED, str(error)) from None
    except BadToken as error:
        session.end(codes.INVALID_TOKEN, str(error))
        raise Refused(codes.UNAUTHORIZED) from None


def _is_revoked(session: Session) -> bool:
    """End a session that was revoked while it connected: ``live.revoke`` ends those that have."""
    if not session.site.revocations.is_revoked(session.identity):
        return False
    session.end(codes.EXPIRED, "the token was revoked")
    return True


async def _welcome(session: Session, request: packets.ConnectRequest) -> Welcome:
    admission = await session.site.hooks.run(CONNECT, session.http, session.identity, decode_data(request.data))
    if isinstance(admission, Refusal):
        if admission.status == 403:
            session.end(codes.SESSION_DENIED, admission.sentence)
        raise refused(admission)
    value = admission.value
    return value if isinstance(value, Welcome) else Welcome(data=value)


def _key_of(session: Session, request: packets.ConnectRequest) -> str | None:
    """The name under which the client comes back: ``?session=`` of the URL, or a header of the connect command."""
    given = session.key
    for name, value in request.headers.items():
        if name.lower() == KEY_HEADER:
            given = value
    if given is None:
        return None
    if not _KEY.match(given):
        raise Refused(codes.BAD_COMMAND, "the key of a session is 8 to 128 visible ASCII characters")
    return given


def _topics_of(identity: Identity) -> list[str]:
    """The topics that a token subscribes its bearer to (claims ``channels`` and ``subs``)."""
    channels, subs = identity.claims.get("channels"), identity.claims.get("subs")
    listed = [topic for topic in channels if isinstance(topic, str)] if isinstance(channels, list) else []
    return listed + (list(subs) if isinstance(subs, dict) else [])


@cache
def _version() -> str:
    return f"tidewire {version('tidewire')}"


def _result(session: Session, welcome: Welcome) -> ConnectResult:
    result = ConnectResult(client=session.client, version=_version())
    if session.is_pinged:
        result.ping, result.pong = max(1, round(session.site.limits.session_ping_s)), True
    expires_at = session.identity.expires_at
    if expires_at is not None:
        result.expires, result.ttl = True, ttl_of(session, expires_at)
    if welcome.data is not None:
        result.data = msgspec.Raw(payloads.encode_json(welcome.data))
    return result


class _Begun:
    """A subscription of the server's: what the connect result says of it, and where the rest begins."""

    def __init__(self, topic: str, declaration: Declaration, result: SubscribeResult, since: Since) -> None:
        self.topic = topic
        self.declaration = declaration
        self.result = result
        self._since = since

    def go_on(self, session: Session) -> None:
        """Subscribe at the hub, from where the result ends."""
        beginning = Beginning(0)
        reader = SessionReader(session, self.topic, self.declaration, beginning)
        reader.hears_members = self.declaration.presence and self.declaration.join_leave
        session.subscriptions[self.topic] = reader
        beginning.task = session.spawn(_bring_up(session, reader, beginning, self._since))


async def _bring_up(session: Session, reader: SessionReader, beginning: Beginning, since: Since) -> None:

    def begin(reader: SessionReader) -> Awaitable[Subscription]:
        policy = reader.declaration.policy
        return session.site.hub.subscribe(reader.topic, policy, reader, since=since, rest_after_gap=False)

    await follow(session, reader, beginning, begin)
    if beginning.answered.done() and not beginning.answered.result():
        session.lose_subscription(reader)


async def _recover(session: Session, topic: str, request: SubscribeRequest | None) -> _Begun | None:
    """Begin a topic of the server's choice where the client was; its function is not asked, who chose it has been."""
    site = session.site
    try:
        declaration = site.gate.find(topic)
        noted = await site.hub.note(topic)
    except (BadTopic, UnknownTopic, TooManyTopics):
        logger.error("a session is to be subscribed to %r, and there is no such topic, or no room for it", topic)
        return None
    result = SubscribeResult()
    is_numbered = declaration.policy.retention.keep > 0
    if is_numbered and noted is not None:
        result.recoverable = result.positioned = True
        result.epoch, result.offset = noted
    if request is None or not request.recover or not is_numbered:
        return _Begun(topic, declaration, result, NOW if noted is None else noted)
    result.was_recovering = True
    since = since_of(request, noted)
    history = await site.hub.read(topic, since, site.limits.page_messages_max)
    if history is None or not history.complete:
        return _Begun(topic, declaration, result, NOW if noted is None else noted)
    result.recovered, result.epoch, result.offset = True, history.start.epoch, history.start.offset
    last = history.messages[-1].offset if history.messages else history.start.offset
    size = sum(len(message.payload) for message in history.messages)
    if last < history.top.offset or size > site.limits.outbox_bytes_max // 2:
        # a long past follows as pushes
        return _Begun(topic, declaration, result, history.start)
    result.publications = [publication(message, session.framing.codec) for message in history.messages]
    return _Begun(topic, declaration, result, Position(history.top.epoch, last))


async def refresh(session: Session, request: packets.RefreshRequest, command_id: int) -> packets.RefreshResult:
    """A new token for the same user: the connection goes on until that one ends."""
    if not request.token:
        raise Refused(codes.BAD_COMMAND, "a token is needed to refresh a connection")
    try:
        identity = await _identify(session, request.token)
    except Refused:
        if session.is_connected:
            raise
        return packets.RefreshResult()
    if identity.user != session.identity.user:
        session.end(codes.INVALID_TOKEN, "the new token is another user's")
        return packets.RefreshResult()
    session.identity = identity
    session.expire_at(identity.expires_at)
    result = packets.RefreshResult(client=session.client, version=_version())
    if identity.expires_at is not None:
        result.expires, result.ttl = True, ttl_of(session, identity.expires_at)
    return result
