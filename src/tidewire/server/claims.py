"""What a token says (RFC 7519 section 4; centrifugal.dev, "Client JWT authentication"): pure functions of claims."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidewire.errors import BadToken, TokenExpired

DEPTH_MAX = 32
_MOMENT_MAX = 2**53
_MOMENTS = ("exp", "nbf", "iat", "expire_at")

Claims = Mapping[str, Any]


def read_claims(payload: bytes) -> Claims:
    """The claims in the payload of a token. Raises ``BadToken`` for anything but a JSON object of modest depth."""
    try:
        claims = msgspec.json.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadToken("the claims of the token are not JSON, or nested too deeply") from None
    if not isinstance(claims, dict):
        raise BadToken("the claims of the token are no JSON object")
    _check_depth(claims)
    return claims


def _check_depth(claims: Claims) -> None:
    """What others may see (``info``) is encoded again and again: nothing there may be near the limit of a stack."""
    level: list[Any] = [claims]
    for _ in range(DEPTH_MAX):
        level = [
            below
            for value in level
            if isinstance(value, dict | list)
            for below in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise BadToken(f"the claims of the token are nested more than {DEPTH_MAX} levels deep")


def check_times(claims: Claims, now_s: float, leeway_s: float) -> None:
    """``exp``, ``nbf`` and ``iat`` (4.1.4 to 4.1.6), and ``expire_at``. Raises ``BadToken``, ``TokenExpired``."""
    moments = {name: _moment(claims, name) for name in _MOMENTS if name in claims}
    if moments.get("nbf", 0) > now_s + leeway_s:
        raise BadToken("the token is not valid yet (nbf): is the clock of this server right?")
    if moments.get("iat", 0) > now_s + leeway_s:
        raise BadToken("the token was issued in the future (iat): is the clock of this server right?")
    if moments.get("exp", math.inf) <= now_s - leeway_s:
        raise TokenExpired("the token has expired: get a new one")
    # 0: never
    if 0 < moments.get("expire_at", 0) <= now_s - leeway_s:
        raise TokenExpired("what the token grants has expired (expire_at): get a new one")


def _moment(claims: Claims, name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOMENT_MAX:
        raise BadToken(f"the claim {name} is a number of seconds since 1970")
    return value


def check_audience(claims: Claims, audiences: Sequence[str]) -> None:
    """``aud`` (4.1.3): where it is there, we have to be in it. Raises ``BadToken``."""
    claim = claims.get("aud")
    if claim is None and not audiences:
        return
    if claim is not None and not audiences:
        raise BadToken("the token is for an audience (aud), and this server has no name: give Tokens(audience=...)")
    named = [claim] if isinstance(claim, str) else claim
    if not isinstance(named, list) or not any(isinstance(one, str) and one in audiences for one in named):
        raise BadToken("the token is for another audience (aud)")


def check_issuer(claims: Claims, issuers: Sequence[str]) -> None:
    """``iss`` (4.1.1), where it is known who issues tokens. Raises ``BadToken``."""
    if issuers and claims.get("iss") not in issuers:
        raise BadToken("the token is from another issuer (iss)")


def text_of(claims: Claims, name: str) -> str | None:
    """A claim that is a text, if it is there. Raises ``BadToken``."""
    value = claims.get(name)
    if name in claims and not isinstance(value, str):
        raise BadToken(f"the claim {name} is a text")
    return value


def info_of(claims: Claims) -> Any:
    """What others may see: ``info``, or ``b64info``, which has to be JSON. Raises ``BadToken``."""
    encoded = text_of(claims, "b64info")
    if not encoded:
        return claims.get("info")
    try:
        info = msgspec.json.decode(base64.b64decode(encoded, validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        raise BadToken("the claim b64info is JSON in base64") from None
    _check_depth({"info": info})
    return info


def expiry_of(claims: Claims) -> float | None:
    """When what it grants ends: ``expire_at`` where it is there (0: never), else ``exp``; None: never."""
    moment = claims.get("expire_at", claims.get("exp"))
    return float(moment) if moment else None


def issue_of(claims: Claims) -> float | None:
    """When it was issued, if it says so."""
    return float(claims["iat"]) if "iat" in claims else None
