"""FastAPI WebSocket endpoints as in its documentation: an echo, and an upload that counts."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.contenders import harness

app = FastAPI()


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Sends back what it gets."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


@app.websocket("/upload")
async def upload(websocket: WebSocket) -> None:
    """Counts what comes and answers a message of one byte."""
    await websocket.accept()
    total = 0
    try:
        while True:
            data = await websocket.receive_bytes()
            total += len(data)
            if len(data) == 1:
                await websocket.send_text(str(total))
                total = 0
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    harness.serve(app, harness.parser().parse_args())
