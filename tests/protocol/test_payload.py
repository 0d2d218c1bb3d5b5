"""Values to bytes and bodies to messages."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire.errors import BadPayload, TooLarge
from tidewire.protocol.message import Kind
from tidewire.protocol.payload import check_json, check_size, check_text, encode, format_key, read_field, split_json

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


class Quote(pydantic.BaseModel):
    bid: float
    at: datetime.datetime


class Tick(msgspec.Struct):
    n: int


class Side(enum.Enum):
    BUY = "buy"


def test_kinds() -> None:
    assert encode("hé") == (Kind.TEXT, "hé".encode())
    assert encode(b"\x00\xff") == (Kind.BYTES, b"\x00\xff")
    assert encode(bytearray(b"a")) == (Kind.BYTES, b"a")
    assert encode(memoryview(b"a")) == (Kind.BYTES, b"a")
    assert encode({"a": [1, None]}) == (Kind.JSON, b'{"a":[1,null]}')
    assert encode(None) == (Kind.JSON, b"null")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, datetime.date(2026, 1, 2)), '{"x":1,"when":"2026-01-02"}'),
        (Quote(bid=1.5, at=NOON), '{"bid":1.5,"at":"2026-01-02T12:00:00Z"}'),
        (Tick(3), '{"n":3}'),
        ([Side.BUY, uuid.UUID(int=0)], '["buy","00000000-0000-0000-0000-000000000000"]'),
        (math.nan, "null"),
    ],
)  # fmt: skip
def test_what_publishes_as_json(value: object, expected: str) -> None:
    assert encode(value) == (Kind.JSON, expected.encode())


@pytest.mark.parametrize("value", [object(), {1j}, lambda: 1, {"a": object()}, Quote])
def test_what_does_not_says_so(value: object) -> None:
    with pytest.raises(BadPayload, match="cannot be published as JSON"):
        encode(value)


def test_endless_nesting_is_an_error_and_not_a_crash() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadPayload):
        encode(endless)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(BadPayload, match="surrogate"):
        encode("\ud800")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_check_json_compacts_without_changing(value: Any) -> None:
    spaced = json.dumps(value, indent=2).encode()
    compact = check_json(spaced)
    assert json.loads(compact) == value
    assert b"\n" not in compact


@given(st.binary(max_size=40))
def test_check_json_refuses_what_python_refuses(data: bytes) -> None:
    try:
        check_json(data)
    except BadPayload:
        return
    json.loads(data)


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b'{"a":1}x', b'"\xff"', b"NaN", b"[" * 100_000, b"'a'"])
def test_malformed_json_is_told(data: bytes) -> None:
    with pytest.raises(BadPayload):
        check_json(data)


def test_an_array_is_a_batch_of_its_elements() -> None:
    assert split_json(b'[{"a": 1}, 2, [1, 2]]') == [b'{"a":1}', b"2", b"[1,2]"]
    assert split_json(b"[[1,2]]") == [b"[1,2]"]
    assert split_json(b"[]") == []
    assert split_json(b'{"a": [1]}') == [b'{"a":[1]}']


def test_text_must_be_utf8() -> None:
    assert check_text("é".encode()) == "é".encode()
    with pytest.raises(BadPayload, match="byte 1"):
        check_text(b"a\xff")


def test_too_large_names_both_numbers() -> None:
    assert check_size(b"abc", 3) == b"abc"
    with pytest.raises(TooLarge, match=r"4 bytes exceeds the limit of 3 bytes"):
        check_size(b"abcd", 3)


@pytest.mark.parametrize(
    ("payload", "key"), [(b'{"id":"a"}', "a"), (b'{"id":7}', "7"), (b'{"id":7.0}', "7"), (b'{"id":7.5}', "7.5")]
)
def test_keys_are_text(payload: bytes, key: str) -> None:
    assert read_field(payload, "id") == key


@pytest.mark.parametrize("payload", [b"{}", b"[1]", b"1", b'{"id":null}', b'{"id":true}', b'{"id":{}}', b'"id"'])
def test_missing_keys_are_told(payload: bytes) -> None:
    with pytest.raises(BadPayload, match="id"):
        read_field(payload, "id")


def test_key_text_of_numbers() -> None:
    assert format_key(4200.0) == format_key(4200) == "4200"
