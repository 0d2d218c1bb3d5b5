"""Our WebSocket class for uvicorn, given to it through its public ``ws=`` option: ``tidewire.wire:Protocol``.

It serves any ASGI application (ASGI 3, WebSocket specification 2.4) on frames of our own (``wire.open``). What it does
beyond uvicorn's own classes:

* the scope extension ``tidewire`` (see ``wire.asgi``): aborts, pings, and the hand-over of a socket, after which the
  application's task, its scope and its dependencies may go;
* what is sent in one pass of the event loop leaves in one write;
* water marks for what is received, instead of a pause after every message;
* an abort, not a polite close, for a peer that answers no ping, and patience with one whose pong we do not read;
* what a refused peer still sends is read away before the line is closed, so that it hears why;
* 1006 for a line that was cut; uvicorn says 1005 (RFC 6455 7.1.5);
* one line in the log for a route that forgets ``accept()``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr
from uvicorn.server import ServerState
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from tidewire.wire import handshake
from tidewire.wire.asgi import EXTENSION
from tidewire.wire.events import Event, Events
from tidewire.wire.handshake import BadHandshake, Request
from tidewire.wire.open import OpenSocket, Owner, Shared
from tidewire.wire.peers import abort_transport, let_kernel_judge

logger = logging.getLogger("tidewire")

NewOwner = TypeVar("NewOwner", bound=Owner)

# what a client may send of frames before it has our answer (it should not: RFC 6455 4.1)
_EARLY_BYTES_MAX = 64 * 1024

# permessage-deflate as uvicorn configures it: 4 KiB windows, less memory (RFC 7692 7.1)
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)

# uvicorn makes one object for each server, and a protocol for each connection
_shared: WeakKeyDictionary[ServerState, Shared] = WeakKeyDictionary()


def _shared_by(state: ServerState, loop: asyncio.AbstractEventLoop) -> Shared:
    shared = _shared.get(state)
    if shared is None or shared.loop is not loop:
        shared = _shared[state] = Shared(loop, state.connections)
    return shared


class Protocol(asyncio.Protocol):
    """One connection, from its request to the end of the application's task; the ``ws=`` class.

    Once the application has accepted, an ``OpenSocket`` has the transport, and ``Events`` own it. Not once it was
    handed over: then this is nothing but a task that may end.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_event_loop()
        self.transport: asyncio.Transport
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._shared = _shared_by(server_state, self.loop)
        # the handshake, once it was read, and what was agreed on with it
        self._request: Request | None = None
        self._extension: Extension | None = None
        self._extension_header: bytes | None = None
        self._scope: Event = {}
        # bytes that came before the application has accepted
        self._early = b""
        # what the application receives, and who that is from
        self._events = Events()
        self._is_handed_over = False
        # the answer to a request that the application refuses with words of its own: status, headers, body
        self._denial: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        # the application has closed, or refused
        self._is_closed = False

    # Before it is open: asyncio's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's: the transport on which a request to upgrade has come."""
        self.transport = transport
        self._shared.connections.add(self)
        let_kernel_judge(transport)

    def data_received(self, data: bytes) -> None:
        """First the head of the request, whole, as uvicorn's HTTP classes give it; then what comes too early."""
        if self._is_closed:
            return
        if self._request is not None:
            self._early += data
            if len(self._early) > _EARLY_BYTES_MAX:
                self.transport.pause_reading()
            return
        try:
            self._request = request = handshake.read_request(data)
            if self._config.ws_per_message_deflate:
                self._extension, self._extension_header = handshake.negotiate_deflate(request, _DEFLATE)
        except BadHandshake as bad:
            self._is_closed = True
            self.transport.write(handshake.refusal(bad))
            self.transport.close()
            return
        self._scope = self._make_scope(request)
        task = self.loop.create_task(self._run())
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: the client has gone before it was accepted."""
        self._shared.connections.discard(self)
        self._events.say_goodbye(1006)

    def pause_writing(self) -> None:
        """asyncio's: an answer is larger than what the client reads."""

    def resume_writing(self) -> None:
        """asyncio's."""

    def shutdown(self) -> None:
        """uvicorn's: the server stops before the application has answered."""
        if not self._is_closed:
            self._is_closed = True
            words = "this server is stopping: try again later\n"
            self.transport.write(handshake.response(503, [(b"retry-after", b"1")], words.encode()))
        self.transport.close()

    def _make_scope(self, request: Request) -> Event:
        config = self._config
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self.transport.get_extra_info("sslcontext") else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": config.root_path,
            "path": config.root_path + request.path,
            "raw_path": config.root_path.encode("ascii") + request.raw_path,
            "query_string": request.query,
            "headers": request.headers,
            "subprotocols": request.subprotocols,
            "state": self._app_state.copy(),
            "extensions": {
                "websocket.http.response": {},
                EXTENSION: {
                    "abort": self.abort,
                    "pending_bytes": self._pending_bytes,
                    "ping": self._ping,
                    "latency_s": self._latency_s,
                    "refused": self._has_refused,
                    "hand_over": self._hand_over,
                },
            },
        }

    @property
    def _socket(self) -> OpenSocket | None:
        """The open socket, once the application has accepted."""
        return self._events.socket

    # The scope extension (wire.asgi)

    def abort(self) -> None:
        """Drop the connection at once; also for ``server.run`` at a shutdown."""
        if self._socket is not None:
            self._socket.abort()
        else:
            abort_transport(self.transport)

    def _pending_bytes(self) -> int:
        return 0 if self._socket is None else self._socket.pending_bytes()

    def _ping(self, data: bytes | None) -> Awaitable[float]:
        if self._socket is None:
            raise RuntimeError("accept the connection before you ping it")
        return self._socket.ping(data)

    def _latency_s(self) -> float:
        return 0.0 if self._socket is None else self._socket.latency_s

    def _has_refused(self) -> bool:
        closed = self._events.closed
        return closed is not None and closed.rcvd is None and closed.sent is not None and not self._is_closed

    def _hand_over(self, make: Callable[[OpenSocket], NewOwner]) -> NewOwner:
        """Give the open socket to the owner that ``make`` gives, and tell it what has come and was not received yet.

        Raises ``RuntimeError`` before the application has accepted, and once it has closed.
        """
        socket = self._socket
        if socket is None or self._is_closed or self._is_handed_over:
            raise RuntimeError("only an accepted WebSocket can be handed over, and only once")
        # raises where no owner can be made: then it stays as it was
        owner = socket.owner = make(socket)
        self._is_handed_over = True
        socket.resume_reading()
        messages = self._events.take_messages()
        if messages:
            owner.received(messages)
        if self._events.closed is not None:
            owner.ended(self._events.closed)
        return owner

    # The application

    async def _run(self) -> None:
        """Run the application, and see to it that the client gets an answer."""
        try:
            result = await self._config.loaded_app(self._scope, self._events.receive, self._send)
        except ClientDisconnected:
            pass
        except RuntimeError as error:
            # what frameworks raise for a message before accept()
            if self._is_answered() or "accept" not in str(error):
                self._fail(error)
            else:
                self._tell_unaccepted()
        except asyncio.CancelledError:
            # the server's time to stop is over
            self._end(1012)
        except BaseException as error:  # noqa: BLE001 - as uvicorn does
            self._fail(error)
        else:
            if not self._is_answered():
                self._tell_unaccepted()
            elif result is not None:
                logging.getLogger("uvicorn.error").error("ASGI callable should return None, but returned '%s'.", result)
        self._end(1000)

    def _is_answered(self) -> bool:
        return (
            self._socket is not None or self._denial is not None or self._is_closed or self._events.goodbye is not None
        )

    def _tell_unaccepted(self) -> None:
        logger.error(
            'the WebSocket route %s never accepted the connection: call "await websocket.accept()" first '
            '(or use "async with tidewire.accept(websocket) as connection")',
            self._scope["path"],
        )
        self._deny(403, [], b"")

    def _fail(self, error: BaseException) -> None:
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
        # nothing of it was sent yet
        self._denial = None
        if not self._is_answered():
            self._deny(500, [], b"Internal Server Error")
        self._end(1011)

    def _end(self, code: int) -> None:
        """The application is through: what it has not closed is closed; uvicorn hangs up here without a word."""
        if self._socket is None:
            self.transport.close()
        elif not self._is_handed_over and not self._is_closed:
            self._is_closed = True
            self._socket.close(code)
        # nothing that refers to itself is left of a connection
        self._scope = {}

    async def _send(self, message: Event) -> None:
        socket = self._socket
        if message["type"] == "websocket.send" and socket is not None and not self._is_closed:
            if not socket.writable:
                await self._events.wait_for_room()
            if self._events.closed is not None or self._is_handed_over:
                raise ClientDisconnected
            text = message.get("text")
            if socket.send(text if text is not None else message.get("bytes") or b""):
                # an application that sends without end lets the loop run
                await asyncio.sleep(0)
            return
        if self._events.goodbye is not None and not self._is_closed:
            raise ClientDisconnected
        self._take(message)

    def _take(self, message: Event) -> None:
        """Everything but messages: the answer to the handshake, and the end."""
        kind = message["type"]
        if self._is_closed:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        if self._denial is not None:
            self._go_on_denying(message)
        elif self._socket is not None:
            if kind != "websocket.close":
                raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._log("403")
            self._deny(403, [], b"")
        elif kind == "websocket.http.response.start":
            if not 100 <= message["status"] < 600:
                raise RuntimeError(f"Invalid HTTP status code '{message['status']}' in response.")
            self._denial = (message["status"], list(message.get("headers", [])), [])
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' "
                f"or 'websocket.http.response.start' but got '{kind}'."
            )

    def _accept(self, message: Event) -> None:
        assert self._request is not None
        answer = handshake.accept_response(
            self._request,
            subprotocol=message.get("subprotocol"),
            extensions=self._extension_header,
            headers=[*self._server_state.default_headers, *message.get("headers", [])],
        )
        self._log("[accepted]")
        config = self._config
        self._shared.connections.discard(self)
        self.transport.write(answer)
        self._events.socket = socket = OpenSocket(
            self.transport,
            self._shared,
            self._events,
            max_size=config.ws_max_size,
            ping_interval_s=config.ws_ping_interval,
            ping_timeout_s=config.ws_ping_timeout,
            extension=self._extension,
        )
        early, self._early, self._request = self._early, b"", None
        socket.start(early)
        if len(early) > _EARLY_BYTES_MAX:
            self.transport.resume_reading()

    def _close(self, code: int, reason: str) -> None:
        assert self._socket is not None
        # raises for a code that cannot be sent
        self._socket.close(code, reason)
        self._is_closed = True
        self._events.say_goodbye(code, reason)

    def _go_on_denying(self, message: Event) -> None:
        assert self._denial is not None
        if message["type"] != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{message['type']}'.")
        status, headers, body = self._denial
        body.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._log(str(status))
            self._deny(status, headers, b"".join(body))

    def _deny(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        # raises for a header that cannot be sent
        answer = handshake.response(status, headers, body)
        self._is_closed = True
        self._events.say_goodbye(1006)
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _log(self, what: str) -> None:
        scope = self._scope
        client = "{}:{}".format(*scope["client"]) if scope["client"] else ""
        query = f"?{scope['query_string'].decode('ascii')}" if scope["query_string"] else ""
        logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" %s', client, quote(scope["path"]) + query, what)
