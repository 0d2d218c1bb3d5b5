"""A client's machine: connecting, pings, tokens, and every way a connection ends."""

import pytest
from msgspec import Raw

from tests.client.session.fakes import Talk, take_all
from tidewire.client.errors import CommandRefused, Disconnected, NoAnswer, NotASession, NoToken, Refused
from tidewire.client.reconnect import Advice, ComeBack
from tidewire.client.session.advice import advise_close
from tidewire.client.session.events import Arrived, Changed, HangUp, WantToken
from tidewire.client.session.machine import ANSWER_S, Hello
from tidewire.client.session.pulse import PING_GRACE_S
from tidewire.errors import ClientError
from tidewire.protocol import packets
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec
from tidewire.protocol.packets import ConnectResult, Disconnect, Push, Refresh, Reply

WITH_TOKEN = Hello(renews_token=True)


def closed_by(code: int, reason: str = "") -> tuple[Advice, ClientError]:
    """What the shell makes of a close frame."""
    advice = advise_close(code, reason)
    final = advice.come_back is ComeBack.STOP
    return advice, Refused("ws://h", code=code) if final else Disconnected("ws://h", code, advice.reason)


# Connecting


@pytest.mark.parametrize("codec", [JSON, PROTOBUF])
def test_the_first_command_says_who_this_is(codec: Codec) -> None:
    hello = Hello(name="n", version="1", data=Raw(b'{"a":1}'), headers={"tidewire-session": "key"}, token="secret")
    talk = Talk(codec=codec, hello=hello)
    talk.machine.start(talk.now)
    request = talk.open().connect
    assert request is not None
    assert (request.name, request.version, request.headers, request.token) == (
        "n",
        "1",
        {"tidewire-session": "key"},
        "secret",
    )
    assert bytes(request.data) == b'{"a":1}'
    talk.reply(1, connect=ConnectResult(client="c", data=Raw(b"7")))
    assert talk.names == ["connecting", "connected"]
    assert (talk.machine.connection_id, bytes(talk.machine.welcome)) == ("c", b"7")


def test_a_failure_before_the_first_connection_is_final() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    talk.look()
    error = Disconnected("ws://h", 1006, "nothing listens there")
    talk.cut(Advice(ComeBack.FAST, "nothing listens there"), error)
    assert talk.names == ["connecting", "closed"]
    assert talk.machine.state.error is error
    talk.advance(60)
    assert talk.dials == 1


def test_one_that_waits_tries_until_it_works() -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    talk.look()
    for attempt in range(1, 4):
        talk.cut(Advice(ComeBack.FAST, "nothing listens there"))
        state = talk.machine.state
        assert (state.name, state.attempt, state.reason) == ("disconnected", attempt, "nothing listens there")
        assert state.retry_in_s is not None
        talk.advance(state.retry_in_s)
        assert talk.dials == attempt + 1
    talk.connect()
    assert talk.machine.state.name == "connected"


def test_delays_grow_and_are_jittered() -> None:
    talk = Talk()
    talk.begin()
    delays = []
    for _ in range(40):
        talk.cut()
        assert talk.machine.state.retry_in_s is not None
        delays.append(talk.machine.state.retry_in_s)
        talk.come_back()
    assert max(delays) > 5
    assert max(delays) <= 20
    assert len(set(delays)) == 40


def test_what_an_old_connection_still_says_is_nothing() -> None:
    talk = Talk()
    talk.begin()
    old = talk.attempt
    talk.cut()
    talk.machine.receive(talk.now, old, '{"push":{"message":{"data":1}}}')
    talk.machine.ended(talk.now, old, *closed_by(3500))
    talk.machine.opened(talk.now, old)
    talk.look()
    assert talk.machine.state.name == "disconnected"
    assert len(talk.machine.messages) == 0
    assert not talk.machine.has_output


def test_nothing_is_heard_before_the_welcome() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    talk.open()
    talk.ping()
    talk.push("", message=packets.Message(data=Raw(b"1")))
    assert talk.said() == []
    assert len(talk.machine.messages) == 0


# Refusals


