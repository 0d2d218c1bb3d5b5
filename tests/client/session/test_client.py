"""A ``Client`` on lines in memory, with a clock that is moved: what its user sees."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from tests.client.session.fakes import pub, recovered, subscribed, text
from tests.client.session.lines import Lines, connected, passes, run, subscribed_to, until
from tidewire.client.errors import (
    BadURL,
    CallRefused,
    ClientClosed,
    NoAnswer,
    NothingListens,
    NoToken,
    Refused,
    WrongType,
)
from tidewire.client.reconnect import Advice, ComeBack
from tidewire.client.resume import Gap
from tidewire.client.session.client import Client
from tidewire.client.session.messages import ClientState, Member, Message, PresenceStats
from tidewire.errors import BadPayload, BadPosition, BadTopic
from tidewire.protocol import packets
from tidewire.protocol.packets import ClientInfo


@dataclasses.dataclass
class Order:
    id: int


# Living


def test_it_connects_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        states: list[ClientState] = []
        before = asyncio.all_tasks()
        async with connected(on_state=states.append, data={"app": 1}) as (client, line, _):
            assert (client.state.name, client.id) == ("connected", "c1")
        assert asyncio.all_tasks() == before
        assert line.closed == 1000
        assert [state.name for state in states] == ["connecting", "connected", "closed"]

    run(main())


def test_the_connect_command() -> None:
    async def main() -> None:
        lines = Lines()
        client = lines.client(token="secret", data={"app": 1})
        entering = asyncio.ensure_future(client.__aenter__())
        request = (await (await lines.line(1)).welcome(data=Raw(b'{"hello":1}'))).connect
        await entering
        assert client.welcome == {"hello": 1}
        assert request is not None
        assert (request.token, bytes(request.data), request.name) == ("secret", b'{"app":1}', "tidewire")
        # the same key on the next connection of this client, another for another client
        key = request.headers["tidewire-session"]
        lines.opened[0].cut()
        again = (await (await lines.line(2)).welcome()).connect
        assert again is not None
        assert again.headers == {"tidewire-session": key}
        await client.__aexit__(None, None, None)
        async with connected() as (other, _, _):
            assert other._machine._hello.headers["tidewire-session"] != key
        assert len(key) >= 16

    run(main())


def test_nothing_listens() -> None:
    async def main() -> None:
        lines = Lines()
        lines.fail()
        before = asyncio.all_tasks()
        with pytest.raises(NothingListens, match="start the server first"):
            async with lines.client():
                pass
        assert asyncio.all_tasks() == before

    run(main())


def test_one_that_waits_is_there_when_the_server_is() -> None:
    async def main() -> None:
        lines = Lines()
        lines.fail(5)
        client = lines.client(wait=True)
        entering = asyncio.ensure_future(client.__aenter__())
        await (await lines.line(1)).welcome()
        await entering
        assert lines.asked == 6
        await client.__aexit__(None, None, None)

    run(main())


@pytest.mark.parametrize("stage", ["dialling", "asking", "waiting"])
def test_entering_can_be_cancelled(stage: str) -> None:
    async def main() -> None:
        lines = Lines()
        before = asyncio.all_tasks()
        if stage == "dialling":
            lines.answers.clear()
        elif stage == "waiting":
            lines.fail()
        entering = asyncio.ensure_future(lines.client(wait=True).__aenter__())
        await until(lambda: lines.asked)
        await passes()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert asyncio.all_tasks() == before
        lines.clock.advance(60)
        await passes()
        assert lines.asked == 1

    run(main())


def test_leaving_can_be_cancelled() -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        lines = Lines()
        client = lines.client()
        entering = asyncio.ensure_future(client.__aenter__())
        line = await lines.line(1)
        await line.welcome()
        await entering
        line.reads.clear()
        sending = asyncio.ensure_future(client.send(1))
        await until(lambda: line.unread)
        leaving = asyncio.ensure_future(client.__aexit__(None, None, None))
        await passes()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.wait([sending])
        assert asyncio.all_tasks() == before
        assert line.aborted

    run(main())


def test_what_was_sent_is_written_before_it_leaves() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            await client.send({"bye": 1})
        command = await line.take()
        assert command.send is not None
        assert bytes(command.send.data) == b'{"bye":1}'

    run(main())


def test_a_client_that_is_not_open() -> None:
    async def main() -> None:
        client = Lines().client()
        with pytest.raises(ClientClosed, match="use it inside of"):
            await client.publish("t", 1)
        with pytest.raises(ClientClosed):
            client.subscribe("t")
        async with connected() as (client, _, _):
            subscription = client.subscribe("t")
        with pytest.raises(ClientClosed):
            await client.presence("t")
        with pytest.raises(ClientClosed):
            await subscription.next()
        with pytest.raises(RuntimeError, match="opened once"):
            await client.__aenter__()

    run(main())


def test_bad_arguments_are_told_at_once() -> None:
    async def main() -> None:
        with pytest.raises(BadURL):
            Client("nonsense")
        async with connected() as (client, _, _):
            with pytest.raises(BadPosition):
                client.subscribe("t", since="-1")
            with pytest.raises(BadTopic):
                client.subscribe("")
            with pytest.raises(BadTopic):
                await client.publish("", 1)
            with pytest.raises(BadPayload, match="protobuf=True"):
                await client.publish("t", b"x")
            with pytest.raises(ValueError, match="max_per_s travels in data"):
                client.subscribe("t", data=[1], max_per_s=2)

    run(main())


def test_a_final_close_code_ends_everything_with_its_sentence() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            reading = asyncio.ensure_future(client.messages().next())
            async with subscribed_to(client, line) as quotes:
                asking = asyncio.ensure_future(client.presence("t"))
                await passes()
                line.hang_up(3503, "disconnected")
                with pytest.raises(Refused, match="refused with close code 3503: disconnected"):
                    await quotes.next()
                for task in (reading, asking):
                    with pytest.raises(Refused):
                        await task
            with pytest.raises(Refused):
                await client.publish("t", 1)
            with pytest.raises(Refused):
                await client.wait_for("connected")
            assert client.state.name == "closed"

    run(main())


# Coming back


def test_a_cut_line_is_outlived() -> None:
    async def main() -> None:
        async with connected() as (client, line, lines), subscribed_to(client, line) as messages:
            line.push("t", pub=pub(1))
            assert (await messages.next()).data == 1
            line.cut()
            second = await lines.line(2)
            await second.welcome()
            request = (await second.admit(recovered(1, 2))).subscribe
            assert request is not None
            assert request.offset == 1
            second.push("t", pub=pub(3))
            got = [await messages.next(), await messages.next()]
            assert [(message.data, message.gap, message.position) for message in got] == [
                (2, None, text(2)),
                (3, None, text(3)),
            ]
            assert line.aborted, "the old line is not left open"

    run(main())


def test_a_ping_that_does_not_come() -> None:
    async def main() -> None:
        lines = Lines()
        client = lines.client()
        entering = asyncio.ensure_future(client.__aenter__())
        line = await lines.line(1)
        await line.welcome(ping=5, pong=True)
        await entering
        line.say(packets.Reply())
        pong = await line.take()
        assert (pong.id, pong.request) == (0, None)
        lines.clock.advance(15)
        await until(lambda: line.aborted)
        assert client.state.name == "disconnected"
        assert client.state.reason == "no ping for 15 s"
        await (await lines.line(2)).welcome()
        await client.wait_for("connected")
        await client.__aexit__(None, None, None)

    run(main())


def test_a_loss_is_told_by_the_message_after_it() -> None:
    async def main() -> None:
        async with connected() as (client, line, lines), subscribed_to(client, line) as messages:
            line.push("t", pub=pub(1))
            await messages.next()
            line.hang_up(3001, "shutdown")
            second = await lines.line(2)
            await second.welcome()
            await second.admit(subscribed(1, epoch="e2", was_recovering=True))
            await messages.wait_for("subscribed")
            gap = Gap(text(1), text(1, "e2"))
            assert (messages.state.recovered, messages.state.lost, messages.lost) == (False, gap, gap)
            second.push("t", pub=pub(2))
            message = await messages.next()
            assert message.gap == gap
            assert message.gap.is_history_lost

    run(main())


def test_a_state_that_lasts_a_moment_can_be_waited_for() -> None:
    async def main() -> None:
        async with connected() as (client, _, lines):
            waiting = asyncio.ensure_future(client.wait_for("disconnected"))
            connecting = asyncio.ensure_future(client.wait_for("connecting"))
            await passes()
            # all of it in one pass of the loop
            client._machine.ended(0.0, client._machine._line or 0, Advice(ComeBack.FAST, "cut"), NothingListens(""))
            client._machine.tick(1000.0)
            client._shell.pump()
            assert (await waiting).reason == "cut"
            assert (await connecting).name == "connecting"
            await (await lines.line(2)).welcome()
            assert (await client.wait_for("connected")).name == "connected"
            with pytest.raises(TimeoutError):
                await client.wait_for("disconnected", timeout_s=0.001)

    run(main())


# Requests


def test_requests_of_one_pass_share_a_frame() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            asking = asyncio.gather(*(client.publish("t", number) for number in range(20)))
            commands = [await line.take() for _ in range(20)]
            assert len(line.frames) == 2
            line.say(*(packets.Reply(id=one.id, publish=packets.PublishResult()) for one in commands))
            assert await asking == [None] * 20

    run(main())


@pytest.mark.parametrize("protobuf", [False, True])
def test_asking(protobuf: bool) -> None:
    async def main() -> None:
        async with connected(protobuf=protobuf) as (client, line, _):
            asking: Any = asyncio.ensure_future(client.presence("t"))
            info = ClientInfo(user="u", client="c", conn_info=Raw(b"1"))
            line.reply(await line.take(), presence=packets.PresenceResult({"c": info}))
            assert await asking == [Member("c", "u", 1)]
            asking = asyncio.ensure_future(client.presence_stats("t"))
            line.reply(await line.take(), presence_stats=packets.PresenceStatsResult(3, 2))
            assert await asking == PresenceStats(connections=3, users=2)
            asking = asyncio.ensure_future(client.call("m", {"a": 1}, type=Order))
            command = await line.take()
            assert command.rpc is not None
            assert (command.rpc.method, bytes(command.rpc.data)) == ("m", b'{"a":1}')
            line.reply(command, rpc=packets.RPCResult(data=Raw(b'{"id":5}')))
            assert await asking == Order(5)

    run(main())


def test_a_call_that_returns_nothing_and_takes_nothing() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            asking = asyncio.ensure_future(client.call("m"))
            command = await line.take()
            assert command.rpc is not None
            assert bytes(command.rpc.data) == b""
            line.reply(command, rpc=packets.RPCResult())
            assert await asking is None

    run(main())


def test_a_call_that_fails() -> None:
    async def main() -> None:
        async with connected() as (client, line, lines):
            asking = asyncio.ensure_future(client.call("order.place"))
            line.refuse(await line.take(), 1404, "there is no such order")
            with pytest.raises(
                CallRefused, match=r"the call 'order\.place' was refused: there is no such order"
            ) as caught:
                await asking
            assert caught.value.code == 1404
            asking = asyncio.ensure_future(client.call("order.place", type=Order))
            line.reply(await line.take(), rpc=packets.RPCResult(data=Raw(b'{"id":"x"}')))
            with pytest.raises(WrongType, match=r"the answer of the call 'order\.place' is not of the type"):
                await asking
            asking = asyncio.ensure_future(client.call("slow", timeout_s=3))
            await line.take()
            lines.clock.advance(3)
            with pytest.raises(NoAnswer, match="no answer came within 3 s"):
                await asking

    run(main())


def test_a_request_that_is_cancelled_is_forgotten() -> None:
    async def main() -> None:
        async with connected() as (client, line, lines):
            line.reads.clear()
            first = asyncio.ensure_future(client.publish("t", 1))
            await until(lambda: line.unread)
            second = asyncio.ensure_future(client.publish("t", 2))
            await passes()
            for task in (first, second):
                task.cancel()
            await passes()
            line.reads.set()
            command = await line.take()
            line.reply(command, publish=packets.PublishResult())
            await passes()
            assert line.is_quiet, "the second was never sent"
            assert len(client._machine._requests) == 0
            lines.clock.advance(60)
            assert client.state.name == "connected"

    run(main())


def test_history_in_pages() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            asking = asyncio.ensure_future(client.history("t", limit=5, since=text(3), type=int))
            pages = [[4, 5], [6, 7], [8]]
            asked = []
            for page in pages:
                command = await line.take()
                assert command.history is not None
                asked.append((command.history.limit, command.history.since, command.history.reverse))
                found = packets.HistoryResult([pub(offset) for offset in page], "e1", 9)
                line.reply(command, history=found)
            history = await asking
            assert [message.data for message in history.messages] == [4, 5, 6, 7, 8]
            assert history.messages[0].position == text(4)
            assert history.position == text(9)
            assert asked == [
                (5, packets.StreamPosition(3, "e1"), False),
                (3, packets.StreamPosition(5, "e1"), False),
                (1, packets.StreamPosition(7, "e1"), False),
            ]

    run(main())


@pytest.mark.parametrize(
    ("reverse", "page", "top"), [(False, [8, 9], 9), (True, [2, 1], 9), (False, [], 9), (False, [], 0)]
)
def test_history_that_ends_before_the_limit(reverse: bool, page: list[int], top: int) -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            asking = asyncio.ensure_future(client.history("t", reverse=reverse))
            command = await line.take()
            epoch = "e1" if top else ""
            line.reply(command, history=packets.HistoryResult([pub(offset) for offset in page], epoch, top))
            history = await asking
            assert [message.data for message in history.messages] == page
            assert history.position == (text(top) if top else None)

    run(main())


# What the server sends to this user


def test_messages_for_this_user() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            line.push("", message=packets.Message(data=Raw(b'{"id":1}')))
            line.push("", message=packets.Message(data=Raw(b'{"id":"x"}')))
            line.push("", message=packets.Message(data=Raw(b'{"id":3}')))
            orders = client.messages(type=Order)
            assert await orders.next() == Message(Order(1))
            with pytest.raises(WrongType, match="a message for this user"):
                await orders.next()
            assert (await anext(orders)).data == Order(3)
            with pytest.raises(TimeoutError):
                await orders.next(timeout_s=0.001)
            waiting = asyncio.ensure_future(anext(orders))
            await passes()
        with pytest.raises(StopAsyncIteration):
            await waiting

    run(main())


def test_messages_that_nobody_reads_are_bounded_and_that_is_told() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            for number in range(1003):
                line.push("", message=packets.Message(data=Raw(b"%d" % number)))
            await until(lambda: client._machine.messages.dropped == 3)
            first = await client.messages().next()
            assert (first.data, first.gap) == (3, Gap(None, None))

    run(main())


# Tokens


def test_tokens_from_functions() -> None:
    async def get_token() -> str:
        await asyncio.sleep(0)
        return "asynchronous"

    async def main(get: Callable[[], Any], expected: str) -> None:
        lines = Lines()
        client = lines.client(token=get)
        entering = asyncio.ensure_future(client.__aenter__())
        command = await (await lines.line(1)).welcome()
        assert command.connect is not None
        assert command.connect.token == expected
        await entering
        await client.__aexit__(None, None, None)

    run(main(get_token, "asynchronous"))
    run(main(lambda: "synchronous", "synchronous"))


def test_a_token_is_got_again_before_it_ends() -> None:
    async def main() -> None:
        tokens = iter(["one", "two", "three"])
        lines = Lines()
        client = lines.client(token=lambda: next(tokens))
        entering = asyncio.ensure_future(client.__aenter__())
        line = await lines.line(1)
        await line.welcome(expires=True, ttl=100)
        await entering
        lines.clock.advance(90)
        command = await line.take()
        assert command.refresh == packets.RefreshRequest(token="two")
        line.reply(command, refresh=packets.RefreshResult())
        line.hang_up(3005, "connection expired")
        again = await (await lines.line(2)).welcome()
        assert again.connect is not None
        assert again.connect.token == "three"
        await client.__aexit__(None, None, None)

    run(main())


@pytest.mark.parametrize(("given", "why"), [("", "gave none"), (None, "gave none"), (7, "a token is a str, not int")])
def test_a_function_that_gives_no_token(given: Any, why: str) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        with pytest.raises(NoToken, match=why):
            async with Lines().client(token=lambda: given):
                pass
        assert asyncio.all_tasks() == before

    run(main())


def test_a_function_that_fails_is_the_cause() -> None:
    async def main() -> None:
        def get() -> str:
            raise LookupError("no cookie")

        with pytest.raises(NoToken, match="LookupError: no cookie") as caught:
            async with Lines().client(token=get):
                pass
        assert isinstance(caught.value.__cause__, LookupError)

    run(main())


def test_tokens_of_subscriptions() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            asked: list[str] = []

            def get(topic: str) -> str:
                asked.append(topic)
                return f"for {topic}"

            entering = asyncio.ensure_future(client.subscribe("t", token=get).__aenter__())
            command = await line.admit(subscribed())
            assert command.subscribe is not None
            assert (command.subscribe.token, asked) == ("for t", ["t"])
            await entering

    run(main())


def test_leaving_while_a_token_is_being_got() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            never = asyncio.Event()
            cancelled = []

            async def get(topic: str) -> str:
                try:
                    await never.wait()
                except asyncio.CancelledError:
                    cancelled.append(topic)
                    raise
                return ""

            entering = asyncio.ensure_future(client.subscribe("t", token=get).__aenter__())
            await passes()
            entering.cancel()
            await passes()
            assert cancelled == ["t"]
            assert line.is_quiet

    run(main())


# Callbacks


def test_a_callback_that_fails_is_logged_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def fail(state: ClientState) -> None:
            raise LookupError(state.name)

        async with connected(on_state=fail) as (client, _, _):
            assert client.state.name == "connected"
        assert caplog.text.count("on_state failed") == 3
        caplog.clear()

    run(main())


def test_a_callback_may_ask_for_something() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            begun: list[Any] = []

            def again(state: Any) -> None:
                if state.name == "subscribed":
                    begun.append(asyncio.ensure_future(client.subscribe("u").__aenter__()))

            async with subscribed_to(client, line, on_state=again):
                await line.admit()
                await begun[0]

    run(main())


def test_what_a_callback_does_is_told_after_what_came_before_it() -> None:
    async def main() -> None:
        async with connected() as (client, line, _):
            told: list[str] = []

            def leave_second(state: Any) -> None:
                if state.name == "subscribed":
                    client._shell.leave(second._begin())

            first = client.subscribe("a", on_state=leave_second)
            second = client.subscribe("b", on_state=lambda state: told.append(state.name))
            entering = [asyncio.ensure_future(one.__aenter__()) for one in (first, second)]
            commands = [await line.take(), await line.take()]
            line.say(*(packets.Reply(id=one.id, subscribe=subscribed()) for one in commands))
            await asyncio.gather(*entering)
            assert told == ["subscribed", "unsubscribed"]

    run(main())
