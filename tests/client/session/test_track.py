"""A subscription's machine: where it stands, what it hands on, and what it tells of what is lost."""

from typing import Any

import pytest
from msgspec import Raw

from tests.client.session.fakes import (
    Talk,
    at,
    inbox,
    offsets,
    pub,
    recovered,
    subscribed,
    take_all,
    text,
)
from tidewire.client.errors import (
    AlreadySubscribed,
    CommandRefused,
    ConsumerTooSlow,
    NoToken,
    TopicFailed,
    Unsubscribed,
)
from tidewire.client.resume import Gap
from tidewire.client.session.advice import advise_close
from tidewire.client.session.events import Arrived, TrackChanged, WantToken
from tidewire.client.session.messages import Member, MemberChange
from tidewire.client.session.track import Track
from tidewire.errors import ClientError
from tidewire.protocol import packets
from tidewire.protocol.codecs import PROTOBUF
from tidewire.protocol.packets import ClientInfo, Join, Leave, SubscribeResult, Unsubscribe


def connected(**options: Any) -> Talk:
    talk = Talk(**options)
    talk.begin(ping=0)
    talk.said()
    return talk


def names(talk: Talk, track: Track) -> list[str]:
    return [state.name for state in talk.states_of(track)]


def gaps(sink: Any) -> list[Gap | None]:
    return [entry.gap for entry in take_all(sink)]


# Subscribing


def test_it_asks_and_hears() -> None:
    talk = connected()
    track, sink = talk.subscribe("t", data=Raw(b'{"x":1}'), hears_members=True, token="secret")
    command = talk.one()
    request = command.subscribe
    assert request is not None
    assert (request.channel, request.token, request.recover, request.join_leave) == ("t", "secret", False, True)
    assert bytes(request.data) == b'{"x":1}'
    talk.publish("t", 1)
    talk.reply(command, subscribe=subscribed(7))
    talk.publish("t", 8, 9)
    assert names(talk, track) == ["subscribed"]
    assert track.state.recovered is None
    assert offsets(sink) == [8, 9], "what came before the answer is not its own"
    assert track.position == at(9)


def test_before_a_connection_it_waits() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    track, _ = talk.subscribe("t")
    talk.connect()
    assert talk.one().subscribe is not None
    assert track.state.name == "subscribing"


def test_arrivals_of_one_frame_are_told_once() -> None:
    talk = connected()
    track, _ = talk.subscribe_well()
    with talk.news(Arrived) as arrived:
        talk.publish("t", 1, 2, 3)
    assert [event.track for event in arrived] == [track]


def test_a_client_has_one_subscription_to_a_topic() -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    with pytest.raises(AlreadySubscribed, match="'t' already"):
        talk.subscribe("t")
    talk.machine.unsubscribe(talk.now, track)
    again, _ = talk.subscribe("t")
    asked, left, asked_again = talk.said()
    assert asked.subscribe is not None
    assert left.unsubscribe == packets.UnsubscribeRequest(channel="t")
    talk.reply(asked, subscribe=subscribed(5))
    assert again.state.name == "subscribing", "that was the answer to the one before"
    talk.reply(asked_again, subscribe=subscribed(6))
    assert again.state.name == "subscribed"
    assert names(talk, track) == ["unsubscribed"]


def test_a_position_to_begin_from() -> None:
    talk = connected()
    track, sink = talk.subscribe("t", since=at(3))
    command = talk.one()
    assert command.subscribe is not None
    assert (command.subscribe.recover, command.subscribe.epoch, command.subscribe.offset) == (True, "e1", 3)
    talk.reply(command, subscribe=recovered(3, 4, 5))
    assert track.state.recovered is True
    assert [(entry.data, entry.gap) for entry in take_all(sink)] == [(b"4", None), (b"5", None)]
    assert track.position == at(5)


def test_topics_of_other_messages_are_named_by_them() -> None:
    talk = connected()
    _, sink = talk.subscribe("quotes/*")
    talk.reply(talk.one(), subscribe=SubscribeResult())
    talk.push("quotes/*", pub=pub(0, channel="quotes/AAPL"))
    (entry,) = take_all(sink)
    assert entry.topic == "quotes/AAPL"


