"""Peers that vanish without a word."""

from __future__ import annotations

import asyncio
import socket

from tidewire.limits import ABANDONED_AFTER_S


def let_kernel_judge(transport: asyncio.BaseTransport) -> None:
    """Have the kernel give up a peer that acknowledges nothing for a while (``TCP_USER_TIMEOUT``, RFC 5482).

    Linux; elsewhere pings, or the kernel's own and longer time, must do.
    """
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, int(ABANDONED_AFTER_S * 1000))
