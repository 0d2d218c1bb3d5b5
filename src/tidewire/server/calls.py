"""Calls: functions that sessions invoke by name, as POST routes of the inner FastAPI app (CONTRACTS 6).

A call's data is the body, as JSON. What a function takes is told by its annotations, in the way of FastAPI: one
parameter that is an object (a pydantic model, a dataclass, a TypedDict, a dict) is the whole data, every other one is a
field of it. ``Body()`` takes the whole data whatever its type. Nothing else is taken from elsewhere unless it says so
(``Header()``, ``Query()``, ``Depends``), because what is not in the data would come from the URL of the handshake.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import logging
import math
import re
import types
from asyncio import CancelledError, Task, current_task
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from fastapi import Body, Response, UploadFile, params
from fastapi.dependencies.models import Dependant
from fastapi.security import SecurityScopes
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection

from tidewire.errors import BadPayload, CallError, DeclarationError, TooLarge
from tidewire.limits import Limits
from tidewire.protocol import codes
from tidewire.protocol.payload import check_json, encode_json
from tidewire.server.identity import Identity
from tidewire.server.inner import (
    Call,
    Inner,
    Operation,
    Refusal,
    current_call,
    read_signature,
    refuse_websockets,
)
from tidewire.server.invocation import CallStream, Invocation, running

logger = logging.getLogger("tidewire.server")

OPERATION = "call"
"""The name of the operation that a function sees."""

_METHOD = re.compile(r"[A-Za-z0-9_\-.:/]{1,255}")
_RESERVED = "tidewire."
_OWN_CODES = range(400, 2000)
_PROTOCOL_CODES = frozenset(fault.code for fault in codes.FAULTS)
_FAULTS = {401: codes.UNAUTHORIZED, 403: codes.PERMISSION_DENIED, 429: codes.TOO_MANY_REQUESTS}
_SENTENCE_MAX = 300
_PROBLEMS_TOLD_MAX = 3
# what a stream hands over before its items, and what it returns
_OPENED = _ENDED = b""
# what FastAPI answers to a body that json.loads cannot take although it is JSON: an integer of 5,000 digits
_UNPARSED = (400, "There was an error parsing the body")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Method:
    """One ``@live.call``."""

    what: str
    path: str
    timeout_s: float
    streams: bool
    # the function takes the operation, so that is made of the data
    takes_operation: bool
    # those that go on without a caller
    left: set[Task[None]]


class Calls:
    """Every declared call, and the way to invoke one."""

    def __init__(self, inner: Inner, limits: Limits) -> None:
        self._inner = inner
        self._limits = limits
        self._methods: dict[str, _Method] = {}
        # a declaration that failed leaves its route behind: each has a path of its own
        self._numbers = itertools.count()

    def __contains__(self, method: str) -> bool:
        return method in self._methods

    def declare(self, method: str, function: Callable[..., Any], *, timeout_s: float | None = None) -> None:
        """Let sessions invoke ``function`` as ``method``; raises ``DeclarationError`` for what cannot work.

        ``timeout_s``: what it gets to answer, or an async generator to yield its next item (None:
        ``Limits.call_timeout_s``).
        """
        self._check_method(method)
        what = f"the call {method!r}"
        timeout_s = _check_timeout(timeout_s, self._limits.call_timeout_s, what)
        path = f"/calls/{next(self._numbers)}"
        endpoint = self._make_endpoint(function, what)
        try:
            route = self._inner.add(path, endpoint, method="POST")
        except Exception as error:
            raise DeclarationError(f"{what}: {error}") from error
        refuse_websockets(route.dependant, what)
        _refuse_what_is_not_data(route.dependant, what)
        self._methods[method] = _Method(
            what=what,
            path=path,
            timeout_s=timeout_s,
            streams=inspect.isasyncgenfunction(function),
            takes_operation=Operation in _hinted(function),
            left=set(),
        )

    def _check_method(self, method: object) -> None:
        if not isinstance(method, str):
            raise DeclarationError(f'a call has a name: write @live.call("order.place"), not {method!r}')
        if not _METHOD.fullmatch(method):
            raise DeclarationError(
                f"{method[:80]!a} is no name for a call: use 1 to 255 letters, digits and _ - . : / of ASCII"
            )
        if method.startswith(_RESERVED):
            raise DeclarationError(f"{method!r}: names of calls that begin with {_RESERVED!r} are for Tidewire itself")
        if method in self._methods:
            raise DeclarationError(f"the call {method!r} is declared twice: give each function a name of its own")

    # Invoking

    async def invoke(
        self, method: str, data: bytes, connection: HTTPConnection, identity: Identity | None
    ) -> bytes | CallStream:
        """Run a call for the caller behind ``connection``: the returned value as JSON, or a stream of such values.

        ``data``: JSON, empty for none. ``identity``: who that is, where it is known. Raises ``CallError`` with a code
        of the protocol or of the application. Cancelling whoever waits ends the function; see ``Invocation`` for what
        goes on after that. A stream is to be read to its end, or closed.
        """
        declared = self._methods.get(method)
        if declared is None:
            raise _error(codes.METHOD_NOT_FOUND)
        self._check_data(data)
        left_n = sum(not task.done() for task in declared.left)
        if left_n >= self._limits.calls_left_max:
            logger.error("%d of %s go on without a caller: refused another", left_n, declared.what)
            raise _error(codes.TOO_MANY_REQUESTS, f"{declared.what} is still busy with callers who left: try later")
        operation = Operation(OPERATION, method, data=_decode(data) if declared.takes_operation else None)
        call = Call(operation, identity)
        invocation = Invocation(declared.what, declared.left, close_s=self._limits.call_close_s)
        invocation.begin(functools.partial(self._run, declared, call, connection, data))
        answer = await invocation.next(declared.timeout_s)
        assert answer is not None, "a result, or the word that a stream is open"
        return CallStream(invocation, declared.timeout_s) if declared.streams else answer

    def _check_data(self, data: bytes) -> None:
        limit = self._limits.message_bytes_max
        if len(data) > limit:
            raise _error(codes.LIMIT_EXCEEDED, str(TooLarge(len(data), limit, "the data of a call")))
        if not data:
            return
        try:
            check_json(data)
        except BadPayload as error:
            raise _error(codes.BAD_COMMAND, f"the data of a call is JSON: {error}") from None

    async def _run(self, declared: _Method, call: Call, connection: HTTPConnection, data: bytes) -> bytes | None:
        """The work of an invocation: what went wrong becomes a ``CallError``, and the log has it."""
        try:
            answer = await self._inner.run(declared.path, call, connection, method="POST", body=data)
        except CallError as error:
            raise _vet(error, declared) from None
        except CancelledError:
            task = current_task()
            if task is None or task.cancelling():
                raise
            # nobody has cancelled this: the function waited for something that was
            logger.exception("%s failed", declared.what)
            raise _failed(declared) from None
        except Exception:
            logger.exception("%s failed", declared.what)
            raise _failed(declared) from None
        if isinstance(answer, Refusal):
            raise _refused(answer, call, declared)
        value: bytes | None = answer.value
        if value is None:
            # HTTPException(204), say
            logger.error("%s raised a status of success, and returned nothing: raise CallError", declared.what)
            raise _failed(declared)
        return None if declared.streams else value

    # Endpoints

    def _make_endpoint(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        """``function`` as an endpoint of the inner app, whose dependencies live until its value is encoded."""
        if not inspect.isfunction(function) and not inspect.ismethod(function):
            raise DeclarationError(f"{what} is a function, and {function!r} is none: wrap it in a def")
        if inspect.isgeneratorfunction(function):
            raise DeclarationError(f"{what} yields from a plain def: write async def, and await what is slow")
        signature = _fill_from_data(read_signature(function, f"function of {what}"), what)
        if inspect.isasyncgenfunction(function):
            endpoint = self._stream_endpoint(function)
        elif inspect.iscoroutinefunction(function):
            endpoint = self._async_endpoint(function)
        else:
            endpoint = self._thread_endpoint(function)
        endpoint.__name__ = function.__name__
        endpoint.__signature__ = signature  # type: ignore[attr-defined]
        return endpoint

    def _async_endpoint(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def endpoint(**arguments: Any) -> Response:
            return _keep(self._encode(await function(**arguments)))

        return endpoint

    def _thread_endpoint(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def work(arguments: dict[str, Any]) -> Any:
            value = function(**arguments)
            # a decorated async def looks like a plain one
            return value if inspect.isawaitable(value) else self._encode(value)

        async def endpoint(**arguments: Any) -> Response:
            value = await running().in_thread(functools.partial(work, arguments))
            return _keep(value if isinstance(value, bytes) else self._encode(await value))

        return endpoint

    def _stream_endpoint(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def endpoint(**arguments: Any) -> Response:
            invocation = running()
            await invocation.hand(_OPENED)
            async with aclosing(function(**arguments)) as items:
                async for item in items:
                    await invocation.hand(self._encode(item))
            return _keep(_ENDED)

        return endpoint

    def _encode(self, value: object) -> bytes:
        encoded = encode_json(value)
        limit = self._limits.message_bytes_max
        if len(encoded) > limit:
            raise _error(codes.LIMIT_EXCEEDED, f"{TooLarge(len(encoded), limit, 'the result of a call')}: ask for less")
        return encoded


def _keep(encoded: bytes) -> Response:
    call = current_call()
    assert call is not None, "the inner app runs in calls only"
    call.value = encoded
    return Response(status_code=204)


def _decode(data: bytes) -> Any:
    return msgspec.json.decode(data) if data else None


# What went wrong, as the protocol says it (notes of the Centrifuge client protocol, error codes)


def _error(fault: codes.Fault, sentence: str | None = None) -> CallError:
    return CallError(fault.code, sentence or fault.name, temporary=fault.temporary)


def _failed(declared: _Method) -> CallError:
    return _error(codes.INTERNAL, f"{declared.what} failed; the log of the application has the error")


def _vet(error: CallError, declared: _Method) -> CallError:
    """What the application says, if the protocol has a place for it."""
    code = error.code
    if code in _OWN_CODES or code in _PROTOCOL_CODES:
        return CallError(code, _clean(error.message), temporary=error.temporary)
    logger.error("%s raised CallError(%r, %r): codes of applications are 400 to 1999", declared.what, code, error)
    return _failed(declared)


def _refused(refusal: Refusal, call: Call, declared: _Method) -> CallError:
    """An answer of FastAPI or of the application that is no success."""
    if call.invalid:
        return _error(codes.BAD_COMMAND, _clean(_explain(call.invalid, declared))[:_SENTENCE_MAX])
    status, sentence = refusal.status, _clean(refusal.sentence)[:_SENTENCE_MAX]
    if (status, refusal.detail) == _UNPARSED:
        return _error(codes.BAD_COMMAND, "the data of a call has a number that is too long to be read")
    fault = _FAULTS.get(status)
    if fault is not None:
        return _error(fault, sentence)
    if status in _OWN_CODES and not 500 <= status < 600:
        return CallError(status, sentence)
    logger.error("%s answered with status %d: %s", declared.what, status, sentence)
    return _failed(declared)


def _explain(problems: Sequence[Any], declared: _Method) -> str:
    """FastAPI's list of what does not fit as a sentence that names the fields."""
    told = [f"{_place(problem.get('loc', ()))}: {problem.get('msg')}" for problem in problems[:_PROBLEMS_TOLD_MAX]]
    more = len(problems) - len(told)
    return f"{declared.what} does not take this: " + "; ".join(told) + (f"; and {more} more" if more else "")


