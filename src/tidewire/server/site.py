"""What every endpoint shares: the hub, the gate, the rules of the house and the connections that are open."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from tidewire.clock import Clock
from tidewire.errors import BadPosition, BadTopic, TokenExpired, UnknownTopic
from tidewire.hub.hub import Hub
from tidewire.hub.presence import Presence
from tidewire.hub.subscription import Eviction
from tidewire.limits import Limits
from tidewire.protocol.codes import SESSION_SHUTDOWN
from tidewire.protocol.position import NOW, Since, parse_since
from tidewire.protocol.topics import validate_topic
from tidewire.server.calls import Calls
from tidewire.server.connection import Connection
from tidewire.server.gate import Declaration, Gate, Refusal
from tidewire.server.hooks import Hooks
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.origin import OriginRule, is_loopback
from tidewire.server.publisher import Publisher
from tidewire.server.pump import Pump
from tidewire.server.revocations import Revocations
from tidewire.server.session.reader import Pages
from tidewire.server.session.registry import Sessions
from tidewire.server.tenures import Tenures, expire
from tidewire.server.tickets import Tickets
from tidewire.wire.wheel import Wheel

if TYPE_CHECKING:
    from tidewire.server.identities import Identities
    from tidewire.server.tokens import Tokens

logger = logging.getLogger("tidewire.server")


@dataclass(slots=True)
class Site:
    """Shared by the endpoints of one ``Live``."""

    hub: Hub
    gate: Gate
    publisher: Publisher
    limits: Limits
    origins: OriginRule
    trusted_proxies: Sequence[str] = ()
    rng: random.Random = field(default_factory=random.Random)
    # who writes to connections on plain ASGI in a flush
    pump: Pump = field(default_factory=Pump)
    # streaming connections, and how many each address holds
    connections: set[Connection] = field(default_factory=set)
    addresses: Counter[str] = field(default_factory=Counter)
    # no new reader is let in any more
    draining: bool = False
    # what sessions share: deadlines, who is connected, who is on which topic, and what the application wants to hear
    wheel: Wheel = field(init=False)
    sessions: Sessions = field(init=False)
    # how long who reads without a session may stay
    tenures: Tenures = field(init=False)
    presence: Presence = field(init=False)
    hooks: Hooks = field(init=False)
    pages: Pages = field(init=False)
    calls: Calls = field(init=False)
    tickets: Tickets = field(init=False)
    revocations: Revocations = field(init=False)
    # who callers are, and how tokens are verified, where the application takes any
    identities: Identities | None = None
    tokens: Tokens | None = None
    # finds what hands the socket over that an ASGI ``receive`` belongs to, on a server without our extension
    take_over: Callable[[Any], Callable[..., Any] | None] | None = None
    # the log says how to get the fast wire
    is_fast_way_told: bool = False

    def __post_init__(self) -> None:
        clock, grace_s = self.hub.clock, self.limits.presence_grace_s
        self.wheel = Wheel(clock)
        self.pages = Pages()
        self.hooks = Hooks(self.gate.inner)
        self.calls = Calls(self.gate.inner, self.limits)
        self.tenures = Tenures(clock)
        self.sessions = Sessions(clock, self.hooks, grace_s=grace_s)
        self.presence = Presence(clock, grace_s=grace_s)
        self.tickets = Tickets(clock, lifetime_s=self.limits.ticket_lifetime_s, most=self.limits.tickets_max)
        self.revocations = Revocations(clock, most=self.limits.revocations_max)

    def use_clock(self, clock: Clock) -> None:
        """Let what waits here follow ``clock``; before anybody is connected."""
        self.wheel = Wheel(clock)
        self.sessions.clock = self.presence.clock = clock
        self.tickets.clock = self.revocations.clock = self.tenures.clock = clock
        if self.identities is not None:
            self.identities.use_clock(clock)

    async def identify(self, connection: HTTPConnection) -> Identity | Refusal:
        """Who the caller of an upgrade is, as far as it says."""
        return ANONYMOUS if self.identities is None else await self.identities.of(connection)

    def find(self, connection: HTTPConnection) -> tuple[str, Declaration] | Refusal:
        """The topic that the URL names, and its declaration."""
        try:
            topic = validate_topic(connection.path_params["topic"])
            return topic, self.gate.find(topic)
        except BadTopic as error:
            return Refusal(404, str(error))
        except UnknownTopic:
            return Refusal(404, "no such topic here")

    def check_origin(self, connection: HTTPConnection) -> Refusal | None:
        """Refuse pages of other sites (CONTRACTS 11)."""
        origin = connection.headers.get("origin")
        server = connection.scope.get("server")
        if self.origins.permits(origin, self.host_of(connection), server[0] if server else None):
            return None
        sentence = self.origins.explain(origin or "")
        logger.warning("refused %s: %s", connection.url.path, sentence)
        return Refusal(403, sentence)

    def host_of(self, connection: HTTPConnection) -> str | None:
        """The Host the client asked for; a proxy's word counts only from configured peers."""
        peer = connection.client.host if connection.client else None
        if peer in self.trusted_proxies:
            forwarded = connection.headers.get("x-forwarded-host")
            if forwarded:
                return forwarded.split(",")[0].strip()
        return connection.headers.get("host")

    def caller_scope(self, connection: HTTPConnection) -> str:
        """A short name for whoever presents these credentials: publish ids of one caller do not meet another's."""
        headers = connection.headers
        credentials = f"{headers.get('authorization', '')}\n{headers.get('cookie', '')}"
        return hashlib.blake2b(credentials.encode("latin-1", "replace"), digest_size=9).hexdigest()

    def enter(self, connection: Connection, address: str) -> None:
        """``connection`` is open, from ``address``."""
        self.connections.add(connection)
        self.addresses[address] += 1

    def stay(self, connection: Connection, http: HTTPConnection) -> None:
        """``connection`` ends when its caller's token does, or is revoked, where the application asked who that is."""
        identity = None if self.identities is None else self.identities.seen(http)
        if self.identities is None or identity in (None, ANONYMOUS) or connection not in self.connections:
            return
        self.tenures.begin(connection, identity, leeway_s=self.identities.leeway_s)
        try:
            # it may have been revoked while the topic's function ran
            self.identities.check(identity)
        except TokenExpired as error:
            expire(connection, str(error))

    def leave(self, connection: Connection, address: str) -> None:
        """It is not any more; twice is nothing."""
        if connection not in self.connections:
            return
        self.tenures.end(connection)
        self.connections.discard(connection)
        self.addresses[address] -= 1
        if self.addresses[address] <= 0:
            del self.addresses[address]

    def check_room(self, connection: HTTPConnection) -> Refusal | None:
        """Refuse while draining, and an address that holds too many connections; loopback is not counted."""
        if self.draining:
            return Refusal(503, "the server stops: try again in a moment", {"retry-after": "1"})
        address = address_of(connection)
        limit = self.limits.connections_per_address_max
        if self.addresses[address] >= limit and not is_loopback(address):
            return Refusal(429, f"{limit} connections are open from this address already", {"retry-after": "10"})
        return None

    async def drain(self) -> None:
        """End every stream as a shutdown; who has not taken it when the time is up is aborted."""
        self.draining = True
        self.sessions.end_all(SESSION_SHUTDOWN)
        self.hub.evict_all(Eviction.SHUTDOWN)
        deadline = asyncio.get_running_loop().time() + self.limits.shutdown_s / 2
        while self.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - ends by itself
            await asyncio.sleep(0.02)
        if self.connections:
            logger.warning("%d connections did not take the goodbye in time and are aborted", len(self.connections))
        for connection in list(self.connections):
            connection.drop()


def address_of(connection: HTTPConnection) -> str:
    """The peer's address; empty where it is not known."""
    return connection.client.host if connection.client else ""


def parse_since_of(connection: HTTPConnection) -> Since | Refusal:
    """Where the caller wants to begin: ``Last-Event-ID``, else ``?since=`` or ``?offset=``, else now.

    A browser that comes back cannot change its URL: the header is newer than what the URL says.
    """
    query = connection.query_params
    text = connection.headers.get("last-event-id") or query.get("since") or query.get("offset")
    if not text:
        return NOW
    try:
        return parse_since(text)
    except BadPosition as error:
        return Refusal(400, str(error))


def parse_rate(connection: HTTPConnection, most: float | None) -> float | Refusal | None:
    """``?max_per_s=`` of a ``Latest`` topic: slower than the declaration's, never faster."""
    text = connection.query_params.get("max_per_s")
    if text is None:
        return most
    try:
        rate = round(float(text), 2)
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 1000:
        return Refusal(400, "max_per_s is a number of flushes per second between 0.01 and 1000")
    return rate if most is None else min(rate, most)
