"""The server's own sentence out of a refusal's body. Pure."""

from __future__ import annotations

import msgspec

from tidewire.client.errors import shorten

_BODY_MAX = 64 * 1024


def read_detail(body: bytes, content_type: str) -> str:
    """The sentence in ``{"detail": ...}`` (FastAPI's shape, its list of 422 included), or a short plain text.

    Anything else (an HTML page of a proxy, say) gives an empty text.
    """
    body = body[:_BODY_MAX]
    if "json" in content_type:
        return _from_json(body)
    if content_type.startswith("text/plain"):
        return shorten(body.decode(errors="replace"), 300)
    return ""


def _from_json(body: bytes) -> str:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    detail = answer.get("detail", "") if isinstance(answer, dict) else ""
    if isinstance(detail, list):
        return shorten("; ".join(_from_problem(problem) for problem in detail), 300)
    return shorten(detail if isinstance(detail, str) else msgspec.json.encode(detail).decode(), 300)


def _from_problem(problem: object) -> str:
    """One entry of FastAPI's list: ``{"loc": ["path", "symbol"], "msg": "..."}``."""
    if not isinstance(problem, dict):
        return str(problem)
    place = problem.get("loc")
    where = ".".join(str(part) for part in place) + ": " if isinstance(place, list) else ""
    return f"{where}{problem.get('msg', '')}"
