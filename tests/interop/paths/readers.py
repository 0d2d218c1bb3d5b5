"""Readers of every wire, by hand."""

from __future__ import annotations

import json

from tests.interop.paths.servers import Server
from tests.wire.frames import CLOSE, frame, split, upgrade
from tests.wire.readers import EventReader, Reader, WebSocketReader
from tests.wire.servers import Peer

__all__ = ["KINDS", "BareReader", "EventReader", "Reader", "WebSocketReader", "read_close"]


class BareReader(Reader):
    """A WebSocket that sees payloads; nothing tells when it is live."""

    @property
    def request(self) -> bytes:
        return upgrade(f"/live/{self.topic}")

    def parse(self) -> None:
        if not self._head:
            self.live.set()
        frames, self.unparsed = split(self.unparsed)
        for each in frames:
            if each.opcode == CLOSE:
                self.close = each.close
            else:
                self.numbers.append(json.loads(each.payload)["n"])


KINDS: tuple[type[Reader], ...] = (BareReader, WebSocketReader, EventReader)


def read_close(server: Server, peer: Peer) -> tuple[int, str]:
    """Read up to the server's close frame and answer it: code and reason. What came before is in ``received``."""
    peer.receive(lambda data: any(each.opcode == CLOSE for each in split(data)[0]))
    close = split(peer.received)[0][-1]
    length = len(peer.received)
    peer.send(frame(CLOSE, close.payload))
    ended = peer.read_to_end()
    assert len(peer.received) == length, "nothing comes after a close frame"
    assert ended == "closed" or not server.way.waits_for_close
    return close.close if close.payload else (1005, "")
