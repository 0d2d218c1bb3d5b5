"""What docs/sessions-client.md shows, run against the real server."""

import asyncio
from typing import Any

import jwt
import pytest

from tests.client.servers import run
from tests.client.test_with_server import serving
from tests.project.documents import named_block
from tidewire import Latest, Live, Log, Tokens

SECRET = "a secret of at least thirty-two bytes"


def test_watching(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        live = Live()

        @live.topic("quotes/{symbol}", policy=Log())
        async def quotes(symbol: str) -> None: ...

        watch = named_block("session-client").run()["watch"]
        async with serving(live) as url:
            watching = asyncio.ensure_future(watch(url, "AAPL"))
            while not live.stats()["subscriptions"]:
                await asyncio.sleep(0.001)
            await live.publish("quotes/AAPL", {"symbol": "AAPL", "price": 101.5})
            await live.finish("quotes/AAPL")
            await watching
        assert capsys.readouterr().out == "101.5\n"

    run(main())


def test_a_mirror() -> None:
    async def main() -> None:
        live = Live()

        @live.topic("quotes", policy=Latest(key="symbol"))
        async def quotes() -> None: ...

        async with serving(live) as url:
            await live.publish("quotes", {"symbol": "AAPL", "price": 101.5})
            assert await named_block("session-mirror").run()["price_of"](url, "AAPL") == 101.5

    run(main())


@pytest.mark.parametrize(("n_left", "expected"), [(5, "3 tea for ['ann'], after 1 messages"), (0, "1409: sold out")])
def test_asking(n_left: int, expected: str) -> None:
    async def main() -> None:
        from tidewire import CallError, Client

        live = Live(tokens=Tokens(secret=SECRET))

        @live.topic("room/{n}", policy=Log(), publish=True, presence=True)
        async def room(n: str) -> None: ...

        @live.call("order.place")
        async def place(item: str, n: int) -> Any:
            if n > n_left:
                raise CallError(1409, "sold out")
            return f"{n} {item}"

        token = jwt.encode({"sub": "ann"}, SECRET, algorithm="HS256")
        async with serving(live) as url, Client(url, token=token) as ann, ann.subscribe("room/1"):
            assert await named_block("session-asking").run()["order"](url, token) == expected

    run(main())
