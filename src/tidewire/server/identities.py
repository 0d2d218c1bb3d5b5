"""Who asks, found out: by token, by ticket, or by the application's own dependency."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import HTTPException
from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from tidewire.clock import Clock
from tidewire.errors import BadToken, DeclarationError, KeysUnavailable, TokenExpired, TokenRevoked
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.inner import CALL, KNOWN, OUTER, Call, Inner, Operation, Refusal, make_endpoint, refuse_websockets
from tidewire.server.revocations import Revocations
from tidewire.server.tickets import UNKNOWN, Tickets
from tidewire.server.tokens import SubscriptionGrant, Tokens

logger = logging.getLogger("tidewire.server")

_IDENTIFY = "identify"
# RFC 6750 section 3.1
_INVALID = {"www-authenticate": 'Bearer error="invalid_token"'}
_VOID = "the ticket is not good: it was used, or is too old; ask for another"


@dataclass(slots=True)
class _Known:
    """What was found out about one request or handshake; a ticket is good once, and asked about many times."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # what does not change any more: of a token, a ticket, or a request
    identity: Identity | None = None
    # who it was when somebody asked last
    seen: Identity | None = None


class Identities:
    """Who callers are: by token, by ticket, or by the application's own dependency; else nobody known.

    ``provider``: the dependency; it returns a user's id, an ``Identity``, or None. Time is that of ``revocations``.
    """

    def __init__(
        self,
        inner: Inner,
        tokens: Tokens | None,
        provider: Callable[..., Any] | None,
        *,
        tickets: Tickets,
        revocations: Revocations,
    ) -> None:
        self._inner = inner
        self._tokens = tokens
        self._tickets = tickets
        self._revocations = revocations
        self._has_provider = provider is not None
        self.use_clock(revocations.clock)
        if provider is not None:
            try:
                endpoint = make_endpoint(provider, "identity function")
                inner.add("/identity", endpoint, check=_check)
            except DeclarationError:
                raise
            except Exception as error:
                raise DeclarationError(f"identity: {error}") from error

    def use_clock(self, clock: Clock) -> None:
        """Let tokens follow ``clock``; before anybody has come."""
        self._clock = clock
        if self._tokens is not None:
            self._tokens = self._tokens.on(clock)

    @property
    def leeway_s(self) -> float:
        """How long after its end an identity is still good: clocks differ."""
        return 0.0 if self._tokens is None else self._tokens.leeway_s

    # Tokens

    async def of_token(self, token: str) -> Identity:
        """Who the bearer of a connection token is.

        Raises ``BadToken``, ``TokenExpired`` (and ``TokenRevoked``, which is one) and ``KeysUnavailable``.
        """
        if self._tokens is None:
            raise BadToken("this server takes no tokens")
        identity = await self._tokens.verify_connection(token)
        if self._revocations.is_revoked(identity):
            raise TokenRevoked
        return identity

    async def of_subscription(self, token: str, identity: Identity, topic: str) -> SubscriptionGrant:
        """What a subscription token grants ``identity`` on ``topic``; raises as ``of_token`` does."""
        if self._tokens is None:
            raise BadToken("this server takes no tokens")
        grant = await self._tokens.verify_subscription(token, identity, topic)
        if self._revocations.is_revoked(grant.bearer(identity.user)):
            raise TokenRevoked
        return grant

    # Requests and handshakes

    async def of(self, connection: HTTPConnection) -> Identity | Refusal:
        """Who is behind a request or a handshake; a credential that is presented and bad is a refusal.

        A token or a ticket is looked at once, and is then asked for its end only. The application's dependency is
        asked once for a request, and again for each thing a WebSocket wants to do.
        """
        scope = _outermost(connection.scope)
        known = self._known(scope)
        async with known.lock:
            found = await self._look(scope, known)
            if found is None:
                found = await self._provided(HTTPConnection(scope))
                if scope["type"] == "http" and isinstance(found, Identity):
                    known.identity = found
            if isinstance(found, Identity):
                known.seen = found
            return found

    def seen(self, connection: HTTPConnection) -> Identity | None:
        """Who is behind a request or a handshake, as far as anybody has asked yet."""
        return self._known(_outermost(connection.scope)).seen

    async def presented(self, connection: HTTPConnection) -> Identity | Refusal | None:
        """The same as far as a token or a ticket says it, also where it is known; None: the application would."""
        scope = _outermost(connection.scope)
        known = self._known(scope)
        async with known.lock:
            return await self._look(scope, known)

    def check(self, identity: Identity) -> None:
        """Raise ``TokenExpired`` where ``identity`` has ended meanwhile, ``TokenRevoked`` where it is void."""
        if identity.expires_at is not None and identity.expires_at <= self._clock.wall_ms() / 1000 - self.leeway_s:
            raise TokenExpired("who you are has expired: come back with a new token")
        if self._revocations.is_revoked(identity):
            raise TokenRevoked

    def _known(self, scope: MutableMapping[str, Any]) -> _Known:
        known: _Known = scope.setdefault(KNOWN, {}).setdefault(self, _Known())
        return known

    async def _look(self, scope: MutableMapping[str, Any], known: _Known) -> Identity | Refusal | None:
        if known.identity is not None:
            return self._still(known.identity)
        found = await self._credential(HTTPConnection(scope))
        if isinstance(found, Identity):
            known.identity = found
        return found

    async def _credential(self, connection: HTTPConnection) -> Identity | Refusal | None:
        """Who the token or the ticket is of; None where there is neither."""
        query = connection.query_params
        if self._tokens is not None:
            given = _bearers(connection) or query.getlist("token")
            if given:
                return await _only(given, self._by_token)
        if self._tokens is not None or self._has_provider:
            # where nobody can be known nobody has a ticket of ours
            given = query.getlist("ticket")
            if given:
                return await _only(given, self._by_ticket)
        return None

    async def _by_token(self, token: str) -> Identity | Refusal:
        try:
            return await self.of_token(token)
        except (BadToken, TokenExpired) as error:
            return Refusal(401, str(error), dict(_INVALID))
        except KeysUnavailable as error:
            return Refusal(503, str(error), {"retry-after": "10"})

    async def _by_ticket(self, ticket: str) -> Identity | Refusal:
        identity = self._tickets.redeem(ticket)
        return Refusal(401, _VOID, dict(UNKNOWN)) if identity is None else self._still(identity)

    async def _provided(self, connection: HTTPConnection) -> Identity | Refusal:
        """Who the application says it is."""
        if not self._has_provider:
            return ANONYMOUS
        found = await self._inner.call(
            "/identity", Call(Operation(_IDENTIFY, "")), connection, what="the identity function"
        )
        return found if isinstance(found, Refusal) else self._read(found.value)

    def _read(self, value: Any) -> Identity | Refusal:
        now = self._clock.wall_ms() / 1000
        if value is None:
            return ANONYMOUS
        if isinstance(value, str):
            return Identity(user=value, issued_at=now) if value else ANONYMOUS
        if isinstance(value, Identity):
            if value == ANONYMOUS:
                # one that says nothing is nobody, whoever has made it: it gets no tickets
                return ANONYMOUS
            return self._still(value if value.issued_at is not None else replace(value, issued_at=now))
        logger.error(
            "the identity function returned %s: return the user's id as a str, an Identity, or None",
            type(value).__name__,
        )
        return Refusal(500, "the application failed in the identity function; its log has the error")

    def _still(self, identity: Identity) -> Identity | Refusal:
        """``identity``, unless it has ended meanwhile."""
        try:
            self.check(identity)
        except TokenExpired as error:
            return Refusal(401, str(error), dict(_INVALID))
        return identity

    async def dependency(self, connection: HTTPConnection) -> Identity:
        """For ``Depends(live.identity)``: who is asking, in topic functions, calls and any route."""
        call: Call | None = connection.scope.get(CALL)
        if call is not None and call.identity is not None:
            return call.identity
        if call is not None and call.operation.name == _IDENTIFY:
            raise RuntimeError("the identity function says who is asking, so it cannot depend on live.identity")
        found = await self.of(connection)
        if isinstance(found, Refusal):
            raise HTTPException(found.status, found.detail, headers=found.headers)
        return found


