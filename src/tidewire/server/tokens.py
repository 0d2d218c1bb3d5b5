"""Tokens that say who connects, and who may subscribe: JWTs, verified with PyJWT.

Claims are those of the Centrifuge ecosystem (centrifugal.dev, "Client JWT authentication" and "Channel JWT
authorization"), so that applications that mint tokens for it mint them for us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidewire.clock import Clock, LoopClock
from tidewire.errors import BadToken, DeclarationError, TokenExpired
from tidewire.server.identity import Identity
from tidewire.server.jwks import KeySet

TOKEN_BYTES_MAX = 16 * 1024
_HMAC = ("HS256", "HS384", "HS512")
_PUBLIC = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")


@dataclass(frozen=True, slots=True)
class SubscriptionGrant:
    """What a subscription token says: until when (seconds since 1970; None: no end), and what others may see."""

    expires_at: float | None
    info: Any = None


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How tokens are verified.

    Give one of ``secret`` (HMAC), ``public_key`` (PEM; RSA, elliptic curves, Ed25519) and ``jwks_url`` (where the
    public keys are; nothing else is ever fetched, whatever a token says). ``algorithms``: those of the kind of key
    unless given. ``audience``, ``issuer``: what ``aud`` and ``iss`` have to be, where given. ``leeway_s``: how far
    clocks may differ. ``subscriptions``: how subscription tokens are verified, where that is another way.
    ``clock``: wall time. Raises ``DeclarationError``.
    """

    secret: str | None = None
    public_key: str | None = None
    jwks_url: str | None = None
    algorithms: Sequence[str] = ()
    audience: str | None = None
    issuer: str | None = None
    leeway_s: float = 5.0
    subscriptions: Tokens | None = None
    clock: Clock = field(default_factory=LoopClock)
    _keys: KeySet | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        _import_jwt()
        if sum(one is not None for one in (self.secret, self.public_key, self.jwks_url)) != 1:
            raise DeclarationError("Tokens: give one of secret=, public_key= and jwks_url=")
        if not set(self.algorithms) <= set(self._allowed):
            raise DeclarationError(f"Tokens: with this kind of key algorithms are among {', '.join(self._allowed)}")
        if self.secret is not None and _looks_public(self.secret):
            raise DeclarationError("Tokens: this secret is a public key, which everybody may know: give public_key=")
        if self.jwks_url is not None:
            object.__setattr__(self, "_keys", KeySet(self.jwks_url, self.clock))

    @property
    def _allowed(self) -> Sequence[str]:
        return _HMAC if self.secret is not None else _PUBLIC

    async def verify_connection(self, token: str) -> Identity:
        """Who the bearer of a connection token is. Raises ``BadToken`` and ``TokenExpired``."""
        claims = await self._claims(token)
        if "channel" in claims:
            raise BadToken("this token is for a subscription, not for a connection")
        token_id = claims.get("jti")
        return Identity(
            user=_user_of(claims),
            info=claims.get("info"),
            claims=claims,
            expires_at=_expiry_of(claims),
            token_id=token_id if isinstance(token_id, str) else None,
        )

    async def verify_subscription(self, token: str, identity: Identity, topic: str) -> SubscriptionGrant:
        """What a subscription token grants ``identity`` on ``topic``: it is good for this user and topic only.

        Raises ``BadToken`` and ``TokenExpired``.
        """
        claims = await (self.subscriptions or self)._claims(token)
        if claims.get("channel") != topic:
            raise BadToken("this token is for another topic, or for a connection")
        if _user_of(claims) != identity.user:
            raise BadToken("this token is another user's")
        return SubscriptionGrant(_expiry_of(claims), claims.get("info"))

    async def _claims(self, token: str) -> Mapping[str, Any]:
        jwt = _import_jwt()
        if len(token) > TOKEN_BYTES_MAX:
            raise BadToken(f"a token has {TOKEN_BYTES_MAX} characters at most")
        key = self.public_key if self.secret is None else self.secret
        if self._keys is not None:
            key = await self._keys.find(_key_id_of(jwt, token))
        # times are checked below, by a clock that tests can move
        options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False}
        options |= {"verify_aud": self.audience is not None, "verify_iss": self.issuer is not None}
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self.algorithms or self._allowed),
                audience=self.audience,
                issuer=self.issuer,
                options=options,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise BadToken(f"the token cannot be trusted: {type(error).__name__}") from None
        self._check_times(claims)
        return claims

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self.clock.wall_ms() / 1000
        for name in ("exp", "nbf", "expire_at"):
            if name in claims and (isinstance(claims[name], bool) or not isinstance(claims[name], int | float)):
                raise BadToken(f"the claim {name} is a number of seconds since 1970")
        if "nbf" in claims and claims["nbf"] > now + self.leeway_s:
            raise BadToken("the token is not valid yet")
        if "exp" in claims and claims["exp"] <= now - self.leeway_s:
            raise TokenExpired("the token has expired: get a new one")


def _key_id_of(jwt: Any, token: str) -> str | None:
    """Which key a token says it is signed with; nothing else of its header is looked at (no jku, no x5u, no jwk)."""
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise BadToken(f"the token cannot be trusted: {type(error).__name__}") from None
    return key_id if isinstance(key_id, str) else None


def _looks_public(secret: str) -> bool:
    return "-----BEGIN" in secret or secret.startswith("ssh-")


def _user_of(claims: Mapping[str, Any]) -> str:
    user = claims.get("sub", "")
    if not isinstance(user, str):
        raise BadToken("the claim sub is a text")
    return user


def _expiry_of(claims: Mapping[str, Any]) -> float | None:
    """``expire_at`` where it is there (0: never), else ``exp``."""
    moment = claims.get("expire_at", claims.get("exp"))
    return float(moment) if moment else None


def _import_jwt() -> Any:
    try:
        import jwt
    except ModuleNotFoundError:
        raise DeclarationError("tokens need PyJWT: pip install tidewire[tokens]") from None
    return jwt
