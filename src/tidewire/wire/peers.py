"""Peers that vanish without a word, and peers that are given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tidewire.limits import ABANDONED_AFTER_S

# SO_LINGER on with zero seconds: the kernel drops its send buffer and sends RST instead of lingering in FIN_WAIT1
_DROP_AT_ONCE = struct.pack("ii", 1, 0)


def let_kernel_judge(transport: asyncio.BaseTransport) -> None:
    """Have the kernel give up a peer that acknowledges nothing for a while (``TCP_USER_TIMEOUT``, RFC 5482).

    Linux; elsewhere pings, or the kernel's own and longer time, must do.
    """
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, int(ABANDONED_AFTER_S * 1000))


def abort_transport(transport: asyncio.Transport) -> None:
    """Drop the connection and everything buffered for it, in this process and in the kernel."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # an error means that it is closed already (ValueError: uvloop's word for that): there is nothing left to drop
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_AT_ONCE)
    transport.abort()