@pytest.mark.parametrize("code", [101, 103, 107, 108, 400, 1999])
def test_a_final_refusal_closes_the_client(code: int) -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    talk.refuse(talk.open(), code, "members only, ask the door keeper")
    assert talk.names == ["connecting", "closed"]
    error = talk.machine.state.error
    assert isinstance(error, CommandRefused)
    assert error.code == code
    assert [event.code for event in talk.told(HangUp)] == [None]


@pytest.mark.parametrize(("code", "temporary"), [(100, True), (111, True), (3, False), (500, True)])
def test_a_temporary_refusal_is_tried_again(code: int, temporary: bool) -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    talk.refuse(talk.open(), code, temporary=temporary)
    assert talk.machine.state.name == "disconnected"
    talk.come_back()
    assert talk.machine.state.name == "connected"


def test_too_many_requests_are_left_in_peace() -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    talk.refuse(talk.open(), 111, temporary=True)
    assert talk.machine.state.retry_in_s is not None
    assert talk.machine.state.retry_in_s >= 10


@pytest.mark.parametrize(
    "frame", ["hello", '{"id":1,"connect":{"name":"tidewire"}}', '{"id":1}', '{"id":1,"rpc":{}}', "[]", b"\x00\x01"]
)
def test_what_speaks_something_else(frame: str | bytes) -> None:
    talk = Talk(waits=True)
    talk.machine.start(talk.now)
    talk.open()
    talk.machine.receive(talk.now, talk.attempt, frame)
    talk.look()
    error = talk.machine.state.error
    assert isinstance(error, NotASession)
    assert "ws://h/live/-/session speaks no session" in str(error)


def test_garbage_of_a_server_that_was_one_is_no_reason_to_stop() -> None:
    talk = Talk()
    talk.begin()
    talk.machine.receive(talk.now, talk.attempt, '{"push":{"message":{"data":1}}}\n{nonsense')
    talk.look()
    assert talk.machine.state.name == "disconnected"
    assert len(talk.machine.messages) == 1, "what came before it is heard"
    talk.come_back()
    assert talk.machine.state.name == "connected"


# Close codes


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 3000, 3001, 3005, 3008, 3012, 3014, 4000, 4413, 4499])
def test_codes_to_come_back_after(code: int) -> None:
    talk = Talk()
    talk.begin()
    talk.cut(*closed_by(code), code=code)
    assert talk.machine.state.name == "disconnected"
    talk.come_back()
    assert talk.names[-4:] == ["connected", "disconnected", "connecting", "connected"]


@pytest.mark.parametrize("code", [1009, 3500, 3503, 3999, 4500, 4999])
def test_codes_to_stop_after(code: int) -> None:
    talk = Talk()
    talk.begin()
    talk.cut(*closed_by(code), code=code)
    assert talk.machine.state.name == "closed"
    assert isinstance(talk.machine.state.error, Refused)
    talk.advance(100)
    assert talk.dials == 1


@pytest.mark.parametrize(("code", "expected"), [(3503, "closed"), (3011, "disconnected")])
def test_a_disconnect_push_is_a_close_code(code: int, expected: str) -> None:
    talk = Talk()
    talk.begin()
    talk.hear(Reply(push=Push(disconnect=Disconnect(code=code, reason="said"))))
    assert talk.machine.state.name == expected
    assert "said" in talk.machine.state.reason
    assert len(talk.told(HangUp)) == 1


# Pings


@pytest.mark.parametrize("codec", [JSON, PROTOBUF])
def test_a_ping_is_answered(codec: Codec) -> None:
    talk = Talk(codec=codec)
    talk.begin()
    talk.said()
    talk.ping()
    pong = talk.one()
    assert (pong.id, pong.request) == (0, None)


def test_a_server_that_wants_no_pongs_gets_none() -> None:
    talk = Talk()
    talk.begin(pong=False)
    talk.ping()
    assert talk.said() == []


def test_a_server_that_does_not_ping_any_more_is_gone() -> None:
    talk = Talk()
    talk.begin(ping=25)
    for _ in range(3):
        talk.advance(25 + PING_GRACE_S - 1)
        assert talk.machine.state.name == "connected"
        talk.ping()
    talk.advance(25 + PING_GRACE_S)
    assert talk.names[-1] == "disconnected"
    assert talk.states[-1].reason == "no ping for 35 s"
    assert len(talk.told(HangUp)) == 1


