"""Secrets in URLs stay out of the logs; several processes are noticed."""

from __future__ import annotations

import logging

import pytest

from tidewire.server.processes import find_several
from tidewire.server.secrets import SecretFilter, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/live/t?token=abc", "/live/t?token=[hidden]"),
        ("/live/t?a=1&access_token=a.b-c&b=2", "/live/t?a=1&access_token=[hidden]&b=2"),
        ("/live/t?ticket=x&token=y", "/live/t?ticket=[hidden]&token=[hidden]"),
        ("/live/t?TOKEN=x", "/live/t?TOKEN=[hidden]"),
        ("/live/t?cf_connect=%7B%22token%22%7D", "/live/t?cf_connect=[hidden]"),
        ("/live/tokens?mytoken=x", "/live/tokens?mytoken=x"),
        ("/live/t?token=", "/live/t?token=[hidden]"),
    ],
)
def test_redaction(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_the_filter_reads_arguments_and_messages() -> None:
    record = logging.LogRecord("x", 20, "f", 1, '%s - "WebSocket %s" %d', ("1.2.3.4", "/t?token=abc", 101), None)
    assert SecretFilter().filter(record)
    assert record.getMessage() == '1.2.3.4 - "WebSocket /t?token=[hidden]" 101'
    plain = logging.LogRecord("x", 20, "f", 1, "GET /t?token=abc", None, None)
    SecretFilter().filter(plain)
    assert plain.getMessage() == "GET /t?token=[hidden]"


@pytest.mark.parametrize(
    ("argv", "environment", "is_child", "why"),
    [
        (["uvicorn", "app:app"], {}, False, None),
        (["uvicorn", "app:app", "--workers", "4"], {}, True, "--workers 4"),
        (["uvicorn", "app:app", "--workers=4"], {}, True, "--workers 4"),
        (["gunicorn", "-w", "2", "app:app"], {}, False, "--workers 2"),
        (["uvicorn", "app:app", "--workers", "1"], {}, False, None),
        (["uvicorn", "app:app", "--reload"], {}, True, None),
        (["fastapi", "dev"], {}, True, None),
        (["python", "serve.py"], {"WEB_CONCURRENCY": "3"}, False, "WEB_CONCURRENCY=3"),
        (["python", "serve.py"], {"WEB_CONCURRENCY": "1"}, False, None),
        (["python", "serve.py"], {}, True, "a process started by multiprocessing"),
    ],
)
def test_several_processes_are_noticed(
    argv: list[str], environment: dict[str, str], is_child: bool, why: str | None
) -> None:
    assert find_several(argv, environment, is_child=is_child) == why
