"""Calls of a session: they go on beside its commands, and end with it."""

from __future__ import annotations

import logging

import msgspec

from tidewire.errors import CallError
from tidewire.protocol import codes, packets
from tidewire.server.session.session import Refused, Session

logger = logging.getLogger("tidewire.server")


async def call(session: Session, request: packets.RPCRequest, command_id: int) -> None:
    """Begin a call; it is answered when it is done."""
    if session.calls_n >= session.site.limits.session_calls_max:
        most = session.site.limits.session_calls_max
        raise Refused(codes.TOO_MANY_REQUESTS, f"{most} calls of this session go on already")
    session.calls_n += 1
    session.spawn(_run(session, request, command_id))


async def _run(session: Session, request: packets.RPCRequest, command_id: int) -> None:
    try:
        answer = await session.site.calls.invoke(request.method, bytes(request.data), session.http, session.identity)
        if not isinstance(answer, bytes):
            # the protocol has one answer to a command
            answer = await answer.collect(session.site.limits.message_bytes_max)
        session.reply(command_id, packets.RPCResult(data=msgspec.Raw(answer)))
    except CallError as error:
        session.refuse(command_id, packets.Error(error.code, error.message, error.temporary))
    except Exception:
        logger.exception("the call %r failed", request.method)
        session.refuse(command_id, Refused(codes.INTERNAL).error)
    finally:
        session.calls_n -= 1