def _place(location: Sequence[Any]) -> str:
    kind, *path = location or ("body",)
    name = ".".join(str(part) for part in path)
    if kind == "body":
        return name or "the data"
    return f"{name} ({kind} of the connection)"


def _clean(sentence: str) -> str:
    """Without lone surrogates, which no frame can carry."""
    return sentence.encode("utf-8", "replace").decode()


# What a function takes

_SPECIAL = (HTTPConnection, Response, BackgroundTasks, SecurityScopes)


def _fill_from_data(signature: inspect.Signature, what: str) -> inspect.Signature:
    """``signature`` with everything that FastAPI would take from the query made a part of the body."""
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DeclarationError(f"{what} takes *{parameter.name}: name each parameter, clients send them by name")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise DeclarationError(f"{what} takes {parameter.name} by position only: parameters are given by name")
        if not _is_of_fastapi(parameter):
            annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
            body = Body() if _is_object(annotation) else Body(embed=True)
            parameter = parameter.replace(annotation=Annotated[annotation, body])
        parameters.append(parameter)
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def _is_of_fastapi(parameter: inspect.Parameter) -> bool:
    """Whether it says itself where it comes from."""
    annotation, marks = parameter.annotation, [parameter.default]
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        marks += more
    if any(isinstance(mark, params.Depends | params.Param | params.Body) for mark in marks):
        return True
    return isinstance(annotation, type) and issubclass(annotation, _SPECIAL)


