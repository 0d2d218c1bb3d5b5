"""Who may: topic functions run as routes of one inner FastAPI app, called in process (CONTRACTS 6).

So path parameters, ``Depends``, ``Security``, ``Request``, 403 and 422 all mean what they mean in FastAPI, and
what a dependency opened is released before anything streams.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from tidewire.errors import DeclarationError, Deny, UnknownTopic
from tidewire.hub.policy import Latest, Policy
from tidewire.protocol.message import Kind
from tidewire.protocol.topics import Template, validate_topic

logger = logging.getLogger("tidewire.server")


@dataclass(frozen=True, slots=True)
class Operation:
    """What the caller wants to do; a topic function may take it as a parameter (``op: Operation``).

    ``name`` is ``subscribe`` (also with a position to resume from), ``read`` or ``publish``; ``topic`` the full
    name; ``since`` the position asked for, if any; ``data`` what is being published: the decoded JSON value, the
    ``str`` or the ``bytes``.
    """

    name: str
    topic: str
    since: str | None = None
    data: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """One ``@live.topic``."""

    template: Template
    policy: Policy
    function: Callable[..., Any]
    payload: Kind | None
    publish: bool | Callable[..., Any]

    @property
    def key_field(self) -> str | None:
        """The field that keys a ``Latest`` topic, when it is a field."""
        key = self.policy.key if isinstance(self.policy, Latest) else None
        return key if isinstance(key, str) else None


@dataclass(frozen=True, slots=True)
class Admission:
    """The caller may. ``value`` is what the topic function returned."""

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
class _Call:
    """One call of the inner app: what it is about, and what came of it."""

    operation: Operation
    value: Any = None


_current: contextvars.ContextVar[_Call] = contextvars.ContextVar("tidewire_call")


def _current_operation() -> Operation:
    return _current.get().operation


_FOUND_MAX = 10_000


class Gate:
    """Every declaration, and the inner app that decides for them."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        self._app.add_exception_handler(Deny, _on_deny)
        self.declarations: list[Declaration] = []
        # where the routes of each declaration are in the inner app
        self._index: dict[Declaration, int] = {}
        # what was found for a name, because every publish asks; forgotten when there are too many
        self._found: dict[str, Declaration] = {}

    def declare(self, declaration: Declaration) -> None:
        """Add a declaration; the first declared wins where two match. Raises ``DeclarationError``."""
        index = len(self.declarations)
        endpoint = _endpoint(declaration.function)
        publish: Sequence[Any] = [] if isinstance(declaration.publish, bool) else [Depends(declaration.publish)]
        try:
            self._add_route(f"/{index}/read/", declaration, endpoint, [])
            self._add_route(f"/{index}/publish/", declaration, endpoint, publish)
        except DeclarationError:
            raise
        except Exception as error:
            raise DeclarationError(f"topic {declaration.template.text!a}: {error}") from error
        self.declarations.append(declaration)
        self._found.clear()
        self._index[declaration] = index

    def _add_route(
        self, prefix: str, declaration: Declaration, endpoint: Callable[..., Any], dependencies: Sequence[Any]
    ) -> None:
        path = prefix + declaration.template.text
        self._app.add_api_route(path, endpoint, methods=["GET"], dependencies=dependencies, response_model=None)
        route = self._app.router.routes[-1]
        assert isinstance(route, APIRoute), "the route just added"
        _check(route.dependant, declaration.template)

    def find(self, topic: str) -> Declaration:
        """The first declaration that matches a name; raises ``BadTopic`` and ``UnknownTopic``."""
        known = self._found.get(topic)
        if known is not None:
            return known
        validate_topic(topic)
        for declaration in self.declarations:
            if declaration.template.match(topic) is not None:
                if len(self._found) >= _FOUND_MAX:
                    self._found.clear()
                self._found[topic] = declaration
                return declaration
        raise UnknownTopic(topic)

    async def ask(
        self, declaration: Declaration, operation: Operation, connection: HTTPConnection
    ) -> Admission | Refusal:
        """Run the topic function for the caller behind ``connection``; within the deadline, and never raises."""
        call = _Call(operation)
        token = _current.set(call)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._run(call, declaration, connection)
        except TimeoutError:
            logger.error("the topic function of %r took longer than %g s", operation.topic, self._timeout_s)
            return Refusal(503, "the decision who may use this topic took too long: try again later")
        except Exception:
            logger.exception("the topic function of %r failed", operation.topic)
            return Refusal(500, "the application failed to decide who may use this topic; its log has the error")
        finally:
            _current.reset(token)

    async def _run(self, call: _Call, declaration: Declaration, connection: HTTPConnection) -> Admission | Refusal:
        outer = connection.scope.get("app")
        if isinstance(outer, FastAPI):
            self._app.dependency_overrides = outer.dependency_overrides
            self._app.state = outer.state
        answer = _Answer()
        kind = "publish" if call.operation.name == "publish" else "read"
        path = f"/{self._index[declaration]}/{kind}/{call.operation.topic}"
        await self._app(_inner_scope(connection, path), _no_body, answer.send)
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


