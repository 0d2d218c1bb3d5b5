"""Who a caller is, once that is verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from tidewire.errors import BadToken, DeclarationError, TokenExpired

if TYPE_CHECKING:
    from tidewire.server.inner import Inner, Refusal
    from tidewire.server.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A verified caller.

    ``user``: empty for somebody unknown. ``info``: a JSON value that other members of a topic may see, or None.
    ``claims``: those of the token it came from. ``expires_at``: seconds since 1970, None: it does not expire.
    ``token_id``: the token's own id (``jti``), by which it can be revoked.
    """

    user: str = ""
    info: Any = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    token_id: str | None = None


ANONYMOUS = Identity()


class Identities:
    """Who callers are: by token, or by the application's own dependency; else nobody known."""

    def __init__(self, inner: Inner, tokens: Tokens | None, provider: Callable[..., Any] | None) -> None:
        from tidewire.server.inner import make_endpoint, refuse_websockets

        self._inner = inner
        self._tokens = tokens
        self._has_provider = provider is not None
        if provider is not None:
            try:
                route = inner.add("/identity", make_endpoint(provider, "identity function"))
            except DeclarationError:
                raise
            except Exception as error:
                raise DeclarationError(f"identity: {error}") from error
            refuse_websockets(route.dependant, "identity")

    async def of(self, connection: HTTPConnection) -> Identity | Refusal:
        """Who is behind a request or a handshake; a credential that is presented and bad is a refusal."""
        from tidewire.server.inner import Call, Operation, Refusal

        token = self._token_of(connection)
        if token is not None and self._tokens is not None:
            try:
                return await self._tokens.verify_connection(token)
            except (BadToken, TokenExpired) as error:
                return Refusal(401, str(error), {"www-authenticate": "Bearer"})
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

    def _token_of(self, connection: HTTPConnection) -> str | None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return connection.query_params.get("token")

    async def dependency(self, connection: HTTPConnection) -> Identity:
        """For ``Depends(live.identity)``: who is asking, in topic functions, calls and any route."""
        from tidewire.server.inner import Refusal, current_call

        call = current_call()
        if call is not None and call.identity is not None:
            return call.identity
        found = await self.of(connection)
        if isinstance(found, Refusal):
            raise HTTPException(found.status, found.detail, headers=found.headers)
        return found
