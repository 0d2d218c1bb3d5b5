"""Positions as text, and where a replay and what is live meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire.errors import BadPosition
from tidewire.protocol.message import Kind, Message
from tidewire.protocol.position import NOW, OFFSET_MAX, START, Position, after, follows, parse_position, parse_since


def run_of(first: int, last: int, epoch: str = "e") -> list[Message]:
    return [Message(b"%d" % n, Kind.TEXT, epoch, n) for n in range(first, last + 1)]


def test_a_position_is_one_text_with_a_padded_offset() -> None:
    assert str(Position("abc", 7)) == "abc:00000000000000000007"
    assert parse_position("abc:00000000000000000007") == Position("abc", 7)
    assert parse_position("abc:7") == Position("abc", 7)


@given(st.lists(st.integers(0, OFFSET_MAX), min_size=2))
def test_positions_of_an_epoch_sort_as_text(offsets: list[int]) -> None:
    positions = sorted(Position("e", offset) for offset in offsets)
    assert sorted(map(str, positions)) == list(map(str, positions))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "e:",
        ":1",
        "e:-1",
        "e:x",
        "e:1 ",
        "e:1\n",
        "e" * 33 + ":1",
        "é:1",
        f"e:{OFFSET_MAX + 1}",
        "e:" + "1" * 21,
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(BadPosition, match="is not a position"):
        parse_position(text)


def test_edges() -> None:
    assert parse_since("-1") is START
    assert parse_since("now") is NOW
    assert parse_since("e:1") == Position("e", 1)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_after_drops_what_the_reader_has(have: int, first: int, last: int) -> None:
    offsets = [message.offset for message in after(Position("e", have), run_of(first, last))]
    assert offsets == [offset for offset in range(first, last + 1) if offset > have]


def test_after_takes_a_later_epoch_whole_and_drops_an_earlier_one() -> None:
    at = Position("b", 5)
    assert [m.offset for m in after(at, run_of(1, 2, "c"))] == [1, 2]
    assert list(after(at, run_of(6, 9, "a"))) == []


def test_follows_is_the_very_next() -> None:
    assert follows(Position("e", 4), run_of(5, 5)[0])
    assert not follows(Position("e", 3), run_of(5, 5)[0])
    assert not follows(Position("d", 4), run_of(5, 5)[0])
