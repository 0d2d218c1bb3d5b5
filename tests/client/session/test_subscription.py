"""Subscriptions in their users' hands, on lines in memory."""

import asyncio
import gc
from typing import Any

import pydantic
import pytest
from msgspec import Raw

from tests.client.session.fakes import pub, recovered, subscribed, text
from tests.client.session.lines import connected, passes, run, subscribed_to, until
from tidewire.client.errors import (
    AlreadySubscribed,
    CommandRefused,
    ConsumerTooSlow,
    TopicFailed,
    Unsubscribed,
    WrongType,
)
from tidewire.client.resume import Gap
from tidewire.client.session.messages import Member, MemberChange
from tidewire.protocol import packets
from tidewire.protocol.packets import ClientInfo, Join, Unsubscribe


class Quote(pydantic.BaseModel):
    symbol: str
    price: float


def test_messages_of_a_type() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), subscribed_to(client, line, type=Quote) as quotes:
            values = (b'{"symbol":"A","price":1}', b'{"symbol":"A"}', b'{"symbol":"A","price":2}')
            for offset, data in enumerate(values, 1):
                line.push("t", pub=packets.Publication(data=Raw(data), offset=offset))
            assert (await quotes.next()).data == Quote(symbol="A", price=1)
            with pytest.raises(WrongType, match="a message of 't' is not of the type") as caught:
                await quotes.next()
            assert (caught.value.position, caught.value.data) == (text(2), b'{"symbol":"A"}')
            assert (await quotes.next()).data == Quote(symbol="A", price=2)

    run(main())


def test_a_timeout_loses_nothing() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), subscribed_to(client, line) as messages:
            with pytest.raises(TimeoutError):
                await messages.next(timeout_s=0.001)
            line.push("t", pub=pub(1))
            assert (await messages.next(timeout_s=10)).data == 1

    run(main())


def test_one_task_reads() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), subscribed_to(client, line) as messages:
            reading = asyncio.ensure_future(messages.next())
            await passes()
            with pytest.raises(RuntimeError, match="another task reads"):
                await messages.next()
            line.push("t", pub=pub(1))
            assert (await reading).data == 1

    run(main())


def test_leaving_ends_the_loop_of_another_task_after_what_has_come() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            got: list[Any] = []

            async def read(messages: Any) -> None:
                got.extend([message.data async for message in messages])

            async with subscribed_to(client, line) as messages:
                line.push("t", pub=pub(1))
                await until(lambda: messages.position == text(1))
                reading = asyncio.ensure_future(read(messages))
            await reading
            assert got == [1]
            assert (await line.take()).unsubscribe == packets.UnsubscribeRequest(channel="t")
            await messages.aclose()
            with pytest.raises(StopAsyncIteration):
                await messages.next()

    run(main())


def test_a_refused_subscription_raises_where_it_is_entered_or_read() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            entering = asyncio.ensure_future(client.subscribe("t").__aenter__())
            line.refuse(await line.take(), 103, "members only, ask the door keeper")
            with pytest.raises(CommandRefused, match="to subscribe to 't' was refused: members only"):
                await entering
            reading = asyncio.ensure_future(client.subscribe("t").next())
            line.refuse(await line.take(), 103, "members only, ask the door keeper")
            with pytest.raises(CommandRefused, match="door keeper"):
                await reading

    run(main())


@pytest.mark.parametrize(
    ("push", "error"),
    [
        (Unsubscribe(2000, "unsubscribed"), Unsubscribed),
        (Unsubscribe(2001, "model crashed"), TopicFailed),
        (Unsubscribe(2001, "finished"), None),
    ],
)
def test_the_end_comes_after_what_was_before_it(push: Unsubscribe, error: type[Exception] | None) -> None:
    async def main() -> None:
        async with connected() as (client, line, _), subscribed_to(client, line) as messages:
            line.push("t", pub=pub(1))
            line.push("t", unsubscribe=push)
            assert (await messages.next()).data == 1
            for _ in range(2):
                with pytest.raises(error or StopAsyncIteration):
                    await messages.next()

    run(main())


