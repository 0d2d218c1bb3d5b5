"""URLs of topics, and headers."""

import pytest

from tidewire.client.errors import BadURL
from tidewire.client.target import check_headers, parse_url


@pytest.mark.parametrize("scheme", ["http", "ws", "HTTP"])
def test_http_and_ws_mean_the_same_place(scheme: str) -> None:
    target = parse_url(f"{scheme}://127.0.0.1:8000/live/chat/7")
    assert target.http_url == "http://127.0.0.1:8000/live/chat/7"
    assert target.ws_url(None, None) == "ws://127.0.0.1:8000/live/chat/7?positions=1"


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_secure_stays_secure(scheme: str) -> None:
    target = parse_url(f"{scheme}://example.org/chat")
    assert target.http_url == "https://example.org/chat"
    assert target.ws_url("a:1", 2.5) == "wss://example.org/chat?positions=1&since=a:1&max_per_s=2.5"


def test_other_parameters_stay_and_ours_are_replaced() -> None:
    target = parse_url("http://h/t?token=x%20y&positions=0&since=a:5&max_per_s=1&empty=")
    assert target.since == "a:5"
    assert target.ws_url("a:9", None) == "ws://h/t?token=x+y&empty=&positions=1&since=a:9"
    assert target.http_url == "http://h/t?token=x+y&empty="


def test_secrets_are_not_shown() -> None:
    target = parse_url("http://user:pass@h:1/t?token=secret")
    assert target.shown == "http://h:1/t"
    assert target.http_url == "http://user:pass@h:1/t?token=secret"


def test_encoding() -> None:
    assert parse_url("http://h/a%20b/grüße%23x").http_url == "http://h/a%20b/gr%C3%BC%C3%9Fe%23x"
    assert parse_url("http://bücher.example/t").http_url == "http://xn--bcher-kva.example/t"
    assert parse_url("http://[::1]:80/t").ws_url(None, None) == "ws://[::1]:80/t?positions=1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("a.localhost", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert parse_url(f"http://{host}:1/t").is_loopback is expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chat/7",
        "localhost:8000/chat",
        "ftp://h/t",
        "http://",
        "http:///t",
        "http://h:99999/t",
        "http://h:x/t",
        "http://[::1/t",
        "http://h/t#x",
        "http://h/t#",
        "http://h/a b",
        "http://h/a\nb",
        "http://h/a\x00b",
        "http://user@h/t",
        "http://" + "é" * 80 + "/t",
        "http://a..b/t",
    ],
)
def test_bad_urls_say_why(url: str) -> None:
    with pytest.raises(BadURL) as caught:
        parse_url(url)
    assert caught.value.why
    assert isinstance(caught.value, ValueError)


def test_headers() -> None:
    assert check_headers(None) == []
    assert check_headers({"Authorization": "Bearer x"}) == [("Authorization", "Bearer x")]
    assert check_headers([("A", "1"), ("A", "2")]) == [("A", "1"), ("A", "2")]


@pytest.mark.parametrize(
    "pair", [("", "x"), ("A B", "x"), ("A:", "x"), ("A", "x\r\nB: y"), ("A", "\u20ac"), ("Ä", "x")]
)
def test_headers_cannot_break_the_request_apart(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        check_headers([pair])
