"""The page of a topic in a real browser: an EventSource that comes back after kill -9 and says what was lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page

from tests.browsers import chromium

pytestmark = pytest.mark.system

DEADLINE_S = 60.0


class OpenServer:
    """``tidewire serve`` in a process of its own, on one port over restarts."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tidewire", "serve", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("Tidewire is listening on http://127.0.0.1:"), line
        self.port = int(line.rsplit(":", 1)[1])

    def stop(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        code = self._process.wait(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def post(self, topic: str, text: str) -> None:
        request = urllib.request.Request(f"{self.url}/{topic}", text.encode(), {"content-type": "text/plain"})
        urllib.request.urlopen(request, timeout=20).close()


@pytest.fixture
def server() -> Iterator[OpenServer]:
    server = OpenServer()
    server.start()
    yield server
    assert server.stop(signal.SIGTERM) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}


@contextmanager
def window(url: str) -> Iterator[tuple[Page, list[str]]]:
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(url)
        yield page, complaints


def until(page: Page, expression: str, wanted: object) -> None:
    """Poll, because the page's policy forbids what wait_for_function injects."""
    deadline = time.monotonic() + DEADLINE_S
    while (seen := page.evaluate(expression)) != wanted:
        assert time.monotonic() < deadline, f"{expression} is {seen!r}, not {wanted!r}"
        page.wait_for_timeout(50)


STATE = "document.getElementById('state').textContent"
FIRST = "document.querySelector('#messages li')?.textContent"


def test_the_page_of_a_topic_is_live_and_honest(server: OpenServer) -> None:
    with window(f"{server.url}/hello/world") as (page, complaints):
        until(page, STATE, "live")
        assert page.inner_text("h1") == "hello/world"
        server.post("hello/world", "<img src=x onerror=alert(1)>")
        until(page, FIRST, "<img src=x onerror=alert(1)>")
        assert page.locator("#messages img").count() == 0
        assert complaints == []
        server.stop(signal.SIGKILL)
        until(page, STATE, "cut, coming back")
        server.start()
        until(page, STATE, "history lost, live again")
        server.post("hello/world", "and on we go")
        until(page, FIRST, "and on we go")


def test_the_front_page_says_what_to_type(server: OpenServer) -> None:
    with window(server.url) as (page, complaints):
        assert f"curl -d 'hi there' {server.url}/hello" in page.inner_text("main")
        page.click("a")
        until(page, STATE, "live")
        assert complaints == []


def test_curl_follows_and_publishes(server: OpenServer) -> None:
    follow = subprocess.Popen(
        ["curl", "-sN", "-H", "Accept: text/event-stream", f"{server.url}/curl"], stdout=subprocess.PIPE, text=True
    )
    assert follow.stdout is not None
    assert follow.stdout.readline().startswith("retry: ")
    subprocess.run(["curl", "-sf", "-d", "from curl", f"{server.url}/curl"], check=True, timeout=20)
    assert any(line == "data: from curl\n" for line in iter(follow.stdout.readline, ""))
    kept = subprocess.run(["curl", "-sf", f"{server.url}/curl"], check=True, capture_output=True, text=True, timeout=20)
    assert kept.stdout == "from curl\n"
    follow.kill()
    follow.wait(timeout=20)
    follow.stdout.close()


def test_node_follows_without_an_sdk(server: OpenServer) -> None:
    """Node's own fetch: an event stream is only HTTP."""
    server.post("node", "one")
    program = """
        const answer = await fetch(process.argv[1] + "?since=-1", {headers: {accept: "text/event-stream"}});
        let text = "";
        for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
          text += part;
          if (text.includes("data: one\\n\\n")) break;
        }
        console.log(JSON.stringify(text.match(/^id: .*$/gm).length));
        process.exit(0);
    """
    command = ["node", "--input-type=module", "-e", program, f"{server.url}/node"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(said.stdout) == 2