def test_a_second_subscription_to_a_topic() -> None:
    async def main() -> None:
        async with connected() as (client, line, _), subscribed_to(client, line):
            with pytest.raises(AlreadySubscribed):
                async with client.subscribe("t"):
                    pass

    run(main())


def test_a_subscription_that_nobody_holds_any_more_is_left() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):

            async def read_one() -> Any:
                async for message in client.subscribe("t"):
                    return message.data
                raise AssertionError("it has ended")

            reading = asyncio.ensure_future(read_one())
            await line.admit(subscribed())
            line.push("t", pub=pub(1))
            assert await reading == 1
            del reading
            gc.collect()
            assert (await line.take()).unsubscribe == packets.UnsubscribeRequest(channel="t")

    run(main())


def test_entering_a_subscription_can_be_cancelled() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            entering = asyncio.ensure_future(client.subscribe("t").__aenter__())
            command = await line.take()
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await entering
            assert (await line.take()).unsubscribe is not None
            line.reply(command, subscribe=subscribed())
            await passes()
            async with subscribed_to(client, line) as again:
                assert again.state.name == "subscribed"

    run(main())


def test_a_slow_consumer_is_waited_for() -> None:
    async def main() -> None:
        async with (
            connected() as (client, line, _),
            subscribed_to(client, line, buffer_messages=4) as messages,
        ):
            line.say(*(packets.Reply(push=packets.Push(channel="t", pub=pub(n))) for n in range(1, 9)))
            await messages.wait_for("subscribing")
            assert (await line.take()).unsubscribe is not None
            got = [(await messages.next()).data for _ in range(2)]
            assert line.is_quiet, "not before there is room"
            got.append((await messages.next()).data)
            command = await line.admit(recovered(4, 5, 6))
            assert command.subscribe is not None
            assert command.subscribe.offset == 4
            got += [(await messages.next()).data for _ in range(3)]
            assert got == [1, 2, 3, 4, 5, 6]
            assert messages.dropped == 0

    run(main())


def test_a_slow_consumer_that_wants_the_newest() -> None:
    async def main() -> None:
        async with (
            connected() as (client, line, _),
            subscribed_to(client, line, buffer_messages=2, on_overflow="drop") as messages,
        ):
            line.say(*(packets.Reply(push=packets.Push(channel="t", pub=pub(n))) for n in range(1, 9)))
            await until(lambda: messages.position == text(8))
            message = await messages.next()
            assert (message.data, message.gap) == (7, Gap(text(0), text(6)))
            assert ((await messages.next()).gap, messages.dropped) == (None, 6)

    run(main())


def test_a_slow_consumer_that_wants_to_know() -> None:
    async def main() -> None:
        async with (
            connected() as (client, line, _),
            subscribed_to(client, line, buffer_messages=2, on_overflow="error") as messages,
        ):
            line.say(*(packets.Reply(push=packets.Push(channel="t", pub=pub(n))) for n in range(1, 9)))
            await messages.wait_for("unsubscribed")
            assert [(await messages.next()).data for _ in range(2)] == [1, 2]
            with pytest.raises(ConsumerTooSlow, match="2 messages of 't' waited"):
                await messages.next()

    run(main())


def test_members() -> None:
    async def main() -> None:
        async with connected() as (client, line, lines):
            async with subscribed_to(client, line, members=True) as messages:
                line.push("t", join=Join(ClientInfo(client="a")))
                members = messages.members()
                assert await anext(members) == MemberChange("join", Member("a"))
                line.cut()
                second = await lines.line(2)
                await second.welcome()
                await second.admit(recovered(0))
                second.push("t", join=Join(ClientInfo(client="b")))
                assert [(await anext(members)).kind for _ in range(2)] == ["missed", "join"]
            assert [change async for change in members] == []
            assert messages.state.name == "unsubscribed"

    run(main())


def test_max_per_s_and_data_travel_together() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            entering = asyncio.ensure_future(client.subscribe("t", data={"a": 1}, max_per_s=2.5).__aenter__())
            command = await line.admit()
            assert command.subscribe is not None
            assert bytes(command.subscribe.data) == b'{"a":1,"max_per_s":2.5}'
            await entering

    run(main())
