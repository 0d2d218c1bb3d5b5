"""Keys that tokens are verified with, each with the algorithms it is good for (RFC 7518 section 3, RFC 8725 3.1, 3.2).

A key never meets an algorithm of another kind: a public key is no HMAC secret, and nothing is ever unsigned.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tidewire.errors import BadToken, DeclarationError

SECRET_BYTES_GOOD = 32
RSA_BITS_MIN = 2048
# that of HS512, the longest any algorithm wants
_UNWARNED_BYTES = 64
HMAC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
PUBLIC = (*_RSA, *_CURVES.values(), "EdDSA")


@dataclass(frozen=True, slots=True)
class Key:
    """``material`` as PyJWT takes it, and what it may verify."""

    material: Any = field(repr=False)
    algorithms: tuple[str, ...]

    @property
    def is_short_secret(self) -> bool:
        """Whether it can be guessed by whoever has one token (RFC 7518 section 3.2)."""
        return isinstance(self.material, bytes) and len(self.material) < SECRET_BYTES_GOOD


def secret_key(secret: str | bytes) -> Key:
    """A key for HMAC. Raises ``DeclarationError`` for what is no secret."""
    data = secret.encode() if isinstance(secret, str) else secret
    if not data:
        raise DeclarationError("Tokens: the secret is empty: use 32 random bytes")
    if b"-----BEGIN" in data or data.startswith(b"ssh-"):
        raise DeclarationError("Tokens: this secret is a key that others may know: give it as public_key=")
    return Key(data, HMAC)


def pem_key(pem: str | bytes) -> Key:
    """A public key in PEM. Raises ``DeclarationError`` for anything else."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = pem.encode() if isinstance(pem, str) else pem
    if b"PRIVATE KEY" in data:
        raise DeclarationError("Tokens: this is a private key: keep it where tokens are made, and give the public one")
    try:
        return public_key(load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DeclarationError(f"Tokens: public_key= is no public key in PEM that can be used: {error}") from None


def public_key(material: Any) -> Key:
    """A public key of ``cryptography``. Raises ``ValueError`` for a kind that verifies no tokens, and for weak ones."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        if material.key_size < RSA_BITS_MIN:
            raise ValueError(f"an RSA key of {material.key_size} bits is too weak: {RSA_BITS_MIN} is the least")
        return Key(material, _RSA)
    if isinstance(material, ec.EllipticCurvePublicKey) and material.curve.name in _CURVES:
        return Key(material, (_CURVES[material.curve.name],))
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return Key(material, ("EdDSA",))
    raise ValueError(f"tokens are not signed with a key of the kind {type(material).__name__}")


def read_header(token: str) -> tuple[str, str | None]:
    """The algorithm and the key id a token says it is signed with; nothing in it can be believed yet.

    Nothing else of the header is looked at: not where keys could be had (``jku``, ``x5u``), and no key that a token
    brings along (``jwk``, ``x5c``). Raises ``BadToken``.
    """
    import jwt

    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken("this is no token: a JWT is three parts in base64url, with dots between them") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or (key_id is not None and not isinstance(key_id, str)):
        raise BadToken("the header of the token is malformed")
    if "crit" in header:
        # RFC 7515 section 4.1.11: what has to be understood and is not
        raise BadToken("the token asks for extensions (crit) that are not known here")
    return algorithm, key_id


def verify(token: str, key: Key, algorithms: Collection[str]) -> bytes:
    """The payload of a token whose signature is right. Raises ``BadToken``."""
    import jwt

    allowed = [name for name in key.algorithms if name in algorithms]
    if not allowed:
        raise BadToken("the token is not signed with what its key is for")
    try:
        with _quiet(key):
            payload: bytes = _verifier().decode_complete(token, key.material, algorithms=allowed)["payload"]
    except jwt.InvalidAlgorithmError:
        raise BadToken(f"the token is not signed with {' or '.join(allowed)}") from None
    except jwt.PyJWTError:
        raise BadToken("the token cannot be trusted: its signature is not right") from None
    return payload


@cache
def _verifier() -> Any:
    import jwt

    return jwt.PyJWS([*HMAC, *PUBLIC])


def _quiet(key: Key) -> AbstractContextManager[Any]:
    """PyJWT warns of a short secret with every token; whoever made the ``Tokens`` has been told once."""
    if isinstance(key.material, bytes) and len(key.material) < _UNWARNED_BYTES:
        return warnings.catch_warnings(action="ignore")
    return nullcontext()
