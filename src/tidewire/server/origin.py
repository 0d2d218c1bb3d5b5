"""Who may ask from a browser: Origin, CORS and Host rules (CONTRACTS 11). Pure functions of header texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Authority:
    """A host (lower case, no brackets) and a port; port None: the default one of whatever scheme."""

    host: str
    port: int | None


def parse_authority(text: str) -> Authority | None:
    """``host[:port]`` as a Host header has it; None when it is malformed."""
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.username is not None or parts.path or parts.query or parts.fragment:
            return None
        return Authority(parts.hostname, parts.port)
    except ValueError:
        return None


def parse_origin(text: str) -> tuple[str, Authority] | None:
    """``scheme://host[:port]`` (RFC 6454 section 6); None for ``null`` and whatever else is no origin."""
    try:
        parts = urlsplit(text)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
            return None
        if parts.path or parts.query or parts.fragment or not text.isascii():
            return None
        return parts.scheme, Authority(parts.hostname, parts.port)
    except ValueError:
        return None


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` (a name or an address) is this machine."""
    if host is None:
        return False
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class OriginRule:
    """The decision about an ``Origin``.

    ``allowed``: further origins, exactly as a browser sends them; ``"*"`` among them allows every origin.
    """

    allowed: Sequence[str] = ()

    def permits(self, origin: str | None, host: str | None, server_host: str | None) -> bool:
        """Whether a request with this ``Origin`` may go on.

        ``origin``: the header, None when absent (then it is no browser). ``host``: the Host header.
        ``server_host``: the address the connection came in on. By default an origin must name the same host
        and port as the Host header; the scheme is not compared, because a proxy may end TLS.
        """
        if origin is None or "*" in self.allowed or origin in self.allowed:
            return True
        parsed = parse_origin(origin)
        if parsed is None:
            return False
        scheme, asked = parsed
        if is_loopback(server_host) and is_loopback(asked.host) and _names_loopback(host):
            return True
        target = None if host is None else parse_authority(host)
        if target is None or target.host != asked.host:
            return False
        default = _DEFAULT_PORTS[scheme]
        # a Host without a port means the default port of the scheme the browser used, which is the origin's
        return (asked.port or default) == (target.port or default)

    def explain(self, origin: str, setting: str = "Live(origins=") -> str:
        """What a refusal says; ``setting`` is the beginning of the call that would allow it."""
        if origin == "null":
            return "the origin null is refused: serve the page over http instead of opening it as a file"
        return f"pages of {origin[:200]} may not use this server: allow them with {setting}[{origin[:200]!r}])"


def _names_loopback(host: str | None) -> bool:
    target = None if host is None else parse_authority(host)
    return target is not None and is_loopback(target.host)


# what scripts of allowed pages may read of an answer, and send: the headers of Durable Streams (PROTOCOL.md 13.2), and
# what HTTP has beside them
_EXPOSED = ", ".join(
    (
        "Stream-Next-Offset", "Stream-Up-To-Date", "Stream-Closed", "Stream-Cursor", "Stream-TTL", "Stream-Expires-At",
        "Stream-SSE-Data-Encoding", "Producer-Epoch", "Producer-Seq", "Producer-Expected-Seq", "Producer-Received-Seq",
        "ETag", "Location", "Retry-After",
    )
)  # fmt: skip
_ALLOWED = ", ".join(
    (
        "Content-Type", "Authorization", "Idempotency-Key", "Last-Event-ID", "If-None-Match", "Stream-Seq",
        "Stream-Closed", "Stream-TTL", "Stream-Expires-At", "Producer-Id", "Producer-Epoch", "Producer-Seq",
    )
)  # fmt: skip


def cors_headers(origin: str | None, rule: OriginRule) -> list[tuple[str, str]]:
    """What a response to an allowed foreign page carries; nothing for origins that are not on the list."""
    if origin is None or not (origin in rule.allowed or "*" in rule.allowed):
        return [("vary", "Origin")] if rule.allowed else []
    return [
        ("access-control-allow-origin", origin),
        ("vary", "Origin"),
        ("access-control-expose-headers", _EXPOSED),
    ]


def preflight_headers(origin: str, rule: OriginRule) -> list[tuple[str, str]]:
    """The answer to a preflight from an origin that ``rule`` permits."""
    return [
        *cors_headers(origin, rule),
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, DELETE"),
        ("access-control-allow-headers", _ALLOWED),
        ("access-control-max-age", "600"),
    ]
