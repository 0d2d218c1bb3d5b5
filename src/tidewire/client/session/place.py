"""Where a session is, from the URL that people have. Pure."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

from tidewire.client.errors import BadURL
from tidewire.client.target import Address, parse_address

ENDPOINT = "/-/session"
_WHAT = "the URL of a session"
# what other servers of the protocol end with (Centrifugo: /connection/websocket)
_OTHERS = "/websocket"


def session_address(url: str) -> Address:
    """The endpoint that ``url`` means; raises ``BadURL``.

    That of a router (``http://host/live``) gets ``/-/session``; one that ends so, or with ``/websocket`` as other
    servers of the protocol have it, is taken as it is.
    """
    parts = urlsplit(parse_address(url, _WHAT).url)
    path = parts.path.rstrip("/")
    if not path.endswith((ENDPOINT, _OTHERS)):
        path += ENDPOINT
    return parse_address(urlunsplit(parts._replace(path=path)), _WHAT)


def places_of_topic(url: str) -> list[tuple[str, str]]:
    """Where the topic at ``url`` may be: pairs of a session's URL and the topic's name, the likeliest first.

    The URL does not say where the router's prefix ends, so the shortest one that answers is it: a router takes every
    path below its own. ``http://host/live/-/session/room/1`` says it. Raises ``BadURL``.
    """
    places = [(session, unquote(rest)) for session, rest in _splits(url, "the URL of a topic") if rest]
    if not places:
        raise BadURL(url, "it names no topic", "the URL of a topic")
    return places


def places_of_router(url: str) -> list[str]:
    """Where the session of the router at ``url`` may be, or of one above it; see ``places_of_topic``.

    The shortest comes first here too: below a router of topics every path may be one.
    """
    return [session for session, _ in _splits(url, _WHAT)]


def _splits(url: str, what: str) -> list[tuple[str, str]]:
    """Every way to read ``url`` as a prefix with a session, and what comes after it."""
    parts = urlsplit(parse_address(url, what).url)
    prefix, marker, rest = parts.path.partition(ENDPOINT)
    if marker:
        splits = [(prefix, rest.removeprefix("/"))]
    else:
        segments = parts.path.rstrip("/").split("/")[1:]
        heads = ["".join(f"/{one}" for one in segments[:n]) for n in range(len(segments) + 1)]
        splits = [(head, "/".join(segments[n:])) for n, head in enumerate(heads)]
    return [(urlunsplit(parts._replace(path=head + ENDPOINT)), rest) for head, rest in splits]
