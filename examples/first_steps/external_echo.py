"""Talk to somebody else's server. SSL_CERT_FILE=ca.pem trusts a certificate authority of your own."""

import asyncio
import sys

import tidewire as websockets

URL = sys.argv[1] if sys.argv[1:] else "wss://ws.postman-echo.com/raw"


async def main() -> None:
    async with websockets.connect(URL) as connection:
        print("connected")
        await connection.send("Is anybody there?")
        print(f"<<< {await connection.recv()}")


asyncio.run(main())