# Coming back


def test_after_a_cut_it_goes_on_where_it_was() -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 1, 2)
    talk.cut()
    assert names(talk, track) == ["subscribed", "subscribing"]
    assert track.state.reason == "the line was cut"
    talk.come_back(ping=0)
    command = talk.one()
    assert command.subscribe is not None
    assert (command.subscribe.recover, command.subscribe.epoch, command.subscribe.offset) == (True, "e1", 2)
    talk.reply(command, subscribe=recovered(2, 3, 4))
    talk.publish("t", 5)
    assert offsets(sink) == [1, 2, 3, 4, 5]
    assert gaps(sink) == []
    assert (track.state.recovered, track.state.lost) == (True, None)


def test_a_long_past_comes_as_pushes() -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 1)
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=recovered(1))
    talk.publish("t", *range(2, 30))
    assert offsets(sink) == list(range(1, 30))
    assert track.lost is None


def test_what_is_here_already_is_dropped() -> None:
    talk = connected()
    _, sink = talk.subscribe_well()
    talk.publish("t", 1, 2)
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=recovered(1, 2, 3))
    talk.publish("t", 3, 4)
    assert offsets(sink) == [1, 2, 3, 4]


def test_a_cut_while_it_asks() -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    talk.said()
    talk.cut()
    talk.come_back(ping=0)
    new = talk.one()
    assert new.subscribe is not None
    assert names(talk, track) == []
    talk.reply(new, subscribe=subscribed(3))
    assert track.state.name == "subscribed"


@pytest.mark.parametrize(
    ("result", "end"),
    [
        # it says so itself
        (subscribed(9, was_recovering=True), text(9)),
        # numbering has restarted
        (subscribed(1, epoch="e2", was_recovering=True), text(1, "e2")),
        # another epoch, whatever it says
        (subscribed(2, epoch="e2", recovered=True, was_recovering=True), text(2, "e2")),
        # it begins later than was asked for, whatever it says
        (recovered(5), text(5)),
        # it cannot go on, whatever it says
        (SubscribeResult(recovered=True, was_recovering=True), None),
    ],
)
def test_a_loss_is_told_by_the_next_message(result: SubscribeResult, end: str | None) -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 1, 2)
    assert offsets(sink) == [1, 2]
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=result)
    gap = Gap(text(2), end)
    assert (track.state.recovered, track.state.lost, track.lost) == (False, gap, gap)
    talk.publish("t", result.offset + 1, result.offset + 2)
    assert gaps(sink) == [gap, None]
    assert track.lost is None


def test_a_loss_in_the_middle_of_what_was_recovered() -> None:
    talk = connected()
    _, sink = talk.subscribe_well()
    talk.publish("t", 1)
    take_all(sink)
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=recovered(1, 2, 5, 6))
    assert gaps(sink) == [None, Gap(text(2), text(4)), None]


def test_two_losses_without_a_message_between_are_one() -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 1)
    take_all(sink)
    for top in (5, 9):
        talk.cut()
        talk.come_back(ping=0)
        talk.reply(talk.one(), subscribe=subscribed(top, was_recovering=True))
    assert track.lost == Gap(text(1), text(9))
    talk.publish("t", 10)
    assert gaps(sink) == [Gap(text(1), text(9))]


def test_a_topic_that_numbers_nothing_cannot_know() -> None:
    talk = connected()
    track, sink = talk.subscribe_well(SubscribeResult())
    talk.publish("t", 0)
    talk.cut()
    talk.come_back(ping=0)
    command = talk.one()
    assert command.subscribe is not None
    assert not command.subscribe.recover
    talk.reply(command, subscribe=SubscribeResult())
    talk.publish("t", 0, 0)
    assert [(entry.position, entry.gap) for entry in take_all(sink)] == [
        (None, None),
        (None, Gap(None, None)),
        (None, None),
    ]
    assert track.position is None


def test_nothing_was_missed_where_the_position_is_the_same() -> None:
    talk = connected()
    track, _ = talk.subscribe_well(subscribed(4))
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=subscribed(4, was_recovering=True))
    assert track.lost is None


