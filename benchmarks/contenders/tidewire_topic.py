"""Tidewire: one topic, published to with ``live.publish``. The client chooses the dialect: WebSocket or SSE."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.contenders import harness
from tidewire import Latest, Live, Log, Signal

POLICIES: dict[str, Log | Latest | Signal] = {
    "log": Log(),
    # as many keys as the messages have, more than are published in a tick: nothing is left out
    "latest": Latest(key="id"),
    "signal": Signal(),
    # the newest value of each key, twice a second
    "keys": Latest(key="id", max_per_s=2),
}


class TopicPublisher:
    """Publishes to the topic; ``drained`` paces a flood, as it would pace any producer."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def publish(self, message: harness.Message) -> None:
        """Publish to all subscribers."""
        await self._live.publish("bench", message)

    async def settle(self) -> None:
        """Wait for the outboxes."""
        await self._live.drained("bench", timeout_s=60)


def make_app(policy: str, window_s: float) -> FastAPI:
    """The application, as its users would write it."""
    live = Live(flush_window_s=window_s)

    @live.topic("bench", policy=POLICIES[policy])
    async def bench() -> None:
        """Open to everybody."""

    app = FastAPI(lifespan=harness.lifespan_with(TopicPublisher(live)))
    app.include_router(live.router, prefix="/live")
    return app


if __name__ == "__main__":
    parser = harness.parser()
    parser.add_argument("--policy", choices=tuple(POLICIES), default="log")
    options = parser.parse_args()
    harness.serve(make_app(options.policy, options.window_ms / 1000), options)
