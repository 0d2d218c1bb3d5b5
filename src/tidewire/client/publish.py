"""``publish``: one POST, one message."""

from __future__ import annotations

import asyncio
import ssl
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from tidewire.client.dial import is_refused
from tidewire.client.errors import NoAnswer, NotATopic, NothingListens, Refused
from tidewire.client.reconnect import parse_retry_after
from tidewire.client.refusal import read_detail
from tidewire.client.target import Headers, Target, check_headers, parse_url
from tidewire.protocol.message import Kind
from tidewire.protocol.payload import encode

if TYPE_CHECKING:
    import httpx

_CONTENT_TYPES: Final = {
    Kind.JSON: "application/json",
    Kind.TEXT: "text/plain; charset=utf-8",
    Kind.BYTES: "application/octet-stream",
}
# Below the 5 s after which uvicorn drops an idle connection, so that a publish does not meet a closing one.
_KEEPALIVE_S: Final = 2.0
_ANSWER_MAX: Final = 64 * 1024


async def publish(
    url: str, obj: object, *, id: str | None = None, headers: Headers | None = None, timeout_s: float = 10.0
) -> str | None:
    """Publish ``obj`` to the topic at ``url``; returns its position (None where the topic numbers nothing).

    str is text, bytes are bytes, everything else JSON (pydantic models, dataclasses, a list as one message).
    ``id``: publishing again with the same id within the server's window publishes once and returns the first
    position. Raises ``BadURL``, ``BadPayload``, ``NothingListens``, ``Refused`` (with the server's sentence),
    ``NotATopic``, and ``NoAnswer`` when it is not known whether the message arrived: repeat it with an ``id``.
    """
    async with Publisher(url, headers=headers, timeout_s=timeout_s) as publisher:
        return await publisher.publish(obj, id=id)


class Publisher:
    """Many messages to one topic, in order, over one connection; an async context manager. See ``publish``."""

    def __init__(self, url: str, *, headers: Headers | None = None, timeout_s: float = 10.0) -> None:
        self._target = parse_url(url)
        self._headers = check_headers(headers)
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._http = _make_http(self._target, self._timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def publish(self, obj: object, *, id: str | None = None) -> str | None:
        """One message; as the function ``publish``. Raises ``RuntimeError`` outside ``async with``."""
        if self._http is None:
            raise RuntimeError("use it as: async with Publisher(url) as publisher: await publisher.publish(...)")
        kind, payload = encode(obj)
        if kind is Kind.JSON and payload.lstrip().startswith(b"["):
            payload = b"[" + payload + b"]"  # an array is a batch (CONTRACTS 3); this list is one message
        headers = [*self._headers, ("Content-Type", _CONTENT_TYPES[kind])]
        if id is not None:
            headers += check_headers([("Idempotency-Key", id)])
        answer, body = await self._post(self._http, payload, headers)
        return self._read_answer(answer, body)

    async def _post(
        self, http: httpx.AsyncClient, payload: bytes, headers: list[tuple[str, str]]
    ) -> tuple[httpx.Response, bytes]:
        import httpx

        shown = self._target.shown
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                http.stream("POST", self._target.http_url, content=payload, headers=headers) as answer,
            ):
                return answer, await _read_start(answer)
        except httpx.ConnectError as error:
            raise NothingListens(shown, "" if _has_refusal(error) else str(error)) from None
        except httpx.ConnectTimeout:
            raise NothingListens(shown, f"no connection within {self._timeout_s:g} s") from None
        except (TimeoutError, httpx.TimeoutException):
            why = f"nothing within {self._timeout_s:g} s, so the message may have arrived or not; repeat it with an id"
            raise NoAnswer(shown, why) from None
        except httpx.HTTPError as error:
            why = f"{str(error) or type(error).__name__}, so the message may have arrived or not; repeat it with an id"
            raise NoAnswer(shown, why) from None

    def _read_answer(self, answer: httpx.Response, body: bytes) -> str | None:
        status, shown = answer.status_code, self._target.shown
        if 200 <= status < 300:
            position: str | None = answer.headers.get("Stream-Next-Offset")
            return position
        if status < 400:
            raise NotATopic(shown, f"it redirects ({status}) to {answer.headers.get('Location', 'nowhere')}; use that")
        detail = read_detail(body, answer.headers.get("Content-Type", ""))
        after_s = parse_retry_after(answer.headers.get("Retry-After"), time.time())
        raise Refused(shown, status=status, detail=detail, retry_after_s=after_s)


async def _read_start(answer: httpx.Response) -> bytes:
    """The body, or its beginning when somebody pours out more than any refusal has to say."""
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > _ANSWER_MAX:
            break
    return body


def _make_http(target: Target, timeout_s: float) -> httpx.AsyncClient:
    import httpx

    # Loading the certificates takes tens of milliseconds; an address without TLS gets a context that trusts nobody.
    verify = True if target.is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEPALIVE_S)
    try:
        return httpx.AsyncClient(
            verify=verify, timeout=timeout_s, limits=limits, trust_env=not target.is_loopback, follow_redirects=False
        )
    except (ValueError, ImportError) as error:
        raise NothingListens(
            target.shown, f"the proxy that this machine is set to use cannot be used ({error})"
        ) from None


def _has_refusal(error: BaseException | None) -> bool:
    """Whether a refused connection is somewhere down the chain (httpx wraps anyio, which wraps the system)."""
    while error is not None:
        parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        if is_refused(error) or any(_has_refusal(part) for part in parts):
            return True
        error = error.__cause__ or error.__context__
    return False
