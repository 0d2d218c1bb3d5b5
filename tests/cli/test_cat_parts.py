"""What `tidewire cat` says and prints, without a server; and its help and wrong usage."""

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from rich.console import Console
from typer.testing import CliRunner
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tidewire.cli import cat_input
from tidewire.cli.cat_input import BadInput, split_lines
from tidewire.cli.cat_options import Wanted, wait_after_input
from tidewire.cli.cat_show import ForEyes, ForPrograms, pretty
from tidewire.cli.cat_words import find_answer, tell_end, tell_request, tell_response
from tidewire.cli.main import app
from tidewire.errors import Close, closed_error

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})


def squeeze(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("message", "options", "expected"),
    [
        ("hi", {}, b"hi\n"),
        ("", {}, b"\n"),
        ("\x1b[2J", {}, b"\x1b[2J\n"),
        (b"\x00\n", {"is_pretty": True, "has_times": True}, b"\x00\n"),
        ("hi", {"has_times": True}, b"2026-01-02T03:04:05.678Z hi\n"),
        ('{"a":1}', {}, b'{"a":1}\n'),
        ('{"a":1}', {"is_pretty": True}, b'{\n  "a": 1\n}\n'),
        ("{a:1}", {"is_pretty": True}, b"{a:1}\n"),
    ],
)
def test_for_programs(message: str | bytes, options: dict[str, bool], expected: bytes) -> None:
    assert ForPrograms(**options).render(message, WHEN) == expected


def eyes(message: str | bytes, mark: str = "", *, is_pretty: bool = False, colour: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=colour, color_system="standard" if colour else None, width=20)
    return ForEyes(console, is_pretty=is_pretty, mark=mark).render(message, WHEN).decode()


def test_for_eyes() -> None:
    assert eyes("hi [bold]") == "hi [bold]\n"
    # lines of a stranger stand in, so that none passes for a mark or a prompt of ours
    assert eyes("one\n> two", "< ") == "< one\n  > two\n"
    assert eyes("a\rb\x1b[2J\u202e\x9b") == "a\\rb\\x1b[2J\\u202e\\x9b\n"
    assert eyes(b"\x00\x1b") == "2 bytes: 00 1b\n"
    assert eyes(bytes(70)).endswith(" 00 and 6 more\n")
    # longer than the terminal is wide: the terminal breaks it, so that it can be copied whole
    assert eyes("x" * 50) == "x" * 50 + "\n"
    assert eyes('{"a":"\x9b"}', is_pretty=True) == '{\n  "a": "\\x9b"\n}\n'
    assert "\x1b[" in eyes('{"a":1}', is_pretty=True, colour=True)
    assert "\x1b[" not in eyes("plain", colour=True)


def test_pretty_keeps_what_it_says() -> None:
    assert pretty('{"b":1.50,"a":12345678901234567890123,"a":"\\u001b"}') == (
        '{\n  "b": 1.50,\n  "a": 12345678901234567890123,\n  "a": "\\u001b"\n}'
    )
    assert pretty("") is None
    assert pretty("[" * 100_000) is None


def test_secrets_are_not_shown() -> None:
    names = ("Authorization", "Cookie", "X-API-Key", "X-Auth-Token", "Proxy-Authorization", "Set-Cookie")
    secret = Headers([(name, "s3cret") for name in names])
    public = Headers([("Host", "h"), ("Sec-WebSocket-Key", "n0nce"), ("WWW-Authenticate", "Bearer")])
    for headers, is_shown in ((secret, False), (public, True)):
        lines = [*tell_request(Request("/a?token=s3cret", headers)), *tell_response(Response(401, "No", headers))]
        assert lines[0] == "> GET /a?(not shown) HTTP/1.1"
        assert "< HTTP/1.1 401 No" in lines
        assert "s3cret" not in "\n".join(lines)
        assert ("(not shown)" in "\n".join(lines[1:])) is not is_shown


def test_an_error_without_an_answer_has_none() -> None:
    assert find_answer(ValueError("x")) is None


@pytest.mark.parametrize(
    ("closed", "sentence"),
    [
        (closed_error(Close(1000), Close(1000), True), "the server closed the connection: 1000 (OK)"),
        (closed_error(Close(1011, "x"), None), "the server closed the connection: 1011 (internal error) x"),
        (closed_error(None, Close(1009, "big")), "the connection had to be closed: 1009 (message too big) big"),
        (
            closed_error(Close(1009), Close(1009), False),
            "the connection had to be closed: 1009 (message too big)",
        ),
        (closed_error(None, None), "the connection was lost: the line was cut without a goodbye"),
    ],
)
def test_endings(closed: Exception, sentence: str) -> None:
    assert tell_end(closed) == sentence  # type: ignore[arg-type]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def split(*parts: bytes) -> list[bytes]:
    async def main() -> list[bytes]:
        return [line async for line in split_lines(chunks(*parts))]

    return asyncio.run(main())


def test_lines() -> None:
    assert split() == []
    assert split(b"a\nb\r\n", b"\n") == [b"a", b"b", b""]
    assert split(b"a", b"b\r", b"\nc", b"", b"d") == [b"ab", b"cd"]
    assert split("ü".encode()[:1], "ü".encode()[1:] + b"\n") == ["ü".encode()]


def test_a_line_without_end_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cat_input, "RAW_MESSAGE_BYTES_MAX", 10)
    assert split(b"1234567890\n1234567890") == [b"1234567890"] * 2
    with pytest.raises(BadInput, match="--binary"):
        split(b"12345", b"678901")


def test_how_long_a_silence_ends_it() -> None:
    forever = float("inf")
    assert wait_after_input(Wanted("ws://h"), sent=1) == 2
    assert wait_after_input(Wanted("ws://h"), sent=0) == forever
    assert wait_after_input(Wanted("ws://h", count=1), sent=1) == forever
    assert wait_after_input(Wanted("ws://h", count=1, wait_s=0), sent=1) == 0


@pytest.mark.parametrize("command", ["cat", "echo"])
def test_the_help_says_the_exit_codes(command: str) -> None:
    done = runner.invoke(app, [command, "--help"])
    assert (done.exit_code, "Exit codes:" in done.output) == (0, True)
    assert f" {command} " in squeeze(runner.invoke(app, []).output)


def test_the_help_of_cat_says_how_a_pipe_ends() -> None:
    said = squeeze(runner.invoke(app, ["cat", "--help"]).output)
    assert "until nothing has come for 2 seconds" in said
    for code in ("0 closed normally", "1 could not connect", "2 wrong", "3 the connection was lost", "130 Ctrl-C"):
        assert code in said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-n", "0"], "-n"),
        (["--wait", "-1"], "--wait"),
        (["--wait", "nan"], "--wait"),
        (["--ping", "0"], "--ping"),
        (["--ping", "inf"], "--ping"),
        (["-H", "no colon"], "NAME:VALUE"),
        (["--origin", "a\nb"], "control character"),
        (["--subprotocol", "a b"], "not the name of a subprotocol"),
        (["--binary", "--json"], "leave out --json"),
        (["--binary", "--timestamps"], "leave out --json"),
        (["--insecure"], "wss://"),
    ],
)
def test_wrong_usage_is_2_and_says_what(arguments: list[str], word: str) -> None:
    done = runner.invoke(app, ["cat", "ws://h", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert word in squeeze(done.stderr)
