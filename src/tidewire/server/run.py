"""``run``: uvicorn with our protocol classes, our drain before its shutdown, and no surprise at the end.

It serves applications and, wrapped into one, handlers of raw connections; ``server.serve`` runs the same server
inside of a loop that is there already.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import uvicorn
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.supervisors import ChangeReload, Multiprocess

from tidewire.errors import AddressInUse, BadAddress, SeveralProcesses
from tidewire.limits import RAW_MESSAGE_BYTES_MAX
from tidewire.server.handler import STATE_PREFIX, Handler, Handlers, is_handler
from tidewire.server.memory import keep_large_blocks, spare_collector
from tidewire.server.processes import may_be_several
from tidewire.server.secrets import hide_secrets_in_logs
from tidewire.wire.http import HttpProtocol
from tidewire.wire.uvicorn import Protocol as WebSocketProtocol

logger = logging.getLogger("uvicorn.error")

App = Callable[..., Any] | Handler | str
# What all connections get from the signal on, and at least after ours were drained: gone within 5 s, with time to spare
_GRACE_S = 3
_GRACE_AFTER_DRAIN_S = 1
_BACKLOG = 4096
# uvicorn's own tick: the Date header, and its limit of requests
_TICK_S = 0.1
# what tasks of the application get to end in after the server has
_LAST_CALL_S = 1.5
_ASYNCIO = os.path.dirname(asyncio.__file__)
_FREE_PORT_TRIES = 10


class Drains(Protocol):
    """What stands under ``STATE_PREFIX`` in the lifespan state: it says goodbye before the server waits."""

    async def drain(self) -> None:
        """End every stream, within a deadline."""


class Server(uvicorn.Server):
    """uvicorn's server, which lets everything of ours say goodbye before it waits for connections to end.

    uvicorn runs the lifespan's shutdown only after waiting for connections, so a library that ends its streams
    there never gets to (CONTRACTS 10).
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_listening: Callable[[str], None] | None = None,
        *,
        signals: bool = True,
        owns_process: bool = False,
        run_for_s: float | None = None,
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        # whether SIGINT and SIGTERM are ours: not in somebody else's loop
        self._signals = signals
        # whether the process ends with us, whatever is left of it
        self._owns_process = owns_process
        self._run_for_s = run_for_s
        # what ends the process when tasks do not let the loop end
        self._last_call: threading.Timer | None = None
        self._put_back_collector: Callable[[], None] | None = None
        # accepting, and to be stopped
        self._listening = asyncio.Event()
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Only where the whole process is ours."""
        with super().capture_signals() if self._signals else contextlib.nullcontext():
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that we listen when we do."""
        hide_secrets_in_logs()
        if self._owns_process:
            keep_large_blocks()
        await super().startup(sockets=sockets)
        if self._owns_process:
            self._put_back_collector = spare_collector()
        if not self.started or not sockets:
            return
        if self._run_for_s is not None:
            asyncio.get_running_loop().call_later(self._run_for_s, self.stop)
        self._listening.set()
        if self._on_listening is not None:
            raw = isinstance(self.config.app, Handlers)
            self._on_listening(url_of(sockets[0], ("ws" if raw else "http") + ("s" if self.config.is_ssl else "")))

    async def wait_listening(self) -> None:
        """Return when connections are accepted."""
        await self._listening.wait()

    def stop(self) -> None:
        """Shut down. Twice is nothing."""
        self.should_exit = True
        self._stopping.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; where the process ends with us, what ignores its cancellation afterwards keeps nobody waiting."""
        try:
            await super().serve(sockets=sockets)
        finally:
            if self._owns_process:
                self._last_call = threading.Timer(_LAST_CALL_S, _leave_without, [asyncio.all_tasks()])
                self._last_call.daemon = True
                self._last_call.start()

    def ended(self) -> None:
        """The loop is over: there was nothing to leave behind, and the process may go on with something else."""
        if self._put_back_collector is not None:
            self._put_back_collector()
        if self._last_call is not None:
            self._last_call.cancel()

    async def main_loop(self) -> None:
        """uvicorn's, woken at once by ``stop`` instead of by its next tick."""
        stopping = asyncio.create_task(self._stopping.wait())
        counter = 0
        try:
            while not await self.on_tick(counter):
                counter = (counter + 1) % 864_000
                await asyncio.wait([stopping], timeout=_TICK_S)
        finally:
            stopping.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, drain, then uvicorn's own way, and abort what is left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for server in self.servers:
            server.close()
        ours: list[Drains] = [value for key, value in self.lifespan.state.items() if key.startswith(STATE_PREFIX)]
        await asyncio.gather(*(one.drain() for one in ours))
        grace_s = self.config.timeout_graceful_shutdown
        if grace_s is not None:
            grace_s = max(_GRACE_AFTER_DRAIN_S, math.ceil(grace_s - (loop.time() - began)))
            self.config.timeout_graceful_shutdown = grace_s
            loop.call_later(grace_s, self._abort_all)
        await super().shutdown(sockets=sockets)

    def _abort_all(self) -> None:
        for connection in list(self.server_state.connections):
            abort = getattr(connection, "abort", None)
            if abort is not None:
                abort()


def _leave_without(tasks: set[asyncio.Task[Any]]) -> None:
    """End the process: ``tasks`` were cancelled and go on (an ``except:`` in a loop catches that, too)."""
    for task in tasks:
        if not task.done():
            logger.error(
                "left without a task that ignores its cancellation: let asyncio.CancelledError pass at %s",
                _where(task.get_coro()),
            )
    logging.shutdown()
    os._exit(1)