def test_messages_are_no_pings() -> None:
    talk = Talk()
    talk.begin(ping=25)
    talk.advance(34)
    talk.push("", message=packets.Message(data=Raw(b"1")))
    talk.advance(1)
    assert talk.machine.state.name == "disconnected"


def test_a_server_that_never_pings_is_not_expected_to() -> None:
    talk = Talk()
    talk.begin(ping=0, pong=False)
    talk.advance(10_000)
    assert talk.machine.state.name == "connected"


def test_a_program_that_slept_looks_first_at_what_has_come() -> None:
    talk = Talk()
    talk.begin(ping=25)
    talk.now += 300
    talk.machine.tick(talk.now)
    assert talk.machine.state.name == "connected"
    talk.ping()
    talk.advance(5)
    assert talk.machine.state.name == "connected"
    # and when nothing has come
    talk.now += 300
    talk.machine.tick(talk.now)
    talk.advance(1)
    assert talk.machine.state.name == "disconnected"


def test_a_server_that_answers_nothing_to_connect() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    talk.open()
    talk.advance(ANSWER_S)
    assert isinstance(talk.machine.state.error, NoAnswer)
    assert "it answered nothing for 15 s" in str(talk.machine.state.error)


def test_a_server_that_answers_one_after_the_other_is_not_given_up() -> None:
    talk = Talk()
    talk.begin()
    for topic in ("a", "b", "c"):
        talk.subscribe(topic)
    for command in talk.said():
        talk.advance(ANSWER_S - 1)
        talk.ping()
        talk.reply(command, subscribe=packets.SubscribeResult())
    assert talk.machine.state.name == "connected"
    talk.subscribe("d")
    talk.said()
    talk.advance(ANSWER_S)
    assert talk.machine.state.name == "disconnected"
    assert talk.machine.state.reason == "it answered nothing for 15 s"


# Tokens


def test_a_token_is_got_before_connecting() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    assert [event.topic for event in talk.told(WantToken)] == [None]
    assert talk.dials == 0
    talk.machine.take_token(talk.now, None, "one")
    command = talk.connect()
    assert command.connect is not None
    assert command.connect.token == "one"


def test_the_token_is_kept_for_the_next_connection() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect()
    talk.cut()
    command = talk.come_back()
    assert command.connect is not None
    assert command.connect.token == "one"
    assert len(talk.told(WantToken)) == 1


def test_a_token_is_refreshed_before_it_ends() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect(expires=True, ttl=60, ping=0)
    talk.advance(47)
    assert len(talk.told(WantToken)) == 1
    talk.advance(2)
    assert len(talk.told(WantToken)) == 2
    talk.machine.take_token(talk.now, None, "two")
    command = talk.one()
    assert command.refresh == packets.RefreshRequest(token="two")
    talk.reply(command, refresh=packets.RefreshResult(expires=True, ttl=100))
    talk.advance(79)
    assert len(talk.told(WantToken)) == 2
    talk.advance(2)
    assert len(talk.told(WantToken)) == 3


def test_the_server_may_say_that_the_end_has_changed() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect(ping=0)
    talk.hear(Reply(push=Push(refresh=Refresh(expires=True, ttl=10))))
    talk.advance(9)
    assert len(talk.told(WantToken)) == 2


def test_a_token_that_expired_is_replaced() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "old")
    talk.refuse(talk.open(), 109, "token expired")
    assert talk.machine.state.name == "disconnected"
    talk.advance(25)
    assert len(talk.told(WantToken)) == 2
    talk.machine.take_token(talk.now, None, "new")
    command = talk.connect()
    assert command.connect is not None
    assert command.connect.token == "new"
    assert talk.machine.state.name == "connected"


def test_a_new_token_that_has_expired_is_no_accident() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    for token in ("old", "new"):
        talk.machine.take_token(talk.now, None, token)
        talk.refuse(talk.open(), 109, "token expired")
        talk.advance(25)
    assert talk.machine.state.name == "closed"
    assert isinstance(talk.machine.state.error, CommandRefused)
    assert talk.machine.state.error.code == 109


