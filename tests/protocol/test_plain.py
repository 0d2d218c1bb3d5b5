"""What the plain dialect says, as bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire.protocol import codes, plain
from tidewire.protocol.message import Kind, Message
from tidewire.protocol.position import Position

AT = "e:00000000000000000007"


def message(payload: bytes, kind: Kind = Kind.JSON, **more: object) -> Message:
    return Message(payload, kind, "e", 7, **more)  # type: ignore[arg-type]


def parse_events(stream: str) -> list[dict[str, str]]:
    """An event stream as a browser reads it (HTML 9.2.6): id, event and data of each dispatched event."""
    events: list[dict[str, str]] = []
    name, data, last_id = "message", list[str](), ""
    for line in stream.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line == "":
            if data:
                events.append({"event": name, "data": "\n".join(data), "id": last_id})
            name, data = "message", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
            elif field == "id":
                last_id = value
    return events


def test_bare_frames_are_payloads() -> None:
    assert plain.bare_frame(message(b'{"a":1}')) == '{"a":1}'
    assert plain.bare_frame(message(b"hi", Kind.TEXT)) == "hi"
    assert plain.bare_frame(message(b"\x00", Kind.BYTES)) == b"\x00"


@pytest.mark.parametrize(
    ("given_message", "expected"),
    [
        (message(b'{"a":1}'), {"position": AT, "data": {"a": 1}}),
        (message(b"hi", Kind.TEXT), {"position": AT, "text": "hi"}),
        (message(b"\x00\xff", Kind.BYTES), {"position": AT, "base64": "AP8="}),
        (message(b"1", key="k"), {"position": AT, "key": "k", "data": 1}),
        (message(b"null", key="k", removed=True), {"position": AT, "key": "k", "removed": True}),
        (message(b"1", snapshot=True), {"position": AT, "snapshot": True, "data": 1}),
        (Message(b"1", Kind.JSON), {"position": None, "data": 1}),
    ],
)
def test_positions_frames(given_message: Message, expected: dict[str, object]) -> None:
    assert json.loads(plain.positions_frame(given_message)) == expected


def test_control_frames() -> None:
    here = Position("e", 7)
    assert json.loads(plain.opened_frame(here, True, 3)) == {"position": AT, "recovered": True, "replayed": 3}
    assert json.loads(plain.opened_frame(None, None, 0)) == {"position": None, "recovered": None, "replayed": 0}
    assert json.loads(plain.gap_frame(None, here)) == {"gap": {"from": None, "to": AT}}
    assert json.loads(plain.end_frame(here, "x")) == {"end": {"position": AT, "error": "x"}}


@given(st.text())
def test_any_text_survives_an_event_stream(text: str) -> None:
    payload = text.encode("utf-8", "ignore")
    (event,) = parse_events(plain.message_event(message(payload, Kind.TEXT)).decode()) or [{"data": "", "id": AT}]
    assert event["data"] == payload.decode().replace("\r\n", "\n").replace("\r", "\n")
    assert event["id"] == AT


def test_events_by_kind() -> None:
    (event,) = parse_events(plain.message_event(message(b'{"a":1}')).decode())
    assert event == {"event": "message", "data": '{"a":1}', "id": AT}
    (event,) = parse_events(plain.message_event(message(b"\x00\xff", Kind.BYTES)).decode())
    assert (event["event"], event["data"]) == ("binary", "AP8=")
    (event,) = parse_events(plain.message_event(message(b"null", key="k", removed=True)).decode())
    assert (event["event"], json.loads(event["data"])) == ("removed", {"key": "k"})


def test_the_first_event_carries_the_position_as_its_id() -> None:
    (event,) = parse_events(plain.opened_event(Position("e", 7), None, 0, 1500).decode())
    assert (event["event"], event["id"]) == ("position", AT)


def test_a_gap_moves_the_reader_past_it() -> None:
    (event,) = parse_events(plain.gap_event(Position("d", 1), Position("e", 7)).decode())
    assert (event["event"], event["id"]) == ("gap", AT)
    assert json.loads(event["data"]) == {"from": "d:00000000000000000001", "to": AT}


def test_heartbeats_are_no_events() -> None:
    assert parse_events(plain.HEARTBEAT.decode() + plain.retry_event(5).decode()) == []


MIXED = [message(b"a", Kind.TEXT), message(b"1"), message(b"\x00", Kind.BYTES)]


@pytest.mark.parametrize(
    ("messages", "declared", "exact", "expected"),
    [
        ([message(b"1"), message(b'{"a":2}')], None, False, ("application/json", b'[1,{"a":2}]')),
        ([], None, False, ("application/json", b"[]")),
        ([], Kind.TEXT, False, ("text/plain; charset=utf-8", b"")),
        ([message(b"a", Kind.TEXT), message(b"b", Kind.TEXT)], None, False, ("text/plain; charset=utf-8", b"a\nb\n")),
        ([message(b"a", Kind.TEXT), message(b"b", Kind.TEXT)], None, True, ("text/plain; charset=utf-8", b"ab")),
        ([message(b"\x00", Kind.BYTES)] * 2, None, False, ("application/octet-stream", b"\x00\x00")),
        (MIXED, None, False, ("application/json", b'["a",1,"AA=="]')),
        ([message(b"null", removed=True), message(b"1")], None, False, ("application/json", b"[1]")),
    ],
)  # fmt: skip
def test_plain_reads(messages: list[Message], declared: Kind | None, exact: bool, expected: tuple[str, bytes]) -> None:
    assert plain.join_payloads(messages, declared, exact=exact) == expected


@given(st.text())
def test_close_reasons_fit_a_control_frame(reason: str) -> None:
    shortened = codes.shorten_reason(reason.encode("utf-8", "ignore").decode())
    assert len(shortened.encode()) <= codes.CLOSE_REASON_BYTES_MAX


def test_close_codes_are_each_one_thing() -> None:
    assert len({code.code for code in codes.ALL}) == len(codes.ALL)
