"""The ConnectionManager of the FastAPI documentation ("Handling disconnections and multiple clients")."""

from __future__ import annotations

import json

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.contenders import harness


class ConnectionManager:
    """Word by word from the documentation."""

    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        """Accept and remember a socket."""
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Forget a socket."""
        self.active_connections.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket) -> None:
        """Send to one."""
        await websocket.send_text(message)

    async def broadcast(self, message: str) -> None:
        """Send to all, one after the other."""
        for connection in self.active_connections:
            await connection.send_text(message)


manager = ConnectionManager()


class ManagerPublisher:
    """Publishes by ``broadcast``, which awaits every send: nothing is left to settle."""

    async def publish(self, message: harness.Message) -> None:
        """Encode once, send to all."""
        await manager.broadcast(json.dumps(message, separators=(",", ":")))

    async def settle(self) -> None:
        """Nothing to wait for."""


app = FastAPI(lifespan=harness.lifespan_with(ManagerPublisher()))


@app.websocket("/ws/{client_id}")
async def websocket_endpoint(websocket: WebSocket, client_id: int) -> None:
    """The endpoint of the documentation; its clients never send here."""
    await manager.connect(websocket)
    try:
        while True:
            data = await websocket.receive_text()
            await manager.send_personal_message(f"You wrote: {data}", websocket)
            await manager.broadcast(f"Client #{client_id} says: {data}")
    except WebSocketDisconnect:
        manager.disconnect(websocket)


if __name__ == "__main__":
    harness.serve(app, harness.parser().parse_args())