def test_snapshots_share_a_position_and_are_all_taken() -> None:
    talk = connected()
    track, sink = talk.subscribe_well(subscribed(4))
    for _ in range(3):
        talk.push("t", pub=pub(4, tags={"snapshot": "true"}))
    talk.publish("t", 5)
    assert [entry.position for entry in take_all(sink)] == [at(4), at(4), at(4), at(5)]
    talk.push("t", pub=pub(0, tags={"snapshot": "true"}))
    assert track.position == at(5), "it never goes back"


def test_keyed_topics_leave_numbers_out() -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 3, 7)
    assert gaps(sink) == [None, None]
    assert track.position == at(7)


# What the server ends


def test_insufficient_state_is_recovered_at_once() -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 1)
    talk.push("t", unsubscribe=Unsubscribe(2500, "insufficient state"))
    talk.publish("t", 9)
    assert track.state.name == "subscribing"
    assert "insufficient state (2500)" in track.state.reason
    request = talk.asked_again()
    assert (request.recover, request.offset) == (True, 1)
    talk.reply(talk.again, subscribe=recovered(1, 2, 3))
    assert offsets(sink) == [1, 2, 3]


def test_a_server_that_ends_it_again_and_again_is_not_asked_without_pause() -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    command = talk.one()
    began = talk.now
    for _ in range(20):
        talk.reply(command, subscribe=subscribed(1))
        talk.push("t", unsubscribe=Unsubscribe(2500, "again"))
        talk.asked_again()
        command = talk.again
    assert talk.now - began > 60
    assert track.state.name == "subscribing"


def test_state_that_was_invalidated_is_forgotten() -> None:
    talk = connected()
    _, sink = talk.subscribe_well(renews_token=True, token="one")
    talk.publish("t", 1)
    take_all(sink)
    talk.push("t", unsubscribe=Unsubscribe(2502, "state invalidated"))
    talk.advance(25)
    assert [event.topic for event in talk.told(WantToken)] == ["t"]
    talk.machine.take_token(talk.now, "t", "two")
    command = talk.one()
    assert command.subscribe is not None
    assert (command.subscribe.recover, command.subscribe.token) == (False, "two")
    talk.reply(command, subscribe=subscribed(8))
    talk.publish("t", 9)
    assert gaps(sink) == [Gap(text(1), text(8))]


def test_a_connection_whose_state_was_invalidated() -> None:
    talk = connected()
    talk.subscribe_well()
    talk.publish("t", 1)
    talk.cut(advise_close(3014), code=3014)
    talk.come_back(ping=0)
    command = talk.one()
    assert command.subscribe is not None
    assert not command.subscribe.recover


@pytest.mark.parametrize("code", [2000, 2499])
def test_ended_for_good(code: int) -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.publish("t", 1)
    talk.push("t", unsubscribe=Unsubscribe(code, "unsubscribed"))
    error = track.state.error
    assert isinstance(error, Unsubscribed)
    assert (error.topic, error.code) == ("t", code)
    assert offsets(sink) == [1], "what has come can be read"
    talk.cut()
    talk.come_back(ping=0)
    assert talk.said() == []


@pytest.mark.parametrize(("reason", "failed"), [("finished", False), ("", False), ("model crashed", True)])
def test_the_end_of_a_topic(reason: str, failed: bool) -> None:
    talk = connected()
    track, _ = talk.subscribe_well()
    talk.push("t", unsubscribe=Unsubscribe(2001, reason))
    assert track.state.name == "unsubscribed"
    error = track.state.error
    if failed:
        assert isinstance(error, TopicFailed)
        assert error.error == "model crashed"
    else:
        assert error is None


def test_a_loss_that_no_message_carried_is_told_at_the_end() -> None:
    talk = connected()
    track, _ = talk.subscribe_well()
    talk.publish("t", 1)
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=subscribed(5, was_recovering=True))
    talk.push("t", unsubscribe=Unsubscribe(2001, "finished"))
    assert track.state.lost == Gap(text(1), text(5))