def _where(coroutine: Any) -> str:
    """The innermost place of the application's at which it waits."""
    place = "an unknown place"
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        if not frame.f_code.co_filename.startswith(_ASYNCIO):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
        coroutine = coroutine.cr_await
    return place


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """The address a bound socket answers at; the wildcard addresses are shown as loopback."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind(host: str | None, port: int) -> list[socket.socket]:
    """Listening addresses of our own, one for each that ``host`` has, all with the same port.

    ``host``: None or "" for every address of this machine. ``port``: 0 for one that is free on all of them. A busy
    port is an error that names it, not a ``SystemExit``.
    """
    for _ in range(_FREE_PORT_TRIES):
        try:
            return _bind_all(host, port)
        except AddressInUse:
            # a port that was free on the first address is taken on another
            if port:
                raise
    raise AddressInUse(host or "*", port)


def _bind_all(host: str | None, port: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise BadAddress(host or "", error.strerror or str(error)) from None
    sockets: list[socket.socket] = []
    unusable: OSError | None = None
    try:
        for family, kind, number, _, address in dict.fromkeys(found):
            port = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bind_one(family, kind, number, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise AddressInUse(host or "*", port) from None
                # a name may have an address of a family that this machine has not
                unusable = error
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise BadAddress(host or "", str(unusable))
    return sockets


def _bind_one(family: int, kind: int, number: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, kind, number)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.set_inheritable(True)
    except BaseException:
        sock.close()
        raise
    return sock


class _Config(uvicorn.Config):
    """uvicorn's configuration, which also loads the handler of a raw connection by its name."""

    def load(self) -> None:
        """Wrap a handler into an application."""
        if isinstance(self.app, str) and ":" in self.app:
            # what cannot be imported is uvicorn's to explain
            with contextlib.suppress(ImportFromStringError):
                found = import_from_string(self.app)
                if is_handler(found):
                    self.app = Handlers(found, host=self.host)
        super().load()


def make_config(app: App, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration with our classes and bounds; ``options`` are uvicorn's own and win."""
    defaults: dict[str, Any] = {
        "ws": WebSocketProtocol,
        "http": HttpProtocol,
        "ws_max_size": RAW_MESSAGE_BYTES_MAX,
        "ws_per_message_deflate": False,
        "timeout_graceful_shutdown": _GRACE_S,
        "backlog": _BACKLOG,
    }
    return _Config(app, **{**defaults, **options})


def run(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    reload: bool = False,
    workers: int = 1,
    isolated: bool = False,
    origins: Sequence[str | None] | None = None,
    run_for_s: float | None = None,
    on_listening: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM; everything has ended within 5 s.

    After SIGINT it returns; SIGTERM then ends the process, as it would have without us.

    ``app``: an ASGI application, or the handler of raw connections (an async function of one ``Connection``, see
    ``serve``; told by its single required parameter), or ``"module:app"`` for either (needed for ``reload`` and
    ``workers``). ``port`` 0 takes a free one. ``origins``: for handlers, as in ``serve``. ``run_for_s``: stop after so
    many seconds. ``on_listening`` is called with the URL once the server answers. ``options`` go to uvicorn. Raises
    ``AddressInUse``, ``BadAddress``, and ``SeveralProcesses`` for ``workers`` above 1 where the application has a
    ``Live`` in memory, which is one process's. ``isolated`` says that this is meant, and belongs together with
    ``Live(isolated=True)``.
    """
    if workers > 1 and not isolated and not _may_be_several(app):
        raise SeveralProcesses(f"workers={workers}")
    if (reload or workers > 1) and not isinstance(app, str):
        raise TypeError('reload and workers need the application by name: run("module:app", reload=True)')
    if not isinstance(app, str) and is_handler(app):
        app = Handlers(app, host=host, origins=origins, max_size=options.get("ws_max_size", RAW_MESSAGE_BYTES_MAX))
    config = make_config(app, host=host, port=port, reload=reload, workers=workers, **options)
    sockets = bind(host, port)
    server = Server(config, on_listening or _tell_listening, owns_process=True, run_for_s=run_for_s)
    try:
        if reload:
            logger.info("Reloading on changes; listening on %s", url_of(sockets[0]))
            ChangeReload(config, target=server.run, sockets=sockets).run()
        elif workers > 1:
            # uvicorn's supervisor runs uvicorn's server: each process drains at its lifespan's end, within the grace
            url = url_of(sockets[0])
            logger.info("Tidewire is listening on %s with %d processes (Ctrl-C stops them)", url, workers)
            Multiprocess(config, sockets=sockets).run()
        else:
            server.run(sockets=sockets)
    except KeyboardInterrupt:
        # uvicorn hands the signal on after its shutdown; for us the end has been reached
        return
    finally:
        server.ended()
        for sock in sockets:
            sock.close()
    if not server.started and not config.use_subprocess:
        sys.exit(3)


def _may_be_several(app: App) -> bool:
    """Whether the application, which is imported for that, keeps no topics in the memory of one process."""
    if isinstance(app, str):
        if "" not in sys.path:
            sys.path.insert(0, "")
        # what cannot be imported is uvicorn's to explain
        with contextlib.suppress(ImportFromStringError):
            import_from_string(app)
    return may_be_several()


def _tell_listening(url: str) -> None:
    logger.info("Tidewire is listening on %s (Ctrl-C stops it)", url)
