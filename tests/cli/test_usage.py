"""Help and wrong usage: no server, no socket."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import tidewire.cli.main
from tidewire.cli.main import app

runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})


def squeeze(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_without_arguments_it_explains_itself() -> None:
    said = squeeze(runner.invoke(app, []).output)
    for command in ("run", "serve", "sub", "pub"):
        assert f" {command} " in said


def test_version() -> None:
    done = runner.invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"tidewire {tidewire.__version__}\n")


@pytest.mark.parametrize("command", ["run", "serve", "sub", "pub"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_says_its_exit_codes(command: str, flag: str) -> None:
    done = runner.invoke(app, [command, flag])
    assert done.exit_code == 0
    assert "Exit codes:" in done.output


def test_sub_help_names_what_it_says() -> None:
    said = squeeze(runner.invoke(app, ["sub", "--help"]).output)
    assert "reconnected, 37 recovered" in said
    assert "history lost, live again" in said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sub"], "URL"),
        (["sub", "http://h/t", "-n", "0"], "-n"),
        (["sub", "http://h/t", "-n", "x"], "-n"),
        (["sub", "http://h/t", "--max-per-s", "0"], "--max-per-s"),
        (["sub", "http://h/t", "--max-per-s", "nan"], "--max-per-s"),
        (["sub", "http://h/t", "-H", "no colon"], "NAME:VALUE"),
        (["sub", "http://h/t", "-H", "A B: x"], "not the name of a header"),
        (["sub", "http://h/t", "-H", "A: x\ny"], "control character"),
        (["sub", "http://h/t", "--nonsense"], "--nonsense"),
        (["pub", "http://h/t", "x", "--json", "--text"], "choose one"),
        (["pub", "http://h/t", "-", "--id", "7"], "--id"),
        (["pub", "http://h/t", "x", "-H", "no colon"], "NAME:VALUE"),
        (["serve", "--port", "70000"], "--port"),
        (["run", "main:app", "--workers", "0"], "--workers"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_is_2_and_says_what(arguments: list[str], word: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2
    if len(arguments) > 1 or arguments == ["nonsense"]:
        assert word in squeeze(done.output)


@pytest.mark.parametrize("command", [["sub", "chat/7"], ["pub", "chat/7", "x"], ["pub", "http://h/t#x", "x"]])
def test_bad_url_is_1_and_says_what(command: list[str]) -> None:
    done = runner.invoke(app, command)
    assert done.exit_code == 1
    assert "is not the URL of a topic" in done.stderr
    assert done.stdout == ""


def test_bad_json_is_told_before_anything_is_sent() -> None:
    done = runner.invoke(app, ["pub", "http://127.0.0.1:9/t", "{nope", "--json"])
    assert done.exit_code == 1
    assert "not JSON" in done.stderr


def test_files_stay_small() -> None:
    room = Path(tidewire.cli.main.__file__).parent
    assert {path.name: lines for path in room.glob("*.py") if (lines := len(path.read_text().splitlines())) > 150} == {}
