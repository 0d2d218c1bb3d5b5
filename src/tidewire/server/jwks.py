"""Public keys from a configured URL (JSON Web Key Set, RFC 7517): fetched seldom, bounded, never as a token says."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tidewire.clock import Clock
from tidewire.errors import BadToken, DeclarationError, KeysUnavailable
from tidewire.server.keys import Key, public_key
from tidewire.server.origin import is_loopback

logger = logging.getLogger("tidewire.server")

DOCUMENT_BYTES_MAX = 256 * 1024
KEYS_MAX = 100
FETCH_S = 5.0
# from then on we look whether the keys have changed, and meanwhile go on with those we have
AGE_GOOD_S = 600.0
# from then on we do not: a key that its issuer has withdrawn must not be good for ever because we cannot hear of it
AGE_MAX_S = 86_400.0
# an unknown key id makes us look again, but anybody can name one; and a server that is down is asked in this rhythm
REFETCH_S = 10.0

Fetch = Callable[[str], Awaitable[bytes]]


class KeySet:
    """The keys at ``url``. ``clock`` tells their age, ``fetch`` gets the document. Raises ``DeclarationError``.

    A document of more than ``KEYS_MAX`` keys is used up to there; one over ``DOCUMENT_BYTES_MAX`` is not used.
    """

    def __init__(self, url: str, clock: Clock, fetch: Fetch | None = None) -> None:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
        if not is_safe or not parts.hostname:
            raise DeclarationError("Tokens: jwks_url begins with https:// (http:// only on this machine)")
        self.url = url
        self._clock = clock
        self._fetch = fetch or fetch_document
        self._keys: list[tuple[str | None, Key]] = []
        self._fetched_at = float("-inf")
        # also when it failed
        self._asked_at = float("-inf")
        # nobody has answered, or not the last time
        self._is_down = True
        # one fetch for all who wait for it; it goes on without them
        self._fetching: asyncio.Task[None] | None = None

    def on(self, clock: Clock) -> KeySet:
        """The same on another clock, with nothing fetched."""
        return KeySet(self.url, clock, self._fetch)

    async def find(self, algorithm: str, key_id: str | None) -> Key:
        """The key of that id for that algorithm; without an id the only one for the algorithm.

        Raises ``BadToken`` where there is none, ``KeysUnavailable`` where that cannot be known.
        """
        age_s = self._clock.now() - self._fetched_at
        if age_s > AGE_MAX_S:
            self._keys.clear()
        if not self._named(key_id):
            await self._look_again()
        elif age_s > AGE_GOOD_S:
            self._begin_to_look()
        named = self._named(key_id)
        if not named and self._is_down:
            raise KeysUnavailable
        fitting = [key for key in named if algorithm in key.algorithms]
        if len(fitting) != 1:
            raise BadToken("the token does not name a key that is known here, and fits its algorithm")
        return fitting[0]

    def _named(self, key_id: str | None) -> list[Key]:
        return [key for name, key in self._keys if key_id is None or name == key_id]

    async def _look_again(self) -> None:
        task = self._begin_to_look()
        if task is not None:
            # who has gone does not take it away from the others
            await asyncio.shield(task)

    def _begin_to_look(self) -> asyncio.Task[None] | None:
        """The fetch that goes on, or begins now; None where it is too early for another one."""
        loop, task = asyncio.get_running_loop(), self._fetching
        if task is not None and not task.done() and task.get_loop() is loop:
            return task
        if self._clock.now() - self._asked_at < REFETCH_S:
            return None
        self._asked_at = self._clock.now()
        self._fetching = loop.create_task(self._refresh())
        return self._fetching

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                document = await self._fetch(self.url)
            self._keys = read_keys(document)
        except Exception:
            # those of before stay good for a while: their server may be away for a moment
            self._is_down = True
            logger.exception("the keys of tokens could not be fetched")
        else:
            self._is_down = False
            self._fetched_at = self._clock.now()


def read_keys(document: bytes) -> list[tuple[str | None, Key]]:
    """The keys of a JWK set that may verify tokens, with their ids. Raises ``ValueError`` for what is no JWK set."""
    try:
        found = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the key set is not JSON: {error}") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the key set has no list of keys")
    if len(listed) > KEYS_MAX:
        logger.warning("the key set has %d keys, and the first %d are used", len(listed), KEYS_MAX)
    keys = [(entry.get("kid"), _read_key(entry)) for entry in listed[:KEYS_MAX] if isinstance(entry, dict)]
    return [(key_id, key) for key_id, key in keys if key is not None]


def _read_key(entry: dict[str, Any]) -> Key | None:
    """None for keys of other kinds and for other uses (RFC 7517 section 5: those are to be ignored)."""
    import jwt

    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        # a secret, or a private key, has no place in a public document: whoever has read it can sign
        key = public_key(jwt.PyJWK.from_dict(entry).key)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        logger.warning("a key of the key set cannot be used: %s", type(error).__name__)
        return None
    only = entry.get("alg")
    return key if only is None else Key(key.material, tuple(name for name in key.algorithms if name == only))


async def fetch_document(url: str) -> bytes:
    """GET ``url``: no redirects, nothing unpacked, not more than may be. Raises ``httpx.HTTPError``, ``ValueError``."""
    import httpx

    # reading the certificates of the system takes a moment, in which nobody else may have to wait
    is_local = is_loopback(urlsplit(url).hostname)
    verify: bool | ssl.SSLContext = False
    if url.startswith("https:"):
        verify = await asyncio.to_thread(httpx.create_ssl_context)
    headers = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
    data = b""
    async with (
        httpx.AsyncClient(verify=verify, timeout=FETCH_S, follow_redirects=False, trust_env=not is_local) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"the answer is {answer.status_code}, not 200")
        async for chunk in answer.aiter_raw():
            data += chunk
            if len(data) > DOCUMENT_BYTES_MAX:
                raise ValueError(f"the key set has more than {DOCUMENT_BYTES_MAX} bytes")
    return data
