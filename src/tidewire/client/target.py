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


@dataclass(frozen=True, slots=True)
class Address:
    """Where a raw connection goes: the URL with ws or wss, and the same ``shown`` without secrets."""

    url: str
    is_secure: bool
    is_loopback: bool
    shown: str


def parse_address(url: str, what: str = "the URL of a WebSocket") -> Address:
    """Read a URL; http and ws mean the same place, as do https and wss. Raises ``BadURL``."""
    if re.search(r"[\x00-\x20\x7f]", url):
        raise BadURL(url, "it holds a space or a control character (write a space as %20)", what)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadURL(url, str(error), what) from None
    scheme = parts.scheme.lower()
    if scheme not in _SECURE:
        raise BadURL(url, "begin it with http://, https://, ws:// or wss://", what)
    if not parts.hostname:
        raise BadURL(url, "it names no host", what)
    if parts.fragment or url.endswith("#"):
        raise BadURL(url, "a # is written %23 in a URL", what)
    host = _ascii_host(url, parts.hostname, what) + ("" if port is None else f":{port}")
    base = f"{host}{quote(parts.path or '/', safe=_PATH_SAFE)}"
    is_secure = _SECURE[scheme]
    tail = f"?{parts.query}" if parts.query else ""
    return Address(
        url=f"{'wss' if is_secure else 'ws'}://{_user(url, parts, what)}{base}{tail}",
        is_secure=is_secure,
        is_loopback=_is_loopback(parts.hostname),
        shown=f"{scheme}://{base}",
    )


def parse_url(url: str) -> Target:
    """Read the URL of a topic; http, https, ws and wss mean the same place. Raises ``BadURL``."""
    address = parse_address(url, "the URL of a topic")
    parts = urlsplit(address.url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    return Target(
        base=f"{parts.netloc}{parts.path}",
        query=tuple(pair for pair in query if pair[0] not in _OURS),
        is_secure=address.is_secure,
        is_loopback=address.is_loopback,
        since=dict(query).get("since"),
        shown=address.shown,
    )


def _ascii_host(url: str, host: str, what: str) -> str:
    if ":" in host:
        return f"[{host}]"
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise BadURL(url, "its host name cannot be written in ASCII", what) from None


def _user(url: str, parts: SplitResult, what: str) -> str:
    if parts.username is None:
        return ""
    if parts.password is None:
        raise BadURL(url, "it names a user without a password", what)
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
