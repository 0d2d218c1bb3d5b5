"""Where a session is."""

import pytest

from tidewire.client.errors import BadURL
from tidewire.client.session.place import places_of_router, places_of_topic, session_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/live", "ws://h/live/-/session"),
        ("http://h:8000", "ws://h:8000/-/session"),
        ("http://h:8000/", "ws://h:8000/-/session"),
        ("https://h/a/b/", "wss://h/a/b/-/session"),
        ("ws://h/live?token=x", "ws://h/live/-/session?token=x"),
        ("ws://h/live/-/session", "ws://h/live/-/session"),
        ("wss://h/live/-/session/?a=b", "wss://h/live/-/session?a=b"),
        ("ws://h/connection/websocket", "ws://h/connection/websocket"),
    ],
)
def test_the_endpoint_of_a_url(url: str, expected: str) -> None:
    assert session_address(url).url == expected


@pytest.mark.parametrize("url", ["live", "ftp://h/live", "http://", "http://h/a b", "http://h/a#b"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(BadURL, match="is not the URL of a session"):
        session_address(url)


def test_secrets_are_not_shown() -> None:
    assert session_address("http://u:p@h/live?token=x").shown == "ws://h/live/-/session"


def test_a_topic_may_be_at_any_prefix_and_the_shortest_comes_first() -> None:
    assert places_of_topic("http://h/live/room/1?token=x") == [
        ("ws://h/-/session?token=x", "live/room/1"),
        ("ws://h/live/-/session?token=x", "room/1"),
        ("ws://h/live/room/-/session?token=x", "1"),
    ]


def test_a_topic_of_a_server_without_prefix() -> None:
    assert places_of_topic("http://h/chat") == [("ws://h/-/session", "chat")]


def test_the_url_can_say_where_the_prefix_ends() -> None:
    assert places_of_topic("https://h/a/live/-/session/room/1") == [("wss://h/a/live/-/session", "room/1")]


def test_names_in_urls_are_percent_encoded_once() -> None:
    assert places_of_topic("http://h/live/-/session/a%23b%2525") == [("ws://h/live/-/session", "a#b%25")]


@pytest.mark.parametrize("url", ["http://h", "http://h/", "http://h/live/-/session/"])
def test_a_url_without_a_topic(url: str) -> None:
    with pytest.raises(BadURL, match="it names no topic"):
        places_of_topic(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", ["ws://h/-/session"]),
        ("http://h/live/", ["ws://h/-/session", "ws://h/live/-/session"]),
        ("https://h/a/live/-/session", ["wss://h/a/live/-/session"]),
        ("http://h/live/-/session/room/1?token=x", ["ws://h/live/-/session?token=x"]),
    ],
)
def test_a_router_may_be_at_the_url_or_above_it(url: str, expected: list[str]) -> None:
    assert places_of_router(url) == expected
