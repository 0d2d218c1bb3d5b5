"""Tokens for tests, good and forged, and the keys they are signed with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tidewire.testing import ManualClock

NOW = ManualClock().wall_ms() // 1000
SECRET = "a secret of sixty-four bytes, which is what HMAC with SHA-512 wants"
OTHER_SECRET = SECRET[::-1]
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """A key for ``algorithm``; each ``number`` has its own."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return private_rsa(2048, number)


@cache
def private_rsa(bits: int, number: int = 0) -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def mint(claims: dict[str, Any] | None = None, *, key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    """A token as an application makes one."""
    return jwt.encode({"sub": "ann"} if claims is None else claims, key, algorithm=algorithm, headers=headers)


def encode(data: bytes | dict[str, Any]) -> str:
    """A part of a token."""
    if isinstance(data, dict):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def by_hand(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], *, secret: str = SECRET) -> str:
    """A token that no library would make, rightly signed with HMAC."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def public_jwk(key: Any, key_id: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half as it stands in a key set."""
    public = key.public_key()
    kinds = {rsa.RSAPublicKey: "RS256", ed25519.Ed25519PublicKey: "EdDSA"}
    algorithm = next((name for kind, name in kinds.items() if isinstance(public, kind)), "ES256")
    entry = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    entry.pop("key_ops", None)
    return entry | ({} if key_id is None else {"kid": key_id}) | more


def key_set(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()
