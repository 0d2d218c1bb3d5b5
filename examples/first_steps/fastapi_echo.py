"""An echo in plain FastAPI; nothing but the last line is ours."""

import sys

from fastapi import FastAPI, WebSocket

import tidewire

PORT = int(sys.argv[1]) if sys.argv[1:] else 8000
app = FastAPI()


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():  # ends when the client leaves
        await websocket.send_text(f"You said: {text}")


if __name__ == "__main__":
    tidewire.run(app, port=PORT)
