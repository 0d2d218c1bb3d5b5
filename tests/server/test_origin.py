"""Origin rules as a table of headers."""

from __future__ import annotations

import pytest

from tidewire.server.origin import OriginRule, is_loopback, parse_authority, parse_origin

HERE = "10.0.0.5"


@pytest.mark.parametrize(
    ("origin", "host", "permitted"),
    [
        (None, "good.com", True),
        ("https://good.com", "good.com", True),
        ("http://good.com", "good.com", True),
        ("https://good.com:443", "good.com", True),
        ("https://good.com", "good.com:443", True),
        ("http://good.com:80", "good.com", True),
        ("HTTPS://GOOD.COM", "good.com", True),
        ("https://good.com", "GOOD.com", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://good.com:8000", "good.com:8000", True),
        ("https://good.com:8443", "good.com", False),
        ("https://good.com", "good.com:8000", False),
        ("https://good.com.evil.com", "good.com", False),
        ("https://goodxcom", "good.com", False),
        ("https://evil.com", "good.com", False),
        ("https://evil.com/good.com", "good.com", False),
        ("https://good.com@evil.com", "good.com", False),
        ("https://evil.com#good.com", "good.com", False),
        ("https://gооd.com", "good.com", False),  # Cyrillic letters
        ("null", "good.com", False),
        ("", "good.com", False),
        ("file://", "good.com", False),
        ("chrome-extension://good.com", "good.com", False),
        ("https://good.com", None, False),
        ("https://good.com", "good.com, evil.com", False),
        ("https://good.com:99999", "good.com:99999", False),
        ("https://good.com:x", "good.com", False),
        ("http://localhost:3000", "good.com", False),
    ],
)
def test_the_default_is_the_same_host_and_port(origin: str | None, host: str | None, permitted: bool) -> None:
    assert OriginRule().permits(origin, host, HERE) is permitted


@pytest.mark.parametrize(
    ("origin", "host", "server", "permitted"),
    [
        ("http://localhost:3000", "127.0.0.1:8000", "127.0.0.1", True),
        ("http://127.0.0.1:3000", "localhost:8000", "127.0.0.1", True),
        ("http://[::1]:3000", "[::1]:8000", "::1", True),
        ("http://evil.com", "localhost:8000", "127.0.0.1", False),
        ("http://localhost:3000", "evil.com", "127.0.0.1", False),
        ("http://localhost.evil.com", "localhost:8000", "127.0.0.1", False),
        ("null", "localhost:8000", "127.0.0.1", False),
        ("http://localhost:3000", "localhost:8000", HERE, False),
    ],
)
def test_on_loopback_any_port_of_loopback_is_fine(origin: str, host: str, server: str, permitted: bool) -> None:
    assert OriginRule().permits(origin, host, server) is permitted


def test_listed_origins_are_compared_exactly() -> None:
    rule = OriginRule(("https://app.example.com",))
    assert rule.permits("https://app.example.com", "api.example.com", HERE)
    assert not rule.permits("https://app.example.com.evil.com", "api.example.com", HERE)
    assert not rule.permits("http://app.example.com", "api.example.com", HERE)
    assert OriginRule(("*",)).permits("https://anybody.com", "api.example.com", HERE)
    assert OriginRule(("*",)).permits("null", "api.example.com", HERE)


def test_refusals_name_the_setting() -> None:
    assert "Live(origins=['https://a.com'])" in OriginRule().explain("https://a.com")
    assert "file" in OriginRule().explain("null")


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a@b", "a:x", "a:99999", "[::1", "a?b", "a#b"])
def test_malformed_authorities(text: str) -> None:
    parsed = parse_authority(text)
    assert parsed is None or parsed.host == text


def test_origins_have_no_path() -> None:
    assert parse_origin("https://a.com/") is None
    assert parse_origin("https://a.com") is not None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.9", True),
        ("localhost", True),
        ("::1", True),
        ("10.0.0.1", False),
        (None, False),
        ("localhost.evil.com", False),
    ],
)
def test_loopback(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected
