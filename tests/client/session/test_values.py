"""Values, as what a session carries and back."""

import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest

from tidewire.client.session.messages import Member
from tidewire.client.session.values import encode_data, encode_optional, read_data, read_member, reader_of
from tidewire.errors import BadPayload
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec
from tidewire.protocol.packets import ClientInfo


class Model(pydantic.BaseModel):
    id: str
    n: int = 0


@dataclasses.dataclass
class Plain:
    id: str
    n: int = 0


class Quick(msgspec.Struct):
    id: str
    n: int = 0


@pydantic.dataclasses.dataclass
class Checked:
    id: str
    n: pydantic.PositiveInt = 1


@pytest.mark.parametrize("codec", [JSON, PROTOBUF])
@pytest.mark.parametrize("wanted", [Model, Plain, Quick, Checked])
def test_a_type_of_ones_own(wanted: Any, codec: Codec) -> None:
    read = reader_of(wanted, codec)
    assert read(b'{"id":"a","n":7}') == wanted(id="a", n=7)
    for bad in (b'{"n":7}', b'{"id":"a","n":"x"}', b"[]", b"", b"{", b"\xff"):
        with pytest.raises(BadPayload):
            read(bad)


def test_models_inside_of_other_types() -> None:
    assert reader_of(list[Model], JSON)(b'[{"id":"a"}]') == [Model(id="a")]
    assert reader_of(dict[str, Model], JSON)(b'{"x":{"id":"a"}}') == {"x": Model(id="a")}
    assert reader_of(Model | None, JSON)(b"null") is None
    with pytest.raises(BadPayload, match="validation error"):
        reader_of(list[Model], JSON)(b'[{"id":5}]')


def test_a_validator_of_pydantic_is_asked() -> None:
    with pytest.raises(BadPayload, match="greater than 0"):
        reader_of(Checked, JSON)(b'{"id":"a","n":-1}')


def test_simple_types() -> None:
    assert reader_of(int, JSON)(b"7") == 7
    with pytest.raises(BadPayload, match="Expected `int`"):
        reader_of(int, JSON)(b'"7"')


def test_json_as_it_comes() -> None:
    read = reader_of(None, JSON)
    assert [read(data) for data in (b'{"a":[1]}', b'"x"', b"null", b"1.5")] == [{"a": [1]}, "x", None, 1.5]
    with pytest.raises(BadPayload):
        read(b"{")


def test_protobuf_says_no_kind_so_it_is_what_it_looks_like() -> None:
    read = reader_of(None, PROTOBUF)
    assert [read(data) for data in (b'{"a":1}', b"hello", "grüße".encode(), b"\xff\x00")] == [
        {"a": 1},
        "hello",
        "grüße",
        b"\xff\x00",
    ]


def test_text_and_bytes_on_request() -> None:
    assert reader_of(bytes, PROTOBUF)(b"7") == b"7"
    read = reader_of(str, PROTOBUF)
    assert [read(data) for data in (b'"x"', b"hello", b"7")] == ["x", "hello", "7"]
    with pytest.raises(BadPayload, match="UTF-8"):
        read(b"\xff")


def test_bytes_in_json_sessions_have_a_tag() -> None:
    tags = {"encoding": "base64"}
    assert read_data(b'"/wA="', tags, reader_of(None, JSON)) == b"\xff\x00"
    assert read_data(b'"/wA="', tags, reader_of(bytes, JSON)) == b"\xff\x00"
    for bad in (b'"?"', b"7", b"{"):
        with pytest.raises(BadPayload, match="base64"):
            read_data(bad, tags, reader_of(None, JSON))


def test_what_is_published() -> None:
    assert bytes(encode_data({"a": 1}, JSON)) == b'{"a":1}'
    assert bytes(encode_data("x", JSON)) == b'"x"'
    assert bytes(encode_data(Model(id="a"), PROTOBUF)) == b'{"id":"a","n":0}'
    assert bytes(encode_data(b"\xff", PROTOBUF)) == b"\xff"
    assert bytes(encode_optional(None, JSON)) == b""
    with pytest.raises(BadPayload, match="protobuf=True"):
        encode_data(b"\xff", JSON)
    with pytest.raises(BadPayload, match="object cannot be published"):
        encode_data(object(), JSON)


def test_a_line_end_of_the_users_does_not_break_the_frame() -> None:
    assert bytes(encode_data({"a": msgspec.Raw(b'{\n"b":\r\n1}')}, JSON)) == b'{"a":{"b":1}}'


def test_members() -> None:
    info = ClientInfo(user="u", client="c", conn_info=msgspec.Raw(b'{"name":"n"}'))
    assert read_member(info) == Member("c", "u", {"name": "n"}, None)
