"""Where a topic is: one URL, written with http or ws, read as both. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from tidewire.client.errors import BadURL

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers for the request: a mapping, or pairs where a name comes twice."""

_SECURE = {"http": False, "ws": False, "https": True, "wss": True}
_OURS = frozenset({"positions", "since", "max_per_s"})
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")


@dataclass(frozen=True, slots=True)
class Target:
    """A topic's address. ``since`` is what the URL itself asks for, ``shown`` is fit for messages (no secrets)."""

    base: str
    query: tuple[tuple[str, str], ...]
    is_secure: bool
    is_loopback: bool
    since: str | None
    shown: str

    @property
    def http_url(self) -> str:
        """For POST and GET."""
        return self._url("https" if self.is_secure else "http", self.query)

    def ws_url(self, since: str | None, max_per_s: float | None) -> str:
        """For a WebSocket with positions, from ``since`` on, at most ``max_per_s`` flushes a second."""
        asked = [("positions", "1")]
        if since is not None:
            asked.append(("since", since))
        if max_per_s is not None:
            asked.append(("max_per_s", f"{max_per_s:g}"))
        return self._url("wss" if self.is_secure else "ws", (*self.query, *asked))

    def _url(self, scheme: str, query: tuple[tuple[str, str], ...]) -> str:
        tail = f"?{urlencode(query, safe=':')}" if query else ""
        return f"{scheme}://{self.base}{tail}"


def parse_url(url: str) -> Target:
    """Read the URL of a topic; http, https, ws and wss mean the same place. Raises ``BadURL``."""
    if re.search(r"[\x00-\x20\x7f]", url):
        raise BadURL(url, "it holds a space or a control character (write a space as %20)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadURL(url, str(error)) from None
    if parts.scheme.lower() not in _SECURE:
        raise BadURL(url, "begin it with http://, https://, ws:// or wss://")
    if not parts.hostname:
        raise BadURL(url, "it names no host")
    if parts.fragment or url.endswith("#"):
        raise BadURL(url, "a # in a topic name is written %23 in its URL")
    host = _ascii_host(url, parts.hostname) + ("" if port is None else f":{port}")
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    query = parse_qsl(parts.query, keep_blank_values=True)
    return Target(
        base=f"{_user(url, parts)}{host}{path}",
        query=tuple(pair for pair in query if pair[0] not in _OURS),
        is_secure=_SECURE[parts.scheme.lower()],
        is_loopback=_is_loopback(parts.hostname),
        since=dict(query).get("since"),
        shown=f"{parts.scheme.lower()}://{host}{path}",
    )


def _ascii_host(url: str, host: str) -> str:
    if ":" in host:
        return f"[{host}]"
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise BadURL(url, "its host name cannot be written in ASCII") from None


def _user(url: str, parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    if parts.password is None:
        raise BadURL(url, "it names a user without a password")
    return f"{parts.username}:{parts.password}@"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_headers(headers: Headers | None) -> list[tuple[str, str]]:
    """``headers`` as pairs; raises ``ValueError`` for what would break the request apart."""
    if headers is None:
        return []
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    for name, value in pairs:
        if not _HEADER_NAME.match(name):
            raise ValueError(f"{name!a} is not the name of a header")
        if not _HEADER_VALUE.match(value):
            raise ValueError(f"the value of the header {name} holds a control character or is not Latin-1")
    return pairs
