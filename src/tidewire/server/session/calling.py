"""Calls of a session: they go on beside its commands, and end with it.

The protocol has one answer to a command. A function that yields is answered with the array of its items; who wants them
as they come calls ``tidewire.stream`` with ``{"id", "method", "data"}``: each item is a ``message`` push
``{"stream": id, "item": ...}``, and the answer, behind the last one, is ``{"items": how many}``. ``tidewire.cancel``
with ``{"id"}`` ends it early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import msgspec

from tidewire.errors import CallError
from tidewire.protocol import codes, packets
from tidewire.protocol.packets import Push
from tidewire.server.session.session import Refused, Session

logger = logging.getLogger("tidewire.server")

STREAM = "tidewire.stream"
CANCEL = "tidewire.cancel"
_ID_LENGTH_MAX = 64
_encoder = msgspec.json.Encoder()


class StreamRequest(msgspec.Struct):
    """The data of ``tidewire.stream``; ``id`` is the client's, and names no other stream of its session."""

    id: str
    method: str
    data: msgspec.Raw = msgspec.Raw()


class CancelRequest(msgspec.Struct):
    """The data of ``tidewire.cancel``."""

    id: str


class _Item(msgspec.Struct):
    stream: str
    item: msgspec.Raw


Asked = TypeVar("Asked", StreamRequest, CancelRequest)


async def call(session: Session, request: packets.RPCRequest, command_id: int) -> packets.RPCResult | None:
    """Begin a call; it is answered when it is done."""
    if request.method == CANCEL:
        return _cancel(session, _read(request, CancelRequest))
    if len(session.calls) >= session.site.limits.session_calls_max:
        most = session.site.limits.session_calls_max
        raise Refused(codes.TOO_MANY_REQUESTS, f"{most} calls of this session go on already")
    if request.method == STREAM:
        asked = _read(request, StreamRequest)
        if not 1 <= len(asked.id) <= _ID_LENGTH_MAX or asked.id in session.calls:
            raise Refused(codes.BAD_COMMAND, f"a stream has an id of its own, of 1 to {_ID_LENGTH_MAX} characters")
        _begin(session, asked.id, command_id, lambda: _stream(session, asked))
    else:
        _begin(session, command_id, command_id, lambda: _call(session, request))
    return None


def _begin(session: Session, name: str | int, command_id: int, work: Callable[[], Awaitable[bytes]]) -> None:
    task = session.calls[name] = session.spawn(_answer(session, command_id, work))

    def forget(ended: asyncio.Task[None]) -> None:
        if session.calls.get(name) is ended:
            del session.calls[name]
        if ended.cancelled():
            session.refuse(command_id, packets.Error(codes.INTERNAL.code, "the call was cancelled"))

    task.add_done_callback(forget)


def _read(request: packets.RPCRequest, kind: type[Asked]) -> Asked:
    try:
        return msgspec.json.decode(bytes(request.data), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(codes.BAD_COMMAND, f"{request.method}: {error}") from None


def _cancel(session: Session, asked: CancelRequest) -> packets.RPCResult:
    """End a stream; one that has ended is ended already."""
    task = session.calls.get(asked.id)
    if task is not None:
        task.cancel()
    return packets.RPCResult(data=msgspec.Raw(b"{}"))


async def _answer(session: Session, command_id: int, work: Callable[[], Awaitable[bytes]]) -> None:
    try:
        session.reply(command_id, packets.RPCResult(data=msgspec.Raw(await work())))
    except CallError as error:
        session.refuse(command_id, packets.Error(error.code, error.message, error.temporary))
    except Exception:
        logger.exception("a call failed")
        session.refuse(command_id, Refused(codes.INTERNAL).error)


async def _call(session: Session, request: packets.RPCRequest) -> bytes:
    answer = await session.site.calls.invoke(request.method, bytes(request.data), session.http, session.identity)
    if isinstance(answer, bytes):
        return answer
    return await answer.collect(session.site.limits.message_bytes_max)


async def _stream(session: Session, asked: StreamRequest) -> bytes:
    """Push items as they come; the function waits while the client does not read."""
    answer = await session.site.calls.invoke(asked.method, bytes(asked.data), session.http, session.identity)
    if isinstance(answer, bytes):
        raise CallError(codes.BAD_COMMAND.code, f"{asked.method} does not stream: call it without {STREAM}")
    outbox, n = session.connection.outbox, 0
    async with aclosing(answer):
        async for item in answer:
            n += 1
            data = msgspec.Raw(_encoder.encode(_Item(asked.id, msgspec.Raw(item))))
            session.push(Push(message=packets.Message(data=data)))
            if outbox.under_pressure:
                await outbox.drained()
    # an answer goes ahead of what is queued, and this one belongs behind its items
    await outbox.drained()
    return b'{"items":%d}' % n
