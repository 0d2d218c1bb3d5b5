"""Who asks, found out: by token, by ticket, or by the application's own dependency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from tidewire.errors import BadToken, DeclarationError, TokenExpired
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.inner import Call, Inner, Operation, Refusal, current_call, make_endpoint, refuse_websockets
from tidewire.server.revocations import Revocations
from tidewire.server.tickets import Tickets
from tidewire.server.tokens import Tokens


class Identities:
    """Who callers are: by token, or by the application's own dependency; else nobody known."""

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
        if provider is not None:
            try:
                endpoint = make_endpoint(provider, "identity function")
                inner.add("/identity", endpoint, check=lambda found: refuse_websockets(found, "identity"))
            except DeclarationError:
                raise
            except Exception as error:
                raise DeclarationError(f"identity: {error}") from error

    async def of(self, connection: HTTPConnection) -> Identity | Refusal:
        """Who is behind a request or a handshake; a credential that is presented and bad is a refusal."""
        token = self._token_of(connection)
        if token is not None and self._tokens is not None:
            try:
                return await self.of_token(token)
            except (BadToken, TokenExpired) as error:
                return Refusal(401, str(error), {"www-authenticate": "Bearer"})
        ticket = connection.query_params.get("ticket")
        if ticket is not None:
            redeemed = self._tickets.redeem(ticket)
            if redeemed is None or self._revocations.is_revoked(redeemed):
                return Refusal(401, "the ticket is not good: it was used, or is too old; ask for another")
            return redeemed
        if not self._has_provider:
            return ANONYMOUS
        call = Call(Operation("identify", ""))
        found = await self._inner.call("/identity", call, connection, what="the identity function")
        if isinstance(found, Refusal):
            return found
        value = found.value
        if value is None or isinstance(value, Identity):
            return value or ANONYMOUS
        return Identity(user=str(value))

    async def of_token(self, token: str) -> Identity:
        """Who the bearer of a connection token is. Raises ``BadToken`` and ``TokenExpired``."""
        if self._tokens is None:
            raise BadToken("this server takes no tokens")
        identity = await self._tokens.verify_connection(token)
        if self._revocations.is_revoked(identity):
            raise BadToken("the token was revoked")
        return identity

    def _token_of(self, connection: HTTPConnection) -> str | None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return connection.query_params.get("token")

    async def dependency(self, connection: HTTPConnection) -> Identity:
        """For ``Depends(live.identity)``: who is asking, in topic functions, calls and any route."""
        call = current_call()
        if call is not None and call.identity is not None:
            return call.identity
        found = await self.of(connection)
        if isinstance(found, Refusal):
            raise HTTPException(found.status, found.detail, headers=found.headers)
        return found
