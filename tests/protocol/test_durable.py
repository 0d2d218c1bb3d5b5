"""Headers and events of Durable Streams."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from tests.protocol.test_plain import parse_events
from tidewire.errors import BadPayload
from tidewire.protocol import durable
from tidewire.protocol.message import Kind, Message, Producer
from tidewire.protocol.position import Position

AT = Position("e" * 16, 7)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("1", 1), ("3600", 3600), (str(2**53 - 1), 2**53 - 1)])
def test_a_ttl_is_seconds_in_digits(text: str, seconds: int) -> None:
    assert durable.parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "00", "01", "+1", "-1", "1.0", "1e3", " 1", "1 ", "x", "\u0661", str(2**53)])
def test_anything_else_is_no_ttl(text: str) -> None:
    with pytest.raises(BadPayload, match="Stream-TTL"):
        durable.parse_ttl(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01t00:00:01z", 1000),
        ("1970-01-01T00:00:01.25Z", 1250),
        ("1970-01-01T00:00:01.123456789Z", 1123),
        ("1970-01-01T02:00:01+02:00", 1000),
        ("1969-12-31T19:00:01-05:00", 1000),
        ("2030-06-01T12:00:00Z", 1906545600000),
    ],
)
def test_an_expiry_is_a_moment(text: str, ms: int) -> None:
    assert durable.parse_expiry(text) == ms
    assert durable.parse_expiry(durable.format_expiry(ms)) == ms


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2030-06-01", "2030-06-01T12:00:00", "2030-06-01 12:00:00Z", "2030-13-01T12:00:00Z", "2030-W01-1",
     "2030-06-01T25:00:00Z", "2030-06-01T12:00Z", "2030-06-01T12:00:00+99:99", "1906545600", "20300601T120000Z"],
)  # fmt: skip
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(BadPayload, match="RFC 3339"):
        durable.parse_expiry(text)


def producer_of(name: str | None, epoch: str | None, sequence: str | None) -> Producer | None:
    headers = {"producer-id": name, "producer-epoch": epoch, "producer-seq": sequence}
    return durable.parse_producer({key: value for key, value in headers.items() if value is not None})


def test_a_producer_has_three_headers_or_none() -> None:
    assert producer_of(None, None, None) is None
    assert producer_of("p", "0", "007") == Producer("p", 0, 7)
    assert producer_of("p", str(2**53 - 1), "0") == Producer("p", 2**53 - 1, 0)


@pytest.mark.parametrize(
    ("name", "epoch", "sequence", "words"),
    [
        ("p", None, None, "together"),
        (None, "0", None, "together"),
        ("p", "0", None, "together"),
        (None, "0", "0", "together"),
        ("", "0", "0", "1 to 255"),
        ("p" * 256, "0", "0", "1 to 255"),
        ("p", "-1", "0", "Producer-Epoch"),
        ("p", "0", "1abc", "Producer-Seq"),
        ("p", "1e3", "0", "Producer-Epoch"),
        ("p", "0", "", "Producer-Seq"),
        ("p", "0", "\u0661", "Producer-Seq"),
        ("p", str(2**53), "0", "Producer-Epoch"),
        ("p", "0", "9" * 5000, "Producer-Seq"),
    ],
)
def test_what_makes_no_producer_is_told(name: str | None, epoch: str | None, sequence: str | None, words: str) -> None:
    with pytest.raises(BadPayload, match=words):
        producer_of(name, epoch, sequence)


def test_an_order_is_any_text_of_some_length() -> None:
    assert durable.parse_order(None) is None
    assert durable.parse_order("\xff any") == "\xff any"
    for wrong in ("", "x" * 256):
        with pytest.raises(BadPayload, match="Stream-Seq"):
            durable.parse_order(wrong)


@pytest.mark.parametrize(
    ("text", "is_true"),
    [("true", True), ("TRUE", True), ("1", False), ("false", False), ("", False), (" true", False), (None, False)],
)
def test_closed_is_true_and_nothing_else(text: str | None, is_true: bool) -> None:
    assert durable.is_true(text) is is_true


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", Kind.JSON),
        ("Application/JSON; charset=utf-8", Kind.JSON),
        ("text/plain", Kind.TEXT),
        ("text/html;charset=utf-8", Kind.TEXT),
        ("application/ndjson", Kind.BYTES),
        ("application/vnd.api+json", Kind.BYTES),
        ("image/png", Kind.BYTES),
    ],
)
def test_the_content_type_says_the_kind(content_type: str, kind: Kind) -> None:
    assert durable.kind_of(durable.check_content_type(content_type)) is kind
    assert durable.kind_of(durable.content_type_of(kind)) is kind


@pytest.mark.parametrize("text", ["", "json", "a/", "/b", "a/b\nx", "a b/c", "a/b\x00", "a/\xff", "a/" + "b" * 255])
def test_what_is_no_content_type_is_told(text: str) -> None:
    with pytest.raises(BadPayload, match="Content-Type"):
        durable.check_content_type(text)


def test_etags_match_as_http_says() -> None:
    for header in ('"a"', 'W/"a"', '"b", "a"', "*", ' "a" '):
        assert durable.matches('"a"', header), header
    for header in (None, "", '"b"', "a", '"a":c'):
        assert not durable.matches('"a"', header), header


def test_cursors_count_intervals_and_never_go_back() -> None:
    begin = durable.CURSOR_BEGIN_MS
    assert [durable.interval_of(begin + ms) for ms in (0, 19_999, 20_000, 40_000)] == [0, 0, 1, 2]
    now = begin + 100 * 20_000
    assert durable.cursor_floor(None, now, 3600) == 0
    assert durable.cursor_floor("99", now, 3600) == 0
    for jitter_s, later in ((1, 1), (20, 1), (40, 2), (3600, 180)):
        assert durable.cursor_floor("100", now, jitter_s) == 100 + later
        assert durable.cursor_floor("5000", now, jitter_s) == 5000 + later
    for nonsense in ("", "x", "-5", "1.5", "9" * 21, "\u0661"):
        assert durable.cursor_floor(nonsense, now, 3600) == 0


def message(payload: bytes, kind: Kind) -> Message:
    return Message(payload, kind, AT.epoch, AT.offset)


@pytest.mark.parametrize(
    ("payloads", "kind", "read"),
    [
        ([b"1", b'{"a":2}'], Kind.JSON, lambda data: json.loads(data) == [1, {"a": 2}]),
        ([b"one", b"two"], Kind.TEXT, lambda data: data == "onetwo"),
        ([b"a\nb\n\n", b"c"], Kind.TEXT, lambda data: data == "a\nb\n\nc"),
        ([b" indented\n  more"], Kind.TEXT, lambda data: data == " indented\n  more"),
        ([b"a\r\n\r\nevent: control\rdata: x"], Kind.TEXT, lambda data: data == "a\n\nevent: control\ndata: x"),
        ([b"\x00\n", b"\r\xff"], Kind.BYTES, lambda data: base64.b64decode(data) == b"\x00\n\r\xff"),
    ],
)
def test_data_events_carry_what_was_appended(payloads: list[bytes], kind: Kind, read: Callable[[str], bool]) -> None:
    event = durable.data_event([message(payload, kind) for payload in payloads], kind)
    (parsed,) = parse_events(event.decode())
    assert parsed["event"] == "data"
    assert read(parsed["data"]), parsed


def test_control_events_say_where_the_reader_is() -> None:
    going = durable.control_event(AT, 5, up_to_date=False)
    live = durable.control_event(AT, 5, up_to_date=True)
    closed = durable.control_event(AT, 5, up_to_date=True, closed=True)
    said = [json.loads(parse_events(event.decode())[0]["data"]) for event in (going, live, closed)]
    assert said == [
        {"streamNextOffset": str(AT), "streamCursor": "5"},
        {"streamNextOffset": str(AT), "streamCursor": "5", "upToDate": True},
        {"streamNextOffset": str(AT), "upToDate": True, "streamClosed": True},
    ]
    (parsed,) = parse_events(live.decode())
    assert (parsed["event"], parsed["id"]) == ("control", str(AT))
