"""The server's own sentence, and what the errors make of it."""

import pytest

from tidewire.client.errors import NothingListens, Refused
from tidewire.client.refusal import read_detail
from tidewire.errors import ClientError


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"detail":"no such room"}', "application/json", "no such room"),
        (b'{"detail":{"a":1}}', "application/json; charset=utf-8", '{"a":1}'),
        (
            b'{"detail":[{"loc":["path","symbol"],"msg":"too short"},"odd"]}',
            "application/json",
            "path.symbol: too short; odd",
        ),
        (b'{"other":1}', "application/json", ""),
        (b"[1]", "application/json", ""),
        (b'{"detail":', "application/json", ""),
        (b"\xff", "application/json", ""),
        (b"[" * 60_000, "application/json", ""),
        (b"Invalid\nHost\r\n header", "text/plain", "Invalid Host header"),
        (b"\xff\xfe", "text/plain", "\ufffd\ufffd"),
        (b"<html>oops</html>", "text/html", ""),
        (b"", "", ""),
    ],
)
def test_read_detail(body: bytes, content_type: str, expected: str) -> None:
    assert read_detail(body, content_type) == expected


def test_long_sentences_are_cut() -> None:
    assert len(read_detail(b'{"detail":"' + b"x" * 10_000 + b'"}', "application/json")) == 300


def test_refused_says_number_sentence_and_what_to_do() -> None:
    error = Refused("http://h/t", status=403, detail="members only")
    assert str(error).startswith("http://h/t refused with 403: members only (")
    assert "credentials" in str(error)
    assert isinstance(error, ClientError)


def test_server_s_own_advice_is_enough() -> None:
    detail = "'a//b' is not a topic name: a segment between slashes is empty"
    assert str(Refused("http://h/t", status=404, detail=detail)) == f"http://h/t refused with 404: {detail}"
    assert "mounted under a prefix" in str(Refused("http://h/t", status=404, detail="Not Found"))


def test_refused_by_close_code() -> None:
    assert str(Refused("ws://h/t", code=1008, detail="go away")) == "ws://h/t refused with close code 1008: go away"


def test_refused_with_retry_after() -> None:
    assert "try again in 7 s" in str(Refused("http://h/t", status=429, retry_after_s=7.0))


def test_nothing_listens() -> None:
    assert str(NothingListens("http://h/t")) == "nothing listens at http://h/t: start the server first"
    assert "no such host" in str(NothingListens("http://h/t", "no such host"))
