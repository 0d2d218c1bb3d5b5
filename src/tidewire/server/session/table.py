"""Which function does which command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tidewire.protocol import codes, packets
from tidewire.protocol.packets import Command, Packet
from tidewire.server.session import calling, connecting, looking, publishing, subscribing
from tidewire.server.session.session import Refused, Session


async def execute(session: Session, command: Command) -> Packet | None:
    """Do one command; returns its result, or None where it was or will be answered otherwise. Raises ``Refused``."""
    request = command.request
    assert request is not None, "pongs do not come here"
    return await _COMMANDS[type(request)](session, request, command.id)


async def ping(session: Session, request: packets.PingRequest, command_id: int) -> None:
    """Servers ping here."""
    raise Refused(codes.NOT_AVAILABLE, "the server sends the pings")


_COMMANDS: dict[type[Packet], Callable[..., Awaitable[Packet | None]]] = {
    packets.ConnectRequest: connecting.connect,
    packets.SubscribeRequest: subscribing.subscribe,
    packets.UnsubscribeRequest: subscribing.unsubscribe,
    packets.PublishRequest: publishing.publish,
    packets.PresenceRequest: looking.presence,
    packets.PresenceStatsRequest: looking.presence_stats,
    packets.HistoryRequest: looking.history,
    packets.PingRequest: ping,
    packets.SendRequest: publishing.send,
    packets.RPCRequest: calling.call,
    packets.RefreshRequest: connecting.refresh,
    packets.SubRefreshRequest: subscribing.sub_refresh,
}
