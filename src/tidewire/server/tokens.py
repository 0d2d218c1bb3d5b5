"""Tokens that say who connects, and who may subscribe: JWTs, verified with PyJWT.

Claims are those of the Centrifuge ecosystem (centrifugal.dev, "Client JWT authentication" and "Channel JWT
authorization"), so that applications that mint tokens for it mint them for us.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from tidewire.clock import Clock, LoopClock
from tidewire.errors import BadToken, DeclarationError
from tidewire.server.claims import (
    Claims,
    check_audience,
    check_issuer,
    check_times,
    expiry_of,
    info_of,
    issue_of,
    read_claims,
    text_of,
)
from tidewire.server.identity import Identity
from tidewire.server.jwks import KeySet
from tidewire.server.keys import PUBLIC, SECRET_BYTES_GOOD, Key, pem_key, read_header, secret_key, verify

logger = logging.getLogger("tidewire.server")

TOKEN_BYTES_MAX = 16 * 1024
LEEWAY_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class SubscriptionGrant:
    """What a subscription token says: until when (seconds since 1970; None: no end), and what others may see.

    ``token_id`` and ``issued_at``: by these it can be revoked.
    """

    expires_at: float | None
    info: Any = None
    token_id: str | None = None
    issued_at: float | None = None

    def bearer(self, user: str) -> Identity:
        """Whom it is revoked for, as an identity that came with it."""
        return Identity(user=user, token_id=self.token_id, issued_at=self.issued_at)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """How tokens are verified.

    Give one of ``secret`` (HMAC), ``public_key`` (PEM; RSA, elliptic curves, Ed25519) and ``jwks_url`` (where the
    public keys are; nothing else is ever fetched, whatever a token says). ``algorithms``: those of the kind of key
    unless given. ``audience``: what ``aud`` has to name, one or several; a token that is for an audience is refused
    where none is given. ``issuer``: what ``iss`` has to be, one or several, where given. ``leeway_s``: how far clocks
    may differ. ``subscriptions``: how subscription tokens are verified, where that is another way. ``clock``: wall
    time, until a ``Live`` gives its own. Raises ``DeclarationError``.

    A ``Live`` with ``Tokens`` takes ``Authorization: Bearer`` and ``?token=`` for its own: one that is not good is
    refused, also where ``Live(identity=...)`` could make something of it. Without, both are the application's.
    """

    secret: str | bytes | None = field(default=None, repr=False)
    public_key: str | bytes | None = field(default=None, repr=False)
    jwks_url: str | None = None
    algorithms: Sequence[str] = ()
    audience: str | Sequence[str] | None = None
    issuer: str | Sequence[str] | None = None
    leeway_s: float = 5.0
    subscriptions: Tokens | None = None
    clock: Clock = field(default_factory=LoopClock, repr=False)
    _source: Key | KeySet = field(init=False, repr=False)
    _algorithms: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _need_jwt()
        source = self._make_source()
        possible = source.algorithms if isinstance(source, Key) else PUBLIC
        if not set(self.algorithms) <= set(possible):
            raise DeclarationError(f"Tokens: with this kind of key algorithms is a list of {', '.join(possible)}")
        if not 0 <= self.leeway_s <= LEEWAY_MAX_S:
            raise DeclarationError(f"Tokens: leeway_s is between 0 and {LEEWAY_MAX_S:g} seconds: set the clocks right")
        for name, given in (("audience", self.audience), ("issuer", self.issuer)):
            if given is not None and not all(_several(given) or ("",)):
                # checked nowhere, although somebody has wanted it to be
                raise DeclarationError(f"Tokens: {name} is empty: leave it out, or say what it has to be")
        if self.subscriptions is not None and self.subscriptions.subscriptions is not None:
            raise DeclarationError("Tokens: those of subscriptions= have no subscriptions= of their own")
        # the way of a frozen dataclass to have what is derived
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_algorithms", frozenset(self.algorithms or possible))

    def _make_source(self) -> Key | KeySet:
        if sum(one is not None for one in (self.secret, self.public_key, self.jwks_url)) != 1:
            raise DeclarationError("Tokens: give one of secret=, public_key= and jwks_url=")
        if self.jwks_url is not None:
            return KeySet(self.jwks_url, self.clock)
        if self.public_key is not None:
            return pem_key(self.public_key)
        assert self.secret is not None, "one of three"
        key = secret_key(self.secret)
        if key.is_short_secret:
            logger.warning(
                "Tokens: whoever has one token can guess a secret this short: use %d random bytes", SECRET_BYTES_GOOD
            )
        return key

    def on(self, clock: Clock) -> Tokens:
        """The same on another clock, which has fetched no keys yet."""
        other = copy.copy(self)
        object.__setattr__(other, "clock", clock)
        if isinstance(self._source, KeySet):
            object.__setattr__(other, "_source", self._source.on(clock))
        if self.subscriptions is not None:
            object.__setattr__(other, "subscriptions", self.subscriptions.on(clock))
        return other

    async def verify_connection(self, token: str) -> Identity:
        """Who the bearer of a connection token is. Raises ``BadToken``, ``TokenExpired`` and ``KeysUnavailable``."""
        claims = await self._claims(token)
        if "channel" in claims:
            raise BadToken("this token is for a subscription, not for a connection")
        return Identity(
            user=text_of(claims, "sub") or "",
            info=info_of(claims),
            claims=claims,
            expires_at=expiry_of(claims),
            token_id=text_of(claims, "jti"),
            issued_at=issue_of(claims),
        )

    async def verify_subscription(self, token: str, identity: Identity, topic: str) -> SubscriptionGrant:
        """What a subscription token grants ``identity`` on ``topic``: it is good for this user and topic only.

        Raises ``BadToken``, ``TokenExpired`` and ``KeysUnavailable``.
        """
        claims = await (self.subscriptions or self)._claims(token)
        if "channel" not in claims:
            raise BadToken("this token is for a connection, not for a subscription")
        if claims["channel"] != topic:
            raise BadToken("this token is for another topic")
        if (text_of(claims, "sub") or "") != identity.user:
            raise BadToken("this token is another user's")
        return SubscriptionGrant(expiry_of(claims), info_of(claims), text_of(claims, "jti"), issue_of(claims))

    async def _claims(self, token: str) -> Claims:
        if len(token) > TOKEN_BYTES_MAX:
            raise BadToken(f"a token has {TOKEN_BYTES_MAX} characters at most")
        algorithm, key_id = read_header(token)
        if algorithm not in self._algorithms:
            raise BadToken(f"the token is not signed with one of {', '.join(sorted(self._algorithms))}")
        source = self._source
        key = source if isinstance(source, Key) else await source.find(algorithm, key_id)
        claims = read_claims(verify(token, key, self._algorithms))
        # PyJWT would ask the system for the time
        check_times(claims, self.clock.wall_ms() / 1000, self.leeway_s)
        check_audience(claims, _several(self.audience))
        check_issuer(claims, _several(self.issuer))
        return claims


def _several(names: str | Sequence[str] | None) -> Sequence[str]:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else names


def _need_jwt() -> None:
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        raise DeclarationError("tokens need PyJWT with cryptography: pip install tidewire[tokens]")
