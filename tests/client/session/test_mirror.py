"""Mirrors, on lines in memory."""

import asyncio

import pydantic
import pytest
from msgspec import Raw

from tests.client.session.fakes import recovered, subscribed
from tests.client.session.lines import connected, mirrored, passes, run
from tidewire.client.errors import (
    ClientClosed,
    TooManyKeys,
    WrongType,
)
from tidewire.protocol import packets


class Quote(pydantic.BaseModel):
    symbol: str
    price: float


def value(offset: int, data: bytes, **tags: str) -> packets.Publication:
    return packets.Publication(data=Raw(data), offset=offset, tags=tags)


def test_a_mirror_is_a_mapping_that_is_current() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), mirrored(client, line, key="symbol", type=Quote) as quotes:
            assert dict(quotes) == {}
            line.push("t", pub=value(1, b'{"symbol":"A","price":1}'))
            line.push("t", pub=value(2, b'{"symbol":"B","price":2}'))
            await quotes.until(lambda quotes: len(quotes) == 2)
            assert (quotes["A"].price, list(quotes), "B" in quotes, quotes.get("C")) == (1, ["A", "B"], True, None)
            line.push("t", pub=value(3, b'{"symbol":"A","removed":true}', removed="true", key="A"))
            line.push("t", pub=value(4, b'{"symbol":"B","price":4}'))
            await quotes.until(lambda quotes: quotes.get("B") == Quote(symbol="B", price=4))
            assert "A" not in quotes
            assert quotes.is_current

    run(main())


def test_a_mirror_follows_its_changes_once_each() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), mirrored(client, line, key=lambda value: value["id"]) as values:
            changes = values.changes()
            first = asyncio.ensure_future(anext(changes))
            await passes()
            line.push("t", pub=value(1, b'{"id":1}'))
            assert await first == "1"
            for offset, key in enumerate((2, 3, 2), 2):
                line.push("t", pub=value(offset, b'{"id":%d,"n":%d}' % (key, offset)))
            await values.until(lambda values: values.get("2") == {"id": 2, "n": 4})
            assert [await anext(changes), await anext(changes)] == ["3", "2"]

    run(main())


def test_a_mirror_begins_anew_after_a_loss_and_keeps_what_it_has_otherwise() -> None:
    async def main() -> None:
        async with connected() as (client, line, lines), mirrored(client, line, key="id") as values:
            line.push("t", pub=value(1, b'{"id":"a"}'))
            line.push("t", pub=value(2, b'{"id":"b"}'))
            await values.until(lambda values: len(values) == 2)
            line.cut()
            second = await lines.line(2)
            assert (len(values), values.is_current) == (2, False)
            await second.welcome()
            await second.admit(recovered(2))
            second.push("t", pub=value(3, b'{"id":"c"}'))
            await values.until(lambda values: len(values) == 3)
            second.cut()
            third = await lines.line(3)
            await third.welcome()
            await third.admit(subscribed(0, epoch="e2", was_recovering=True))
            third.push("t", pub=value(1, b'{"id":"d"}'))
            await values.until(lambda values: "d" in values)
            assert list(values) == ["d"]

    run(main())


def test_a_mirror_without_a_key_is_by_topic() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), mirrored(client, line) as values:
            line.push("t", pub=value(1, b"1"))
            line.push("t", pub=packets.Publication(data=Raw(b"2"), channel="t/a"))
            await values.until(lambda values: len(values) == 2)
            assert dict(values) == {"t": 1, "t/a": 2}
            line.push("t", pub=value(2, b"null", removed="true"))
            await values.until(lambda values: "t" not in values)

    run(main())


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (b'{"n":1}', WrongType, "it has no key"),
        (b"[1]", WrongType, "is not of the type"),
        (b'{"id":"b"}', TooManyKeys, "has 1 keys and there is one more: raise its max_keys"),
    ],
)
def test_a_mirror_that_would_be_wrong_ends(data: bytes, error: type[Exception], sentence: str) -> None:
    async def main() -> None:
        async with connected() as (client, line, _), mirrored(client, line, key="id", max_keys=1, type=dict) as values:
            line.push("t", pub=value(1, b'{"id":"a"}'))
            await values.until(lambda values: "a" in values)
            line.push("t", pub=value(2, data))
            with pytest.raises(error, match=sentence):
                await values.until(lambda values: False)
            with pytest.raises(error):
                await values.changed()
            assert list(values) == ["a"]
            assert not values.is_current

    run(main())


def test_a_mirror_outside_of_its_block() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            with pytest.raises(RuntimeError, match=r"async with client\.mirror"):
                await client.mirror("t").changed()
            async with mirrored(client, line) as values:
                pass
            with pytest.raises(ClientClosed):
                await values.changed()

    run(main())
