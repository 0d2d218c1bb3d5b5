"""Public keys from a configured URL (JSON Web Key Set, RFC 7517): fetched seldom, bounded, never as a token says."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from tidewire.clock import Clock
from tidewire.errors import BadToken, DeclarationError
from tidewire.server.origin import is_loopback

logger = logging.getLogger("tidewire.server")

DOCUMENT_BYTES_MAX = 256 * 1024
KEYS_MAX = 100
FETCH_S = 5.0
AGE_MAX_S = 600.0
# an unknown key id makes us look again, but anybody can name one
REFETCH_S = 30.0

Fetch = Callable[[str], Awaitable[bytes]]


class KeySet:
    """The keys at ``url``. ``fetch`` gets the document; ``clock`` tells its age."""

    def __init__(self, url: str, clock: Clock, fetch: Fetch | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise DeclarationError("Tokens: jwks_url begins with https:// (http:// only on this machine)")
        self._url = url
        self._clock = clock
        self._fetch = fetch or fetch_document
        self._keys: dict[str, Any] = {}
        self._fetched_at = float("-inf")
        # one asks, the others wait for it
        self._lock = asyncio.Lock()

    async def find(self, key_id: str | None) -> Any:
        """The key of that id, or the only one there is. Raises ``BadToken`` where there is none."""
        if self._clock.now() - self._fetched_at > AGE_MAX_S or self._named(key_id) is None:
            await self._refresh()
        key = self._named(key_id)
        if key is None:
            raise BadToken("the token is signed with a key that is not known here")
        return key

    def _named(self, key_id: str | None) -> Any:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        async with self._lock:
            if self._clock.now() - self._fetched_at < REFETCH_S:
                return
            # a failure counts: a server that is down is not asked by every caller
            self._fetched_at = self._clock.now()
            try:
                self._keys = _read(await self._fetch(self._url))
            except Exception:
                # those of before stay good: keys are seldom changed, and their server may be away for a moment
                logger.exception("the keys of tokens could not be fetched")


def _read(document: bytes) -> dict[str, Any]:
    import jwt

    listed = json.loads(document)["keys"]
    found: dict[str, Any] = {}
    for number, entry in enumerate(listed[:KEYS_MAX]):
        if entry.get("kty") == "oct" or entry.get("use", "sig") != "sig":
            # a secret has no place in a public document
            continue
        try:
            found[str(entry.get("kid", number))] = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError):
            # a kind of key that is not known here is another's to use
            continue
    return found


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


async def fetch_document(url: str) -> bytes:
    """GET ``url`` in a thread: no redirects, within the deadline, no more than may be. Raises what urllib raises."""

    def fetch() -> bytes:
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(url, timeout=FETCH_S) as answer:
            data: bytes = answer.read(DOCUMENT_BYTES_MAX + 1)
        if len(data) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"the document has more than {DOCUMENT_BYTES_MAX} bytes")
        return data

    return await asyncio.to_thread(fetch)
