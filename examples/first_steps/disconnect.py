"""Who ends the connection: the server on "bye", or a client that just goes. Plain FastAPI."""

import sys

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

import tidewire

PORT = int(sys.argv[1]) if sys.argv[1:] else 8000
app = FastAPI()


@app.websocket("/ws")
async def answer(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while "bye" not in (text := await websocket.receive_text()) and "quit" not in text:
            await websocket.send_text(f"I got your request: {text}")
        await websocket.send_text("Closing connection")
        await websocket.close(1000, "Server requested close")
    except WebSocketDisconnect as gone:
        print(f"a client left: {gone.code}")


if __name__ == "__main__":
    tidewire.run(app, port=PORT)