def _is_object(annotation: Any) -> bool:
    """Whether values of this type are JSON objects."""
    annotation = getattr(annotation, "__value__", annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_object(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        members = [member for member in get_args(annotation) if member is not type(None)]
        return all(_is_object(member) for member in members)
    kind = origin or annotation
    if not isinstance(kind, type):
        return False
    # a TypedDict is a dict to Python
    return hasattr(kind, "model_validate") or dataclasses.is_dataclass(kind) or issubclass(kind, Mapping)


def _refuse_what_is_not_data(dependant: Dependant, what: str) -> None:
    """Raise ``DeclarationError`` for what a client could forge, and for forms and paths."""
    for field in dependant.path_params:
        raise DeclarationError(f"{what} takes {field.name} from a path (Path): a call has none, take it from the data")
    for field in dependant.body_params:
        mentioned = set(_mentioned(field.field_info.annotation))
        if isinstance(field.field_info, params.Form) or UploadFile in mentioned:
            raise DeclarationError(f"{what} takes {field.name} from a form: a call's data is JSON, and files go apart")
        if Identity in mentioned:
            raise DeclarationError(
                f"{what} would take who the caller is ({field.name}) from the caller's data: "
                "write it as Depends(live.identity)"
            )
        if Operation in mentioned:
            raise DeclarationError(
                f"{what} would take the operation ({field.name}) from the caller's data: "
                "only its function itself may take one, written as op: Operation"
            )
    for sub in dependant.dependencies:
        _refuse_what_is_not_data(sub, what)


def _mentioned(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _mentioned(argument)


def _hinted(function: Callable[..., Any]) -> list[Any]:
    """The types of the parameters, without what they are annotated with."""
    annotations = [parameter.annotation for parameter in read_signature(function, "function").parameters.values()]
    return [get_args(one)[0] if get_origin(one) is Annotated else one for one in annotations]


def _check_timeout(timeout_s: object, usual_s: float, what: str) -> float:
    if timeout_s is None:
        return usual_s
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        raise DeclarationError(f"{what}: timeout_s is a number of seconds above 0, not {timeout_s!r}")
    return timeout_s
