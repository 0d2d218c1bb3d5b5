"""Tidewire: one ``Log`` topic, published to with ``live.publish``. The client chooses the dialect: WebSocket or SSE."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.contenders import harness
from tidewire import Live, Log, run

live = Live()


@live.topic("bench", policy=Log())
async def bench() -> None:
    """Open to everybody."""


class TopicPublisher:
    """Publishes to the topic; ``drained`` paces a flood, as it would pace any producer."""

    async def publish(self, message: harness.Message) -> None:
        """Publish to all subscribers."""
        await live.publish("bench", message)

    async def settle(self) -> None:
        """Wait for the outboxes."""
        await live.drained("bench", timeout_s=60)


app = FastAPI(lifespan=harness.lifespan_with(TopicPublisher()))
app.include_router(live.router, prefix="/live")


if __name__ == "__main__":
    options = harness.arguments("tidewire", "uvicorn")
    if options.server == "tidewire":
        run(app, port=options.port, loop=options.loop, log_level="warning", access_log=False)
    else:
        harness.run_on_uvicorn(app, options.port, options.loop)