def test_what_is_said_of_a_subscription_that_was_left_is_old() -> None:
    talk = connected()
    sink = inbox(1)
    track, _ = talk.subscribe_well(sink=sink)
    talk.publish("t", 1, 2)
    talk.said()
    changes(track)
    talk.push("t", unsubscribe=Unsubscribe(2000, "enough"))
    talk.push("t", join=Join(ClientInfo(client="a")))
    assert track.state.name == "subscribing"
    assert changes(track) == []
    assert offsets(sink) == [1]
    talk.machine.resume(talk.now, track)
    talk.reply(talk.one(), subscribe=recovered(1, 2))
    assert track.state.name == "subscribed"


# Refusals


@pytest.mark.parametrize("code", [101, 102, 103, 106, 107, 108, 400])
def test_a_final_refusal(code: int) -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    talk.refuse(talk.one(), code, "you may not read this topic")
    error = track.state.error
    assert isinstance(error, CommandRefused)
    assert (error.code, str(error)) == (code, f"to subscribe to 't' was refused: you may not read this topic ({code})")
    talk.subscribe("t")
    assert talk.one().subscribe is not None, "it can be tried again"


@pytest.mark.parametrize(("code", "temporary"), [(100, True), (111, True), (400, True), (2, False)])
def test_a_temporary_refusal_is_tried_again_with_growing_delays(code: int, temporary: bool) -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    command = talk.one()
    began = talk.now
    for _ in range(12):
        talk.refuse(command, code, "later", temporary=temporary)
        assert (track.state.name, track.state.reason) == ("subscribing", "later")
        talk.asked_again()
        command = talk.again
    talk.reply(command, subscribe=subscribed())
    assert track.state.name == "subscribed"
    assert talk.now - began > 30


def test_a_position_that_cannot_be_recovered_is_given_up() -> None:
    talk = connected()
    track, sink = talk.subscribe("t", since=at(3))
    talk.refuse(talk.one(), 112, "unrecoverable position")
    assert not talk.asked_again().recover
    talk.reply(talk.again, subscribe=subscribed(9))
    talk.publish("t", 10)
    assert gaps(sink) == [Gap(text(3), text(9))]
    assert track.state.name == "subscribed"


def test_a_server_that_thinks_it_is_subscribed_already() -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    talk.refuse(talk.one(), 105, "already subscribed")
    assert talk.one().unsubscribe == packets.UnsubscribeRequest(channel="t")
    talk.asked_again()
    talk.reply(talk.again, subscribe=subscribed())
    assert track.state.name == "subscribed"


def test_an_answer_that_is_none() -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    talk.reply(talk.one(), publish=packets.PublishResult())
    assert track.state.name == "subscribing"
    talk.asked_again()


# Leaving


def test_leaving() -> None:
    talk = connected()
    track, sink = talk.subscribe_well()
    talk.machine.unsubscribe(talk.now, track)
    talk.machine.unsubscribe(talk.now, track)
    assert talk.one().unsubscribe == packets.UnsubscribeRequest(channel="t")
    talk.publish("t", 1)
    assert offsets(sink) == []
    assert names(talk, track) == ["subscribed", "unsubscribed"]
    assert len(talk.machine.tracks) == 0


def test_leaving_what_never_began_says_nothing_to_the_server() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    track, _ = talk.subscribe("t")
    talk.machine.unsubscribe(talk.now, track)
    talk.connect()
    assert talk.said() == []


def test_leaving_while_it_waits_for_its_next_attempt() -> None:
    talk = connected()
    track, _ = talk.subscribe("t")
    talk.refuse(talk.one(), 100, temporary=True)
    talk.machine.unsubscribe(talk.now, track)
    talk.advance(30)
    assert talk.said() == []


def test_the_end_of_the_client_ends_it_quietly() -> None:
    talk = connected()
    track, _ = talk.subscribe_well()
    talk.machine.close(talk.now)
    talk.look()
    assert (track.state.name, track.state.error) == ("unsubscribed", None)