async def _no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _on_deny(request: Request, error: Exception) -> Response:
    assert isinstance(error, Deny)
    return JSONResponse({"detail": error.reason}, status_code=error.status, headers=error.headers)


def _inner_scope(connection: HTTPConnection, path: str) -> dict[str, Any]:
    """An http-shaped scope made from the handshake: same caller, same headers, another path."""
    outer = connection.scope
    scheme = {"ws": "http", "wss": "https"}.get(outer.get("scheme", "http"), outer.get("scheme", "http"))
    dropped = {b"content-length", b"content-type", b"transfer-encoding", b"upgrade", b"connection"}
    return {
        "type": "http",
        "asgi": outer.get("asgi", {"version": "3.0"}),
        "http_version": outer.get("http_version", "1.1"),
        "method": "GET",
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": outer.get("query_string", b""),
        "headers": [(name, value) for name, value in outer["headers"] if name not in dropped],
        "client": outer.get("client"),
        "server": outer.get("server"),
        "state": outer.get("state", {}),
        # what outer middleware has put there for the dependencies (SessionMiddleware, AuthenticationMiddleware)
        **{name: outer[name] for name in ("session", "user", "auth") if name in outer},
    }


def _endpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as an endpoint that keeps the value it returned for the hub instead of sending it."""
    signature = _signature(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"the topic function {function.__name__} yields: return instead, and yield in a dependency"
        )
    if inspect.iscoroutinefunction(function):

        async def endpoint(*args: Any, **kwargs: Any) -> Response:
            _current.get().value = await function(*args, **kwargs)
            return Response(status_code=204)

        chosen: Callable[..., Any] = endpoint
    else:

        def endpoint_in_thread(*args: Any, **kwargs: Any) -> Response:
            _current.get().value = function(*args, **kwargs)
            return Response(status_code=204)

        chosen = endpoint_in_thread
    chosen.__name__ = getattr(function, "__name__", "topic")
    chosen.__doc__ = function.__doc__
    chosen.__signature__ = signature  # type: ignore[attr-defined]
    return chosen


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The function's own, with real types, ``Operation`` turned into a dependency and no response model."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"the topic function {function.__name__} has an annotation that means nothing: {error}"
        ) from error
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = hints.get(name, parameter.annotation)
        if annotation is Operation:
            annotation = Annotated[Operation, Depends(_current_operation)]
        parameters.append(parameter.replace(annotation=annotation))
    return inspect.Signature(parameters)


def _check(dependant: Dependant, template: Template) -> None:
    """Refuse what cannot work when it is declared: a WebSocket, a body, a path parameter nobody fills."""
    if dependant.websocket_param_name:
        raise DeclarationError(
            f"topic {template.text!a}: its function, or a dependency of it, takes a WebSocket; a topic is also read "
            "over HTTP, so take fastapi's HTTPConnection or Request instead"
        )
    if dependant.body_params:
        raise DeclarationError(
            f"topic {template.text!a}: its function takes a body ({dependant.body_params[0].name}), and there is "
            "none; take op: Operation and look at op.data"
        )
    for sub in dependant.dependencies:
        _check(sub, template)
