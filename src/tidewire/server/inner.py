"""The inner FastAPI app: topic functions, calls and hooks are its routes, and it is called in process (CONTRACTS 6).

So path parameters, ``Depends``, ``Security``, ``Request``, 403 and 422 all mean what they mean in FastAPI, and what a
dependency opened is released before anything streams.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints
from urllib.parse import parse_qsl, urlencode

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from tidewire.errors import DeclarationError, Deny
from tidewire.server.identity import Identity

logger = logging.getLogger("tidewire.server")


@dataclass(frozen=True, slots=True)
class Operation:
    """What the caller wants to do; a topic function may take it as a parameter (``op: Operation``).

    ``name`` is ``subscribe`` (also with a position to resume from), ``read``, ``publish`` or ``presence``, and for
    streams of clients ``create``, ``close`` or ``delete``; ``topic`` the full name; ``since`` the position asked for,
    if any; ``data`` what is being published, or what came with a subscription: the decoded JSON value, the ``str`` or
    the ``bytes``.
    """

    name: str
    topic: str
    since: str | None = None
    data: Any = None


@dataclass(frozen=True, slots=True)
class Admission:
    """The caller may. ``value`` is what the function returned."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The caller may not. ``status``, ``detail`` (JSON) and ``headers`` are those of the HTTP answer."""

    status: int
    detail: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """``detail`` as text, for close frames and logs."""
        return self.detail if isinstance(self.detail, str) else msgspec.json.encode(self.detail).decode()


@dataclass(slots=True)
class Call:
    """One call of the inner app: what it is about, who asks where that is known already, and what came of it."""

    operation: Operation
    identity: Identity | None = None
    value: Any = None
    # what does not fit the parameters, as FastAPI's RequestValidationError has it; empty: it fits
    invalid: Sequence[Any] = ()


# where the inner app's scope has the call that runs, and the scope of the request or handshake that it runs for
CALL = "tidewire.call"
OUTER = "tidewire.outer"

_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("tidewire_call", default=None)


def current_call() -> Call | None:
    """The call that runs here; None outside of one."""
    return _current.get()


async def _current_operation() -> Operation:
    call = _current.get()
    assert call is not None, "the inner app runs in calls only"
    return call.operation


