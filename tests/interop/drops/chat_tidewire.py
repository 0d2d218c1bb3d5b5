"""The chat on Tidewire: one topic, published to by POST."""

from __future__ import annotations

from fastapi import FastAPI

from tidewire import Live, Log, run

live = Live()
app = FastAPI(openapi_url=None)
app.include_router(live.router, prefix="/live")


@live.topic("chat/{room}", policy=Log(keep=1000), publish=True)
async def chat(room: str) -> None: ...


if __name__ == "__main__":
    run(app, port=0, on_listening=lambda url: print(f"listening on {url}", flush=True), access_log=False)
