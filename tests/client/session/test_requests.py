"""What a user asks for: it waits for a connection, for its turn, and for its answer."""

import pytest
from msgspec import Raw

from tests.client.session.fakes import Talk
from tidewire.client.errors import CallRefused, ClientClosed, CommandRefused, NoAnswer, TooManyRequests
from tidewire.client.session.desk import FRAME_BYTES_MAX
from tidewire.client.session.events import Settled
from tidewire.client.session.requests import CALLS_WINDOW, WAITING_MAX, WINDOW
from tidewire.errors import CallError
from tidewire.protocol import packets
from tidewire.protocol.codecs import PROTOBUF


def publish(talk: Talk, data: bytes = b"1", *, timeout_s: float = 60.0) -> int:
    request = packets.PublishRequest(channel="t", data=Raw(data))
    return talk.machine.request(talk.now, request, "to publish to 't'", timeout_s=timeout_s)


def look(talk: Talk, *, timeout_s: float = 60.0) -> int:
    request = packets.PresenceStatsRequest(channel="t")
    return talk.machine.request(talk.now, request, "the presence of 't'", timeout_s=timeout_s, is_repeatable=True)


def connected() -> Talk:
    talk = Talk()
    talk.begin()
    talk.said()
    return talk


def test_an_answer() -> None:
    talk = connected()
    handle = look(talk)
    talk.reply(talk.one(), presence_stats=packets.PresenceStatsResult(2, 1))
    result = talk.settled(handle)
    assert (result.num_clients, result.num_users) == (2, 1)
    assert talk.machine.next_at is not None, "the ping's alarm alone"
    talk.advance(9)
    assert len(talk.told(Settled)) == 1


def test_an_answer_without_anything_in_it() -> None:
    talk = connected()
    handle = publish(talk)
    talk.hear(packets.Reply(id=talk.one().id))
    assert talk.settled(handle) is None


def test_a_refusal() -> None:
    talk = connected()
    handle = publish(talk)
    talk.refuse(talk.one(), 103, "permission denied")
    refused = talk.settled(handle)
    assert isinstance(refused, CommandRefused)
    assert not isinstance(refused, CallError)
    assert (refused.code, refused.message, refused.temporary) == (103, "permission denied", False)
    assert str(refused) == "to publish to 't' was refused: permission denied (103); ask as somebody who may"


def test_a_call_that_failed_is_what_its_function_raised() -> None:
    talk = connected()
    handle = talk.machine.request(talk.now, packets.RPCRequest(method="m"), "the call 'm'", timeout_s=1)
    talk.refuse(talk.one(), 1404, "there is no such order", temporary=True)
    refused = talk.settled(handle)
    assert isinstance(refused, CallRefused)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.message, refused.temporary) == (1404, "there is no such order", True)


def test_answers_find_their_requests_in_any_order() -> None:
    talk = connected()
    first, second = look(talk), look(talk)
    one, two = talk.said()
    talk.reply(two, presence_stats=packets.PresenceStatsResult(2))
    talk.reply(one, presence_stats=packets.PresenceStatsResult(1))
    assert (talk.settled(first).num_clients, talk.settled(second).num_clients) == (1, 2)


def test_before_a_connection_it_waits_for_one() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    handle = publish(talk)
    assert talk.open().publish is None
    assert talk.said() == []
    talk.reply(1, connect=packets.ConnectResult(client="c"))
    assert talk.one().publish is not None
    assert [event for event in talk.told(Settled) if event.handle == handle] == []


def test_nothing_is_sent_while_there_is_no_connection() -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    talk.open()
    publish(talk)
    talk.cut()
    assert not talk.machine.has_output
    talk.come_back()
    assert [command.publish is not None for command in talk.said()] == [True]


def test_no_answer_in_time() -> None:
    talk = connected()
    handle = publish(talk, timeout_s=3)
    command = talk.one()
    talk.advance(3)
    error = talk.settled(handle)
    assert isinstance(error, NoAnswer)
    assert "to publish to 't' was sent, and it is not known whether it was done: no answer came within 3 s" in str(
        error
    )
    talk.reply(command, publish=packets.PublishResult())
    assert len(talk.told(Settled)) == 1, "an answer that comes late is nothing"


def test_no_connection_in_time() -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    handle = publish(talk, timeout_s=3)
    talk.advance(3)
    assert "could not be sent within 3 s" in str(talk.settled(handle))
    talk.connect()
    assert talk.said() == []


def test_a_cut_line_leaves_it_open_whether_it_was_done() -> None:
    talk = connected()
    handle = publish(talk)
    talk.look()
    talk.cut()
    error = talk.settled(handle)
    assert isinstance(error, NoAnswer)
    assert str(error).endswith("it is not known whether it was done: the line was cut")