def _check(dependant: Dependant) -> None:
    """Refuse a function that asks for what a handshake has not. Raises ``DeclarationError``."""
    refuse_websockets(dependant, "identity")
    if dependant.body_params:
        raise DeclarationError(
            f"identity: its function, or a dependency of it, takes a body ({dependant.body_params[0].name}), and there "
            "is none: take headers, cookies or the query"
        )
    for sub in dependant.dependencies:
        _check(sub)


def _outermost(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The scope of the request or handshake itself, where ``scope`` is that of a call of the inner app."""
    while OUTER in scope:
        scope = scope[OUTER]
    return scope


def _bearers(connection: HTTPConnection) -> list[str]:
    """The tokens of ``Authorization: Bearer`` (RFC 6750 section 2.1); other schemes are the application's."""
    split = [[*value.split(maxsplit=1), "", ""] for value in connection.headers.getlist("authorization")]
    return [token.strip() for scheme, token, *_ in split if scheme.lower() == "bearer"]


async def _only(given: list[str], look: Callable[[str], Awaitable[Identity | Refusal]]) -> Identity | Refusal:
    """Of two, what stands before us may have looked at one, and we would believe the other."""
    if len(given) > 1:
        return Refusal(401, "say who you are once: there are two tokens or tickets", dict(_INVALID))
    return await look(given[0])
