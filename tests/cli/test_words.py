"""What `tidewire sub` says, state by state."""

import pytest

from tidewire.cli.words import Narrator, count_lost, defuse, say_lost
from tidewire.client.resume import Gap
from tidewire.client.topic import State
from tidewire.protocol.position import Position


def gap(start: int | None, end: int, epoch: str = "a1") -> Gap:
    return Gap(None if start is None else str(Position("a1", start)), str(Position(epoch, end)))


CONNECTING = State("connecting")
LIVE = State("live")
CUT = State("reconnecting", reason="the line was cut", attempt=1, retry_in_s=0.2)
GONE = State("reconnecting", reason="nothing listens there", attempt=2, retry_in_s=0.2)


def tell(*states: State) -> list[str | None]:
    narrator = Narrator("http://h/t")
    return [narrator.tell(state) for state in states]


def test_first_connection() -> None:
    assert tell(CONNECTING, LIVE) == [None, "listening to http://h/t"]


def test_cut_line() -> None:
    assert tell(LIVE, CUT, State("live", recovered=37))[1:] == [
        "the line was cut: trying to reconnect",
        "reconnected, 37 recovered",
    ]


def test_outage_is_told_once_for_each_reason() -> None:
    assert tell(LIVE, CUT, GONE, GONE, GONE, LIVE, CUT)[1:] == [
        "the line was cut: trying to reconnect",
        "nothing listens there: trying to reconnect",
        None,
        None,
        "reconnected",
        "the line was cut: trying to reconnect",
    ]


def test_waiting_for_the_first_time() -> None:
    assert tell(CONNECTING, GONE, GONE, LIVE) == [
        None,
        "nothing listens there yet: waiting for http://h/t",
        None,
        "listening to http://h/t",
    ]


def test_lost_history() -> None:
    assert tell(LIVE, CUT, State("live", lost=gap(5, 0, "a2")))[-1] == "history lost, live again"


def test_trimmed_history_is_counted() -> None:
    assert tell(LIVE, CUT, State("live", lost=gap(5, 12)))[-1] == "7 messages lost, live again"


def test_unnumbered_topic() -> None:
    assert "keeps nothing" in str(tell(LIVE, CUT, State("live", lost=Gap(None, None)))[-1])


def test_position_that_could_not_be_honoured() -> None:
    assert tell(CONNECTING, State("live", recovered=None, lost=gap(5, 6))) == [None, "1 message lost, live again"]


def test_loss_in_mid_stream() -> None:
    assert tell(LIVE, State("live", lost=gap(5, 8)))[-1] == "3 messages lost"


def test_end() -> None:
    assert tell(LIVE, State("ended"))[-1] is None
    assert tell(LIVE, State("ended", lost=gap(5, 8)))[-1] == "3 messages lost before the end"


@pytest.mark.parametrize("lost", [gap(None, 5), Gap("odd", "odder")])
def test_what_is_not_known_is_not_counted(lost: Gap) -> None:
    assert count_lost(lost) == "messages lost"
    assert say_lost(lost) == "messages lost, live again"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\tand\nlines", "plain\tand\nlines"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("grüße 🙂", "grüße 🙂"),
    ],
)
def test_defuse(text: str, expected: str) -> None:
    assert defuse(text) == expected