def test_what_may_be_asked_twice_is_asked_again_and_first() -> None:
    talk = connected()
    read = look(talk)
    talk.look()
    talk.cut()
    write = publish(talk)
    talk.said()
    talk.come_back()
    again, later = talk.said()
    assert again.presence_stats is not None
    assert later.publish is not None
    talk.reply(again, presence_stats=packets.PresenceStatsResult(3))
    talk.reply(later, publish=packets.PublishResult())
    assert talk.settled(read).num_clients == 3
    assert not isinstance(talk.settled(write), NoAnswer)


def test_what_had_not_had_its_turn_when_the_line_was_cut_has_it_on_the_next() -> None:
    talk = connected()
    handle = publish(talk)
    talk.cut()
    talk.come_back()
    command = talk.one()
    assert command.publish is not None
    talk.reply(command, publish=packets.PublishResult())
    assert not isinstance(talk.settled(handle), NoAnswer)


def test_nobody_waits_any_more() -> None:
    talk = connected()
    before, after = publish(talk), publish(talk)
    talk.machine.forget(before)
    command = talk.one()
    talk.machine.forget(after)
    talk.reply(command, publish=packets.PublishResult())
    talk.advance(9)
    assert talk.told(Settled) == []


def test_a_window_of_requests_without_answers() -> None:
    talk = connected()
    handles = [publish(talk) for _ in range(WINDOW + 2)]
    commands = talk.said()
    assert len(commands) == WINDOW
    talk.reply(commands[0], publish=packets.PublishResult())
    (another,) = talk.said()
    talk.advance(20)
    talk.ping()
    talk.advance(20)
    talk.ping()
    talk.advance(20)
    assert [command for command in talk.said() if command.id] == [], (
        "those that waited for their turn have timed out with the rest"
    )
    assert len([handle for handle in handles if isinstance(talk.settled(handle), NoAnswer)]) == WINDOW + 1
    assert another.id == WINDOW + 2, "1 was the connect command"


def test_calls_have_a_window_of_their_own() -> None:
    talk = connected()
    for number in range(CALLS_WINDOW + 1):
        talk.machine.request(talk.now, packets.RPCRequest(method=f"m{number}"), "a call", timeout_s=60)
    publish(talk)
    commands = talk.said()
    assert [command.rpc is not None for command in commands] == [True] * CALLS_WINDOW + [False]
    talk.reply(commands[5], rpc=packets.RPCResult())
    another = talk.one().rpc
    assert another is not None
    assert another.method == f"m{CALLS_WINDOW}"


def test_no_more_than_so_many() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    for _ in range(WAITING_MAX):
        publish(talk)
    with pytest.raises(TooManyRequests, match="10000 requests wait"):
        publish(talk)


def test_a_message_without_an_answer_is_settled_when_it_is_on_its_way() -> None:
    talk = connected()
    request = packets.SendRequest(data=Raw(b"1"))
    handle = talk.machine.request(talk.now, request, "to send a message", timeout_s=10)
    assert talk.told(Settled)[-1].handle == handle
    command = talk.one()
    assert (command.id, command.send) == (0, request)


def test_commands_share_a_frame() -> None:
    talk = connected()
    for number in range(50):
        publish(talk, b"%d" % number)
    (frame,) = talk.machine.take_frames(talk.now)
    assert frame.count(b"\n") == 49


@pytest.mark.parametrize("size", [1000, 40_000])
def test_a_frame_has_a_size(size: int) -> None:
    talk = Talk(codec=PROTOBUF)
    talk.begin()
    for _ in range(20):
        publish(talk, b"x" * size)
    frames = []
    while talk.machine.has_output:
        turn = talk.machine.take_frames(talk.now)
        assert sum(map(len, turn)) < 256 * 1024 + size + 1000
        frames += turn
    assert sum(map(len, frames)) > 20 * size
    assert all(len(frame) <= FRAME_BYTES_MAX for frame in frames)


def test_a_large_one_has_a_frame_of_its_own() -> None:
    talk = connected()
    publish(talk, b'"%s"' % (b"x" * 100_000))
    publish(talk)
    assert [len(frame) > 100_000 for frame in talk.machine.take_frames(talk.now)] == [True, False]


def test_the_end_of_the_client_is_the_end_of_its_requests() -> None:
    talk = connected()
    sent = publish(talk)
    talk.look()
    talk.machine.close(talk.now)
    talk.look()
    assert isinstance(talk.settled(sent), NoAnswer), "it was sent, so nobody knows"
    with pytest.raises(ClientClosed, match="is closed"):
        publish(talk)


def test_a_final_ending_is_what_waiting_requests_raise() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    handle = publish(talk)
    talk.refuse(talk.open(), 103, "members only, ask the door keeper")
    assert str(talk.settled(handle)) == "to connect was refused: members only, ask the door keeper (103)"
    with pytest.raises(CommandRefused, match="door keeper"):
        publish(talk)