class Inner:
    """The app, and the way to call it: within a deadline, and what went wrong in it is a refusal.

    ``deadline_s``: for a call that names none.
    """

    def __init__(self, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        self._app.add_exception_handler(Deny, _on_deny)
        self._app.add_exception_handler(RequestValidationError, _on_invalid)

    def add(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        method: str = "GET",
        dependencies: Sequence[Any] = (),
        check: Callable[[Dependant], None] | None = None,
    ) -> APIRoute:
        """Add a route; returns it. Raises what FastAPI raises for what it cannot serve, and what ``check`` raises.

        ``check`` looks at what the function asks for; nothing is left of a route that it refuses.
        """
        self._app.add_api_route(path, endpoint, methods=[method], dependencies=list(dependencies), response_model=None)
        route = self._app.router.routes[-1]
        assert isinstance(route, APIRoute), "the route just added"
        if check is not None:
            try:
                check(route.dependant)
            except BaseException:
                self._app.router.routes.remove(route)
                raise
        return route

    async def call(
        self,
        path: str,
        call: Call,
        connection: HTTPConnection,
        *,
        what: str,
        method: str = "GET",
        body: bytes = b"",
        deadline_s: float | None = None,
        hidden: Set[str] = frozenset(),
    ) -> Admission | Refusal:
        """Run the route at ``path`` for the caller behind ``connection``; never raises.

        ``what`` names the function in the log and in the refusal. ``body``: JSON. ``hidden``: parameters that are not
        taken from the query of the handshake.
        """
        deadline_s = deadline_s or self._deadline_s
        timer = asyncio.timeout(deadline_s)
        try:
            async with timer:
                return await self.run(path, call, connection, method=method, body=body, hidden=hidden)
        except Exception as error:
            if isinstance(error, TimeoutError) and timer.expired():
                logger.error("%s took longer than %g s", what, deadline_s)
                return Refusal(503, f"{what} took too long: try again later")
            logger.exception("%s failed", what)
            return Refusal(500, f"the application failed in {what}; its log has the error")

    async def run(
        self,
        path: str,
        call: Call,
        connection: HTTPConnection,
        *,
        method: str = "GET",
        body: bytes = b"",
        hidden: Set[str] = frozenset(),
    ) -> Admission | Refusal:
        """The same without a deadline; raises what the application raises that is no answer."""
        token = _current.set(call)
        try:
            return await self._run(path, call, connection, method, body, hidden)
        finally:
            _current.reset(token)

    async def _run(
        self, path: str, call: Call, connection: HTTPConnection, method: str, body: bytes, hidden: Set[str]
    ) -> Admission | Refusal:
        outer = connection.scope.get("app")
        if isinstance(outer, FastAPI):
            self._app.dependency_overrides = outer.dependency_overrides
            self._app.state = outer.state
        answer = _Answer()
        scope = _inner_scope(connection, path, method, has_body=bool(body))
        # for ``Depends(live.identity)``: not the context, which a request made in process inherits from its maker
        scope[CALL], scope[OUTER] = call, connection.scope
        if hidden:
            given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            scope["query_string"] = urlencode([pair for pair in given if pair[0] not in hidden]).encode()
        await self._app(scope, _receive_of(body), answer.send)
        if answer.status < 300:
            return Admission(call.value)
        return Refusal(answer.status, answer.detail, answer.passed_headers)


class _Answer:
    """Collects the inner app's response."""

    def __init__(self) -> None:
        self.status = 500
        self._headers: dict[str, str] = {}
        self._body = b""

    async def send(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event["headers"]}
        elif event["type"] == "http.response.body":
            self._body += event.get("body", b"")

    @property
    def passed_headers(self) -> dict[str, str]:
        return {k: v for k, v in self._headers.items() if k not in {"content-length", "content-type"}}

    @property
    def detail(self) -> Any:
        try:
            return msgspec.json.decode(self._body)["detail"]
        except (msgspec.MsgspecError, KeyError, TypeError):
            return self._body.decode(errors="replace") or "refused"


def _receive_of(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _on_deny(request: Request, error: Exception) -> Response:
    assert isinstance(error, Deny)
    return JSONResponse({"detail": error.reason}, status_code=error.status, headers=error.headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    call = _current.get()
    assert call is not None, "the inner app runs in calls only"
    if request.method == "GET":
        return await request_validation_exception_handler(request, error)
    # the answer repeats the input, which JSON may have no form for (1e999): who calls makes a sentence of it
    call.invalid = error.errors()
    return Response(status_code=422)


# of a handshake: what calls are made of, and where it is kept who that is (``server.identities``)
KNOWN = "tidewire.known"
_KEPT = (
    *("type", "asgi", "http_version", "scheme", "path", "query_string", "headers", "client", "server"),
    *("state", "app", "session", "user", "auth"),
)


def keep_handshake(connection: HTTPConnection, *, is_known: bool) -> HTTPConnection:
    """What calls for the caller behind ``connection`` need of it, once the server is through with it.

    The rest of an ASGI scope, and of a framework's objects around it, is many objects for each of thousands.
    ``is_known``: who makes the calls says whose they are, and nobody has to be asked.
    """
    scope = connection.scope
    names = _KEPT if is_known else (*_KEPT, KNOWN)
    return HTTPConnection({name: scope[name] for name in names if name in scope})


_DROPPED = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"upgrade", b"connection"})


def _inner_scope(connection: HTTPConnection, path: str, method: str, *, has_body: bool) -> dict[str, Any]:
    """An http-shaped scope made from the handshake: same caller, same headers, another path."""
    outer = connection.scope
    scheme = {"ws": "http", "wss": "https"}.get(outer.get("scheme", "http"), outer.get("scheme", "http"))
    headers = [(name, value) for name, value in outer["headers"] if name not in _DROPPED]
    if has_body:
        headers.append((b"content-type", b"application/json"))
    return {
        "type": "http",
        "asgi": outer.get("asgi", {"version": "3.0"}),
        "http_version": outer.get("http_version", "1.1"),
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": outer.get("query_string", b""),
        "headers": headers,
        "client": outer.get("client"),
        "server": outer.get("server"),
        "state": outer.get("state", {}),
        # what outer middleware has put there for the dependencies (SessionMiddleware, AuthenticationMiddleware)
        **{name: outer[name] for name in ("session", "user", "auth") if name in outer},
    }


def make_endpoint(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """``function`` as an endpoint that keeps the value it returned in the call instead of sending it.

    ``what`` names its kind in errors: "topic function". Raises ``DeclarationError`` for generators.
    """
    signature = read_signature(function, what)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(f"the {what} {function.__name__} yields: return instead, and yield in a dependency")
    if inspect.iscoroutinefunction(function):

        async def endpoint(*args: Any, **kwargs: Any) -> Response:
            return _keep(await function(*args, **kwargs))

        chosen: Callable[..., Any] = endpoint
    else:

        async def endpoint_in_thread(*args: Any, **kwargs: Any) -> Response:
            return _keep(await _finish_in_thread(lambda: function(*args, **kwargs)))

        chosen = endpoint_in_thread
    chosen.__name__ = getattr(function, "__name__", "function")
    chosen.__doc__ = function.__doc__
    chosen.__signature__ = signature  # type: ignore[attr-defined]
    return chosen


# threads of functions whose callers have gone, until they end
_left: set[asyncio.Task[Any]] = set()


async def _finish_in_thread(work: Callable[[], Any]) -> Any:
    """Run ``work`` in the pool that FastAPI uses.

    Nobody can interrupt a thread. One whose caller is cancelled keeps its place in the pool until it ends: otherwise
    slow functions would have any number of threads. Who still waits for a place then is not begun.
    """
    is_begun = is_left = False

    def begin() -> Any:
        nonlocal is_begun
        is_begun = True
        return None if is_left else work()

    task = asyncio.get_running_loop().create_task(run_in_threadpool(begin))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        is_left = True
        if not is_begun:
            task.cancel()
        elif not task.done():
            _left.add(task)
            task.add_done_callback(_reap)
        raise


def _reap(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled() and task.exception() is not None:
        logger.error("a function that nobody waited for any more has failed", exc_info=task.exception())


def _keep(value: Any) -> Response:
    call = _current.get()
    assert call is not None, "the inner app runs in calls only"
    call.value = value
    return Response(status_code=204)


def read_signature(function: Callable[..., Any], what: str) -> inspect.Signature:
    """The function's own, with real types, ``Operation`` turned into a dependency and no response model.

    Raises ``DeclarationError`` for annotations that mean nothing.
    """
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise DeclarationError(
            f"the {what} {function.__name__} has an annotation that means nothing: {error} (below `from __future__ "
            "import annotations` they know the module's names only: leave that out, or declare at the module's level)"
        ) from error
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = hints.get(name, parameter.annotation)
        if annotation is Operation:
            annotation = Annotated[Operation, Depends(_current_operation)]
        parameters.append(parameter.replace(annotation=annotation))
    return inspect.Signature(parameters)


def refuse_websockets(dependant: Dependant, what: str) -> None:
    """Raise ``DeclarationError`` where a function, or a dependency of it, takes a WebSocket: there may be none."""
    if dependant.websocket_param_name:
        raise DeclarationError(
            f"{what}: its function, or a dependency of it, takes a WebSocket; it is also asked over HTTP, "
            "so take fastapi's HTTPConnection or Request instead"
        )
    for sub in dependant.dependencies:
        refuse_websockets(sub, what)
