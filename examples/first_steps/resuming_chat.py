"""A chat that misses nothing. Start resuming_chat.py serve, and resuming_chat.py NAME in two terminals."""

import asyncio
import contextlib
import sys
import threading

from fastapi import FastAPI

import tidewire

live = tidewire.Live()
app = FastAPI()
app.include_router(live.router, prefix="/live")


@live.topic("chat", policy=tidewire.Log(keep=100), publish=True)
async def chat() -> None: ...  # everybody may read and write


async def listen(url: str) -> None:
    async for message in tidewire.subscribe(url, since="-1", wait=True, on_state=lambda now: print(f"({now.name})")):
        print(f"(something is lost) {message.data}" if message.gap else message.data)


def talk(name: str, url: str) -> None:
    threading.Thread(target=asyncio.run, args=[listen(url)], daemon=True).start()
    for line in sys.stdin:
        try:
            asyncio.run(tidewire.publish(url, f"{name}: {line.strip()}"))
        except tidewire.ClientError as error:
            print(f"(not sent: {error})")


name, port = sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 8000
if name == "serve":
    tidewire.run(app, port=port)
else:
    with contextlib.suppress(KeyboardInterrupt):
        talk(name, f"http://127.0.0.1:{port}/live/chat")