def test_a_client_that_is_refused_takes_its_subscriptions_along() -> None:
    talk = connected()
    track, _ = talk.subscribe_well()
    error = ClientError("final")
    talk.cut(advise_close(3500), error, 3500)
    assert track.state.error is error
    assert talk.told(TrackChanged)[-1].track is track


# Consumers that do not read


def test_a_slow_consumer_pauses_it_and_loses_nothing() -> None:
    talk = connected()
    sink = inbox(4)
    track, _ = talk.subscribe_well(sink=sink)
    talk.publish("t", *range(1, 9))
    assert track.is_paused
    assert (track.state.name, track.state.reason) == ("subscribing", "paused until what has come is read")
    assert talk.one().unsubscribe is not None
    talk.publish("t", 9, 10)
    assert offsets(sink) == [1, 2, 3, 4]
    talk.machine.resume(talk.now, track)
    command = talk.one()
    assert command.subscribe is not None
    assert command.subscribe.offset == 4
    talk.publish("t", 11)
    talk.reply(command, subscribe=recovered(4, 5, 6, 7))
    assert offsets(sink) == [5, 6, 7]
    assert not track.is_paused


def test_a_pause_in_the_middle_of_what_was_recovered() -> None:
    talk = connected()
    sink = inbox(2)
    track, _ = talk.subscribe("t", sink, since=at(1))
    talk.reply(talk.one(), subscribe=recovered(1, 2, 3, 4, 5))
    assert offsets(sink) == [2, 3]
    assert talk.one().unsubscribe is not None
    talk.machine.resume(talk.now, track)
    talk.reply(talk.one(), subscribe=recovered(3, 4, 5))
    assert [(entry.data, entry.gap) for entry in take_all(sink)] == [(b"4", None), (b"5", None)]


def test_a_paused_one_stays_so_over_a_cut_line() -> None:
    talk = connected()
    sink = inbox(2)
    track, _ = talk.subscribe_well(sink=sink)
    talk.publish("t", 1, 2, 3)
    talk.said()
    talk.cut()
    talk.come_back(ping=0)
    assert talk.said() == []
    assert offsets(sink) == [1, 2]
    talk.machine.resume(talk.now, track)
    command = talk.one()
    assert command.subscribe is not None
    assert command.subscribe.offset == 2


def test_a_loss_found_while_there_is_no_room_is_not_forgotten() -> None:
    talk = connected()
    sink = inbox(1)
    track, _ = talk.subscribe_well(sink=sink)
    talk.publish("t", 1)
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=subscribed(7, was_recovering=True))
    talk.publish("t", 8)
    assert track.is_paused
    assert gaps(sink) == [None]
    talk.said()
    talk.machine.resume(talk.now, track)
    talk.reply(talk.one(), subscribe=recovered(7, 8))
    assert gaps(sink) == [Gap(text(1), text(7))]


@pytest.mark.parametrize("result", [SubscribeResult(), subscribed(recoverable=False)])
def test_what_cannot_be_asked_for_again_is_dropped_and_told(result: SubscribeResult) -> None:
    talk = connected()
    sink = inbox(2)
    track, _ = talk.subscribe_well(result, sink=sink)
    talk.publish("t", 1, 2, 3)
    assert track.state.name == "subscribed"
    assert [entry.gap is None for entry in take_all(sink)] == [False, True]
    assert sink.dropped == 1


def test_an_overflow_that_is_an_error_ends_it() -> None:
    talk = connected()
    sink = inbox(2, on_overflow="error")
    track, _ = talk.subscribe_well(sink=sink)
    talk.publish("t", 1, 2, 3)
    assert isinstance(track.state.error, ConsumerTooSlow)
    assert talk.one().unsubscribe is not None
    assert offsets(sink) == [1, 2]


# Joins and leaves


def changes(track: Track) -> list[tuple[str, str | None]]:
    found = []
    while (change := track.changes.take()) is not None:
        found.append((change.kind, None if change.member is None else change.member.client))
    return found


def test_joins_and_leaves() -> None:
    talk = connected(codec=PROTOBUF)
    track, _ = talk.subscribe_well()
    info = ClientInfo(user="u", client="c", conn_info=Raw(b'{"n":1}'))
    talk.push("t", join=Join(info))
    talk.push("t", leave=Leave(ClientInfo(client="d")))
    assert track.changes.take() == MemberChange("join", Member("c", "u", {"n": 1}))
    assert changes(track) == [("leave", "d")]
    assert track.changes.take() is None


