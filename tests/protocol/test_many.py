"""All positions of a stream of several topics in one text."""

from __future__ import annotations

import pytest

from tidewire.errors import BadPosition
from tidewire.protocol import many
from tidewire.protocol.position import START, Position

A, B = Position("0af_-9", 7), Position("e" * 32, 2**63 - 1)


def test_the_text_says_where_a_reader_is_in_each_topic() -> None:
    places = {many.key_of("a"): A, many.key_of("b/c"): B, many.key_of("d"): START}
    text = many.format_places(places)
    assert text.count(",") == 2
    assert many.parse_places(text) == places
    assert text == f"{many.key_of('a')}.0af_-9:7,{many.key_of('b/c')}.{'e' * 32}:{2**63 - 1},{many.key_of('d')}.-1"


def test_keys_are_short_and_each_topic_has_its_own() -> None:
    names = [f"quotes/{n}" for n in range(5000)]
    keys = {many.key_of(name) for name in names}
    assert len(keys) == len(names)
    assert {len(key) for key in keys} == {8}


def test_a_reader_moves_in_one_topic_at_a_time() -> None:
    a, b = many.key_of("a"), many.key_of("b")
    places = many.Places({a: START})
    assert places.text == f"{a}.-1"
    places.move(b, A)
    places.move(a, B)
    assert many.parse_places(places.text) == {a: B, b: A}
    assert many.Places({}).text == ""


@pytest.mark.parametrize(
    "text",
    ["", ",", "short.e:1", "abcdefgh", "abcdefgh.e", "abcdefgh.e:", "abcdefgh.e:-1", "abcdefgh.now", "abcdefgh.e:1,",
     "abcdefgh.e:1;abcdefgh.e:1", "abcdefgh.e:99999999999999999999", "abcdefgh.e:1\n", "abcd\xe9fgh.e:1"],
)  # fmt: skip
def test_anything_else_is_told(text: str) -> None:
    with pytest.raises(BadPosition):
        many.parse_places(text)
