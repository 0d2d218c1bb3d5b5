"""The application that other people's Durable Streams clients, and their suite, are run against.

``python -m tests.interop.streams.app`` listens on a free port, prints its URL and serves until it is interrupted.
"""

from __future__ import annotations

from fastapi import FastAPI

from tests.server.durable import declare_stream
from tidewire import Limits, Live, Log, run

LONG_POLL_S = 1.0
"""The suite waits five seconds for an answer, also for the one that says that nothing has come."""


def make_app() -> FastAPI:
    """Streams of anybody below ``/v1/stream/``, and a topic that only the application makes."""
    live = Live(limits=Limits(long_poll_s=LONG_POLL_S), origins=["*"])
    declare_stream(live, "v1/stream/{name:path}", policy=Log(keep=100_000))

    @live.topic("news", payload="json", publish=True)
    async def news() -> None: ...

    app = FastAPI()
    app.include_router(live.router)
    return app


def tell(url: str) -> None:
    """The URL, for whoever has started us."""
    print(url, flush=True)


if __name__ == "__main__":
    run(make_app(), port=0, on_listening=tell, log_level="warning", access_log=False)