def test_who_came_while_the_line_was_cut_is_not_known() -> None:
    talk = connected()
    track, _ = talk.subscribe_well()
    talk.push("t", join=Join(ClientInfo(client="a")))
    talk.cut()
    talk.come_back(ping=0)
    talk.reply(talk.one(), subscribe=subscribed())
    talk.push("t", join=Join(ClientInfo(client="b")))
    assert changes(track) == [("missed", None), ("join", "b")]


# Subscriptions of the server's


def test_the_servers_own_subscription_waits_for_who_wants_it() -> None:
    talk = Talk()
    talk.begin(subs={"news": subscribed(3, 4)}, ping=0)
    talk.publish("news", 5)
    assert talk.machine.tracks.unread == ["news"]
    track, sink = talk.subscribe("news")
    assert talk.said() == []
    assert (track.state.name, offsets(sink)) == ("subscribed", [4, 5])
    assert talk.machine.tracks.unread == []
    talk.publish("news", 6)
    assert offsets(sink) == [6]
    with pytest.raises(AlreadySubscribed):
        talk.subscribe("news")


def test_one_that_is_asked_for_before_is_not_asked_for_twice() -> None:
    talk = Talk()
    talk.machine.start(talk.now)
    track, sink = talk.subscribe("news")
    talk.connect(subs={"news": subscribed(3, 4)})
    assert talk.said() == []
    assert (track.state.name, offsets(sink)) == ("subscribed", [4])


def test_the_servers_own_subscription_goes_on_where_it_was() -> None:
    talk = Talk()
    talk.begin(subs={"news": subscribed(3)}, ping=0)
    _, sink = talk.subscribe("news")
    talk.publish("news", 4)
    talk.cut()
    command = talk.come_back(subs={"news": recovered(4, 5)}, ping=0)
    assert command.connect is not None
    asked = command.connect.subs["news"]
    assert (asked.recover, asked.epoch, asked.offset) == (True, "e1", 4)
    assert [(int(entry.data), entry.gap) for entry in take_all(sink)] == [(4, None), (5, None)]


def test_a_loss_of_the_servers_own_subscription() -> None:
    talk = Talk()
    talk.begin(subs={"news": subscribed(3)}, ping=0)
    _, sink = talk.subscribe("news")
    talk.cut()
    talk.come_back(subs={"news": subscribed(9, was_recovering=True)}, ping=0)
    talk.publish("news", 10)
    assert gaps(sink) == [Gap(text(3), text(9))]


def test_a_subscription_that_the_server_does_not_make_again() -> None:
    talk = Talk()
    talk.begin(subs={"wanted": subscribed(3), "unread": subscribed(3)}, ping=0)
    track, _ = talk.subscribe("wanted")
    talk.cut()
    talk.come_back(ping=0)
    command = talk.one()
    assert command.subscribe is not None
    assert (command.subscribe.channel, command.subscribe.offset) == ("wanted", 3)
    assert track.state.name == "subscribing"
    assert len(talk.machine.tracks) == 1


def test_a_subscription_of_the_servers_while_connected() -> None:
    talk = connected()
    talk.push("news", subscribe=packets.Subscribe(recoverable=True, epoch="e1", offset=3, positioned=True))
    talk.publish("news", 4)
    track, sink = talk.subscribe("news")
    assert (offsets(sink), track.position) == ([4], at(4))
    talk.push("news", unsubscribe=Unsubscribe(2000, "enough"))
    assert isinstance(track.state.error, Unsubscribed)


def test_leaving_a_subscription_of_the_servers() -> None:
    talk = Talk()
    talk.begin(subs={"news": subscribed(3)}, ping=0)
    track, _ = talk.subscribe("news")
    talk.machine.unsubscribe(talk.now, track)
    assert talk.one().unsubscribe is not None


# Tokens