def test_a_text_that_expired_cannot_be_replaced() -> None:
    talk = Talk(hello=Hello(token="text"), waits=True)
    talk.machine.start(talk.now)
    talk.refuse(talk.open(), 109, "token expired")
    assert talk.machine.state.name == "closed"
    assert "give token= as a function" in str(talk.machine.state.error)


@pytest.mark.parametrize("code", [3005, 3014])
def test_codes_that_say_that_the_token_is_worth_nothing(code: int) -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect()
    talk.cut(*closed_by(code), code=code)
    talk.advance(25)
    assert len(talk.told(WantToken)) == 2
    assert talk.dials == 1, "not before there is a token"


def test_no_token_at_first_closes_the_client() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    error = NoToken("the connection", "the function failed")
    talk.machine.miss_token(talk.now, None, error, is_final=False)
    assert talk.machine.state.error is error


def test_no_token_for_a_connection_that_was_there_is_tried_again() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect()
    talk.cut(*closed_by(3005), code=3005)
    talk.advance(25)
    talk.machine.miss_token(talk.now, None, NoToken("the connection", "down"), is_final=False)
    assert talk.machine.state.name == "disconnected"
    assert "down" in talk.machine.state.reason
    talk.advance(25)
    assert len(talk.told(WantToken)) == 3
    talk.machine.miss_token(talk.now, None, NoToken("the connection", "gave none"), is_final=True)
    assert talk.machine.state.name == "closed"


def test_no_token_to_refresh_with_is_tried_again_while_the_old_one_lasts() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect(expires=True, ttl=60, ping=0)
    talk.advance(50)
    talk.machine.miss_token(talk.now, None, NoToken("the connection", "down"), is_final=False)
    assert talk.machine.state.name == "connected"
    talk.advance(10)
    assert len(talk.told(WantToken)) == 3


@pytest.mark.parametrize(("code", "ends"), [(109, False), (100, False), (103, True)])
def test_a_refused_refresh(code: int, ends: bool) -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect(expires=True, ttl=60, ping=0)
    talk.advance(50)
    talk.machine.take_token(talk.now, None, "two")
    talk.refuse(talk.said()[-1], code, temporary=code == 100)
    talk.advance(10)
    assert (talk.machine.state.name == "closed") == ends
    assert len(talk.told(WantToken)) == (2 if ends else 3)


def test_a_token_that_comes_after_the_line_was_cut_is_for_the_next() -> None:
    talk = Talk(hello=WITH_TOKEN)
    talk.machine.start(talk.now)
    talk.machine.take_token(talk.now, None, "one")
    talk.connect(expires=True, ttl=60, ping=0)
    talk.advance(50)
    talk.cut()
    talk.machine.take_token(talk.now, None, "two")
    assert talk.machine.state.name == "disconnected"
    command = talk.come_back()
    assert command.connect is not None
    assert command.connect.token == "two"


# What the server sends to this user, and the end


def test_messages_for_this_user() -> None:
    talk = Talk()
    talk.begin()
    with talk.news(Arrived) as arrived:
        talk.push("", message=packets.Message(data=Raw(b'{"a":1}')))
    assert [event.track for event in arrived] == [None]
    (entry,) = take_all(talk.machine.messages)
    assert (entry.topic, entry.data) == ("", b'{"a":1}')


def test_the_user_has_had_enough() -> None:
    talk = Talk()
    talk.begin()
    talk.machine.close(talk.now)
    talk.machine.close(talk.now)
    assert [event.code for event in talk.told(HangUp)] == [1000]
    assert talk.names[-1] == "closed"
    assert talk.machine.state.error is None
    talk.advance(100)
    assert talk.machine.next_at is None
    assert talk.dials == 1


def test_the_user_has_had_enough_while_it_waits() -> None:
    talk = Talk()
    talk.begin()
    talk.cut()
    talk.machine.close(talk.now)
    assert talk.told(HangUp) == []
    assert talk.told(Changed)[-1].state.name == "closed"
    talk.advance(100)
    assert talk.dials == 1
