"""Who ends the connection, with accept: there is no exception to catch."""

import sys

from fastapi import FastAPI, WebSocket

import tidewire

PORT = int(sys.argv[1]) if sys.argv[1:] else 8000
app = FastAPI()


@app.websocket("/ws")
async def answer(websocket: WebSocket) -> None:
    async with tidewire.accept(websocket) as connection:
        async for text in connection:
            if "bye" in str(text) or "quit" in str(text):
                await connection.send("Closing connection")
                await connection.close(1000, "Server requested close")
                return
            await connection.send(f"I got your request: {text}")
    print(f"a client left: {connection.close_code}")


if __name__ == "__main__":
    tidewire.run(app, port=PORT)