def test_a_token_is_got_before_subscribing() -> None:
    talk = connected()
    track, _ = talk.subscribe("t", renews_token=True)
    assert talk.said() == []
    assert [event.topic for event in talk.told(WantToken)] == ["t"]
    talk.machine.take_token(talk.now, "t", "one")
    command = talk.one()
    assert command.subscribe is not None
    assert command.subscribe.token == "one"
    talk.reply(command, subscribe=subscribed())
    assert track.state.name == "subscribed"


def test_a_token_of_a_subscription_is_refreshed() -> None:
    talk = connected()
    track, _ = talk.subscribe_well(subscribed(expires=True, ttl=60), renews_token=True, token="one")
    talk.advance(50)
    assert [event.topic for event in talk.told(WantToken)] == ["t"]
    talk.machine.take_token(talk.now, "t", "two")
    command = talk.one()
    assert command.sub_refresh == packets.SubRefreshRequest(channel="t", token="two")
    talk.reply(command, sub_refresh=packets.SubRefreshResult(expires=True, ttl=60))
    talk.advance(50)
    assert len(talk.told(WantToken)) == 2
    assert track.state.name == "subscribed"


@pytest.mark.parametrize(("code", "ends"), [(109, False), (100, False), (103, True)])
def test_a_refused_refresh_of_a_subscription(code: int, ends: bool) -> None:
    talk = connected()
    track, _ = talk.subscribe_well(subscribed(expires=True, ttl=60), renews_token=True, token="one")
    talk.advance(50)
    talk.machine.take_token(talk.now, "t", "two")
    talk.refuse(talk.one(), code, temporary=code == 100)
    assert (track.state.name == "unsubscribed") == ends
    if ends:
        assert talk.one().unsubscribe is not None
    else:
        talk.advance(10)
        assert len(talk.told(WantToken)) == 2


@pytest.mark.parametrize("by_push", [False, True])
def test_an_expired_token_is_replaced(by_push: bool) -> None:
    talk = connected()
    track, _ = talk.subscribe("t", renews_token=True, token="one")
    if by_push:
        talk.reply(talk.one(), subscribe=subscribed(3))
        talk.push("t", unsubscribe=Unsubscribe(2501, "subscription expired"))
    else:
        talk.refuse(talk.one(), 109, "token expired")
    talk.advance(25)
    assert [event.topic for event in talk.told(WantToken)] == ["t"]
    talk.machine.take_token(talk.now, "t", "two")
    command = talk.one()
    assert command.subscribe is not None
    assert (command.subscribe.token, command.subscribe.recover) == ("two", by_push)
    assert track.state.name == "subscribing"


def test_an_expired_text_cannot_be_replaced() -> None:
    talk = connected()
    track, _ = talk.subscribe("t", token="one")
    talk.refuse(talk.one(), 109, "token expired")
    assert isinstance(track.state.error, CommandRefused)


@pytest.mark.parametrize("is_final", [False, True])
def test_no_token_at_first_ends_it(is_final: bool) -> None:
    talk = connected()
    track, _ = talk.subscribe("t", renews_token=True)
    error = NoToken("t", "none")
    talk.machine.miss_token(talk.now, "t", error, is_final=is_final)
    assert track.state.error is error


def test_no_token_later_is_tried_again() -> None:
    talk = connected()
    track, _ = talk.subscribe_well(subscribed(expires=True, ttl=60), renews_token=True, token="one")
    talk.advance(50)
    talk.machine.miss_token(talk.now, "t", NoToken("t", "down"), is_final=False)
    assert track.state.name == "subscribed"
    talk.push("t", unsubscribe=Unsubscribe(2501, "subscription expired"))
    talk.advance(25)
    talk.machine.miss_token(talk.now, "t", NoToken("t", "down"), is_final=False)
    assert track.state.name == "subscribing"
    talk.advance(25)
    assert len(talk.told(WantToken)) == 3


def test_a_token_for_nobody_is_nothing() -> None:
    talk = connected()
    talk.machine.take_token(talk.now, "gone", "one")
    talk.machine.miss_token(talk.now, "gone", NoToken("t", "none"), is_final=True)
    assert talk.said() == []
